"""What is wrong with the document of an alert rule, in sentences, with the place and what to do."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic.alias_generators import to_camel, to_snake
from pydantic_core import ErrorDetails

from headrace.schemas.condition import (
    KINDS,
    AbsenceCondition,
    AnomalyCondition,
    ExpressionCondition,
    OfflineCondition,
    OutOf,
    ThresholdCondition,
    kind_of,
)
from headrace.schemas.rule import Actions, AlertRule, Flapping
from headrace.schemas.schedule import Schedule, Stretch
from headrace.schemas.text import near

#: The models of conditions by kind, and of what else a rule holds by field.
CONDITIONS: Mapping[str, type[BaseModel]] = {
    "threshold": ThresholdCondition,
    "expression": ExpressionCondition,
    "absence": AbsenceCondition,
    "offline": OfflineCondition,
    "anomaly": AnomalyCondition,
}
_PARTS: Mapping[str, type[BaseModel]] = {
    "schedule": Schedule, "stretches": Stretch, "flapping": Flapping, "actions": Actions, "out_of": OutOf,
    "outOf": OutOf,
}  # fmt: skip
#: Ways to make a condition.
WAYS = "metric, operator and threshold; expression; silent_for; offline_for; or anomaly_score"
#: What a text must look like, by field.
_FORMS = {
    "start": "a time of day from 00:00 to 24:00, as in 08:30",
    "end": "a time of day from 00:00 to 24:00, as in 17:00",
    "webhooks": "an address that begins with http:// or https://",
}
_BOUNDS = {
    "greater_than_equal": ("ge", "at least"),
    "greater_than": ("gt", "more than"),
    "less_than_equal": ("le", "at most"),
    "less_than": ("lt", "less than"),
}
_WHAT = {
    "float": "a number", "int": "a whole number", "bool": "true or false", "string": "a text", "tuple": "a list",
    "model": "a table", "dict": "a table",
}  # fmt: skip

Place = tuple[int | str, ...]


def rule_mistakes(error: ValidationError, document: object) -> Iterator[str]:
    """Every mistake that pydantic found in `document`, one sentence each."""
    told: list[Place] = []
    for found in error.errors(include_url=False):
        place = _place(found["loc"])
        judged = place[:1] != ("condition",) or _has_kind(document)
        place = place if judged else ("condition",)
        if found["type"] == "missing" and not _is_camel(document):
            place = tuple(to_snake(part) if isinstance(part, str) else part for part in place)
        # What is wrong in every way that it could be meant is wrong once; a part of it says more than the whole.
        if any(each[: len(place)] == place for each in told):
            continue
        told.append(place)
        shown = ".".join(map(str, place))
        if not judged:
            yield f"{shown}: {_no_condition(document)}"
            continue
        sentence = _sentence(found, place, document)
        about = re.match(r"(\w+): ", sentence)
        joint = "." if about and shown and found["type"] == "value_error" else ": "
        yield f"{shown}{joint}{sentence}" if shown else sentence


def _place(loc: Place) -> Place:
    """Where it is in the document: without what pydantic tells kinds of a value apart by."""
    if loc[:1] == ("condition",) and loc[1:2] and loc[1] in CONDITIONS:
        loc = (loc[0], *loc[2:])
    return tuple(part for part in loc if not (isinstance(part, str) and re.search(r"\W", part)) or part == loc[0])


def _is_camel(document: object) -> bool:
    """Whether the document has the names of the public schema; what is missing is told by alias alone."""
    return isinstance(document, Mapping) and any(str(name) != to_snake(str(name)) for name in document)


def _has_kind(document: object) -> bool:
    condition = document.get("condition") if isinstance(document, Mapping) else None
    if not isinstance(condition, Mapping):
        return False
    known = {"metric", "threshold", *KINDS, *map(to_camel, KINDS)}
    return bool(known & set(condition))


def _no_condition(document: object) -> str:
    condition = document.get("condition") if isinstance(document, Mapping) else None
    if condition is None:
        return f"is missing; give {WAYS}"
    if not isinstance(condition, Mapping):
        return f"must be a table with {WAYS}"
    hints = [near(name, ("metric", "threshold", *KINDS)) for name in map(str, condition)]
    return f"says nothing that can be judged{next(filter(None, hints), '')}; give {WAYS}"


def _sentence(found: ErrorDetails, place: Place, document: object) -> str:  # noqa: PLR0911
    kind, given, context = found["type"], found["input"], found.get("ctx", {})
    field = next((part for part in reversed(place) if isinstance(part, str)), "")
    if to_snake(field) == "silent_for" and kind != "extra_forbidden":
        return f'must be a number of seconds, at least 1, or "learned", not {_shown(given)}'
    if kind == "value_error":
        return found["msg"].removeprefix("Value error, ")
    if kind == "missing":
        return "is missing"
    if kind == "extra_forbidden":
        return _unknown(place, document)
    if kind == "literal_error":
        choices = re.findall(r"'([^']*)'", context["expected"])
        hint = "" if field == "operator" else near(str(given), choices)
        return f"must be one of {', '.join(choices)}, not {_shown(given)}{hint}"
    if kind == "string_pattern_mismatch":
        return f"must be {_FORMS.get(field, 'a text without control characters')}, not {_shown(given)}"
    if kind == "finite_number":
        return "must be a finite number"
    if kind in _BOUNDS:
        name, words = _BOUNDS[kind]
        return f"must be {words} {context[name]:g}, not {_shown(given)}"
    if kind in ("string_too_long", "too_long"):
        counted = "characters" if kind == "string_too_long" else "entries"
        return f"must have at most {context['max_length']:,} {counted}"
    if kind in ("string_too_short", "too_short"):
        return "must not be empty"
    what = _WHAT.get(kind.partition("_")[0])
    return f"must be {what}, not {_shown(given)}" if what else found["msg"]


def _unknown(place: Place, document: object) -> str:
    name = str(place[-1])
    model: type[BaseModel] = AlertRule
    if place[0] == "condition" and isinstance(document, Mapping):
        kind = kind_of(document["condition"])
        if to_snake(name) in KINDS:
            return f"belongs to another kind of condition than {kind}; make another rule of it"
        model = CONDITIONS[kind]
        others = [each for each, other in CONDITIONS.items() if to_snake(name) in other.model_fields]
        if len(place) == 2 and others:
            return f"belongs to conditions of the kind {' or '.join(others)}; this one is of the kind {kind}"
    for part in place[:-1]:
        model = _PARTS.get(str(part), model)
    fields = list(model.model_fields)
    return f"is unknown{near(to_snake(name), fields)}; there are {', '.join(fields)}"


def _shown(given: Any) -> str:
    text = repr(given)
    return text if len(text) <= 60 else f"{text[:60]}…"
