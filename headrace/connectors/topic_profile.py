"""Topic profiles: which MQTT topics are taken, whose messages those carry, how they are read, and what is an alarm."""

import re
from collections.abc import Collection, Mapping, Sequence
from itertools import combinations
from typing import Annotated, Any, NamedTuple, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, field_validator, model_validator

from headrace.connectors.formats import (
    NAMES_DEVICES,
    WRITES_TIME,
    EnvelopeFields,
    FormatName,
    SenmlNames,
    SequenceField,
    Unpack,
    unpacker,
)
from headrace.engine.errors import ConfigError
from headrace.schemas.device_type import DeviceType
from headrace.schemas.text import near

DEVICE, TYPE = "{device}", "{type}"
#: Levels that take any text.
_ANY = ("+", DEVICE, TYPE)


def _listed(value: object) -> object:
    return value if isinstance(value, list | tuple) else [value]


#: One, or a list of them.
_Names = Annotated[tuple[Annotated[str, Field(min_length=1)], ...], BeforeValidator(_listed)]


class Alarm(BaseModel):
    """Which messages of a profile are alarms: those whose field has one of these values, or without a field all.

    Args:
        field: of the payload, at its top level.
        values: texts, numbers, true or false; compared exactly.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    field: str | None = Field(None, min_length=1)
    values: Annotated[tuple[Any, ...], BeforeValidator(_listed)] = ()

    @field_validator("values")
    @classmethod
    def _scalar(cls, values: tuple[Any, ...]) -> tuple[Any, ...]:
        if not all(isinstance(each, str | bool | int | float) for each in values):
            raise ValueError("must be texts, numbers, true or false")
        return values

    @model_validator(mode="after")
    def _together(self) -> Self:
        if (self.field is None) == bool(self.values):
            raise ValueError("field and values belong together")
        return self


class Found(NamedTuple):
    """What a topic says; None where it says nothing about it."""

    device_id: str | None
    device_type: str


class TopicProfile(BaseModel):
    """One kind of topic.

    Args:
        name: of the profile; goes into a header of every record.
        topic: as devices publish to it, with `{device}` where the device id stands, `{type}` where its type does, and
            MQTT's `+` and `#` for the rest.
        device_type: name of the device type that the payloads are read with.
        device_types: instead of it with `{type}`: all that may stand there.
        device_field: without `{device}`, the payload's field with the device id; of several the first that has a text.
        alarm: which messages overtake the others: all (true), or by a field of the payload.
        format: what payloads are; `json`, one object of one device, goes into the log as it was sent.
        time_field: with a format that has times: the field that they become, ms since 1970 UTC.
        senml: with `senml-json` and `senml-cbor`: how names are divided into device and metric.
        envelope: with `envelope`: where it has what.
        sequence: where the payload, or what is unpacked of it, has a sequence number.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(min_length=1, max_length=64)
    topic: str = Field(min_length=1, max_length=1024)
    device_type: str = ""
    device_types: _Names = ()
    device_field: _Names = ()
    alarm: Alarm | None = None
    format: FormatName = "json"
    time_field: str = Field("timestamp", min_length=1)
    senml: SenmlNames = SenmlNames()
    envelope: EnvelopeFields = EnvelopeFields()
    sequence: SequenceField | None = None

    @field_validator("topic")
    @classmethod
    def _check_topic(cls, topic: str) -> str:
        levels = topic.split("/")
        wrong = []
        for place, level in enumerate(levels):
            if level in _ANY or (level == "#" and place == len(levels) - 1):
                continue
            if "#" in level:
                wrong.append("`#` must be the last level, alone")
            if "+" in level or any(each in level for each in (DEVICE, TYPE)):
                wrong.append(f"{level}: +, {DEVICE} and {TYPE} must be a level of their own")
            elif re.search(r"[{}]", level):
                wrong.append(f"{level}: there are only {DEVICE} and {TYPE}")
        wrong += [f"{each} stands there twice" for each in (DEVICE, TYPE) if levels.count(each) > 1]
        if levels[0] == "$share":
            wrong.append("leave $share and the group out")
        if "\0" in topic:
            wrong.append("must not contain U+0000")
        if wrong:
            raise ValueError("; ".join(wrong))
        return topic

    @field_validator("alarm", mode="before")
    @classmethod
    def _read_alarm(cls, value: object) -> object:
        if isinstance(value, bool):
            return Alarm() if value else None
        if not (value is None or isinstance(value, Alarm) or (isinstance(value, dict) and value)):
            raise ValueError('write true, or { field = "status", values = ["alarm"] }')
        return value

    @model_validator(mode="after")
    def _check_places(self) -> Self:
        levels = self.topic.split("/")
        if self.format == "sparkplug":
            self._check_sparkplug(levels)
            return self
        wrong = []
        if self.format in NAMES_DEVICES and self.device_field:
            wrong.append(f"payloads of format {self.format} name their devices: leave device_field out")
        elif DEVICE not in levels and not self.device_field and self.format not in NAMES_DEVICES:
            wrong.append(f"put {DEVICE} into topic, or name the payload's field with the device id as device_field")
        if DEVICE in levels and self.format in ("envelope", "thingsboard-gateway"):
            wrong.append(f"format {self.format} is of several devices: put + where {DEVICE} stands in topic")
        if DEVICE in levels and self.device_field:
            wrong.append(f"the device id is {DEVICE} in topic, or in device_field, not both")
        if TYPE not in levels and not (self.device_type and not self.device_types):
            wrong.append(f"name the device_type that payloads are read with; device_types belongs to {TYPE} in topic")
        if TYPE in levels and not (self.device_types and not self.device_type):
            wrong.append(f"with {TYPE} in topic list the device_types that may stand there, instead of device_type")
        fit = {"senml": self.format.startswith("senml"), "envelope": self.format == "envelope"}
        fit["time_field"] = self.format in WRITES_TIME
        wrong += [
            f"{option} is nothing for format {self.format}"
            for option, fits in fit.items()
            if option in self.model_fields_set and not fits
        ]
        if self.format == "chirpstack" and self.sequence is not None:
            wrong.append("format chirpstack has the frame counter as its sequence number: leave sequence out")
        if wrong:
            raise ValueError("; ".join(wrong))
        return self

    def unpacker(self) -> Unpack | None:
        """Makes records of a payload; None where it goes into the log as it is."""
        return unpacker(
            self.format,
            time_field=self.time_field,
            senml=self.senml,
            envelope=self.envelope,
            sequence=self.sequence,
        )

    def _check_sparkplug(self, levels: Sequence[str]) -> None:
        wrong = []
        if levels[0] != "spBv1.0":
            wrong.append("topics of Sparkplug B begin with spBv1.0/, as in spBv1.0/#")
        if {DEVICE, TYPE} & set(levels) or self.device_field or self.device_types:
            wrong.append(
                f"with Sparkplug leave {DEVICE}, {TYPE}, device_field and device_types out: its topics are known"
            )
        if not self.device_type:
            wrong.append("name the device_type that payloads are read with")
        if self.alarm is not None or self.sequence is not None:
            wrong.append("leave alarm and sequence out: no Sparkplug message is an alarm, and all are numbered")
        if wrong:
            raise ValueError("; ".join(wrong))

    @property
    def topic_filter(self) -> str:
        """What to subscribe to."""
        return "/".join("+" if level in _ANY else level for level in self.topic.split("/"))

    def find(self, topic: str) -> Found | None:
        """What `topic` says; None if it is not of this profile, by MQTT's rules, or a place in it is empty."""
        wanted, given = self.topic.split("/"), topic.split("/")
        if topic.startswith("$") and wanted[0] != given[0]:
            return None  # MQTT 4.7.2: a wildcard does not take the server's own topics
        if wanted[-1] == "#":
            wanted.pop()
            given = given[: len(wanted)]
        if len(wanted) != len(given):
            return None
        if any(level != part and level not in _ANY for level, part in zip(wanted, given, strict=True)):
            return None
        said = dict(zip(wanted, given, strict=True))
        device_id, device_type = said.get(DEVICE), said.get(TYPE, self.device_type)
        if device_id == "" or (TYPE in said and device_type not in self.device_types):
            return None
        return Found(device_id, device_type)

    def resembling(self, topic: str) -> str:
        """The topic of this profile that is most like `topic`; a placeholder stays where `topic` has nothing for it."""
        said = dict(zip(self.topic.split("/"), topic.split("/"), strict=False))
        if said.get(TYPE) not in self.device_types:
            said.pop(TYPE, None)
        return "/".join((level in _ANY and said.get(level)) or level for level in self.topic.split("/"))

    def overlaps(self, other: "TopicProfile") -> bool:
        """Whether some topic is of both profiles."""
        left, right = self.topic_filter.split("/"), other.topic_filter.split("/")
        for one, two in zip(left, right, strict=False):
            if "#" in (one, two):
                return True
            if one != two and "+" not in (one, two):
                return False
        return len(left) == len(right) or "#" in (left[len(right) :] or right[len(left) :])[:1]


