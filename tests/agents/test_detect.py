"""The agent that runs detectors by name."""

import pytest
from pydantic import ValidationError

from headrace.agents.cadence import Cadence
from headrace.agents.detect import DEFAULT, OPERATORS, SERIES, Detect, build_detect
from headrace.cli.agents import detector_parameters
from headrace.cli.settings import Settings
from headrace.engine.errors import ConfigError
from headrace.engine.testkit import Driven, drive, pass_time, readings_log
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
