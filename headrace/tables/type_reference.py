"""The page of the shipped device types. `python -m headrace.tables.type_reference` writes it anew."""

from collections.abc import Iterator
from pathlib import Path

from headrace.schemas.device_type import DeviceType, FieldSpec
from headrace.tables.device_types import load_device_types

PAGE = Path(__file__).parent.parent.parent / "docs" / "reference" / "device-types.md"

_HEAD = """\
# Device types that ship

Made from `headrace/schemas/types/` by `python -m headrace.tables.type_reference`. How to describe one of your own:
[the guide](../guides/device-types.md). The format: [device-type.schema.json](device-type.schema.json).
"""


def reference() -> str:
    """The whole page."""
    return "\n".join([_HEAD, *(line for each in load_device_types().values() for line in section(each))])


def section(device_type: DeviceType) -> Iterator[str]:
    """The lines about one device type, in Markdown."""
    time = device_type.time
    yield f"## {device_type.name}\n"
    yield f"{device_type.description} Version {device_type.version}.\n"
    if device_type.cadence:
        yield f"- A message every {device_type.cadence:g} s."
    zone = f", without an offset in {time.zone}" if time.zone else ""
    missing = "; without one it is the append time" if time.missing == "append" else ""
    yield f"- Time: {_names(time.fields)}, as {' or '.join(time.formats)}{zone}{missing}."
    yield f"- Device id, where the payload has one: {_names(device_type.identity)}."
    if device_type.metric:
        spec = device_type.metric
        unit = f", its unit in `{spec.unit}`" if spec.unit else ""
        yield f"- One metric per message: its name in `{spec.name}`, its value in `{spec.value}`{unit}."
    kept = {"keep": "kept in `extra`", "quarantine": "dead-lettered"}[device_type.unknown_fields]
    yield f"- Unknown fields are {kept}.\n"
    yield "| Field | Unit | Range | Other names | |"
    yield "|---|---|---|---|---|"
    for name, field in device_type.fields.items():
        yield f"| `{name}` | {_unit(field.unit)} | {_range(field)} | {_aliases(field)} | {_notes(field)} |"
    for name, derived in device_type.derived.items():
        formula = " ".join(derived.expression.split())
        where = ", ".join(f"{constant} = {value}" for constant, value in derived.constants.items())
        unit = _unit(derived.unit) or "without a unit"
        yield f"\n`{name}`, {unit}, is derived: `{formula}`{' with ' * bool(where)}{where}."
    yield ""


def _names(names: tuple[str, ...]) -> str:
    return " or ".join(f"`{name}`" for name in names)


def _unit(unit: str) -> str:
    return "" if unit in ("", "1") else unit


def _range(field: FieldSpec) -> str:
    if field.min is not None and field.max is not None:
        return f"{field.min:,g} to {field.max:,g}"
    return f"from {field.min:,g}" if field.min is not None else f"to {field.max:,g}" if field.max is not None else ""


def _aliases(field: FieldSpec) -> str:
    return ", ".join(f"`{name}`{f' in {unit}' * (unit != field.unit)}" for name, unit in field.aliases.items())


def _notes(field: FieldSpec) -> str:
    notes: list[str] = [] if field.type == "number" else [field.type]
    notes += ["counter"] * (field.kind == "counter") + ["required"] * field.required
    notes += [] if field.nullable else ["not null"]
    notes += [f"every {field.cadence:g} s"] if field.cadence else []
    return "; ".join(each for each in (", ".join(notes), field.description) if each)


if __name__ == "__main__":
    PAGE.write_text(reference(), encoding="utf-8")
