"""Where messages enter: every source appends through here, and may acknowledge when the append returns."""

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from headrace.engine.clock import Clock
from headrace.engine.log import Append, Changes, Log, Tally, TopicPartition, TopicSpec, Transaction
from headrace.engine.metrics import Metrics
from headrace.engine.partitioner import Partitioner
from headrace.engine.records import Header, Records
from headrace.schemas import topics

#: Bytes that are kept of a payload that is larger than the log takes.
KEPT = 64 << 10
#: Compacted topic in which a source keeps how far it has read.
SOURCE_POSITIONS = "headrace.sources"
MINUTE_MS = 60_000
_DIGITS = [b"%02x" % number for number in range(256)]


@dataclass(frozen=True, slots=True)
class Mark:
    """How far a source has read, committed in the same step as the messages up to there."""

    source: str
    position: bytes


class DeviceEvent(NamedTuple):
    """A message of a device that is no reading; `event` is what it is about, `source` where it came from."""

    device_id: bytes
    payload: bytes
    event: str
    profile: str
    source: bytes


class MessageIntake(Protocol):
    """The part of `Intake` that a source of messages needs."""

    async def append(
        self,
        device_ids: Sequence[bytes],
        payloads: Sequence[bytes],
        *,
        device_type: str | Sequence[str],
        profile: str | Sequence[str],
        sources: Sequence[bytes] | bytes = b"",
        alarms: Sequence[int] = (),
        mark: Mark | None = None,
        headers: Mapping[str, Header] | None = None,
        events: Sequence[DeviceEvent] = (),
    ) -> None:
        """Append messages in order; when this returns they are there for good, and so is the mark."""
        ...


class Intake:
    """Appends raw messages to `telemetry.raw`, keyed by device, and counts them as accepted.

    Alarms are appended a second time, to `telemetry.raw.priority`, where no telemetry stands before them.

    Of a payload that is larger than the log takes (`Log.largest_value`) the beginning is kept, with its size in a
    header; ingest dead-letters it. Refused, a device would send it again for ever, and nothing behind it would arrive.

    Args:
        log: where to.
        clock: gives the append time.
        metrics: told how it goes; ones of its own if left out.
    """

    def __init__(self, log: Log, clock: Clock, metrics: Metrics | None = None) -> None:
        self._metrics = metrics or Metrics()
        self._log = log
        self._clock = clock
        self._partitioner = Partitioner(log.partitions(topics.RAW))
        self._message_ids = MessageIds(clock)
        self._claim = ""

    async def claim(self, name: str) -> None:
        """From now on append under `name`, and as the only process that does; see `Log.claim`.

        Raises:
            LogInUse: another process has the name by now.
        """
        await self._log.claim(name)
        self._claim = name

    async def append(
        self,
        device_ids: Sequence[bytes],
        payloads: Sequence[bytes],
        *,
        device_type: str | Sequence[str],
        profile: str | Sequence[str],
        sources: Sequence[bytes] | bytes = b"",
        alarms: Sequence[int] = (),
        timestamps: Sequence[int] | None = None,
        mark: Mark | None = None,
        headers: Mapping[str, Header] | None = None,
        events: Sequence[DeviceEvent] = (),
        message_ids: Sequence[bytes] | None = None,
        changes: Sequence[Changes] = (),
        beside: Sequence[Append] = (),
    ) -> None:
        """Append messages in order; when this returns they are in the log for good.

        Args:
            device_ids: the key per message, UTF-8, not empty.
            payloads: as the device sent them; nothing is looked at here.
            device_type: name of the device type that `agents.ingest` reads each with, or one for all.
            profile: name of the topic profile of each, or one for all; for the header.
            sources: where each came from (topic, path, file), or one for all.
            alarms: places of the messages that are alarms, ascending; copies of them go to `telemetry.raw.priority`,
                in the same partition, where the ledger does not count them.
            timestamps: append time per message, ms; the clock's time if left out.
            mark: how far the source has read, committed together with the messages.
            headers: more headers of the messages, a value per message.
            events: messages that are no readings, for `devices.events`; the ledger does not count them.
            message_ids: one per message, of a `MessageIds`; made here if left out.
            changes: of compacted topics of the source's own, committed together with the messages.
            beside: appends to other topics, committed together with the messages.
        Raises:
            LogError: nothing was appended; do not acknowledge.
            LogInUse: likewise, as another process has the name that was claimed.
        """
        total = len(payloads)
        payloads, sizes = self._cut(payloads)
        times = [self._clock.now_ms()] * total if timestamps is None else list(timestamps)
        columns: dict[str, Header] = {
            topics.MESSAGE_ID: [*(message_ids or self._message_ids.take(total))],
            topics.PROFILE: _header(profile),
            topics.DEVICE_TYPE: _header(device_type),
            topics.SOURCE: sources if isinstance(sources, bytes) else list(sources),
            **(headers or {}),
        }
        if sizes:
            columns[topics.PAYLOAD_BYTES] = [sizes.get(place) for place in range(total)]
        records = Records(list(device_ids), list(payloads), times, columns)
        appends = []
        for partition, rows in self._partitioner.split(device_ids).items():
            part = records.take(rows)
            appends.append(Append(TopicPartition(topics.RAW, partition), part, _tallies(part)))
        for partition, rows in self._split_alarms([device_ids[place] for place in alarms]):
            copies = records.take([alarms[row] for row in rows])
            appends.append(Append(TopicPartition(topics.RAW_PRIORITY, partition), copies))
        if events:
            appends += self._event_appends(events)
        appends += beside
        together = list(changes)
        if mark is not None:
            together.append(Changes(TopicPartition(SOURCE_POSITIONS, 0), {mark.source.encode(): mark.position}))
        began = self._clock.monotonic()
        await self._log.commit(Transaction(appends=appends, changes=together, claim=self._claim))
        self._metrics.observe("headrace_intake_append_seconds", self._clock.monotonic() - began)
        self._metrics.count("headrace_intake_records_total", total)

    def _split_alarms(self, device_ids: Sequence[bytes]) -> Iterable[tuple[int, list[int]]]:
        """By partition of the priority lane; it has as many as the ordinary one, unless somebody gave that more."""
        if not device_ids:
            return ()
        return Partitioner(self._log.partitions(topics.RAW_PRIORITY)).split(device_ids).items()

    def _event_appends(self, events: Sequence[DeviceEvent]) -> list[Append]:
        payloads, sizes = self._cut([event.payload for event in events])
        records = Records(
            [event.device_id for event in events],
            list(payloads),
            [self._clock.now_ms()] * len(events),
            {
                topics.MESSAGE_ID: [*self._message_ids.take(len(events))],
                topics.EVENT: [event.event.encode() for event in events],
                topics.PROFILE: [event.profile.encode() for event in events],
                topics.SOURCE: [event.source for event in events],
                topics.PAYLOAD_BYTES: [sizes.get(place) for place in range(len(events))],
            },
        )
        split = Partitioner(self._log.partitions(topics.EVENTS)).split([event.device_id for event in events])
        return [
            Append(TopicPartition(topics.EVENTS, partition), records.take(rows)) for partition, rows in split.items()
        ]

    def _cut(self, payloads: Sequence[bytes]) -> tuple[Sequence[bytes], dict[int, bytes]]:
        """The payloads as the log takes them, and by place the size of each that was cut."""
        most = self._log.largest_value
        if max(map(len, payloads), default=0) <= most:
            return payloads, {}
        sizes = {place: b"%d" % len(payload) for place, payload in enumerate(payloads) if len(payload) > most}
        return [payload[:KEPT] if place in sizes else payload for place, payload in enumerate(payloads)], sizes

    async def position(self, source: str) -> bytes | None:
        """The position of the last `Mark` of this source that was committed."""
        async for entries in self._log.restore(TopicPartition(SOURCE_POSITIONS, 0)):
            for key, value in entries:
                if key == source.encode():
                    return value
        return None

    async def positions(self, beginning: str) -> dict[str, bytes]:
        """The same of every source whose name begins so."""
        found: dict[str, bytes] = {}
        async for entries in self._log.restore(TopicPartition(SOURCE_POSITIONS, 0)):
            for key, value in entries:
                if key.startswith(beginning.encode()) and value is not None:
                    found[key.decode()] = value
        return found

    @staticmethod
    def topic_specs(partitions: int) -> list[TopicSpec]:
        """The topics an intake needs."""
        return [
            TopicSpec(topics.RAW, partitions),
            TopicSpec(topics.RAW_PRIORITY, partitions),
            TopicSpec(topics.EVENTS, partitions),
            TopicSpec(SOURCE_POSITIONS, 1, compacted=True),
        ]


