"""Rules from TOML files."""

from pathlib import Path
from typing import Any

import orjson
import pytest

from headrace.engine.errors import ConfigError
from headrace.schemas.rule import AlertRule
from headrace.tables.device_types import load_device_types
from headrace.tables.rule_doubts import rule_doubts
from headrace.tables.rules import check_document, check_rules, load_rules, read_rule, read_rules

GOOD = """
[[rule]]
rule_id = "hot"
name = "Hot"
condition = { metric = "temperature", operator = ">", threshold = 40, duration = 60 }
severity = "critical"
"""


def test_the_shipped_rules_load() -> None:
    """The default file is right, and has the overheating rule of the demo."""
    rules = {rule.rule_id: rule for rule in load_rules()}

    assert str(rules["overheating"].condition) == "temperature > 40 for 60 s"
    assert (rules["overheating"].severity, rules["overheating"].cooldown_period) == ("critical", 300)


def test_the_public_names_are_read_too(tmp_path: Path) -> None:
    """A file may use the camelCase names of the public schema."""
    file = tmp_path / "rules.toml"
    file.write_text(GOOD.replace("rule_id", "ruleId") + "cooldownPeriod = 900\n")

    (rule,) = load_rules(file)

    assert (rule.rule_id, rule.cooldown_period, rule.device_type) == ("hot", 900, "all")


def test_every_mistake_is_named_at_once(tmp_path: Path) -> None:
    """One error lists all: rule, field and what is wrong."""
    file = tmp_path / "rules.toml"
    file.write_text(GOOD + GOOD + GOOD.replace('">"', '"=>"').replace('"critical"', '"grave"') + "[rulez]\n")

    with pytest.raises(ConfigError) as caught:
        load_rules(file)

    text = str(caught.value)
    assert len(caught.value.mistakes) == 4
    for part in ("rulez", "rule 2: rule_id 'hot' is that of rule 1", "rule 3: condition.operator", "rule 3: severity"):
        assert part in text


@pytest.mark.parametrize("content", ["[[rule", "rule = 3", "rule = [3]"])
def test_what_is_no_rule_file_is_a_configuration_error(tmp_path: Path, content: str) -> None:
    """Broken TOML, or no tables, is a mistake of the configuration; so is a file that is not there."""
    file = tmp_path / "rules.toml"
    file.write_text(content)

    with pytest.raises(ConfigError, match=r"rules\.toml"):
        load_rules(file)
    with pytest.raises(ConfigError, match=r"none\.toml"):
        load_rules(tmp_path / "none.toml")


TYPES = load_device_types()
RUNNING = ("ensemble", "stuck", "cadence")
HOT = {"metric": "temperature", "operator": ">", "threshold": 40}


def rule(condition: dict[str, Any], **fields: Any) -> dict[str, Any]:
    """A rule's document."""
    return {"ruleId": "a", "name": "a", "condition": condition, **fields}


