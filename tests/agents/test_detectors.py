"""What every detector of single series promises."""

import math
import random
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from headrace.agents.detect import SERIES
from headrace.agents.detector import Detector
from headrace.agents.quiet import Quiet
from headrace.agents.series_detect import SeriesDetect
from headrace.engine.errors import ConfigError
from headrace.engine.testkit import Changelog, drive, readings_log
from headrace.schemas import topics
from headrace.schemas.anomaly import Anomaly
from headrace.tables.device_types import load_device_types

T0 = 1_700_000_000_000
MINUTE = 60_000

Row = tuple[str, str, int, dict[str, float]]

detectors = pytest.mark.parametrize("make", SERIES.values(), ids=SERIES)


def found(rows: list[Row], *chosen: Detector) -> list[Anomaly]:
    """The anomalies of a log."""
    sent = drive(SeriesDetect(chosen, load_device_types()), readings_log(rows)).sent.get(topics.ANOMALIES, [])
    return [Anomaly.model_validate_json(record.value or b"") for record in sent]


def series(values: list[float], metric: str = "temperature", step: int = 5 * MINUTE) -> list[Row]:
    """One device that sends these values."""
    return [("a", "environmental", T0 + place * step, {metric: value}) for place, value in enumerate(values)]


def noise(count: int, seed: int = 1) -> list[float]:
    """A day's course with noise."""
    rng = random.Random(seed)
    return [20 + 3 * math.sin(place / 288 * 2 * math.pi) + rng.gauss(0, 0.2) for place in range(count)]


#: What each detector is for: a day's course, and what happens from reading 1,000 on.
TROUBLE: dict[str, Callable[[list[float]], list[float]]] = {
    "ensemble": lambda values: values[:1000] + [value + 4 for value in values[1000:1020]] + values[1020:],
    "robust": lambda values: [*values[:1000], 60.0, *values[1001:]],
    "holt": lambda values: [*values[:1000], 30.0, *values[1001:]],
    "rate-of-change": lambda values: [*values[:1000], 30.0, *values[1001:]],
    "stuck": lambda values: values[:1000] + [values[1000]] * 100 + values[1100:],
    "seasonal": lambda values: values[:1000] + [value + 5 for value in values[1000:1012]] + values[1012:],
    "page-hinkley": lambda values: values[:1000] + [value + 2.5 for value in values[1000:]],
}


