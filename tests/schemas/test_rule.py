"""The alert rule as a document."""

import json
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from pydantic import ValidationError

from headrace.schemas.condition import OutOf, ThresholdCondition
from headrace.schemas.rule import AlertRule
from headrace.schemas.rule_mistakes import rule_mistakes
from headrace.schemas.rule_schema import PUBLISHED, rule_schema, written_schema

CONDITION = {"metric": "temperature", "operator": ">", "threshold": 40, "duration": 300}
DOCUMENT = {
    "ruleId": "hot",
    "name": "Hot",
    "deviceType": "environmental",
    "deviceIds": ["a", "b"],
    "condition": CONDITION,
    "severity": "critical",
    "status": "active",
    "cooldownPeriod": 900,
    "schedule": {
        "type": "custom",
        "timezone": "Europe/Berlin",
        "stretches": [{"days": ["sat", "sun"], "start": "22:00", "end": "06:00"}],
    },
    "actions": {"notifications": ["email"], "webhooks": ["https://example.com/alerts"]},
}
CONDITIONS: dict[str, dict[str, Any]] = {
    "threshold": {**CONDITION, "clear": 35, "outOf": {"n": 3, "m": 5}, "gap": "reset", "maxGap": 60, "ratePer": 60},
    "expression": {"expression": "temperature > 30 and humidity > 80", "clearFor": 60},
    "absence": {"silentFor": "learned", "intervals": 7},
    "offline": {"offlineFor": 120},
    "anomaly": {"anomalyScore": 4, "detector": "ensemble", "clearAfter": 900},
}


@pytest.mark.parametrize("condition", CONDITIONS.values(), ids=CONDITIONS)
def test_the_public_document_comes_back_as_it_went_in(condition: dict[str, Any]) -> None:
    """The names of the source design are read and written, of every kind of condition; it fits the public schema."""
    document = {**DOCUMENT, "condition": condition}
    rule = AlertRule.model_validate(document)
    written = rule.model_dump(mode="json", by_alias=True)

    Draft202012Validator(rule_schema()).validate(document)
    Draft202012Validator(rule_schema()).validate(written)
    assert AlertRule.model_validate_json(rule.model_dump_json(by_alias=True)) == rule
    assert {name: written[name] for name in DOCUMENT if name != "condition"} == {
        name: value for name, value in DOCUMENT.items() if name != "condition"
    }
    assert {name: written["condition"][name] for name in condition} == condition


