"""Labelled series of the simulated fleet."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from headrace.connectors.fleet_config import Kind


@pytest.fixture(scope="module")
def simulated(load_benchmark: Callable[[str], Any]) -> Any:
    return load_benchmark("simulated")


def test_readings_are_in_the_order_sent_and_the_same_for_a_seed(simulated: Any) -> None:
    """By time but where a clock is wrong; another seed is another fleet."""
    readings, truth = simulated.simulated_fleet(3, devices=7, days=1)
    again, same = simulated.simulated_fleet(3, devices=7, days=1)
    other, _ = simulated.simulated_fleet(4, devices=7, days=1)

    skewed = {episode.device for episode in truth if episode.kind is Kind.SKEW}
    right = np.array([device not in skewed for device in readings.device_ids])
    assert (np.diff(readings.times[right]) >= 0).all()
    assert truth == same
    assert readings.measures["temperature"].tolist() == again.measures["temperature"].tolist()
    assert readings.measures["temperature"].tolist() != other.measures["temperature"].tolist()


def test_series_have_the_windows_of_what_was_wrong(simulated: Any) -> None:
    """None in the time that detectors learn from; every kind is there; values are off inside, and stuck, and late."""
    readings, truth = simulated.simulated_fleet(devices=20, days=3)
    found = simulated.series(readings, truth)

    quiet_ms = simulated.START_MS + simulated.QUIET * 3 * 86_400_000
    assert min(episode.first_ms for episode in truth) >= quiet_ms
    assert {episode.kind for episode in truth} == {*Kind}
    assert len(found) == 20 * len(readings.measures)
    assert {window.kind for each in found for window in each.windows} == {*Kind}
    assert sum(len(each.values) for each in found) == len(readings) * len(readings.measures)
    for each in found:
        for kind, first, last in each.windows:
            inside = each.values[first : last + 1]
            if kind is Kind.STUCK:
                assert len({*inside.tolist()}) == 1
            elif kind is Kind.SPIKE:
                assert first == last
                assert abs(each.values[first] - np.median(each.values)) > np.std(each.values)
            elif kind in (Kind.GAP, Kind.REBOOT):
                assert each.times[first] - each.times[first - 1] > 300_000
            elif kind is Kind.SKEW:
                steps = np.diff(each.times)
                assert steps[first - 1] != 300_000
                assert (steps[first:last] == 300_000).all()
