"""Where topics lead: the profile, device id and device type of each, remembered."""

from collections.abc import Sequence
from typing import NamedTuple

from headrace.connectors.formats import Unpack
from headrace.connectors.payload_fields import PayloadFields
from headrace.connectors.topic_profile import TopicProfile
from headrace.schemas.topics import NO_DEVICE, NO_PROFILE

#: Topics remembered; at the limit the memory starts over. About 300 bytes each.
MAX_CACHED_TOPICS = 200_000
#: Longer topics are looked up each time, bytes.
MAX_CACHED_BYTES = 256
#: No profile takes a longer topic, bytes.
MAX_TOPIC_BYTES = 1024


class Route(NamedTuple):
    """Where a topic leads.

    Args:
        device_id: empty where the payload says it.
        device_type, profile: their names.
        fields: looks into the payload; None where the topic says all.
        unpack: makes records of the payload; None where it is one.
    """

    device_id: bytes
    device_type: str
    profile: str
    fields: PayloadFields | None
    unpack: Unpack | None = None


#: Of a topic that no profile takes, that names no device, or is not UTF-8.
UNKNOWN = Route(NO_DEVICE.encode(), "", NO_PROFILE, None)


class TopicRoutes:
    """Finds the routes of topics. What no profile takes is not remembered: it must not push out what is known.

    >>> profile = TopicProfile(name="standard", topic="dt/devices/{device}/telemetry", device_type="environmental")
    >>> TopicRoutes([profile]).find([b"dt/devices/roof-7/telemetry"])[0].device_id
    b'roof-7'
    """

    def __init__(self, profiles: Sequence[TopicProfile]) -> None:
        self._profiles = [
            (
                each,
                PayloadFields(each.device_field, each.alarm) if each.device_field or each.alarm else None,
                each.unpacker(),
            )
            for each in profiles
        ]
        self._known: dict[bytes, Route] = {}

    def find(self, topics: Sequence[bytes]) -> list[Route]:
        """The route of each topic."""
        known = self._known
        try:
            return list(map(known.__getitem__, topics))
        except KeyError:
            return [known.get(topic) or self._look_up(topic) for topic in topics]

    def _look_up(self, topic: bytes) -> Route:
        if len(topic) > MAX_TOPIC_BYTES:
            return UNKNOWN
        try:
            text = topic.decode()
        except UnicodeDecodeError:
            return UNKNOWN
        for profile, fields, unpack in self._profiles:
            found = profile.find(text)
            if found is not None:
                route = Route((found.device_id or "").encode(), found.device_type, profile.name, fields, unpack)
                if len(topic) <= MAX_CACHED_BYTES:
                    if len(self._known) >= MAX_CACHED_TOPICS:
                        self._known.clear()
                    self._known[topic] = route
                return route
        return UNKNOWN
