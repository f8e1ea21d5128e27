"""Where messages enter: every source appends through here, and may acknowledge when the append returns."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count

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


@dataclass(frozen=True, slots=True)
class Mark:
    """How far a source has read, committed in the same step as the messages up to there."""

    source: str
    position: bytes


class Intake:
    """Appends raw messages to `telemetry.raw`, keyed by device, and counts them as accepted.

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

    async def append(
        self,
        device_ids: Sequence[bytes],
        payloads: Sequence[bytes],
        *,
        device_type: str,
        profile: str,
        sources: Sequence[bytes] | bytes = b"",
        timestamps: Sequence[int] | None = None,
        mark: Mark | None = None,
    ) -> None:
        """Append messages in order; when this returns they are in the log for good.

        Args:
            device_ids: the key per message, UTF-8, not empty.
            payloads: as the device sent them; nothing is looked at here.
            device_type: name of the device type that `agents.ingest` reads them with.
            profile: name of the topic profile, for the header.
            sources: where each came from (topic, path, file), or one for all.
            timestamps: append time per message, ms; the clock's time if left out.
            mark: how far the source has read, committed together with the messages.
        Raises:
            LogError: nothing was appended; do not acknowledge.
        """
        total = len(payloads)
        payloads, sizes = self._cut(payloads)
        times = [self._clock.now_ms()] * total if timestamps is None else list(timestamps)
        ids = self._message_ids.take(total)
        rows_of = self._partitioner.split(device_ids)
        appends = []
        for partition, rows in rows_of.items():
            stamps = [times[i] for i in rows]
            headers: dict[str, Header] = {
                topics.MESSAGE_ID: [ids[i] for i in rows],
                topics.PROFILE: profile.encode(),
                topics.DEVICE_TYPE: device_type.encode(),
                topics.SOURCE: sources if isinstance(sources, bytes) else [sources[i] for i in rows],
            }
            if sizes:
                headers[topics.PAYLOAD_BYTES] = [sizes.get(i) for i in rows]
            records = Records([device_ids[i] for i in rows], [payloads[i] for i in rows], stamps, headers)
            appends.append(Append(TopicPartition(topics.RAW, partition), records, tally(stamps, device_type)))
        changes = []
        if mark is not None:
            changes.append(Changes(TopicPartition(SOURCE_POSITIONS, 0), {mark.source.encode(): mark.position}))
        began = self._clock.monotonic()
        await self._log.commit(Transaction(appends=appends, changes=changes))
        self._metrics.observe("headrace_intake_append_seconds", self._clock.monotonic() - began)
        self._metrics.count("headrace_intake_records_total", total)

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

    @staticmethod
    def topic_specs(partitions: int) -> list[TopicSpec]:
        """The topics an intake needs."""
        return [
            TopicSpec(topics.RAW, partitions),
            TopicSpec(topics.RAW_PRIORITY, partitions),
            TopicSpec(SOURCE_POSITIONS, 1, compacted=True),
        ]


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
        self._tail = os.urandom(4).hex()
        self._counter = count(int.from_bytes(os.urandom(3)))

    def take(self, total: int) -> list[bytes]:
        """`total` new ids, each 36 bytes of ASCII, ascending within this process."""
        stamp = f"{self._clock.now_ms():012x}"
        head = f"{stamp[:8]}-{stamp[8:]}-7"
        tail, counter = self._tail, self._counter
        ids = []
        for _ in range(total):
            number = next(counter)
            middle = f"{number >> 20 & 0xFFF:03x}-{0x8000 | number >> 8 & 0xFFF:04x}"
            ids.append(f"{head}{middle}-{number & 0xFF:02x}00{tail}".encode())
        return ids
