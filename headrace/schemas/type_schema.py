"""JSON Schema (2020-12): of device type files, and of the payloads that a device type reads.

`python -m headrace.schemas.type_schema` writes the one of the files to docs/reference/device-type.schema.json.
"""

from pathlib import Path
from typing import Any

import orjson

from headrace.schemas.device_type import (
    DerivedSpec,
    DeviceType,
    Example,
    FieldSpec,
    MetricSpec,
    TimeSpec,
)
from headrace.schemas.docstrings import documented
from headrace.schemas.simulate import Simulate
from headrace.schemas.units import IDENTITY, Linear

DIALECT = "https://json-schema.org/draft/2020-12/schema"
PUBLISHED = Path(__file__).parent.parent.parent / "docs" / "reference" / "device-type.schema.json"

Schema = dict[str, Any]
_TIMES: dict[str, Schema] = {
    "epoch_ms": {"type": "number", "description": "ms since 1970 UTC"},
    "epoch_s": {"type": "number", "description": "seconds since 1970 UTC"},
    "iso8601": {"type": "string", "description": "ISO 8601"},
}


def file_schema() -> Schema:
    """The schema of a device type file, for editors."""
    schema = DeviceType.model_json_schema()
    for model in (DerivedSpec, DeviceType, Example, FieldSpec, MetricSpec, Simulate, TimeSpec):
        described = schema if model is DeviceType else schema["$defs"][model.__name__]
        summary, meanings = documented(model)
        described["description"] = summary
        for name, each in described["properties"].items():
            if name in meanings:
                each["description"] = meanings[name]
    for name in ("fields", "derived"):
        # Pydantic gives the pattern of the names, and leaves others open.
        schema["properties"][name]["additionalProperties"] = False
    return {"$schema": DIALECT, **schema, "title": "headrace device type"}


def written_schema() -> bytes:
    """`file_schema` as it is published."""
    return orjson.dumps(file_schema(), option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)


def payload_schema(device_type: DeviceType) -> Schema:
    """The schema of the payloads that `device_type` accepts. It cannot say that a field comes under one name only."""
    properties: dict[str, Schema] = {
        name: {"anyOf": [_TIMES[each] for each in device_type.time.formats]} for name in device_type.time.fields
    }
    properties |= {name: {"type": ["string", "null"], "description": "device id"} for name in device_type.identity}
    needed: list[Schema] = []
    if device_type.time.missing == "refuse":
        needed.append(_one_of(list(device_type.time.fields)))
    for name, spec in device_type.fields.items():
        if device_type.metric is None or spec.type == "text":
            for payload_name, unit in {name: spec.unit, **spec.aliases}.items():
                properties[payload_name] = _value(spec, device_type.conversion(spec.unit, unit))
            if spec.required:
                needed.append(_one_of([name, *spec.aliases]))
    if device_type.metric is not None:
        properties |= _envelope(device_type, device_type.metric)
        needed.append({"required": [device_type.metric.name, device_type.metric.value]})
    return {
        "$schema": DIALECT,
        "title": f"payload of {device_type.name}, version {device_type.version}",
        "description": device_type.description,
        "type": "object",
        "properties": properties,
        "additionalProperties": device_type.unknown_fields == "keep",
        **({"allOf": needed} if needed else {}),
    }


def _envelope(device_type: DeviceType, spec: MetricSpec) -> dict[str, Schema]:
    known: Schema = {"type": "string"}
    if device_type.unknown_fields == "quarantine":
        known["enum"] = list(device_type.numeric_sources)
    else:
        known["examples"] = list(device_type.numeric_sources)
    envelope: dict[str, Schema] = {spec.name: known, spec.value: {"type": ["number", "boolean", "null"]}}
    if spec.unit:
        envelope[spec.unit] = {"type": ["string", "null"]}
    return envelope


def _value(spec: FieldSpec, reported: Linear) -> Schema:
    whole = spec.type == "integer" and reported == IDENTITY
    kind = {"text": "string", "boolean": "boolean"}.get(spec.type, "integer" if whole else "number")
    null = spec.nullable and not (spec.required and not spec.aliases)
    schema: Schema = {"type": [kind, "null"] if null else kind}
    for name, bound in (("minimum", spec.min), ("maximum", spec.max)):
        if bound is not None:
            schema[name] = bound * reported.scale + reported.offset
    if spec.description:
        schema["description"] = spec.description
    return schema


def _one_of(names: list[str]) -> Schema:
    return {"required": names} if len(names) == 1 else {"anyOf": [{"required": [name]} for name in names]}


if __name__ == "__main__":
    PUBLISHED.write_bytes(written_schema())
