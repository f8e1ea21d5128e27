"""The rules in the guide are right, and do what it draws."""

import re
from itertools import pairwise
from pathlib import Path

import pytest

from headrace.agents.alerting.alerts import Alerts
from headrace.cli.settings import Settings
from headrace.engine.testkit import drive, readings_log
from headrace.schemas import topics
from headrace.schemas.alert import Alert, AlertEvent
from headrace.schemas.rule import AlertRule
from headrace.tables.device_types import load_device_types
from headrace.tables.rules import read_rules

GUIDE = Path(__file__).parent.parent / "docs" / "guides" / "alert-rules.md"
BLOCKS = re.findall(r"```(toml)?\n(.*?)```", GUIDE.read_text(), re.DOTALL)
RULES = "\n".join(text for kind, text in BLOCKS if kind)
#: Each rule that is drawn, with its drawing.
DRAWN = [(rule, text) for (_, rule), (kind, text) in pairwise(BLOCKS) if not kind and "\nalert " in text]
T0, MINUTE = 1_750_000_000_000, 60_000


def test_every_rule_is_right(tmp_path: Path) -> None:
    """As `headrace rules check` would say, of all of them in one file."""
    file = tmp_path / "rules.toml"
    file.write_text(RULES)

    found = read_rules(file, load_device_types(), Settings().detect.detectors)

    assert found.mistakes == ()
    assert len(found.rules) == RULES.count("[[rule]]")


@pytest.mark.parametrize(("text", "drawing"), DRAWN, ids=[re.findall('rule_id = "(.*)"', rule)[0] for rule, _ in DRAWN])
def test_a_rule_does_what_is_drawn(tmp_path: Path, text: str, drawing: str) -> None:
    """It triggers and ends at these minutes."""
    file = tmp_path / "rules.toml"
    file.write_text(text)
    (rule,) = read_rules(file).rules
    lines = {words[0]: words[1:] for words in map(str.split, drawing.splitlines()) if words}
    marks = lines.pop("alert")

    assert "".join(marks) == drawn(rule, lines)


def drawn(rule: AlertRule, lines: dict[str, list[str]]) -> str:
    """What happens at each minute, as the guide draws it."""
    count = len(next(iter(lines.values())))
    rows = [
        ("a", "environmental", T0 + minute * MINUTE, values)
        for minute in range(count)
        if (values := {name: float(each[minute]) for name, each in lines.items() if each[minute] != "."})
    ]
    sent = drive(Alerts([rule]), readings_log(rows, T0)).sent.get(topics.ALERTS, [])
    marks = ["-"] * count
    for event in (AlertEvent.model_validate_json(record.value or b"") for record in sent):
        assert isinstance(event.data, Alert)
        time = event.data.triggeredAt if event.data.resolvedAt is None else event.data.resolvedAt
        marks[(time - T0) // MINUTE] = "T" if event.data.resolvedAt is None else "R"
    return "".join(marks)
