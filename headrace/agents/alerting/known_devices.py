"""What the device registry says of a device, as alerts need it."""

from typing import NamedTuple

from headrace.schemas import topics
from headrace.schemas.device import Status, decode_device
from headrace.tables.replicated import Replicated


class KnownDevice(NamedTuple):
    """Of the registry."""

    name: str | None = None
    organisation: str | None = None
    gateway: str | None = None
    status: Status = "active"
    device_type: str | None = None


STRANGER = KnownDevice()


def device_table() -> Replicated[KnownDevice]:
    """The device registry as alerts need it; about 500 bytes per device."""

    def decode(value: bytes) -> KnownDevice:
        device = decode_device(value)
        return KnownDevice(device.name, device.organisation, device.gateway, device.status, device.type)

    return Replicated(topics.DEVICES, decode)
