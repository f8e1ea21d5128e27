"""Messages of which some hold several records, as what is appended: in order, each message whole."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import structlog

from headrace.connectors.formats import Aside, Message, NotUnpacked, Part
from headrace.connectors.formats.sequence import said_again
from headrace.connectors.topic_routes import Route
from headrace.engine.intake import DeviceEvent
from headrace.schemas.topics import MAX_DEVICE_ID, NO_DEVICE

log = structlog.get_logger(__name__)

#: Characters of a reason that are kept.
MAX_REASON = 500
_NOBODY = NO_DEVICE.encode()


@dataclass(slots=True)
class Unpacked:
    """What to append: one entry per record in each list, and the events.

    Args:
        rows: place of the message that each record was in.
        device_ids, payloads: of the records.
        reasons: why a record is a whole message that could not be unpacked; None where it is not.
        sequences: numbers of the records; None where there is none.
        alarms: places of the records that are alarms.
        events: messages that are no readings.
    """

    rows: list[int] = field(default_factory=list)
    device_ids: list[bytes] = field(default_factory=list)
    payloads: list[bytes] = field(default_factory=list)
    reasons: list[bytes | None] = field(default_factory=list)
    sequences: list[bytes | None] = field(default_factory=list)
    alarms: list[int] = field(default_factory=list)
    events: list[DeviceEvent] = field(default_factory=list)

    def add(self, row: int, route: Route, part: Part, reason: str | None = None) -> None:
        """A record of the message at `row`."""
        device_id, alarm = _encoded(part.device_id) or route.device_id, False
        if route.fields is not None and reason is None:
            said, alarm = route.fields.read(part.payload)
            device_id = device_id or said
        if alarm and device_id:
            self.alarms.append(len(self.rows))
        self.rows.append(row)
        self.device_ids.append(device_id or _NOBODY)
        self.payloads.append(part.payload)
        self.reasons.append(None if reason is None else reason[:MAX_REASON].encode(errors="replace"))
        self.sequences.append(part.sequence)

    def mark_again(self, rows: Sequence[int]) -> None:
        """The messages at these rows may have been appended before: their sequence numbers say so from now on."""
        marked = set(rows)
        self.sequences = [
            said_again(said) if said is not None and row in marked else said
            for row, said in zip(self.rows, self.sequences, strict=True)
        ]


def unpack(routes: Sequence[Route], topics: Sequence[bytes], payloads: Sequence[bytes], now_ms: int) -> Unpacked:
    """What to append of messages, in their order.

    What a format cannot read is one record, as it came, with the reason: ingest dead-letters it.

    Args:
        routes: where the topic of each message leads.
        topics, payloads: of the messages.
        now_ms: when they were received, ms since 1970 UTC.
    """
    made = Unpacked()
    for row, (route, topic, payload) in enumerate(zip(routes, topics, payloads, strict=True)):
        whole = Part("", payload)
        if route.unpack is None:
            made.add(row, route, whole)
            continue
        message = Message(topic.decode().split("/"), route.device_id.decode(), payload, now_ms)
        try:
            found = route.unpack(message)
        except NotUnpacked as error:
            made.add(row, route, Part(error.device_id, payload, error.sequence), error.reason)
        except Exception as error:
            # A mistake of ours: it must not keep what is behind this message from the log, again and again.
            log.exception("unpack_failed", profile=route.profile)
            made.add(row, route, whole, f"it could not be unpacked, which is a fault of headrace: {error!r}")
        else:
            if isinstance(found, Aside):
                device_id = _encoded(found.device_id) or _NOBODY
                made.events.append(DeviceEvent(device_id, payload, found.event, route.profile, topic))
                continue
            for part in found:
                made.add(row, route, part)
    return made


def _encoded(device_id: str) -> bytes:
    return device_id[: MAX_DEVICE_ID + 1].encode()  # ingest refuses it as too long all the same