@pytest.mark.parametrize(
    ("document", "sentences"),
    [
        (
            rule({**HOT, "metric": "temprature"}),
            ["condition.metric: no device type has a metric temprature; did you mean"],
        ),
        (rule(HOT, deviceType="tilt2"), ["device_type: there is no device type tilt2; there are"]),
        (
            rule({**HOT, "metric": "co2"}, deviceType="tilt"),
            ["condition.metric: tilt has no metric co2; it has"],
        ),
        (
            rule({"expression": "temperature > 30 and co3 > 9"}),
            ["condition.expression: 'co3' is not a metric of any device type"],
        ),
        (rule({"expression": "temperature >"}), ["condition.expression: 'temperature >' is not an expression"]),
        (
            rule({"expression": "temperature + 2"}),
            ["condition.expression: 'temperature + 2' is a number and neither true nor false; compare it"],
        ),
        (
            rule({"expression": "temperature > 3 and not humidity"}, deviceType="environmental"),
            ["condition.expression: environmental: humidity is in %, and neither true nor false; compare it, as in"],
        ),
        (
            rule({"expression": "not temperature"}),
            ["condition.expression: the units fit no device type: "],
        ),
        (
            rule({"expression": "temperature > 3 and 0 or temperature + 3"}),
            [
                "condition.expression: 'temperature + 3' is a number and neither true nor false",
                "condition.expression: '0' is a number and neither true nor false",
            ],
        ),
        (
            rule({"expression": "temperature > 3 and 1 > 2"}),
            ["condition.expression: 1 > 2 compares no metric: it is the same for every reading"],
        ),
        (rule({"expression": "temperature / 0 > 2"}), ["condition.expression: temperature / 0 cannot be computed"]),
        (rule({"expression": "temperature > 1e999"}), ["condition.expression: a number in the expression is too"]),
        (
            rule({"expression": "temp > 3"}, deviceType="environmental"),
            ["condition.expression: 'temp' is not a metric of environmental; did you mean 'temperature'?"],
        ),
        (
            rule({**HOT, "metric": "temp"}),
            ["condition.metric: no device type has a metric temp; did you mean 'tempera"],
        ),
        (
            rule(HOT, schedule={"type": "custom", "stretches": [{"start": "09:00", "end": "09:00"}]}),
            ["schedule.stretches.0: it ends when it starts; a whole day is from 00:00 to 24:00"],
        ),
        (
            rule({"expression": "temperature > humidity"}, deviceType="environmental"),
            ["condition.expression: environmental: temperature is in degC and humidity in %: make it a derived metric"],
        ),
        (
            rule({"expression": "tilt_angle > 3 and co2 > 3"}),
            ["condition.expression: no device type has all of co2, tilt_angle: "],
        ),
        (rule({"anomalyScore": 3, "metric": "nosuch"}), ["condition.metric: no device type has a metric nosuch"]),
        (
            rule({"anomalyScore": 3, "detector": "ensembel"}),
            ["condition.detector: no detector 'ensembel' runs; [detect] detectors are ensemble, stuck, cadence; did"],
        ),
        (rule(HOT, deviceIds=["x", "y", "x"]), ["device_ids: 'x' is there 2 times"]),
        (
            rule(
                HOT,
                schedule={"type": "custom", "stretches": [{"days": ["mon", "mon"], "start": "24:00", "end": "06:00"}]},
            ),
            [
                "schedule.stretches.0.start: 24:00 ends a day; write 00:00",
                "schedule.stretches.0.days: a day is there twice",
            ],
        ),
        (
            rule({**HOT, "metric": "nosuch"}, severity="grave"),
            ["severity: must be one of", "condition.metric: no device"],
        ),
    ],
)
def test_what_could_never_trigger_is_refused(document: dict[str, Any], sentences: list[str]) -> None:
    """Names, units, detectors, doubles: every mistake at once, with what to do."""
    _, wrong = check_document(document, TYPES, RUNNING)

    assert [each[: len(sentence)] for each, sentence in zip(wrong, sentences, strict=True)] == sentences


@pytest.mark.parametrize(
    "document",
    [
        rule(HOT),
        rule({"expression": "temperature > 30 and not humidity < 80"}),
        rule({"expression": "max(temperature, 5) - 3 >= 2"}, deviceType="environmental"),
        rule({"silentFor": "learned"}),
        rule({"offlineFor": 0}),
        rule({"anomalyScore": 3, "metric": "cadence", "detector": "cadence"}),
        rule({**HOT, "metric": "nosuch"}, status="deleted"),
    ],
)
def test_what_can_trigger_somewhere_is_right(document: dict[str, Any]) -> None:
    """A rule for all device types needs one that has it; of a deleted rule only the name is left."""
    assert check_document(document, TYPES, RUNNING)[1] == []


