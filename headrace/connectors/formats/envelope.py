"""Readings of many devices in one message of a gateway.

`{"gateway": "gw-7", "timestamp": …, "readings": [{"device_id": "a", "temperature": 20.5}, …]}`, or the array alone.
"""

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from headrace.connectors.formats.parts import (
    Message,
    NotUnpacked,
    Part,
    check_items,
    check_output,
    dumps,
    kind,
    loads,
    most_output,
)


class EnvelopeFields(BaseModel):
    """Where an envelope has what.

    Args:
        items: field with the array of readings. What stands beside it is part of every reading that has no field of
            this name itself: the gateway, a common time.
        values: field of a reading whose object holds its values; left out they stand in the reading itself.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    items: str = Field("readings", min_length=1)
    values: str | None = Field(None, min_length=1)


class Envelope:
    """Takes an envelope apart: a record per reading, in order. Whose each is, the profile's `device_field` says.

    Args:
        fields: where what is.
    """

    def __init__(self, fields: EnvelopeFields) -> None:
        self._fields = fields

    def __call__(self, message: Message) -> list[Part]:
        """See `headrace.connectors.formats.parts.Unpack`."""
        items, common = self._items(loads(message.payload))
        check_items(len(items))
        made: list[Part] = []
        size, most = 0, most_output(message.payload)
        for place, item in enumerate(items):
            if not isinstance(item, dict):
                raise NotUnpacked(f"reading {place} is {kind(item)}, not an object")
            payload = dumps(self._whole(place, item, common))
            size += len(payload)
            check_output(size, most)
            made.append(Part("", payload))
        if not made:
            raise NotUnpacked("it holds no readings")
        return made

    def _items(self, document: Any) -> tuple[list[Any], dict[str, Any]]:
        if isinstance(document, list):
            return document, {}
        if not isinstance(document, dict):
            raise NotUnpacked(f"payload is {kind(document)}, not an envelope")
        items = document.get(self._fields.items)
        if not isinstance(items, list):
            said = (
                f"{self._fields.items} is {kind(items)}" if items is not None else f"there is no {self._fields.items}"
            )
            raise NotUnpacked(f"{said}; an envelope has the readings there, in an array")
        return items, {name: value for name, value in document.items() if name != self._fields.items}

    def _whole(self, place: int, item: dict[str, Any], common: dict[str, Any]) -> dict[str, Any]:
        name = self._fields.values
        if name is None or name not in item:
            return {**common, **item}
        values = item[name]
        if not isinstance(values, dict):
            raise NotUnpacked(f"{name} of reading {place} is {kind(values)}, not an object")
        rest = {key: value for key, value in item.items() if key != name}
        twice = rest.keys() & values.keys()
        if twice:
            raise NotUnpacked(f"reading {place} gives {min(twice)[:64]!r} twice, once in {name}")
        return {**common, **rest, **values}
