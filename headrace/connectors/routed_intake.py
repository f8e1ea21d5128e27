"""The way of messages with topics into the log: those say what it is, and what no topic profile takes is kept aside."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType

import structlog

from headrace.connectors.payload_fields import PayloadFields
from headrace.connectors.topic_profile import TopicProfile
from headrace.connectors.topic_routes import MAX_TOPIC_BYTES, UNKNOWN, Route, TopicRoutes
from headrace.connectors.unpacking import Unpacked, unpack
from headrace.engine.clock import Clock, SystemClock
from headrace.engine.intake import Mark, MessageIntake
from headrace.engine.metrics import Metrics
from headrace.engine.records import Header
from headrace.schemas.topics import NO_DEVICE, NO_PROFILE, REFUSED, SEQUENCE

log = structlog.get_logger(__name__)

#: Of a topic that is longer than any profile takes so many bytes are kept.
KEPT_TOPIC_BYTES = 256


class RoutedIntake:
    """Appends messages by their topics, all of a call at once, in the order given.

    A message on a topic that no profile takes is appended too, under `topics.NO_DEVICE`: ingest dead-letters it with
    the topic in its reason, and the ledger accounts for it. About 0.2 µs per message, more where the profile must look
    into payloads.

    Where a profile names a format, one message may become several records, of several devices: all are in the log, or
    none is. One that says something else than readings goes to `topics.EVENTS`, which the ledger does not count.

    Args:
        intake: appends.
        profiles: which topics are known, and what they say.
        metrics: told of messages on unknown topics; ones of its own if left out.
        clock: says when a message is received, for formats with relative times; the system's if left out.
    """

    def __init__(
        self,
        intake: MessageIntake,
        profiles: Sequence[TopicProfile],
        metrics: Metrics | None = None,
        clock: Clock | None = None,
    ) -> None:
        self._intake = intake
        self._routes = TopicRoutes(profiles)
        self._metrics = metrics or Metrics()
        self._clock = clock or SystemClock()
        #: Messages appended so far whose topic no profile takes.
        self.unknown = 0

    def takes(self, topic: bytes) -> bool:
        """Whether some profile takes the topic."""
        return self._routes.find([topic])[0] is not UNKNOWN

    async def append(
        self,
        topics: Sequence[bytes],
        payloads: Sequence[bytes],
        again: Sequence[int] = (),
        *,
        refused: Mapping[int, bytes] = MappingProxyType({}),
        mark: Mark | None = None,
    ) -> None:
        """Append a message per topic; when this returns they are in the log for good, whole.

        Args:
            topics, payloads: of the messages.
            again: places of those that may have been appended before; their sequence numbers say so.
            refused: why ingest must refuse a message, as it came, by its place.
            mark: how far the source has read, committed together with the messages; not without any.
        Raises:
            LogError: nothing was appended; do not acknowledge.
        """
        if not topics:
            return
        routes = self._routes.find(topics)
        found, types, profiles, fields, formats = zip(*routes, strict=True)
        if refused or any(formats):
            for place in refused:
                routes[place] = routes[place]._replace(fields=None, unpack=None)
            made = unpack(routes, topics, payloads, self._clock.now_ms())
            for place, row in enumerate(made.rows if refused else ()):
                made.reasons[place] = refused.get(row, made.reasons[place])
            if again:
                made.mark_again(again)
            await self._append_unpacked(routes, topics, made, mark)
            return
        device_ids, alarms = _looked_up(found, fields, payloads) if any(fields) else (found, [])
        unknown = profiles.count(NO_PROFILE)
        await self._intake.append(
            device_ids,
            payloads,
            device_type=types,
            profile=profiles,
            sources=[_kept(topic) for topic in topics] if unknown else topics,
            alarms=alarms,
            mark=mark,
        )
        if unknown:
            self._count(unknown, topics[profiles.index(NO_PROFILE)])

    async def _append_unpacked(
        self, routes: Sequence[Route], topics: Sequence[bytes], made: Unpacked, mark: Mark | None
    ) -> None:
        headers: dict[str, Header] = {}
        for name, values in ((REFUSED, made.reasons), (SEQUENCE, made.sequences)):
            if any(values):
                headers[name] = values
        await self._intake.append(
            made.device_ids,
            made.payloads,
            device_type=[routes[row].device_type for row in made.rows],
            profile=[routes[row].profile for row in made.rows],
            sources=[_kept(topics[row]) for row in made.rows],
            alarms=made.alarms,
            mark=mark,
            headers=headers,
            events=made.events,
        )
        unknown = [row for row in made.rows if routes[row] is UNKNOWN]
        if unknown:
            self._count(len(unknown), topics[unknown[0]])
        for row, reason in zip(made.rows, made.reasons, strict=True):
            if reason is not None:
                self._metrics.count("headrace_unpack_refused_total", profile=routes[row].profile)
        for event in made.events:
            self._metrics.count("headrace_device_events_total", profile=event.profile)

    def _count(self, unknown: int, example: bytes) -> None:
        if not self.unknown:
            log.warning("unknown_topic", topic=_kept(example).decode(errors="backslashreplace"))
        self.unknown += unknown
        self._metrics.count("headrace_unknown_topics_total", unknown)


def _looked_up(
    device_ids: Sequence[bytes], fields: Sequence[PayloadFields | None], payloads: Sequence[bytes]
) -> tuple[list[bytes], list[int]]:
    """The device id per message, and the places of the alarms: one of nobody is none, ingest refuses it."""
    nobody = NO_DEVICE.encode()
    found, alarms = list(device_ids), []
    for place, each in enumerate(fields):
        if each is None:
            continue
        said, alarm = each.read(payloads[place])
        device_id = found[place] = found[place] or said or nobody
        if alarm and device_id != nobody:
            alarms.append(place)
    return found, alarms


def _kept(topic: bytes) -> bytes:
    """The topic as a header carries it; of one that is too long the beginning, whole characters of it."""
    if len(topic) <= MAX_TOPIC_BYTES:
        return topic
    start = topic[:KEPT_TOPIC_BYTES]
    while start and topic[len(start)] & 0xC0 == 0x80:
        start = start[:-1]
    return start + b"... (%d bytes)" % len(topic)