def test_rules_in_use_are_checked_together() -> None:
    """Each mistake names its rule; detectors only where it is known which run."""
    rules = [
        AlertRule.model_validate(rule({**HOT, "metric": "nosuch"})),
        AlertRule.model_validate(rule({"anomalyScore": 1, "detector": "nosuch"}, ruleId="b")),
    ]

    with pytest.raises(ConfigError) as caught:
        check_rules(rules, TYPES)
    with pytest.raises(ConfigError) as stricter:
        check_rules(rules, TYPES, RUNNING)

    assert [mistake.split(":")[0] for mistake in caught.value.mistakes] == ["rule a"]
    assert [mistake.split(":")[0] for mistake in stricter.value.mistakes] == ["rule a", "rule b"]


@pytest.mark.parametrize("layout", ["one", "array", "lines"])
def test_rules_in_json_are_read(tmp_path: Path, layout: str) -> None:
    """One, an array, or one per line; the mistakes of one do not hide the others."""
    good = [rule(HOT), rule(HOT, ruleId="b")]
    file = tmp_path / "rules"
    if layout == "one":
        file.write_bytes(orjson.dumps(good[0], option=orjson.OPT_INDENT_2))
    elif layout == "array":
        file.write_bytes(orjson.dumps([*good, rule(HOT)]))
    else:
        file.write_bytes(b"\n".join([*map(orjson.dumps, good), b"{", orjson.dumps(rule(HOT, severity=1))]))

    found = read_rules(file, TYPES)

    assert [each.rule_id for each in found.rules] == (["a"] if layout == "one" else ["a", "b"])
    places = [mistake.removeprefix(f"{file}: ")[:31] for mistake in found.mistakes]
    assert (
        places
        == {
            "one": [],
            "array": ["rule 3: rule_id 'a' is that of "],
            "lines": ["line 3: not JSON: unexpected en", "line 4: severity: must be one o"],
        }[layout]
    )


def test_one_rule_from_json() -> None:
    """Mistakes are a configuration error, as everywhere."""
    assert read_rule(orjson.dumps(rule(HOT))) == AlertRule.model_validate(rule(HOT))
    for wrong in b"{", orjson.dumps({"ruleId": "a"}), b"3":
        with pytest.raises(ConfigError):
            read_rule(wrong)


REGISTERED = {"hall-1", "hall-2"}
TILTED = {"metric": "tilt_angle", "operator": ">", "threshold": 5}


@pytest.mark.parametrize(
    ("document", "told"),
    [
        (rule({**HOT, "threshold": 85}, deviceType="environmental"), "condition.threshold: temperature of environ"),
        (rule({**HOT, "operator": "<", "threshold": 900}, deviceType="environmental"), "condition.threshold: temper"),
        (
            rule({**TILTED, "gap": "reset", "maxGap": 5}, deviceType="tilt"),
            "condition.max_gap: tilt reports every 300 s",
        ),
        (rule({"silentFor": 5}, deviceType="tilt"), "condition.silent_for: tilt reports every 300 s"),
        (
            rule(HOT, deviceIds=["hall-1", "hal-2"]),
            "device_ids: 'hal-2' is not in the registry; did you mean 'hall",
        ),
        (rule(HOT, organizationId="amce"), "organization_id: no registered device is of 'amce'; did you mean 'acme'?"),
        (rule(HOT), None),
        (rule({**HOT, "threshold": 85}), None),
        (rule({**HOT, "threshold": 85, "ratePer": 60}, deviceType="environmental"), None),
        (rule({**HOT, "threshold": 85}, deviceType="environmental", status="inactive"), None),
        (rule({"silentFor": "learned"}, deviceType="tilt", deviceIds=["hall-1"], organizationId="acme"), None),
    ],
)
def test_what_is_probably_not_meant_is_told(document: dict[str, Any], told: str | None) -> None:
    """What never or always holds by the ranges and cadence of a device type, and whom the registry does not know."""
    doubts = list(rule_doubts(AlertRule.model_validate(document), TYPES, REGISTERED, {"acme"}))

    assert [each[: len(told or "")] for each in doubts] == ([] if told is None else [told])
