"""Topic profiles: which MQTT topics are taken, where the device id stands in them, and which device type reads them."""

from collections.abc import Sequence
from typing import NamedTuple

from pydantic import BaseModel, ConfigDict, Field, field_validator

#: Topics remembered; at the limit the memory starts over. About 250 bytes each.
MAX_CACHED_TOPICS = 200_000


class TopicProfile(BaseModel):
    """One kind of topic.

    Args:
        name: of the profile; goes into a header of every record.
        topic_filter: MQTT filter; its first `+` is the device id.
        device_type: name of the device type that the payloads are read with.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(min_length=1)
    topic_filter: str = Field(min_length=1)
    device_type: str = Field(min_length=1)

    @field_validator("topic_filter")
    @classmethod
    def _check_filter(cls, value: str) -> str:
        levels = value.split("/")
        if "+" not in levels:
            raise ValueError("needs a `+` level where the device id stands, as in dt/devices/+/telemetry")
        if any("+" in level and level != "+" for level in levels):
            raise ValueError("`+` must be a level of its own")
        if "#" in value and (levels[-1] != "#" or value.count("#") > 1):
            raise ValueError("`#` must be the last level, alone")
        return value

    def device_id(self, topic: str) -> str | None:
        """The device id in `topic`; None if the topic is not of this profile."""
        wanted, given = self.topic_filter.split("/"), topic.split("/")
        if wanted[-1] == "#":
            wanted.pop()
            given = given[: max(len(wanted), len(given[: len(wanted)]))]
        if len(wanted) != len(given):
            return None
        if any(level not in ("+", part) for level, part in zip(wanted, given, strict=True)):
            return None
        return given[wanted.index("+")]

    def overlaps(self, other: "TopicProfile") -> bool:
        """Whether some topic is of both profiles."""
        left, right = self.topic_filter.split("/"), other.topic_filter.split("/")
        for one, two in zip(left, right, strict=False):
            if "#" in (one, two):
                return True
            if one != two and "+" not in (one, two):
                return False
        return len(left) == len(right) or "#" in (left[len(right) :] or right[len(left) :])[:1]


class Route(NamedTuple):
    """Where a topic leads."""

    profile: TopicProfile
    device_id: bytes


class TopicRoutes:
    """Finds the profile of a topic and remembers the answer.

    >>> profile = TopicProfile(name="standard", topic_filter="dt/devices/+/telemetry", device_type="environmental")
    >>> TopicRoutes([profile]).find(b"dt/devices/roof-7/telemetry").device_id
    b'roof-7'
    """

    def __init__(self, profiles: Sequence[TopicProfile]) -> None:
        self._profiles = profiles
        self._known: dict[bytes, Route | None] = {}

    def find(self, topic: bytes) -> Route | None:
        """The route of `topic`; None if no profile takes it, the device id is empty, or it is not UTF-8."""
        try:
            return self._known[topic]
        except KeyError:
            if len(self._known) >= MAX_CACHED_TOPICS:
                self._known.clear()
            route = self._known[topic] = self._look_up(topic)
            return route

    def _look_up(self, topic: bytes) -> Route | None:
        try:
            text = topic.decode()
        except UnicodeDecodeError:
            return None
        for profile in self._profiles:
            device_id = profile.device_id(text)
            if device_id:
                return Route(profile, device_id.encode())
        return None
