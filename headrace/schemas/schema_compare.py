"""What a change of a JSON Schema breaks: for who reads documents by the old one, or writes by it."""

from collections.abc import Iterator
from typing import Any, Literal

from headrace.schemas.value_schema import Schema

#: Keywords that bound a value; of these the least values, which let more in the less they are.
_BOUNDS = (
    "minimum",
    "exclusiveMinimum",
    "minLength",
    "minItems",
    "maximum",
    "exclusiveMaximum",
    "maxLength",
    "maxItems",
)
_LEAST = frozenset(_BOUNDS[:4])
_DEEPEST = 40


def breaks(old: Schema, new: Schema, access: Literal["read", "write", "both"]) -> list[str]:
    """What no longer holds for who relied on `old`, a line each; empty if nothing.

    A reader relies on: every document fits `old`, and the fields that were described are. A writer: what fits `old` is
    taken. Knows the keywords that pydantic and msgspec write; a pattern that changed at all counts.

    >>> number, text = {"type": "integer"}, {"type": "string"}
    >>> old = {"type": "object", "properties": {"id": text, "n": number}, "required": ["id"]}
    >>> breaks(old, {"type": "object", "properties": {"id": text, "n": {"type": "number"}}}, "read")
    ['id: was always there and is not', 'n: type was integer and is integer or number']
    >>> breaks(old, old | {"required": ["id", "n"]}, "write")
    ['n: was not required and is']
    """
    found: list[str] = []
    if access != "write":
        found += _Comparison(old, new, reading=True).differences(old, new, "", 0)
    if access != "read":
        found += _Comparison(old, new, reading=False).differences(old, new, "", 0)
    return list(dict.fromkeys(found))


class _Comparison:
    """Of two schemas, with their definitions in their roots.

    Args:
        reading: what fits the new one must fit the old one, and have its fields; else the other way round.
    """

    def __init__(self, old: Schema, new: Schema, *, reading: bool) -> None:
        self._old = old.get("$defs", {})
        self._new = new.get("$defs", {})
        self._reading = reading

    def differences(self, old: Schema, new: Schema, path: str, depth: int) -> Iterator[str]:
        """In which ways documents that should fit do not."""
        old, new = _followed(old, self._old), _followed(new, self._new)
        if depth > _DEEPEST:
            return
        olds, news = _alternatives(old), _alternatives(new)
        if len(olds) > 1 or len(news) > 1:
            wide, narrow = (news, olds) if self._reading else (olds, news)
            for each in wide:
                pairs = [(other, each) if self._reading else (each, other) for other in narrow]
                yield from min((list(self.differences(*pair, path, depth + 1)) for pair in pairs), key=len)
            return
        name = path or "value"
        wide, narrow = self._ordered(_types(old), _types(new))
        if wide - narrow:
            yield f"{name}: type was {_listed(_types(old))} and is {_listed(_types(new))}"
            return
        yield from self._values(old, new, name)
        yield from self._fields(old, new, path, depth)
        if "items" in old or "items" in new:
            yield from self.differences(old.get("items", {}), new.get("items", {}), f"{path}[]", depth + 1)

    def _values(self, old: Schema, new: Schema, name: str) -> Iterator[str]:
        wide, narrow = self._ordered(_values(old), _values(new))
        if narrow is not None and (wide is None or wide - narrow):
            yield f"{name}: values were {_listed(_values(old))} and are {_listed(_values(new))}"
        for keyword in _BOUNDS:
            before, after = self._ordered(old.get(keyword), new.get(keyword))
            if after is not None and (before is None or (before < after if keyword in _LEAST else before > after)):
                yield f"{name}: {keyword} was {old.get(keyword)} and is {new.get(keyword)}"
        if old.get("pattern") != new.get("pattern"):
            yield f"{name}: the pattern changed"

    def _fields(self, old: Schema, new: Schema, path: str, depth: int) -> Iterator[str]:
        olds, news = old.get("properties", {}), new.get("properties", {})
        needed, given = set(old.get("required", ())), set(new.get("required", ()))
        for field, before in olds.items():
            name = f"{path}.{field}" if path else field
            if field not in news:
                if self._reading or new.get("additionalProperties") is False:
                    yield f"{name}: is gone"
                continue
            if self._reading and field in needed - given:
                yield f"{name}: was always there and is not"
            yield from self.differences(before, news[field], name, depth + 1)
        if not self._reading:
            for field in sorted(given - needed):
                yield f"{path}.{field}: was not required and is" if path else f"{field}: was not required and is"
        elif old.get("additionalProperties") is False:
            for field in news.keys() - olds.keys():
                yield f"{path}.{field}: was not allowed and is" if path else f"{field}: was not allowed and is"
        maps = old.get("additionalProperties"), new.get("additionalProperties")
        if any(isinstance(each, dict) for each in maps):
            before, after = (each if isinstance(each, dict) else {} for each in maps)
            yield from self.differences(before, after, f"{path}.*", depth + 1)

    def _ordered(self, old: Any, new: Any) -> tuple[Any, Any]:
        """What must fit, and what it must fit into."""
        return (new, old) if self._reading else (old, new)


def _followed(schema: Schema, definitions: Schema) -> Schema:
    while "$ref" in schema:
        schema = definitions[schema["$ref"].removeprefix("#/$defs/")]
    return schema


def _alternatives(schema: Schema) -> list[Schema]:
    found: list[Schema] = schema.get("anyOf") or schema.get("oneOf") or [schema]
    return found


def _types(schema: Schema) -> set[str]:
    """Types that fit; whole numbers are numbers."""
    said = schema.get("type", ["array", "boolean", "null", "number", "object", "string"])
    types = {said} if isinstance(said, str) else set(said)
    return types | {"integer"} if "number" in types else types


def _values(schema: Schema) -> set[str] | None:
    """The only values that fit, if there are not many."""
    if "const" in schema:
        return {repr(schema["const"])}
    return {repr(each) for each in schema["enum"]} if "enum" in schema else None


def _listed(names: set[str] | None) -> str:
    return "any" if names is None else " or ".join(sorted(names))
