"""The agent that runs detectors by name."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from headrace.agents.cadence import Cadence
from headrace.agents.detect import DEFAULT, OPERATORS, SERIES, Detect, build_detect
from headrace.cli.agents import detector_parameters
from headrace.cli.settings import Settings
from headrace.engine.batch import Batch, Shared
from headrace.engine.errors import ConfigError
from headrace.engine.records import Records
from headrace.engine.testkit import Driven, drive, fetched, pass_time, readings_log
from headrace.schemas import topics
from headrace.schemas.anomaly import Anomaly
from headrace.tables.device_types import load_device_types

T0 = 1_700_000_000_000
MINUTE = 60_000
TYPES = load_device_types()


def detect(*names: str, **parameters: dict[str, float]) -> Detect:
    return build_detect(names, {name.replace("_", "-"): each for name, each in parameters.items()}, TYPES)


def anomalies(driven: Driven) -> list[Anomaly]:
    return [Anomaly.model_validate_json(record.value or b"") for record in driven.sent.get(topics.ANOMALIES, [])]


def test_every_detector_runs_beside_the_others() -> None:
    """All of them on one log, in any batches and over restarts, say the same in the same order."""
    rows = [
        ("a", "environmental", T0 + place * MINUTE, {"temperature": 20 + place % 7 / 10 + (30 if place == 500 else 0)})
        for place in range(520)
    ]
    rows += [("b", "tilt", T0 + place * MINUTE + 1, {"tilt_angle": 1.0}) for place in range(495)]
    log = readings_log(sorted(rows, key=lambda row: row[2]))
    log.timestamps = sorted(row[2] for row in rows)
    every = tuple(SERIES) + tuple(OPERATORS)

    whole = drive(detect(*every), log)

    assert {each.detector for each in anomalies(whole)} >= {"ensemble", "robust", "holt", "rate-of-change", "cadence"}
    for sizes in ((100, 899, 2), (990, 1, 1, 1, 1, 1, 1, 1, 1)):
        assert drive(detect(*every), log, batch_sizes=sizes, restart=lambda: detect(*every)) == whole


STEPS = st.lists(
    st.tuples(
        st.integers(0, 8),
        st.sampled_from(["environmental", "environmental", "tilt", "meter"]),
        st.sampled_from([0, MINUTE, MINUTE, 5 * MINUTE, 90 * MINUTE, -MINUTE]),
        st.dictionaries(
            st.sampled_from(["temperature", "humidity", "tilt_angle", "energy"]),
            st.sampled_from([20.0, 20.5, 21.0, 900.0, -3.0]),
            max_size=3,
        ),
    ),
    min_size=1,
    max_size=60,
)


def along(partition: int, steps: list[Any]) -> Records:
    """The readings of one partition, each device's from its own last one on."""
    clocks: dict[tuple[int, str], int] = {}
    rows = []
    for device, kind, step, measures in steps:
        clocks[device, kind] = clocks.get((device, kind), T0) + step
        rows.append((f"{partition}-{device}", kind, clocks[device, kind], measures))
    return readings_log(rows)


@settings(max_examples=60, deadline=None)
@given(st.lists(STEPS, min_size=2, max_size=5), st.integers(1, 15))
def test_partitions_together_are_as_alone(histories: list[list[Any]], size: int) -> None:
    """Anomalies and tables of a partition are the same, byte for byte, whatever comes with it."""
    logs = [along(partition, steps) for partition, steps in enumerate(histories)]
    alone, together = (detect(*SERIES, *OPERATORS, stuck={"times": 1.0, "least": 2}) for _ in range(2))

    def batches(start: int) -> list[Batch]:
        pieces = ((number, log.take(range(start, min(start + size, len(log))))) for number, log in enumerate(logs))
        return [Batch(Shared(fetched(piece, topics.READINGS, number, start))) for number, piece in pieces if len(piece)]

    for start in range(0, max(map(len, logs)), size):
        expected, found = batches(start), batches(start)
        for batch in expected:
            alone.process(batch)
        together.process_together(found)
        for batch in (*expected, *found):
            batch.finish()
        assert [[send.records for send in batch.sends] for batch in found] == [
            [send.records for send in batch.sends] for batch in expected
        ]
    for number in range(len(logs)):
        for one, other in zip(alone.tables, together.tables, strict=True):
            assert one.changes(number) == other.changes(number)


def test_what_ships_has_no_table_it_does_not_need() -> None:
    """A detector that is not asked for keeps nothing."""
    names = {table.name for table in detect(*DEFAULT).tables}
    assert names == {"detect.usual", "detect.day", "detect.week", "detect.ensemble", "detect.stuck", "cadence"}
    assert {table.name for table in detect("three-sigma").tables} == {"detect.panes"}


def test_idle_time_goes_to_those_who_want_it() -> None:
    """Only cadence hears of it; without cadence nobody waits."""
    agent, driven = detect(*DEFAULT), Driven({}, [])
    log = readings_log([("a", "tilt", T0 + place * MINUTE, {"tilt_angle": 1.0}) for place in range(20)])
    log.timestamps = [T0 + place * MINUTE for place in range(20)]
    drive(agent, log)
    assert agent.is_waiting(0)
    assert agent.idle_timeout == Cadence().idle_timeout

    pass_time(agent, driven, 600, T0 + 30 * MINUTE)

    assert [each.detector for each in anomalies(driven)] == ["cadence"]
    assert detect("ensemble").idle_timeout is None
    assert not detect("ensemble").is_waiting(0)


@pytest.mark.parametrize(
    ("names", "parameters", "said"),
    [
        (["ensembel"], {}, "there is no detector 'ensembel'; did you mean 'ensemble'?"),
        (["holt"], {"holt": {"alpha": 0}}, "detect.holt: alpha must be greater than 0, not 0"),
        (["holt"], {"holt": {"alpha": 2}}, "detect.holt: alpha and beta must be 1 or less"),
        (["three-sigma"], {"three-sigma": {"panes": 1e9}}, "panes must be a whole number, 1 to 10,000"),
        (["holt"], {"holt": {"gamma": 1}}, "detect.holt: got an unexpected keyword argument 'gamma'"),
        (["stuck"], {"cadence": {"times": 1}}, "detect.cadence: times must be at least 2, not 1"),
        (["ensemble"], {"ensemble": {"threshold": float("nan")}}, "threshold must be greater than 0, not nan"),
    ],
)
def test_mistakes_are_said_by_name(names: list[str], parameters: dict[str, dict[str, float]], said: str) -> None:
    """Of unknown detectors, unknown arguments and arguments out of bounds, in one error."""
    with pytest.raises(ConfigError) as raised:
        build_detect([*names, "nobody"], parameters, TYPES)
    assert any(said in mistake for mistake in raised.value.mistakes)
    assert len(raised.value.mistakes) == 2


def test_settings_of_three_sigma_and_its_parameters_go_together() -> None:
    """A parameter replaces that setting alone, and is a number."""
    settings = Settings.model_validate({"detect": {"pane": 60, "parameters": {"three-sigma": {"sigmas": 4}}}})
    assert detector_parameters(settings.detect)["three-sigma"] == {"pane": 60, "panes": 168, "warm_up": 50, "sigmas": 4}
    with pytest.raises(ValidationError):
        Settings.model_validate({"detect": {"parameters": {"ensemble": {"threshold": "4"}}}})
