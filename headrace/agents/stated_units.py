"""Ingest: payloads that state units of their values. `{"temp": 70.7, "$units": {"temp": "degF"}}`: temperature 21.5."""

from collections.abc import Sequence
from math import isfinite
from typing import Any

from headrace.agents.decode import Document, Reasons, kind
from headrace.schemas.device_type import DeviceType
from headrace.schemas.units import IDENTITY, STATED_UNITS

#: Characters of a device's text that a reason shows.
SHOWN = 64


def convert(device_type: DeviceType, documents: Sequence[Document], reasons: Reasons) -> list[Document]:
    """The documents with such values in the units that the device type knows them in, and nothing more of the units.

    A value that the device type does not know is kept with its unit.

    Args:
        device_type: of all documents.
        documents: the payloads; those that have a reason already are left alone.
        reasons: gets an entry for each message that is refused.
    """
    found = list(documents)
    for place, document in enumerate(documents):
        if place not in reasons and STATED_UNITS in document:
            try:
                found[place] = _converted(device_type, document)
            except ValueError as error:
                reasons[place] = str(error)
    return found


def _converted(device_type: DeviceType, document: Document) -> Document:
    rest = {name: value for name, value in document.items() if name != STATED_UNITS}
    units = document[STATED_UNITS]
    if not isinstance(units, dict):
        raise ValueError(f"{STATED_UNITS} is {kind(units)}, not an object")
    for name, unit in units.items():
        if type(unit) is not str:
            raise ValueError(f"{STATED_UNITS}: that of {name[:SHOWN]} is {kind(unit)}, not a text")
        if name in rest:
            field, value = _in_known_unit(device_type, name, unit, rest.pop(name))
            if field in rest:
                raise ValueError(f"{field[:SHOWN]} is given twice")
            rest[field] = value
    return rest


def _in_known_unit(device_type: DeviceType, name: str, unit: str, value: Any) -> tuple[str, Any]:
    """The field that a value belongs to, and the value in the unit of that field."""
    known = device_type.numeric_sources.get(name)
    if known is None:
        return name, value if name in device_type.known_names else {"value": value, "unit": unit}
    field = known[0]
    units = device_type.reported_units[field]
    linear = units.get(unit)
    if linear is None:
        raise ValueError(f"unit of {field} is {unit[:SHOWN]!r}, which is none of {', '.join(units)}")
    if linear == IDENTITY or type(value) not in (int, float):
        return field, value
    converted = value * linear.scale + linear.offset
    if not isfinite(converted):
        raise ValueError(f"{field} is too large a number")
    return field, converted
