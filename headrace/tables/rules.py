"""The alert rules of an installation: from files, and whether they fit its device types."""

import re
import tomllib
from collections.abc import Collection, Iterable, Iterator, Mapping
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any, NamedTuple

import orjson
from pydantic import ValidationError
from pydantic.alias_generators import to_snake

from headrace.engine.errors import ConfigError
from headrace.schemas.device_type import DeviceType
from headrace.schemas.rule import AlertRule
from headrace.schemas.rule_mistakes import rule_mistakes
from headrace.tables.rule_checks import rule_mistakes_of

#: What the names of files with rules in JSON end in: one rule, an array of them, or one per line.
JSON_SUFFIXES = frozenset({".json", ".ndjson", ".jsonl"})
_STAND_IN = "unnamed"


class RuleFile(NamedTuple):
    """What a file holds: the rules that are right, in its order, and every mistake in the others, with its place."""

    rules: tuple[AlertRule, ...]
    mistakes: tuple[str, ...]


def load_rules(path: Path | str | None = None) -> tuple[AlertRule, ...]:
    """The rules in `path`, in its order; the shipped ones if it is None. Names in them are not checked.

    Raises:
        ConfigError: all mistakes, each with file, rule and field.
    """
    shipped = resources.files("headrace.schemas") / "rules" / "default.toml"
    found = read_rules(shipped if path is None else Path(path))
    if found.mistakes:
        raise ConfigError(*found.mistakes)
    return found.rules


def read_rules(
    file: Traversable | Path,
    device_types: Mapping[str, DeviceType] | None = None,
    detectors: Collection[str] | None = None,
) -> RuleFile:
    """The rules in a file: TOML with `[[rule]]` tables, or JSON (one, an array, or one per line).

    Args:
        device_types: by name, to check names in the rules; None for not.
        detectors: those that run, likewise.
    """
    try:
        text = file.read_text(encoding="utf-8")
        json = Path(file.name).suffix in JSON_SUFFIXES or re.match(r"\s*(\{|\[\s*[{\]])", text) is not None
        documents = list(_json(text) if json else _toml(text))
    except (OSError, UnicodeDecodeError, ValueError) as error:
        return RuleFile((), (f"{file}: {error}",))
    rules: list[AlertRule] = []
    mistakes: list[str] = []
    known: dict[str, str] = {}
    for place, document in documents:
        if isinstance(document, ValueError):
            mistakes.append(f"{file}: {place}: {document}")
            continue
        rule, wrong = check_document(document, device_types, detectors)
        if rule is not None and rule.rule_id in known:
            wrong = [*wrong, f"rule_id {rule.rule_id!r} is that of {known[rule.rule_id]}"]
        if rule is not None:
            known.setdefault(rule.rule_id, place)
        mistakes += [f"{file}: {place}: {each}" if place else f"{file}: {each}" for each in wrong]
        if rule is not None and not wrong:
            rules.append(rule)
    return RuleFile(tuple(rules), tuple(mistakes))


def read_rule(data: bytes | str) -> AlertRule:
    """A rule from its JSON. Names in it are not checked.

    Raises:
        ConfigError: every mistake.
    """
    try:
        document = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise ConfigError(f"not JSON: {error}") from error
    rule, wrong = check_document(document)
    if rule is None:
        raise ConfigError(*wrong)
    return rule


def check_document(
    document: object,
    device_types: Mapping[str, DeviceType] | None = None,
    detectors: Collection[str] | None = None,
) -> tuple[AlertRule | None, list[str]]:
    """The rule of a document, if it is one, and every mistake; see `read_rules` for the arguments."""
    try:
        rule = AlertRule.model_validate(document)
    except ValidationError as error:
        wrong = list(rule_mistakes(error, document))
        rest = _without(document, {str(found["loc"][0]) for found in error.errors() if found["loc"]})
        if rest is not None and device_types is not None:
            wrong += rule_mistakes_of(rest, device_types, detectors)
        return None, wrong
    return rule, [] if device_types is None else list(rule_mistakes_of(rule, device_types, detectors))


def check_rules(
    rules: Iterable[AlertRule], device_types: Mapping[str, DeviceType], detectors: Collection[str] | None = None
) -> None:
    """Refuse rules that could never trigger.

    Args:
        device_types: by name.
        detectors: those that run; None if that is not known.
    Raises:
        ConfigError: everything that is wrong, each with rule and field.
    """
    mistakes = [
        f"rule {rule.rule_id}: {mistake}"
        for rule in rules
        for mistake in rule_mistakes_of(rule, device_types, detectors)
    ]
    if mistakes:
        raise ConfigError(*mistakes)


def _without(document: object, wrong: set[str]) -> AlertRule | None:
    """The rule that a document would be without its mistakes; None if too little is left."""
    if not isinstance(document, Mapping) or "condition" in wrong:
        return None
    rest = {to_snake(str(name)): value for name, value in document.items() if name not in wrong}
    try:
        return AlertRule.model_validate({"rule_id": _STAND_IN, "name": _STAND_IN, **rest})
    except ValidationError:
        return None


def _toml(text: str) -> Iterator[tuple[str, object]]:
    """The rules of a TOML text, or a `ValueError` each, with its place."""
    data: dict[str, Any] = tomllib.loads(text)
    yield from ((key, ValueError("unknown; rules are [[rule]] tables")) for key in data.keys() - {"rule"})
    tables = data.get("rule", [])
    if isinstance(tables, list):
        yield from ((f"rule {number}", table) for number, table in enumerate(tables, 1))
    else:
        yield "rule", ValueError("must be [[rule]] tables")


def _json(text: str) -> Iterator[tuple[str, object]]:
    """The rules of a JSON text, or a `ValueError` each, with its place."""
    try:
        data = orjson.loads(text)
    except orjson.JSONDecodeError:
        for number, line in enumerate(text.splitlines(), 1):
            if line.strip():
                yield f"line {number}", _json_line(line)
        return
    if isinstance(data, list):
        yield from ((f"rule {number}", each) for number, each in enumerate(data, 1))
    else:
        yield "", data


def _json_line(line: str) -> object:
    try:
        return orjson.loads(line)
    except orjson.JSONDecodeError as error:
        return ValueError(f"not JSON: {error}")
