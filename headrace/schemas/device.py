"""Devices of the registry: what `registry.devices` carries, key device id, value a `Device` as JSON.

JSON has the camelCase names of the public schema (`deviceId`, `deviceType`, `organizationId`, `firmwareVersion`); what
has its default is left out, and the same device always gives the same bytes.
"""

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints
from pydantic.alias_generators import to_camel

from headrace.schemas.device_type import TypeName
from headrace.schemas.topics import NO_DEVICE

#: See `Device`. Whether it is online is not in here: that is seen, not registered.
Status = Literal["registered", "active", "maintenance", "retired"]
Name = Annotated[str, StringConstraints(min_length=3, max_length=100)]
Text = Annotated[str, StringConstraints(min_length=1, max_length=200)]
Scalar = bool | int | float | str


def _sendable(value: str) -> str:
    if value == NO_DEVICE or not value.isprintable():
        raise ValueError("no device can have this id: ingest would refuse its messages")
    return value


def _sorted(value: object) -> object:
    if isinstance(value, Mapping) and all(type(key) is str for key in value):
        return dict(sorted(value.items()))
    return value


#: As `headrace.agents.identify` takes them.
DeviceId = Annotated[str, StringConstraints(min_length=1, max_length=256), AfterValidator(_sendable)]
#: Whatever else is known of a device, in the order of its names.
Details = Annotated[dict[Text, Scalar], BeforeValidator(_sorted)]


class _Model(BaseModel):
    model_config = ConfigDict(
        frozen=True, extra="forbid", allow_inf_nan=False, alias_generator=to_camel, populate_by_name=True
    )


class Location(_Model):
    """Where a device stands.

    Args:
        lat, lon: degrees, WGS 84.
        address: for people.
    """

    lat: float | None = Field(None, ge=-90, le=90)
    lon: float | None = Field(None, ge=-180, le=180)
    address: Text | None = None


class Device(_Model):
    """One device.

    Args:
        id: as in its topic or path.
        type: name of a device type; None: what its messages say.
        organisation: whose it is.
        name: for people; readings and alerts carry it.
        location: where it stands.
        gateway: id of the device that its messages come through.
        status: what it is to its owner. registered: announced, not yet in the field; active; maintenance: being worked
            on; retired: nothing of it is taken.
        firmware_version: as the owner wrote it.
        tags: as the owner wrote them.
        metadata, connectivity: anything else, by name (model, serialNumber; type, simId).
    """

    id: DeviceId = Field(alias="deviceId")
    type: TypeName | None = Field(None, alias="deviceType")
    organisation: Text | None = Field(None, alias="organizationId")
    name: Name
    location: Location | None = None
    gateway: Text | None = None
    status: Status = "active"
    firmware_version: Text | None = None
    tags: tuple[Text, ...] = ()
    metadata: Details = Field(default_factory=dict)
    connectivity: Details = Field(default_factory=dict)


def encode_device(device: Device) -> bytes:
    """A device as the topic has it."""
    return device.model_dump_json(by_alias=True, exclude_defaults=True).encode()


def decode_device(value: bytes) -> Device:
    """A device from the topic.

    Raises:
        pydantic.ValidationError: it is none.
    """
    return Device.model_validate_json(value)