def _header(names: str | Sequence[str]) -> Header:
    """One value for all messages where they share it, else one per message."""
    if isinstance(names, str):
        return names.encode()
    if not names:
        return []
    encoded = {name: name.encode() for name in set(names)}
    return encoded[names[0]] if len(encoded) == 1 else [encoded[name] for name in names]


def _tallies(records: Records) -> dict[Tally, int]:
    """What these messages add to the ledger."""
    names = records.headers[topics.DEVICE_TYPE]
    if isinstance(names, bytes):
        return tally(records.timestamps, names.decode())
    stamps_of: dict[bytes | None, list[int]] = {}
    for name, stamp in zip(names, records.timestamps, strict=True):
        stamps_of.setdefault(name, []).append(stamp)
    counts: dict[Tally, int] = {}
    for name, stamps in stamps_of.items():
        counts |= tally(stamps, (name or b"").decode())
    return counts


def tally(timestamps: Sequence[int], device_type: str) -> dict[Tally, int]:
    """Count append times by minute, for `Append.tallies`."""
    counts: dict[Tally, int] = {}
    if timestamps and timestamps[0] // MINUTE_MS == timestamps[-1] // MINUTE_MS == max(timestamps) // MINUTE_MS:
        return {Tally(timestamps[0] // MINUTE_MS * MINUTE_MS, device_type): len(timestamps)}
    for timestamp in timestamps:
        key = Tally(timestamp // MINUTE_MS * MINUTE_MS, device_type)
        counts[key] = counts.get(key, 0) + 1
    return counts


class MessageIds:
    """Makes message ids: UUIDv7 in shape (RFC 9562), so they sort by time and fit a database's uuid."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._tail = b"00" + os.urandom(4).hex().encode()
        self._next = int.from_bytes(os.urandom(3))

    def take(self, total: int) -> list[bytes]:
        """`total` new ids, each 36 bytes of ASCII, ascending within this process."""
        stamp = f"{self._clock.now_ms():012x}"
        head, tail = f"{stamp[:8]}-{stamp[8:]}-7", self._tail
        number, end = self._next, self._next + total
        self._next = end
        ids: list[bytes] = []
        while number < end:
            # Up to 256 ids differ in two digits alone: a tenth of the time that formatting each takes.
            until = min(end, (number | 0xFF) + 1)
            middle = f"{number >> 20 & 0xFFF:03x}-{0x8000 | number >> 8 & 0xFFF:04x}"
            front = f"{head}{middle}-".encode()
            ids += [front + digits + tail for digits in _DIGITS[number & 0xFF : (until - 1 & 0xFF) + 1]]
            number = until
        return ids
