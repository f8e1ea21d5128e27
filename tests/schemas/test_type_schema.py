"""JSON Schemas: of device type files, and of payloads."""

import tomllib
from importlib import resources
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from headrace.schemas.device_type import DeviceType
from headrace.schemas.type_schema import PUBLISHED, file_schema, payload_schema, written_schema
from headrace.tables.device_types import load_device_types

TYPES = load_device_types()
FILES = sorted((resources.files("headrace.schemas") / "types").iterdir(), key=lambda file: file.name)
BOILER = DeviceType.model_validate(
    {
        "name": "boiler",
        "unknown_fields": "quarantine",
        "fields": {
            "temperature": {"unit": "degC", "min": 0, "max": 100, "required": True, "aliases": {"temp_f": "degF"}},
            "burning": {"type": "boolean", "nullable": False},
            "starts": {"type": "integer"},
            "note": {"type": "text"},
        },
    }
)


def test_the_published_schema_is_up_to_date() -> None:
    """`python -m headrace.schemas.type_schema` writes it anew."""
    assert PUBLISHED.read_bytes() == written_schema()


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_the_files_that_ship_fit_their_schema(file: Any) -> None:
    """What an editor would say of them: nothing."""
    Draft202012Validator.check_schema(file_schema())
    Draft202012Validator(file_schema()).validate(tomllib.loads(file.read_text()))


@pytest.mark.parametrize(
    "wrong",
    [{"colour": 1}, {"fields": {}}, {"fields": {"a b": {}}}, {"name": "A B"}, {"fields": {"a": {"kind": "x"}}}],
)
def test_mistakes_do_not_fit_the_schema(wrong: dict[str, Any]) -> None:
    """Keys that do not exist, names that cannot be columns, values that are none of a list."""
    assert not Draft202012Validator(file_schema()).is_valid({"name": "a", "fields": {"a": {}}, **wrong})


@pytest.mark.parametrize("device_type", TYPES.values(), ids=lambda each: each.name)
def test_payload_schemas_are_schemas(device_type: DeviceType) -> None:
    """Of every shipped type."""
    Draft202012Validator.check_schema(payload_schema(device_type))


@pytest.mark.parametrize(
    ("more", "fits"),
    [
        ({"temperature": 50}, True),
        ({"temp_f": 212}, True),
        ({"temp_f": 213}, False),
        ({"temperature": None}, True),
        ({}, False),
        ({"temperature": 1, "burning": True, "starts": 3, "note": "x"}, True),
        ({"temperature": 1, "burning": None}, False),
        ({"temperature": 1, "starts": 1.5}, False),
        ({"temperature": 1, "note": 5}, False),
        ({"temperature": 1, "colour": 5}, False),
        ({"temperature": 1, "timestamp": True}, False),
    ],
)
def test_payload_schemas_say_what_is_accepted(more: dict[str, Any], fits: bool) -> None:
    """Types, ranges in the unit of the name, what is required, what is unknown."""
    assert Draft202012Validator(payload_schema(BOILER)).is_valid({"timestamp": 1, **more}) == fits


def test_payloads_that_name_their_metric() -> None:
    """The envelope is described, not the metrics."""
    validator = Draft202012Validator(payload_schema(TYPES["aggregator"]))

    assert validator.is_valid({"sensor_id": "s1", "type": "temperature", "value": 21.5, "location": "hall"})
    assert not validator.is_valid({"sensor_id": "s1", "value": 21.5, "location": "hall"})
    assert not validator.is_valid({"type": "temperature", "value": 21.5})
