"""The 3-sigma detector, against a plain-Python oracle that works record by record."""

import math
import random
import statistics
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.agents.three_sigma import ThreeSigma
from headrace.engine.batch import Batch, Shared
from headrace.engine.errors import ConfigError
from headrace.engine.testkit import Changelog, Driven, drive, fetched, readings_log
from headrace.schemas import topics
from headrace.schemas.anomaly import Anomaly
from tests.agents.alerting.histories import Row, along

T0 = 1_700_000_000_000 // 3_600_000 * 3_600_000
SECOND = 1000
PARAMETERS: dict[str, Any] = {"pane": 10, "panes": 4, "warm_up": 3, "sigmas": 1.5, "recent": 25}


def oracle(rows: list[Row], pane: int, panes: int, warm_up: int, sigmas: float, recent: int) -> list[dict[str, Any]]:
    """Anomalies from the definition: every baseline from the values themselves, by exact means."""
    clocks: dict[tuple[str, str], int] = {}
    values: dict[tuple[str, str], list[tuple[int, dict[str, float]]]] = {}
    standing: dict[tuple[str, str], dict[str, list[float]]] = {}
    found = []
    for place, (device, device_type, time, measures) in enumerate(rows):
        who = (device, device_type)
        before = clocks.get(who, -1)
        clock = clocks[who] = max(before, time)
        current = clock // (pane * SECOND)
        if current != before // (pane * SECOND):
            standing[who] = {}
            for number, earlier in values.get(who, []):
                if current - panes <= number < current:
                    for name, value in earlier.items():
                        standing[who].setdefault(name, []).append(value)
        for name, value in sorted(measures.items()):
            past = standing[who].get(name, [])
            if len(past) >= warm_up and clock - time < recent * SECOND:
                mean, stddev = statistics.fmean(past), statistics.stdev(past)
                if abs(value - mean) > max(sigmas * stddev, 1e-9):
                    found.append({"message_id": f"message-{place}", "metric": name, "mean": mean, "stddev": stddev})
        if time // (pane * SECOND) > current - panes:
            values.setdefault(who, []).append((time // (pane * SECOND), measures))
    return found


def anomalies_of(driven: Driven) -> list[Anomaly]:
    return [Anomaly.model_validate_json(record.value or b"") for record in driven.sent.get(topics.ANOMALIES, [])]


# Quarters add up exactly, so that the oracle and the detector never differ about a distance of exactly `sigmas`.
quarters = st.sampled_from([0.0, 1.0, 1.25, 1.5, 1.75, 2.0, 9.5, -0.0])
steps = st.lists(
    st.tuples(
        st.sampled_from(["a", "a", "b"]),
        st.sampled_from(["env", "env", "tilt"]),
        st.sampled_from([0, 1000, 3000, 5000, 9000, 21_000, 60_000, -4000, -12_000, -30_000]),
        st.dictionaries(st.sampled_from(["temperature", "co2"]), quarters, max_size=2),
    ),
    max_size=100,
)


@settings(max_examples=60, deadline=None)
@given(steps.map(along), st.lists(st.integers(1, 15), max_size=40))
def test_equals_the_oracle(rows: list[Row], sizes: list[int]) -> None:
    """Which readings are anomalies, and the numbers that say so, are as defined."""
    expected = oracle(rows, **PARAMETERS)

    found = anomalies_of(drive(ThreeSigma(**PARAMETERS), readings_log(rows), batch_sizes=sizes))

    assert [(one.message_id, one.metric) for one in found] == [(one["message_id"], one["metric"]) for one in expected]
    for one, other in zip(found, expected, strict=True):
        assert one.expected == pytest.approx(other["mean"], rel=1e-12, abs=1e-12)
        assert one.numbers["stddev"] == pytest.approx(other["stddev"], rel=1e-9, abs=1e-9)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["a", "a", "b", "c"]),
            st.sampled_from(["env", "env", "tilt"]),
            st.sampled_from([0, 1000, 3000, 5000, 9000, 21_000, -4000, -12_000, -30_000]),
            st.dictionaries(st.sampled_from(["temperature", "co2", "noise"]), st.floats(-1e6, 1e6), max_size=3),
        ),
        max_size=80,
    ).map(along),
    st.lists(st.integers(1, 15), max_size=40),
)
def test_batch_boundaries_and_crashes_do_not_matter(rows: list[Row], sizes: list[int]) -> None:
    """Any cut into batches, and a crash with restore after each of them, gives the same bytes in the same order."""
    log = readings_log(rows, first_append=T0)
    whole = drive(ThreeSigma(**PARAMETERS), log)

    cut = drive(ThreeSigma(**PARAMETERS), log, batch_sizes=sizes)
    crashed = drive(ThreeSigma(**PARAMETERS), log, batch_sizes=sizes, restart=lambda: ThreeSigma(**PARAMETERS))

    assert cut == whole
    assert crashed == whole


