"""What the registries say of an alert's device and metric, for what is sent."""

from collections.abc import Mapping
from typing import NamedTuple

from headrace.schemas import topics
from headrace.schemas.alert import Alert
from headrace.schemas.device import Location, decode_device
from headrace.schemas.device_type import DeviceType
from headrace.schemas.notification import Place
from headrace.tables.replicated import Replicated


class KnownPlace(NamedTuple):
    """Of the registry: where a device stands, for people, and its tags."""

    location: str | None = None
    tags: tuple[str, ...] = ()


_NOWHERE = KnownPlace()


def place_table() -> Replicated[KnownPlace]:
    """The device registry as notifications need it; about 400 bytes per device."""

    def decode(value: bytes) -> KnownPlace:
        device = decode_device(value)
        return KnownPlace(_location(device.location), device.tags)

    return Replicated(topics.DEVICES, decode)


class Places:
    """Says where alerts are.

    Args:
        device_types: by name.
    """

    def __init__(self, device_types: Mapping[str, DeviceType]) -> None:
        self.table = place_table()
        self._types = device_types

    def of(self, alert: Alert, at_ms: int) -> Place:
        """As of an append time, ms."""
        location, tags = self.table.get(alert.deviceId, at_ms) or _NOWHERE
        device_type = self._types.get(alert.deviceType)
        unit = label = None
        if device_type is not None and alert.metric in device_type.units:
            unit = device_type.units[alert.metric]
            spec = device_type.fields.get(alert.metric) or device_type.derived.get(alert.metric)
            label = (spec.description if spec else "") or alert.metric.replace("_", " ")
        return Place(location=location, unit=unit, label=label, tags=tags)


def _location(location: Location | None) -> str | None:
    """The address, or where it is on a map."""
    if location is None:
        return None
    if location.address is not None:
        return location.address
    if location.lat is None or location.lon is None:
        return None
    return f"{location.lat:g}, {location.lon:g}"
