"""What `headrace devices import` imports."""

from collections.abc import Mapping
from functools import partial

from pydantic import ValidationError

from headrace.cli.registry_import import Importable
from headrace.connectors.device_file import DEVICE_KIND
from headrace.schemas.device import Device, encode_device
from headrace.schemas.device_type import DeviceType
from headrace.schemas.text import near
from headrace.tables.devices import DeviceRegistry


def devices_of_file(device_types: Mapping[str, DeviceType]) -> Importable[Device]:
    """Devices of these types, by name."""
    check = partial(check_device, device_types=device_types)
    return Importable(DEVICE_KIND, lambda device: device.id, check, _to_write, DeviceRegistry)


def check_device(document: object, device_types: Mapping[str, DeviceType]) -> tuple[Device | None, list[str]]:
    """The device of a document, and what is wrong with it."""
    try:
        device = Device.model_validate(document)
    except ValidationError as error:
        return None, [
            f"{'.'.join(map(str, each['loc']))}: {each['msg'].removeprefix('Value error, ')}"
            for each in error.errors(include_input=False, include_url=False, include_context=False)
        ]
    if device.type is not None and device.type not in device_types:
        known = ", ".join(sorted(device_types))
        return device, [f"deviceType: there is no {device.type!r}; there are {known}{near(device.type, device_types)}"]
    return device, []


def _to_write(device: Device, stored: bytes | None) -> Device | None:
    return None if stored == encode_device(device) else device