@detectors
def test_trouble_is_found_where_it_begins_and_nowhere_before(make: Callable[..., Detector]) -> None:
    """Each finds what it is for, within a tenth of a day, and is quiet in the week before."""
    detector = make()

    anomalies = found(series(TROUBLE[detector.name](noise(1300))), detector)

    places = [(anomaly.time - T0) // (5 * MINUTE) for anomaly in anomalies]
    assert not [place for place in places if 300 <= place < 1000]
    assert any(1000 <= place < 1060 for place in places)
    assert all(anomaly.detector == detector.name and anomaly.score is not None for anomaly in anomalies)
    assert all(anomaly.score >= detector.threshold for anomaly in anomalies if anomaly.score is not None)


@detectors
def test_a_series_that_never_changes_is_no_anomaly(make: Callable[..., Detector]) -> None:
    """Constant values, also with rounding noise, are quiet."""
    rng = random.Random(2)
    assert not found(series([20.1] * 900), make())
    assert not found(series([20.1 * (1 + rng.choice([0, 1e-15, -1e-15])) for _ in range(900)]), make())


@detectors
def test_nothing_is_said_during_the_warm_up(make: Callable[..., Detector]) -> None:
    """The first readings are learned from, however wild."""
    rng = random.Random(3)
    assert not found(series([rng.choice([0.0, 1e6, -1e6]) for _ in range(20)]), make())


@detectors
def test_huge_and_tiny_values_leave_no_nan_behind(make: Callable[..., Detector]) -> None:
    """After values at the ends of what a float can hold, the detector goes on."""
    wild = [1e308, -1e308, 5e-324, 0.0, -0.0] * 3
    quiet = SeriesDetect([make()], load_device_types())

    sent = drive(quiet, readings_log(series([*noise(400), *wild, *noise(400, seed=4)]))).sent.get(topics.ANOMALIES, [])

    for record in sent:
        anomaly = Anomaly.model_validate_json(record.value or b"")
        assert math.isfinite(anomaly.value)


@detectors
@given(data=st.data())
@settings(max_examples=6, phases=(Phase.explicit, Phase.generate))
def test_batches_restarts_and_neighbours_change_nothing(make: Callable[..., Detector], data: st.DataObject) -> None:
    """The same log gives the same bytes for any batch boundaries and restarts; no device feels another."""
    rng = random.Random(data.draw(st.integers(0, 1000)))
    clocks: dict[str, int] = {}
    rows: list[Row] = []
    for _ in range(500):
        device = rng.choice("abc")
        clocks[device] = clocks.get(device, T0) + rng.choice([MINUTE, MINUTE, 5 * MINUTE, 0, -MINUTE])
        metrics = rng.sample(["temperature", "humidity", "co2"], rng.choice([1, 2, 3]))
        still = 200 < len(rows) < 450 and device == "b"
        value = {name: 20.0 if still else rng.gauss(20, 1) + rng.choice([0, 0, 0, 0, 50]) for name in metrics}
        rows.append((device, "environmental", clocks[device], value))
    eager = Quiet(0, 0.0, 0.0)

    def fresh() -> SeriesDetect:
        detector = make()
        vars(detector)["threshold"] = 0.5
        return SeriesDetect([detector], load_device_types(), eager)

    log = readings_log(rows)
    whole = drive(fresh(), log).sent
    sizes = data.draw(st.lists(st.integers(1, 200), max_size=10))

    assert drive(fresh(), log, batch_sizes=sizes, restart=fresh).sent == whole
    alone = drive(fresh(), readings_log([row for row in rows if row[0] == "b"])).sent
    values = [record.value for record in whole.get(topics.ANOMALIES, []) if record.key == b"b"]
    strip = [Anomaly.model_validate_json(value or b"").model_dump(exclude={"message_id"}) for value in values]
    others = [Anomaly.model_validate_json(record.value or b"") for record in alone.get(topics.ANOMALIES, [])]
    assert strip == [anomaly.model_dump(exclude={"message_id"}) for anomaly in others]


@detectors
def test_wrong_arguments_are_refused_by_name(make: Callable[..., Detector]) -> None:
    """A bound that is broken is said at construction, with the detector's name."""
    argument = "least" if make is SERIES["stuck"] else "warm_up"
    with pytest.raises(ConfigError, match=rf"detect\.{make().name}: {argument} must be"):
        make(**{argument: -1})


def test_readings_without_a_measure_leave_its_series_alone() -> None:
    """A series is judged as if the messages that lack it did not exist."""
    values = TROUBLE["ensemble"](noise(1300))
    full = series(values)
    between = [("a", "environmental", time + MINUTE, {"humidity": 50.0}) for _, _, time, _ in full]
    mixed = sorted([*full, *between], key=lambda row: row[2])

    alone, among = found(full, SERIES["ensemble"]()), found(mixed, SERIES["ensemble"]())

    assert [(one.time, one.score) for one in alone] == [
        (one.time, one.score) for one in among if one.metric != "humidity"
    ]
    assert alone


def test_a_counter_is_judged_by_its_rate_and_may_restart() -> None:
    """An energy counter that rises as always is quiet, also where it begins anew; a leap is an anomaly."""
    rng = random.Random(5)
    readings, total = list[float](), 1e6
    for place in range(1200):
        total = 0.0 if place == 700 else total + abs(rng.gauss(0.5, 0.02)) + (400 if 1100 <= place < 1110 else 0)
        readings.append(total)
    rows = [("a", "meter", T0 + place * 5 * MINUTE, {"energy": value}) for place, value in enumerate(readings)]

    anomalies = found(rows, SERIES["ensemble"]())

    assert {1100 <= (anomaly.time - T0) // (5 * MINUTE) < 1120 for anomaly in anomalies} == {True}
    assert "kWh/s" in anomalies[0].text


def test_two_detectors_do_not_disturb_each_other() -> None:
    """What each finds is what it finds alone; in log order, then in theirs."""
    rows = series(TROUBLE["holt"](noise(1300)))
    one, two = SERIES["holt"](), SERIES["rate-of-change"]()

    both = found(rows, one, two)

    assert [a for a in both if a.detector == one.name] == found(rows, one)
    assert [a for a in both if a.detector == two.name] == found(rows, two)
    assert [a.time for a in both] == sorted(a.time for a in both)


def test_state_is_bounded_and_restored_only_where_it_changed() -> None:
    """The changelog has a row per device, and one per device and hour; a batch writes those of its devices alone."""
    agent, changelog = SeriesDetect([SERIES["ensemble"]()], load_device_types()), Changelog()
    drive(agent, readings_log(series(noise(7 * 24 * 2), step=30 * MINUTE)))
    changelog.commit(agent)
    entries = {name: sum(key[:1] == b"s" for key in table) for name, table in changelog.tables.items()}
    assert entries == {"detect.usual": 1, "detect.day": 24, "detect.week": 168, "detect.ensemble": 1}

    drive(agent, readings_log([("b", "environmental", T0, {"temperature": 1.0})]))

    changed = [key for table in agent.tables for key in table.changes(0)]
    assert all(b"\0b\0" in key for key in changed)
    assert len(changed) == 4


def test_hour_of_the_week_counts_from_the_third_week_on() -> None:
    """A weekend that is always different is expected after some weeks, and a different working day is not."""
    rng, per_day = random.Random(6), 48
    start = 1_704_067_200_000  # a Monday
    values = []
    for place in range(per_day * 7 * 12):
        weekend = place // per_day % 7 >= 5
        course = 10 * math.sin(place / per_day * 2 * math.pi)
        values.append((50 if weekend else 70) + course + rng.gauss(0, 1))
    odd = per_day * (7 * 11 + 2) + 24  # the Wednesday of the twelfth week
    values[odd : odd + 8] = [value - 20 for value in values[odd : odd + 8]]
    rows = [("a", "environmental", start + place * 30 * MINUTE, {"noise": v}) for place, v in enumerate(values)]

    anomalies = found(rows, SERIES["ensemble"]())

    places = [(anomaly.time - start) // (30 * MINUTE) for anomaly in anomalies]
    late = [place for place in places if place >= per_day * 7 * 4]
    assert late
    assert set(late) <= set(range(odd, odd + 16))


def test_the_sentence_is_for_people() -> None:
    """Value with unit, what was expected, and how unusual it is."""
    (anomaly, *_) = found(series(TROUBLE["seasonal"](noise(1300))), SERIES["seasonal"]())
    assert anomaly.text.startswith(f"temperature of a is {anomaly.value:.6g} °C, ")
    assert "σ above what this sensor shows at this hour" in anomaly.text
    assert anomaly.expected is not None
    assert abs(anomaly.expected - anomaly.value) > 3


def test_no_event_twice_until_it_is_forgotten_or_much_stronger() -> None:
    """After an event a detector is quiet about the series, unless the score is much higher."""
    state, quiet = np.zeros((3, 1, 1)), Quiet(readings=3, seconds=0.0, stronger=1.3)
    passed = []
    for number, score in enumerate([3.0, 5.0, 5.0, 6.4, 6.6, 5.0, 3.0, 8.0, 9.0, 5.0]):
        times = np.array([number * 1000])
        passed.append(float(quiet.pass_on(state, np.array([[score]]), 4.0, times)[0, 0]))
    assert passed == [3.0, 5.0, 0, 0, 6.6, 0, 3.0, 0, 9.0, 0]


@pytest.mark.parametrize("name", ["ensemble", "seasonal"])
def test_a_new_hour_is_not_judged_by_its_first_readings(name: str) -> None:
    """A day's course with noise, a reading a minute: each hour of the first day is new, and none of it an anomaly."""
    rng = random.Random(11)
    values = [20 + 5 * math.sin(place / 1440 * 2 * math.pi) + rng.gauss(0, 0.5) for place in range(1440)]
    assert not found(series(values, step=MINUTE), SERIES[name]())


def test_a_stretch_of_equal_values_does_not_make_the_next_ones_wild() -> None:
    """The median distance is nothing then; what the series does otherwise still counts."""
    values = noise(600)
    stuck = values[:400] + [values[400]] * 120 + values[520:]
    assert all(anomaly.score is not None and anomaly.score < 30 for anomaly in found(series(stuck), SERIES["robust"]()))