def _check_together(profiles: tuple[TopicProfile, ...]) -> tuple[TopicProfile, ...]:
    if not profiles:
        raise ValueError("at least one is needed")
    wrong = []
    for one, two in combinations(profiles, 2):
        if one.name == two.name:
            wrong.append(f"two profiles are named {one.name}")
        if one.format == two.format == "sparkplug":
            wrong.append(f"profiles {one.name} and {two.name}: one with Sparkplug is enough, on spBv1.0/#")
        if one.overlaps(two):
            wrong.append(f"profiles {one.name} and {two.name} take the same topics")
    if wrong:
        raise ValueError("; ".join(wrong))
    return profiles


#: Profiles that may be used together.
TopicProfiles = Annotated[tuple[TopicProfile, ...], AfterValidator(_check_together)]


def check_device_types(profiles: Sequence[TopicProfile], known: Mapping[str, DeviceType]) -> None:
    """Check that the device types that profiles name are among these, and read the times that a format writes.

    Raises:
        ConfigError: all that are not, or do not.
    """
    wrong = []
    for profile in profiles:
        for name in profile.device_types or [profile.device_type]:
            if name not in known:
                wrong.append(f"profile {profile.name}: device type {name!r} is unknown{near(name, known)}")
            elif profile.format in WRITES_TIME:
                wrong += _time_mistakes(profile, known[name])
    if wrong:
        raise ConfigError(*wrong)


def _time_mistakes(profile: TopicProfile, device_type: DeviceType) -> list[str]:
    spec, name = device_type.time, device_type.name
    begin = f"profile {profile.name}: format {profile.format} writes times"
    wrong = []
    if profile.time_field not in spec.fields:
        wrong.append(
            f"{begin} to {profile.time_field!r}, but device type {name!r} reads {' or '.join(spec.fields)}: "
            "set time_field"
        )
    if "epoch_ms" not in spec.formats:
        wrong.append(f"{begin} in ms, but device type {name!r} reads no epoch_ms")
    return wrong


def check_device_type(where: str, name: str, known: Collection[str]) -> None:
    """Check that a device type that the settings name in `where` is among these.

    Raises:
        ConfigError: it is not.
    """
    if name not in known:
        raise ConfigError(f"{where}: device type {name!r} is unknown{near(name, known)}")


#: Used where nobody says otherwise.
SHIPPED: tuple[TopicProfile, ...] = (
    TopicProfile(name="devices", topic="dt/devices/{device}/telemetry", device_type="environmental"),
    TopicProfile(name="collector", topic="iot/data", device_type="collector", device_field=("device_id",)),
)
