"""Alert rules as TOML, as a file of rules has them."""

import json
from collections.abc import Iterable, Mapping
from typing import Any

from headrace.schemas.rule import AlertRule


def rules_toml(rules: Iterable[AlertRule]) -> str:
    """`[[rule]]` tables that read back as the same rules; what is at its default is left out.

    >>> from headrace.tables.rules import load_rules
    >>> print(rules_toml(load_rules()[:1]).splitlines()[6])
    cooldown_period = 300
    """
    return "\n".join(_table(rule) for rule in rules)


def _table(rule: AlertRule) -> str:
    document = rule.model_dump(mode="json", exclude_defaults=True)
    kept = {"severity": rule.severity, "status": rule.status, "cooldown_period": rule.cooldown_period}
    if rule.flapping is None:
        document["flapping"] = False  # TOML has no null
    condition = document.pop("condition")
    lines = ["[[rule]]"]
    lines += [f"{name} = {_value(value)}" for name, value in ({**document, **kept}).items()]
    lines.append(f"condition = {_value(condition)}")
    return "\n".join(lines) + "\n"


def _value(value: Any) -> str:
    match value:
        case bool():
            return "true" if value else "false"
        case float() if value.is_integer() and abs(value) < 2**53:
            return str(int(value))
        case int() | float():
            return repr(value)
        case str():
            # JSON and TOML write texts alike, but for what follows.
            return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
        case Mapping():
            return "{ " + ", ".join(f"{name} = {_value(each)}" for name, each in value.items()) + " }"
    return "[" + ", ".join(map(_value, value)) + "]"
