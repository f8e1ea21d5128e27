"""What goes wrong with simulated devices, and when."""

from collections import Counter, defaultdict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.connectors.fleet_config import Kind, SimulatedFleetConfig
from headrace.connectors.fleet_messages import FleetMessages, Sample
from headrace.connectors.fleet_script import LEAST_SIZE, Disturbance, FaultScript
from headrace.schemas.simulate import simulated
from headrace.tables.device_types import load_device_types

TYPES = load_device_types()
ENVIRONMENTAL = TYPES["environmental"]
START_MS = 1_704_067_200_000
INTERVAL_MS = 6_000.0
ROUND_MS = 600_000.0
CONFIG = SimulatedFleetConfig()


def in_round(script: FaultScript, number: int, devices: int = 50) -> list[Disturbance]:
    """What happens in a round."""
    found: dict[int, Disturbance] = {}
    for device in range(devices):
        for step in range(100):
            wrong = script.at(device, (number + step / 100) * ROUND_MS)
            if wrong is not None:
                assert found.setdefault(device, wrong) == wrong, "one episode in a round at most"
    return list(found.values())


def shown(kind: Kind) -> tuple[Disturbance, list[Sample], list[Sample]]:
    """A device's episode of this kind in the first round; its samples meanwhile, and as if nothing were wrong."""
    well = SimulatedFleetConfig(**dict.fromkeys(Kind, 0.0))
    ill, well_off = (
        FleetMessages(config, ENVIRONMENTAL, INTERVAL_MS)
        for config in (well.model_copy(update={kind.value: 0.02}), well)
    )
    for device in range(50):
        places = [(device, sequence, START_MS + sequence * int(INTERVAL_MS)) for sequence in range(100)]
        samples = [(ill.sample(*place), well_off.sample(*place)) for place in places]
        wrong = [pair for pair in samples if pair[0].wrong is not None]
        if wrong:
            assert wrong[0][0].wrong is not None
            return wrong[0][0].wrong, [one for one, _ in wrong], [other for _, other in wrong]
    raise AssertionError(kind)


@given(st.integers(0, 49), st.floats(0, 1e9))
def test_the_script_is_a_pure_function(device: int, age_ms: float) -> None:
    """Whatever was asked before."""
    used, fresh = (FaultScript(CONFIG, ENVIRONMENTAL, INTERVAL_MS) for _ in range(2))
    used.at(device, 2e9)
    used.restarted(device, 2e7)

    assert used.at(device, age_ms) == fresh.at(device, age_ms)
    assert used.restarted(device, age_ms % 1e7) == fresh.restarted(device, age_ms % 1e7)


def test_every_round_has_the_shares_that_are_configured() -> None:
    """And over the rounds every device has its turn, with several kinds."""
    script = FaultScript(CONFIG, ENVIRONMENTAL, INTERVAL_MS)
    expected = {"burst": 3, "spike": 3, "drift": 1, "stuck": 1, "gap": 1, "reboot": 1, "skew": 1}

    for number in range(5):
        found = Counter(wrong.kind.value for wrong in in_round(script, number))
        # A spike is over before the next look here; what the range of a field leaves no room for is left out.
        assert all(found[kind] <= count for kind, count in expected.items())
        assert {kind: found[kind] for kind in ("gap", "stuck", "skew")} == {"gap": 1, "stuck": 1, "skew": 1}
    kinds = defaultdict(set)
    for number in range(150):
        for device in range(50):
            wrong = script.at(device, (number + 0.4) * ROUND_MS)
            if wrong is not None:
                kinds[device].add(wrong.kind)
    assert len(kinds) == 50
    assert min(map(len, kinds.values())) > 1


@pytest.mark.parametrize("devices", [1, 3])
def test_a_tiny_fleet_has_every_kind_by_turns(devices: int) -> None:
    """Though it has fewer devices than there are kinds."""
    script = FaultScript(SimulatedFleetConfig(devices=devices), ENVIRONMENTAL, INTERVAL_MS)

    found = {wrong.kind for number in range(30) for wrong in in_round(script, number, devices)}

    assert found >= {*Kind} - {Kind.SPIKE}


def test_nothing_is_wrong_while_it_is_quiet() -> None:
    """The first round comes after `quiet` seconds."""
    script = FaultScript(SimulatedFleetConfig(quiet=3600), ENVIRONMENTAL, INTERVAL_MS)

    assert not [wrong for number in range(6) for wrong in in_round(script, number)]
    assert in_round(script, 6)


@pytest.mark.parametrize("kind", [Kind.BURST, Kind.SPIKE, Kind.DRIFT])
def test_values_are_off_by_about_the_size(kind: Kind) -> None:
    """All of a burst, the one of a spike, the last of a drift."""
    wrong, ill, well = shown(kind)
    assert wrong.metric is not None
    off = [one.measures[wrong.metric] - other.measures[wrong.metric] for one, other in zip(ill, well, strict=True)]

    assert off[-1] == pytest.approx(wrong.size, rel=0.15)
    assert abs(wrong.size) >= LEAST_SIZE * simulated(wrong.metric, ENVIRONMENTAL.fields[wrong.metric]).noise
    if kind is Kind.BURST:
        assert min(map(abs, off)) > 0.8 * abs(wrong.size)
    elif kind is Kind.SPIKE:
        assert len(off) == 1
    else:
        assert abs(off[0]) < 0.3 * abs(wrong.size)


def test_a_stuck_metric_says_one_thing_and_the_others_go_on() -> None:
    """For the whole episode."""
    wrong, ill, _ = shown(Kind.STUCK)

    values = {name: {sample.measures[name] for sample in ill} for name in ENVIRONMENTAL.measures}
    assert [name for name, found in values.items() if len(found) == 1] == [wrong.metric]


def test_a_wrong_clock_is_off_by_minutes_and_never_by_a_whole_interval() -> None:
    """Not so far ahead that ingest refuses the messages, and no other message of the device has the same time."""
    wrong, ill, well = shown(Kind.SKEW)
    (off,) = {one.time_ms - other.time_ms for one, other in zip(ill, well, strict=True)}

    assert off == wrong.size * 1000
    assert off % INTERVAL_MS == INTERVAL_MS / 2
    assert 60_000 < abs(off) <= 240_000


@pytest.mark.parametrize("kind", [Kind.GAP, Kind.REBOOT])
def test_a_silent_device_says_nothing(kind: Kind) -> None:
    """Until it is over."""
    _, ill, well = shown(kind)

    assert all(sample.silent for sample in ill)
    assert not any(sample.silent for sample in well)
    assert len(ill) >= 2


def test_slow_devices_have_longer_rounds_and_no_wrong_clocks() -> None:
    """With one message an hour minutes are nothing, and a burst still has ten messages."""
    script = FaultScript(SimulatedFleetConfig(skew=0.5), TYPES["beijing-air"], 3_600_000.0)

    ages = [hour * 3_600_000.0 for hour in range(200)]
    found = [script.at(device, age) for device in range(50) for age in ages]
    lasting = Counter(wrong for wrong in found if wrong is not None and wrong.kind is Kind.BURST)
    assert script.round_ms == 40 * 3_600_000
    assert min(lasting.values()) >= 10
    assert Kind.SKEW not in {wrong.kind for wrong in found if wrong is not None}
