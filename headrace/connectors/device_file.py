"""Files of devices, as documents of `Device`."""

import re
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

from headrace.connectors.row_file import Kind, Row, file_rows
from headrace.schemas.device import Device

#: Other names that a field comes under, in lower case and without `_`, `-` and spaces.
_NAMES: dict[str, tuple[str, ...]] = {
    "id": ("deviceId",),
    "type": ("deviceType",),
    "organisation": ("organizationId",),
    "organization": ("organizationId",),
    "organisationid": ("organizationId",),
    "gatewayid": ("gateway",),
    "firmware": ("firmwareVersion",),
    "lat": ("location", "lat"),
    "latitude": ("location", "lat"),
    "lon": ("location", "lon"),
    "lng": ("location", "lon"),
    "longitude": ("location", "lon"),
    "address": ("location", "address"),
    **{(field.alias or name).lower(): (field.alias or name,) for name, field in Device.model_fields.items()},
}
#: What other systems' exports have and nobody registers, because it is seen: left out.
SEEN = frozenset({"lastseen", "lastreading", "createdat", "updatedat"})
#: Presence, not a status: such a device is in use.
PRESENCE = frozenset({"online", "offline"})


def device_rows(path: Path) -> Iterator[Row]:
    """The devices of a file; see `headrace.connectors.row_file`.

    Raises:
        ConfigError: the file cannot be read, or its header names something that no device has.
    """
    return file_rows(path, DEVICE_KIND)


def document_of(fields: dict[str, Any]) -> dict[str, Any]:
    """`fields` under the names of `Device`: other spellings understood, `location.lat` nested, empty ones left out.

    >>> document_of({"id": "d1", "Organisation": "acme", "lat": "48.1", "tags": "roof; east", "gateway": ""})
    {'deviceId': 'd1', 'organizationId': 'acme', 'location': {'lat': '48.1'}, 'tags': ['roof', 'east']}
    """
    document: dict[str, Any] = {}
    for name, value in fields.items():
        path = path_of(name)
        if not path or value is None or value == "":
            continue
        place = document
        for part in path[:-1]:
            inner = place.setdefault(part, {})
            place = inner if isinstance(inner, dict) else place
        place[path[-1]] = _READ[path[0]](value) if path[0] in _READ and isinstance(value, str) else value
    return document


def _tags(text: str) -> list[str]:
    return [tag.strip() for tag in re.split("[;,|]", text) if tag.strip()]


def _status(text: str) -> str:
    return "active" if text.lower() in PRESENCE else text.lower()


#: How texts are read that mean more than themselves.
_READ: dict[str, Callable[[str], object]] = {"tags": _tags, "status": _status}


@lru_cache(maxsize=4096)
def path_of(name: str) -> tuple[str, ...]:
    """Where a field of this name is in a document; nowhere, if it is one of `SEEN`. An unknown one keeps its name."""
    first, *rest = name.strip().split(".")
    plain = re.sub(r"[_\- ]", "", first).lower()
    if plain in SEEN:
        return ()
    return (*_NAMES.get(plain, (first,)), *rest)


DEVICE_KIND = Kind(
    "device",
    {field.alias or name for name, field in Device.model_fields.items()},
    _NAMES,
    path_of,
    document_of,
    "id,name,type",
)