def test_hundreds_of_panes_in_a_batch_are_as_one_by_one() -> None:
    """Devices that pass hundreds of panes in one batch, some readings late, give the bytes of batches of any size."""
    chance = random.Random(5)
    rows: list[Row] = []
    for pane in range(300):
        for device in ("a", "b"):
            late = chance.choice([0] * 30 + [10, 35, 60])
            time = T0 + (pane * 10 - late) * SECOND
            rows.append((device, "env", time, {"temperature": chance.gauss(20, 1e3), "co2": chance.gauss(400, 1e-3)}))
    log = readings_log(rows)

    whole, one_by_one, cut = (
        drive(ThreeSigma(**PARAMETERS), log, batch_sizes=sizes) for sizes in ([], [1] * len(rows), [7, 150, 1, 30, 200])
    )

    assert len(anomalies_of(whole)) > 50
    assert one_by_one == whole
    assert cut == whole


def series(values: list[float], *, step: int = 10, device: str = "a") -> list[Row]:
    return [(device, "env", T0 + place * step * SECOND, {"temperature": value}) for place, value in enumerate(values)]


def test_an_outlier_is_reported_with_its_numbers() -> None:
    """The record carries value, mean, spread and a sentence with them; the message id is a header."""
    rows = series([20.0, 21.0] * 10 + [32.5])

    driven = drive(ThreeSigma(pane=10, warm_up=20), readings_log(rows))

    (record,) = driven.sent[topics.ANOMALIES]
    anomaly = Anomaly.model_validate_json(record.value or b"")
    assert (record.key, record.headers) == (b"a", {topics.MESSAGE_ID: b"message-20"})
    assert (anomaly.value, anomaly.expected, anomaly.numbers["count"]) == (32.5, 20.5, 20)
    assert anomaly.score == pytest.approx(12 / statistics.stdev([20.0, 21.0] * 10))
    assert anomaly.text == "temperature of a is 32.5, 23.4 σ above its mean over the last 28 minutes (20.5 ± 0.51)"


def test_nothing_is_judged_before_the_warm_up() -> None:
    """With fewer readings in the past than asked for, even the wildest is no anomaly."""
    driven = drive(ThreeSigma(pane=10, warm_up=21), readings_log(series([20.0, 21.0] * 10 + [1000.0])))

    assert driven.sent == {}


def test_rounding_noise_on_a_constant_series_is_no_anomaly() -> None:
    """A constant series is quiet under rounding, and reports a real step without a number of sigmas."""
    noisy = series([0.1 + 0.2, 0.3] * 30 + [0.3 + 4e-16])
    step = series([20.1] * 60 + [20.2])

    quiet, loud = (drive(ThreeSigma(pane=10), readings_log(rows)) for rows in (noisy, step))

    assert quiet.sent == {}
    (anomaly,) = anomalies_of(loud)
    assert (anomaly.score, anomaly.numbers["stddev"]) == (None, 0.0)
    assert anomaly.text == "temperature of a is 20.2; it was 20.1 without any change for 28 minutes"


def test_a_lasting_change_becomes_normal() -> None:
    """Anomalous readings enter the past: a new level is reported at first and later not."""
    rows = series([20.0, 20.5] * 30 + [30.0, 30.5] * 30)

    anomalies = anomalies_of(drive(ThreeSigma(10), readings_log(rows)))

    found = [int((one.message_id or "").removeprefix("message-")) for one in anomalies]

    assert found[0] == 60
    assert max(found) < 70


def test_spread_is_right_far_from_zero() -> None:
    """Large values with a small spread keep their digits, even after a first value 600,000 spreads away."""
    values = [0.0, *(101_325.0 + 0.25 * math.sin(place) for place in range(200)), 101_330.0]

    found = anomalies_of(drive(ThreeSigma(pane=10, panes=150), readings_log(series(values))))

    assert found[-1].numbers["stddev"] == pytest.approx(statistics.stdev(values[-151:-1]), rel=1e-3)
    assert found[-1].message_id == "message-201"


def test_old_panes_leave_the_changelog() -> None:
    """The changelog holds no more panes of a device than the past has."""
    detector, changelog = ThreeSigma(**PARAMETERS), Changelog()
    for start in range(0, 100, 20):
        drive(detector, readings_log(series([1.0] * 100)[start : start + 20]))
        changelog.commit(detector)

    assert sum(key.startswith(b"p") for key in changelog.tables["detect.panes"]) == PARAMETERS["panes"]


def test_nothing_changes_before_the_batch_finishes() -> None:
    """A batch that is computed and then dropped leaves no trace in what is sent or remembered."""
    detector, untouched = ThreeSigma(**PARAMETERS), ThreeSigma(**PARAMETERS)
    for operator in (detector, untouched):
        drive(operator, readings_log(series([1.0, 2.0, 1.5, 1.0, 2.0])))

    detector.process(Batch(Shared(fetched(readings_log(series([9.0, 900.0], step=100)), detector.topic))))

    rest = readings_log(series([1.0, 2.0, 1.5, 1.0, 2.0, 7.0]))
    assert drive(detector, rest) == drive(untouched, rest)
    assert detector.tables[0].changes(0) == untouched.tables[0].changes(0)


def test_wrong_parameters_are_all_named_at_once() -> None:
    """Every bound that is broken is one mistake."""
    with pytest.raises(ConfigError) as caught:
        ThreeSigma(pane=0, panes=0, warm_up=1, sigmas=0, recent=0)

    assert len(caught.value.mistakes) == 5
