"""Rules from TOML files."""

from pathlib import Path

import pytest

from headrace.engine.errors import ConfigError
from headrace.schemas.rule import AlertRule, Condition
from headrace.tables.device_types import load_device_types
from headrace.tables.rules import check_rules, load_rules

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


def test_rules_that_could_never_fire_are_refused() -> None:
    """A metric or device type that does not exist is a mistake, each named."""
    rules = [
        AlertRule(rule_id="a", name="a", condition=Condition(metric="nosuch", operator=">", threshold=1)),
        AlertRule(
            rule_id="b", name="b", device_type="nope", condition=Condition(metric="co2", operator=">", threshold=1)
        ),
    ]

    with pytest.raises(ConfigError) as caught:
        check_rules(rules, load_device_types())

    assert [rule in mistake for rule, mistake in zip("ab", caught.value.mistakes, strict=True)] == [True, True]
