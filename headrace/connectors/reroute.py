"""Sends quarantined messages the way that the topic profiles of today give them."""

from collections.abc import Sequence

from headrace.connectors.topic_profile import TopicProfile
from headrace.connectors.topic_routes import UNKNOWN, TopicRoutes
from headrace.engine.records import Record
from headrace.schemas.topics import DEVICE_TYPE, NO_PROFILE, PROFILE, SOURCE


class Reroute:
    """Gives a raw message that was appended as nobody's the device, type and profile it would have now.

    Any other message stays as it is, and so does one that still is nobody's.

    Args:
        profiles: those of today.
    """

    def __init__(self, profiles: Sequence[TopicProfile]) -> None:
        self._routes = TopicRoutes(profiles)
        self._names = {name.encode() for name in [NO_PROFILE, *(each.name for each in profiles)]}

    def __call__(self, record: Record) -> Record:
        """The message as it would be appended now."""
        if record.key != UNKNOWN.device_id or record.headers.get(PROFILE) not in self._names:
            return record
        route = self._routes.find([record.headers.get(SOURCE, b"")])[0]
        said = route.fields.read(record.value or b"")[0] if route.fields else b""
        device_id = route.device_id or said
        if route is UNKNOWN or not device_id:
            return record
        now = {PROFILE: route.profile.encode(), DEVICE_TYPE: route.device_type.encode()}
        return record._replace(key=device_id, headers=record.headers | now)
