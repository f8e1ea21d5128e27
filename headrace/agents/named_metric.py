"""Ingest: payloads that name their metric. `{"type": "temperature", "value": 70.7, "unit": "F"}`: temperature 21.5."""

from collections.abc import Sequence
from math import isfinite
from typing import Any

from headrace.agents.decode import Document, Reasons, kind
from headrace.schemas.device_type import DeviceType, MetricSpec
from headrace.schemas.units import IDENTITY

#: Characters of a device's text that a reason shows.
SHOWN = 64


def spread(device_type: DeviceType, documents: Sequence[Document], reasons: Reasons) -> list[Document]:
    """The documents with the metric as a field of its own, in the unit that the device type knows it in.

    A metric that the device type does not know becomes an unknown field.

    Args:
        device_type: one with `metric`.
        documents: the payloads; those that have a reason already are left alone.
        reasons: gets an entry for each message that is refused.
    """
    assert device_type.metric is not None
    found = list(documents)
    for place, document in enumerate(documents):
        if place not in reasons:
            try:
                found[place] = _spread(device_type, device_type.metric, document)
            except ValueError as error:
                reasons[place] = str(error)
    return found


def _spread(device_type: DeviceType, spec: MetricSpec, document: Document) -> Document:
    envelope = {spec.name, spec.value, spec.unit}
    rest = {name: value for name, value in document.items() if name not in envelope}
    metric, unit = _text(document, spec.name), _text(document, spec.unit)
    value = document.get(spec.value)
    if metric is None:
        raise ValueError(f"{spec.name} is missing, which names the metric")
    known = device_type.numeric_sources.get(metric)
    if known is None:
        if metric in device_type.known_names:
            raise ValueError(f"{spec.name} is {metric[:SHOWN]!r}, which is no metric")
        name, value = metric, value if unit is None else {"value": value, "unit": unit}
    elif unit is None:
        name = metric
    else:
        name = known[0]
        value = _converted(device_type, name, spec, unit, value)
    if name in rest:
        raise ValueError(f"{name[:SHOWN]} is given twice")
    return rest | {name: value}


def _text(document: Document, name: str | None) -> str | None:
    value = document.get(name) if name else None
    if value is not None and type(value) is not str:
        raise ValueError(f"{name} is {kind(value)}, not a text")
    return value


def _converted(device_type: DeviceType, field: str, spec: MetricSpec, unit: str, value: Any) -> Any:
    units = device_type.reported_units[field]
    linear = units.get(unit)
    if linear is None:
        raise ValueError(f"{spec.unit} of {field} is {unit[:SHOWN]!r}, which is none of {', '.join(units)}")
    if linear == IDENTITY or type(value) not in (int, float):
        return value
    converted = value * linear.scale + linear.offset
    if not isfinite(converted):
        raise ValueError(f"{field} is too large a number")
    return converted