@pytest.mark.parametrize(
    ("change", "sentences"),
    [
        (
            {"condition": {**CONDITION, "operator": "=>"}},
            ["condition.operator: must be one of >, <, >=, <=, ==, not '=>'"],
        ),
        ({"condition": {**CONDITION, "duration": -1}}, ["condition.duration: must be at least 0, not -1"]),
        ({"condition": {**CONDITION, "threshold": float("nan")}}, ["condition.threshold: must be a finite number"]),
        ({"condition": {**CONDITION, "clear": 50}}, ["condition: clear is 50: with > it is at most the threshold"]),
        ({"condition": {**CONDITION, "gap": "reset"}}, ["condition: max_gap says from when on a gap counts: give it"]),
        (
            {"condition": {**CONDITION, "outOf": {"n": 4, "m": 3}}},
            ["condition.outOf: n is 4: it cannot be more than m, 3"],
        ),
        (
            {"condition": {**CONDITION, "silentFor": 5}},
            ["condition.silentFor: belongs to another kind of condition than threshold"],
        ),
        (
            {"condition": {"silentFor": 60, "duration": 5}},
            ["condition.duration: belongs to conditions of the kind threshold or"],
        ),
        (
            {"condition": {"silentFor": "leaned"}},
            ['condition.silentFor: must be a number of seconds, at least 1, or "learned"'],
        ),
        ({"condition": {"silentFor": 60, "intervals": 9}}, ['condition.intervals: goes with silent_for "learned"']),
        (
            {"condition": {"metrik": "t"}},
            ["condition: says nothing that can be judged; did you mean 'metric'?; give metric,"],
        ),
        ({"condition": "t > 5"}, ["condition: must be a table with metric, operator and threshold; expression;"]),
        (
            {"condition": {**CONDITION, "durations": 5}},
            ["condition.durations: is unknown; did you mean 'duration'?; there are"],
        ),
        (
            {"severity": "crtical"},
            ["severity: must be one of info, warning, critical, not 'crtical'; did you mean 'critical'?"],
        ),
        ({"status": "paused", "cooldownPeriod": -1}, ["status: must be one of", "cooldownPeriod: must be at least 0"]),
        ({"condition": {**CONDITION, "threshold": True}}, ["condition.threshold: must be a number, not true"]),
        ({"cooldownPeriod": False}, ["cooldownPeriod: must be a number, not false"]),
        ({"flapping": {"triggers": True}}, ["flapping.triggers: must be a number, not true"]),
        ({"condition": {**CONDITION, "ratePer": -5}}, ["condition.ratePer: must be more than 0, not -5"]),
        ({"condition": {**CONDITION, "ratePer": 0}}, ["condition.ratePer: must be more than 0, not 0"]),
        (
            {"device_type": "tilt", "cooldown_period": 5},
            ["device_type: is given twice, as deviceType too: keep one of them; so is cooldown_period"],
        ),
        (
            {"condition": {"silentFor": 60, "silent_for": 70}},
            ["condition.silent_for: is given twice, as silentFor too"],
        ),
        ({"condition": {"silentFor": True}}, ["condition.silentFor: must be a number of seconds, at least 1, or"]),
        ({"ruleId": ""}, ["ruleId: must not be empty"]),
        (
            {"ruleId": "a\x00b", "name": "a\nb", "description": "a\x1bb", "deviceIds": ["a\x00"]},
            [
                f"{name}: must be a text without control characters, not 'a\\"
                for name in ("ruleId", "name", "description", "deviceIds.0")
            ],
        ),
        ({"deviceIds": "a"}, ["deviceIds: must be a list, not 'a'"]),
        ({"flapping": {"triggers": 1.5}}, ["flapping.triggers: must be a whole number, not 1.5"]),
        ({"schedule": {"type": "custom"}}, ["schedule.stretches: give at least one with type 'custom'"]),
        (
            {"schedule": {"type": "custom", "stretches": [{"days": ["mo"], "start": "9:00", "end": "17:00"}]}},
            [
                "schedule.stretches.0.days.0: must be one of mon, tue",
                "schedule.stretches.0.start: must be a time of day",
            ],
        ),
        ({"schedule": {"timezone": "Berlin"}}, ["schedule.timezone: there is no time zone 'Berlin'"]),
        ({"actions": {"webhook": []}}, ["actions.webhook: is unknown; did you mean 'webhooks'?"]),
        ({"actions": {"webhooks": ["http://x\x00"]}}, ["actions.webhooks.0: must be an address"]),
        ({"actions": {"webhooks": ["x"]}}, ["actions.webhooks.0: must be an address that begins with http"]),
        ({"colour": 1}, ["colour: is unknown; there are rule_id, name"]),
    ],
)
def test_what_makes_no_sense_is_refused_in_plain_sentences(change: dict[str, Any], sentences: list[str]) -> None:
    """Each mistake once, with its place as the document writes it and what to do."""
    document = {**DOCUMENT, **change}

    with pytest.raises(ValidationError) as caught:
        AlertRule.model_validate(document)

    told = list(rule_mistakes(caught.value, document))
    assert [each[: len(sentence)] for each, sentence in zip(told, sentences, strict=True)] == sentences


def test_what_is_missing_is_named_as_the_document_would() -> None:
    """In camelCase or not."""
    for document, name in (({"name": "x"}, "rule_id"), ({"deviceIds": []}, "ruleId")):
        with pytest.raises(ValidationError) as caught:
            AlertRule.model_validate(document)
        told = list(rule_mistakes(caught.value, document))
        assert f"{name}: is missing" in told
        assert any(each.startswith("condition: is missing; give metric, operator and threshold;") for each in told)


@pytest.mark.parametrize(
    "change",
    [
        {"condition": {**CONDITION, "operator": "!="}},
        {"condition": {"silentFor": 0}},
        {"severity": "grave"},
        {"rule": 1},
        {"ruleId": "a\x00b"},
        {"description": "a\x00b"},
    ],
)
def test_what_is_refused_does_not_fit_the_schema(change: dict[str, Any]) -> None:
    """An editor says so too."""
    assert not Draft202012Validator(rule_schema()).is_valid({**DOCUMENT, **change})


def test_the_published_schema_is_up_to_date() -> None:
    """`python -m headrace.schemas.rule_schema` writes it anew."""
    Draft202012Validator.check_schema(json.loads(written_schema()))

    assert PUBLISHED.read_bytes() == written_schema()


def test_a_condition_reads_like_a_sentence() -> None:
    """The text of a condition is what alerts show."""
    co2 = ThresholdCondition(metric="co2", operator=">=", threshold=1500.5, duration=120)

    assert str(co2) == "co2 >= 1500.5 for 120 s"
    often = co2.model_copy(update={"rate_per": 60.0, "out_of": OutOf(n=3, m=5), "duration": 0.0})
    assert str(often) == "co2 per 60 s >= 1500.5 on 3 of 5 readings"


def test_a_rule_applies_to_its_type_while_active() -> None:
    """The type "all" is every type; an inactive rule applies to none. `false` switches flapping off."""
    rule = AlertRule.model_validate({**DOCUMENT, "flapping": False})

    assert [rule.applies_to(name) for name in ("environmental", "tilt")] == [True, False]
    assert rule.model_copy(update={"device_type": "all"}).applies_to("tilt")
    assert not rule.model_copy(update={"status": "inactive"}).applies_to("environmental")
    assert rule.flapping is None
