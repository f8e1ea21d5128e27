"""JSON Schema (2020-12) of documents, from the models that read and write them and the docstrings of these."""

import re
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
from pydantic import BaseModel, TypeAdapter
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue

from headrace.schemas.docstrings import documented

Schema = dict[str, Any]


def schema_of(model: Any) -> Schema:
    """The schema of what `model` reads: a pydantic model or `TypeAdapter`, or a msgspec struct.

    As strict as the model: what it refuses, unknown fields included, does not fit.
    """
    found: Schema
    if isinstance(model, TypeAdapter):
        found = model.json_schema(schema_generator=_Documented)
        return found
    if issubclass(model, BaseModel):
        found = model.model_json_schema(schema_generator=_Documented)
        return found
    (made,), definitions = msgspec.json.schema_components([model], ref_template="#/$defs/{name}")
    for struct in _structs(model):
        _describe(definitions[struct.__name__], struct, {})
    root = definitions.pop(made["$ref"].rpartition("/")[2])
    return {**root, **({"$defs": definitions} if definitions else {})}


def opened(schema: Schema) -> Schema:
    """For who reads: the same, but that objects may have fields that are not known yet."""
    return _changed(schema, lambda each: each.pop("additionalProperties", None) if _is_closed(each) else None)


def closed(schema: Schema) -> Schema:
    """The same, but that objects have no fields other than those described."""
    return _changed(schema, lambda each: each.setdefault("additionalProperties", False) if _has_names(each) else None)


class _Documented(GenerateJsonSchema):
    """Descriptions from docstrings, no titles of fields, nothing that only other dialects know."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False

    def model_schema(self, schema: Any) -> JsonSchemaValue:
        made, model = super().model_schema(schema), schema["cls"]
        _describe(made, model, {name: field.alias or name for name, field in model.model_fields.items()})
        return made

    def tagged_union_schema(self, schema: Any) -> JsonSchemaValue:
        made = super().tagged_union_schema(schema)
        made.pop("discriminator", None)
        if isinstance(tag := schema["discriminator"], str):
            for each in made["oneOf"]:  # the tag has a default in each model, and is needed all the same
                required = self.resolve_ref_schema(each).setdefault("required", [])
                if tag not in required:
                    required.insert(0, tag)
        return made


def _describe(made: Schema, model: type, aliases: dict[str, str]) -> None:
    """Put in what the docstring says; names of fields in it become those of the document."""
    summary, meanings = documented(model)

    def public(text: str) -> str:
        named = re.sub(r"`(\w+)`", lambda found: f"`{aliases.get(found[1], found[1])}`", text)
        return re.sub(r"\bNone\b", "null", named)

    made["description"] = public(summary)
    for name, meaning in meanings.items():
        field = made["properties"].get(aliases.get(name, name))
        if field is not None:
            field["description"] = public(meaning)


def _structs(model: Any) -> Iterator[type]:
    """The struct and those within it."""
    if isinstance(model, type) and issubclass(model, msgspec.Struct):
        yield model
        for field in msgspec.structs.fields(model):
            yield from _structs(field.type)


def _is_closed(schema: Schema) -> bool:
    return schema.get("additionalProperties") is False and "properties" in schema


def _has_names(schema: Schema) -> bool:
    return "properties" in schema


def _changed(schema: Schema, change: Callable[[Schema], Any]) -> Schema:
    """A copy in which `change` was made to every object schema; names of properties are no schemas."""

    def walk(value: Any, *, names: bool = False) -> Any:
        if isinstance(value, list):
            return [walk(each) for each in value]
        if not isinstance(value, dict):
            return value
        copy = {
            key: each if key in _DATA and not names else walk(each, names=key in _NAMED and not names)
            for key, each in value.items()
        }
        if not names:
            change(copy)
        return copy

    made: Schema = walk(schema)
    return made


#: Keywords that hold schemas by name, and keywords that hold data.
_NAMED = ("properties", "$defs", "patternProperties")
_DATA = ("default", "examples", "const", "enum")
