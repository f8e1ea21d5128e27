"""Sends quarantined messages the way that the topic profiles of today give them."""

from collections.abc import Sequence
from uuid import NAMESPACE_OID, uuid5

from headrace.connectors.topic_profile import TopicProfile
from headrace.connectors.topic_routes import UNKNOWN, Route, TopicRoutes
from headrace.connectors.unpacking import unpack
from headrace.engine.records import Record
from headrace.schemas.topics import (
    DEVICE_TYPE,
    MESSAGE_ID,
    NO_PROFILE,
    PAYLOAD_BYTES,
    PROFILE,
    REFUSED,
    SEQUENCE,
    SOURCE,
)


class Reroute:
    """Gives a raw message that was appended as nobody's, or could not be unpacked, what it would be given now.

    That is its device, type and profile, and where the profile has a format the records that it is unpacked to, with
    times relative to when it was first received. Any other message stays as it is, and so does one that still is
    nobody's.

    Args:
        profiles: those of today.
    """

    def __init__(self, profiles: Sequence[TopicProfile]) -> None:
        self._routes = TopicRoutes(profiles)
        self._names = {name.encode() for name in [NO_PROFILE, *(each.name for each in profiles)]}

    def __call__(self, record: Record) -> list[Record]:
        """The message as it would be appended now."""
        refused = REFUSED in record.headers
        if (record.key != UNKNOWN.device_id and not refused) or record.headers.get(PROFILE) not in self._names:
            return [record]
        route = self._routes.find([record.headers.get(SOURCE, b"")])[0]
        if route is UNKNOWN or PAYLOAD_BYTES in record.headers:
            return [record]
        if refused or route.unpack is not None:
            return _unpacked(record, route)
        said = route.fields.read(record.value or b"")[0] if route.fields else b""
        device_id = route.device_id or said
        return [record._replace(key=device_id, headers=record.headers | _names(route))] if device_id else [record]


def _names(route: Route) -> dict[str, bytes]:
    return {PROFILE: route.profile.encode(), DEVICE_TYPE: route.device_type.encode()}


def _unpacked(record: Record, route: Route) -> list[Record]:
    made = unpack([route], [record.headers.get(SOURCE, b"")], [record.value or b""], record.timestamp)
    kept = {name: value for name, value in record.headers.items() if name not in (REFUSED, SEQUENCE)}
    headers = kept | _names(route)
    for event in made.events:
        why = f"it is no reading but the event {event.event}, and dead letters are sent back as readings only"
        return [record._replace(key=event.device_id, headers=headers | {REFUSED: why.encode()})]
    found = []
    columns = zip(made.device_ids, made.payloads, made.reasons, made.sequences, strict=True)
    for place, (device_id, payload, reason, sequence) in enumerate(columns):
        more = {name: said for name, said in ((REFUSED, reason), (SEQUENCE, sequence)) if said is not None}
        if place:
            # The first keeps the message's own id.
            more[MESSAGE_ID] = str(uuid5(NAMESPACE_OID, f"{headers.get(MESSAGE_ID, b'').decode()}/{place}")).encode()
        found.append(record._replace(key=device_id, value=payload, headers=headers | more))
    return found
