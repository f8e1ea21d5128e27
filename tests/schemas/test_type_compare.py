"""Changes between two versions of a device type."""

from copy import deepcopy
from typing import Any

import pytest

from headrace.schemas.device_type import DeviceType
from headrace.schemas.type_compare import compare

OLD: dict[str, Any] = {
    "name": "pump",
    "version": 3,
    "identity": ["id"],
    "time": {"fields": ["t", "ts"], "formats": ["epoch_ms", "iso8601"], "zone": "UTC", "missing": "append"},
    "metric": {"name": "m", "value": "v"},
    "fields": {
        "flow": {"unit": "m3/h", "min": 0, "max": 10, "aliases": {"f": "L/s"}},
        "total": {"kind": "counter", "type": "integer"},
        "state": {"type": "text", "required": True, "nullable": False},
    },
    "derived": {"double": {"unit": "m3/h", "expression": "flow * 2"}},
}


def changed(path: str, value: Any, version: int = 4) -> DeviceType:
    """`OLD` with one value changed, taken out (None) or put in."""
    made = deepcopy(OLD) | {"version": version}
    *parents, last = path.split(".")
    place = made
    for part in parents:
        place = place[part]
    if value is None:
        del place[last]
    else:
        place[last] = value
    return DeviceType.model_validate(made)


@pytest.mark.parametrize(
    ("path", "value", "told"),
    [
        ("fields.total", None, "fields.total: is gone"),
        ("fields.flow.aliases.f", None, "fields.flow.aliases.f: is gone"),
        ("fields.flow.aliases.f", "m3/h", "fields.flow.aliases.f: was L/s, is m3/h"),
        ("fields.flow.type", "integer", "fields.flow.type: was number, is integer"),
        ("fields.flow.min", 1, "fields.flow.min: was 0.0, is 1.0"),
        ("fields.flow.max", 9, "fields.flow.max: was 10.0, is 9.0"),
        ("fields.total.min", 0, "fields.total.min: was left out, is 0.0"),
        ("fields.total.kind", "gauge", "fields.total.kind: was counter, is gauge"),
        ("fields.flow.required", True, "fields.flow.required: was false, is true"),
        ("fields.flow.nullable", False, "fields.flow.nullable: was true, is false"),
        ("fields.new", {"required": True}, "fields.new: came, and is required"),
        ("unknown_fields", "quarantine", "unknown_fields: was keep, is quarantine"),
        ("identity", ["id", "di"], "identity: di must be the device's id now"),
        ("time.fields", ["ts", "t"], "time.fields: was ['t', 'ts'], is ['ts', 't']"),
        ("time.formats", ["iso8601"], "time.formats: was ['epoch_ms', 'iso8601'], is ['iso8601']"),
        ("time.zone", "Asia/Tokyo", "time.zone: was UTC, is Asia/Tokyo"),
        ("time.missing", "refuse", "time.missing: was append, is refuse"),
        ("metric", None, "metric: is gone"),
        ("metric.unit", "u", "metric.unit: was left out, is u"),
        ("metric.name", "n", "metric.name: was m, is n"),
        ("derived.double", None, "derived.double: is gone"),
        ("derived.double.unit", "L/s", "derived.double.unit: was m3/h, is L/s"),
        ("name", "pumpe", "name: was pump, is pumpe"),
    ],
)
def test_what_would_break_somebody_is_not_compatible(path: str, value: Any, told: str) -> None:
    """Whoever sends messages, or reads what is kept of them."""
    old = DeviceType.model_validate(OLD)
    new = changed(path, value)

    assert [f"{each.place}: {each.what}" for each in compare(old, new) if not each.compatible] == [told]


@pytest.mark.parametrize(
    ("path", "value", "told"),
    [
        ("fields.new", {}, "fields.new: came"),
        ("fields.flow.aliases.g", "L/s", "fields.flow.aliases.g: came"),
        ("fields.flow.min", -1, "fields.flow.min: was 0.0, is -1.0"),
        ("fields.flow.max", None, "fields.flow.max: was 10.0, is left out"),
        ("fields.total.type", "number", "fields.total.type: was integer, is number"),
        ("fields.state.required", False, "fields.state.required: was true, is false"),
        ("fields.state.nullable", True, "fields.state.nullable: was false, is true"),
        ("fields.flow.cadence", 5, "fields.flow.cadence: was left out, is 5.0"),
        ("cadence", 5, "cadence: was left out, is 5.0"),
        ("identity", [], "identity: id need not be the device's id any more"),
        ("time.fields", ["t", "ts", "u"], "time.fields: was ['t', 'ts'], is ['t', 'ts', 'u']"),
        ("derived.double.expression", "flow + flow", "derived.double: is computed in another way"),
        ("derived.more", {"expression": "flow", "unit": "L/s"}, "derived.more: came"),
        ("description", "A pump.", ": descriptions or examples changed"),
    ],
)
def test_what_only_allows_more_is_compatible(path: str, value: Any, told: str) -> None:
    """It is said all the same, and needs a new version."""
    old = DeviceType.model_validate(OLD)
    new = changed(path, value)

    assert [f"{each.place}: {each.what}" for each in compare(old, new)] == [told]
    assert all(each.compatible for each in compare(old, new))
    assert not all(each.compatible for each in compare(old, new.model_copy(update={"version": 3})))


def test_the_same_is_no_change() -> None:
    """A higher version alone is fine, a lower one is not."""
    old = DeviceType.model_validate(OLD)

    assert compare(old, old) == []
    assert compare(old, old.model_copy(update={"version": 4})) == []
    assert not compare(old, old.model_copy(update={"version": 2}))[0].compatible
