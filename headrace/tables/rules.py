"""The alert rules of an installation: a TOML file of `[[rule]]` tables, or the shipped one."""

import tomllib
from collections.abc import Iterable, Iterator, Mapping
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from headrace.engine.errors import ConfigError
from headrace.schemas.device_type import DeviceType
from headrace.schemas.rule import ALL_TYPES, AlertRule


def load_rules(path: Path | str | None = None) -> tuple[AlertRule, ...]:
    """The rules in `path`, in its order; the shipped ones if it is None.

    Raises:
        ConfigError: all mistakes, each with file, rule and field.
    """
    shipped = resources.files("headrace.schemas") / "rules" / "default.toml"
    file: Traversable | Path = shipped if path is None else Path(path)
    try:
        data = tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"{file}: {error}") from error
    rules: list[AlertRule] = []
    mistakes = [f"{file}: {mistake}" for mistake in _read(data, rules)]
    if mistakes:
        raise ConfigError(*mistakes)
    return tuple(rules)


def check_rules(rules: Iterable[AlertRule], device_types: Mapping[str, DeviceType]) -> None:
    """Refuse rules that could never fire because of a name.

    Raises:
        ConfigError: every device type or metric that does not exist.
    """
    mistakes = []
    for rule in rules:
        every = rule.device_type == ALL_TYPES
        if not every and rule.device_type not in device_types:
            known = ", ".join(sorted(device_types))
            mistakes.append(f"rule {rule.rule_id}: there is no device type {rule.device_type}; there are {known}")
            continue
        types = device_types.values() if every else [device_types[rule.device_type]]
        if not any(rule.condition.metric in each.units for each in types):
            whose = "no device" if every else f"no device of type {rule.device_type}"
            mistakes.append(f"rule {rule.rule_id}: {whose} has a metric {rule.condition.metric}")
    if mistakes:
        raise ConfigError(*mistakes)


def _read(data: dict[str, Any], rules: list[AlertRule]) -> Iterator[str]:
    """Append every good rule to `rules`; what is wrong with the others."""
    for key in data.keys() - {"rule"}:
        yield f"{key}: unknown; rules are [[rule]] tables"
    tables = data.get("rule", [])
    if not isinstance(tables, list):
        yield "rule: must be [[rule]] tables"
        return
    known: dict[str, int] = {}
    for number, table in enumerate(tables, 1):
        try:
            rule = AlertRule.model_validate(table)
        except ValidationError as error:
            for found in error.errors(include_url=False):
                yield f"rule {number}: {'.'.join(map(str, found['loc']))}: {found['msg']}"
            continue
        if rule.rule_id in known:
            yield f"rule {number}: rule_id {rule.rule_id!r} is that of rule {known[rule.rule_id]}"
        known.setdefault(rule.rule_id, number)
        rules.append(rule)
