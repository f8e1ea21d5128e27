"""The alert rule as a document."""

import pytest
from pydantic import ValidationError

from headrace.schemas.rule import AlertRule, Condition

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
}


def test_the_public_document_comes_back_as_it_went_in() -> None:
    """The names of the source design are read and written."""
    rule = AlertRule.model_validate(DOCUMENT)

    assert rule.model_dump(mode="json", by_alias=True) == {**DOCUMENT, "description": ""}


@pytest.mark.parametrize(
    "change",
    [
        {"condition": {**CONDITION, "operator": "!="}},
        {"condition": {**CONDITION, "duration": -1}},
        {"condition": {**CONDITION, "threshold": float("nan")}},
        {"severity": "grave"},
        {"status": "paused"},
        {"cooldownPeriod": -1},
        {"ruleId": ""},
        {"unknown": 1},
    ],
)
def test_what_makes_no_sense_is_refused(change: dict[str, object]) -> None:
    """Operators, bounds and names outside the schema are mistakes."""
    with pytest.raises(ValidationError):
        AlertRule.model_validate({**DOCUMENT, **change})


def test_a_condition_reads_like_a_sentence() -> None:
    """The text of a condition is what alerts show."""
    assert str(Condition(metric="co2", operator=">=", threshold=1500.5, duration=120)) == "co2 >= 1500.5 for 120 s"
    assert str(Condition(metric="battery", operator="<", threshold=20)) == "battery < 20"


def test_a_rule_applies_to_its_type_while_active() -> None:
    """The type "all" is every type; an inactive rule applies to none."""
    rule = AlertRule.model_validate(DOCUMENT)

    assert [rule.applies_to(name) for name in ("environmental", "tilt")] == [True, False]
    assert rule.model_copy(update={"device_type": "all"}).applies_to("tilt")
    assert not rule.model_copy(update={"status": "inactive"}).applies_to("environmental")
