"""Runs a sink: reads its topics in a consumer group of its own, and never lets its troubles reach anybody else."""

import asyncio
from collections import Counter
from collections.abc import Iterator, Mapping, Set

import structlog

from headrace.engine.cancel import cancel_and_wait
from headrace.engine.clock import Clock
from headrace.engine.dead_letters import dead_letter, said
from headrace.engine.errors import CommitRefused, ConfigError, Disconnected, HeadraceError, RetryLater
from headrace.engine.log import Append, Changes, Fetched, Log, TopicPartition, TopicSpec, Transaction
from headrace.engine.metrics import Metrics
from headrace.engine.partitioner import Partitioner
from headrace.engine.records import Records
from headrace.engine.sink import Refused, Sink, SinkState, SinkStatistics, halves, record_count

#: Compacted topic in which runners keep, per sink and partition, the offset after the last record that was refused.
SINK_REFUSALS = "headrace.sinks"
#: Longest wait for new records before looking whether to stop, seconds.
IDLE_WAIT = 0.25
#: A partition gives at most this part of a batch at a time, so that a long backlog in one leaves room for the others.
SHARES = 4

#: A batch takes no more records once it has this many bytes of values.
MAX_BATCH_BYTES = 32 << 20

logger = structlog.get_logger(__name__)


class SinkRunner:
    """Moves records from the log to one sink, effectively once.

    Reads the next batch while the current one is written. The sink's own store says where to continue; the position in
    the log's group is a copy, for lag. A sink that is down is tried again for ever, and only its own partitions wait. A
    record that it refuses is dead-lettered alone. Holds at most two batches.

    Args:
        log: where from; the sink's topics, `telemetry.dlq` and `topic_specs()` exist.
        sink: where to; the runner opens and closes it.
        clock: waits.
        group: consumer group in the log; the sink's name unless given.
        max_records: most records per write, about.
        linger: seconds to wait for more when a batch is not full.
        metrics: told how it goes; ones of its own if left out.
        first_backoff, max_backoff: seconds before the first and the longest retry; they double in between.
    """

    def __init__(
        self,
        log: Log,
        sink: Sink,
        clock: Clock,
        *,
        group: str = "",
        metrics: Metrics | None = None,
        max_records: int = 16_384,
        linger: float = 0.03,
        first_backoff: float = 0.1,
        max_backoff: float = 5.0,
    ) -> None:
        self._log = log
        self._reader = log.reader()
        self._sink = sink
        self._clock = clock
        self._group = group or sink.name
        self._max_records = max_records
        self._linger = linger
        self._first_backoff = first_backoff
        self._max_backoff = max_backoff
        self._metrics = metrics or Metrics()
        self._enter("connecting")
        self._counts: Counter[str] = Counter()
        self._retries = 0
        self._last_error = ""
        self._read: dict[TopicPartition, int] = {}
        self._stored: dict[TopicPartition, int] = {}
        self._committed: dict[TopicPartition, int] = {}
        self._refused: dict[bytes, int] = {}
        self._turn = 0

    def statistics(self) -> SinkStatistics:
        """How it is going."""
        counts = self._counts
        return SinkStatistics(
            self._state, counts["written"], counts["dead"], self._retries, self._last_error, dict(self._stored)
        )

    async def run(self, stop: asyncio.Event) -> None:
        """Work until `stop` is set, then finish the running write. Cancelling leaves the sink at its last whole write.

        Raises:
            ConfigError: the sink cannot work as it is set up, or its store belongs to another log.
            LogError: the log failed.
        """
        try:
            await self._join()
            while not stop.is_set():
                try:
                    await self._connect()
                    await self._pump(stop)
                except (Disconnected, RetryLater, Refused) as error:
                    await self._back_off(error, stop)
            await self._commit()
        finally:
            await self._reader.close()
            await self._sink.close()

    @staticmethod
    def topic_specs() -> list[TopicSpec]:
        """The topics that sink runners keep for themselves."""
        return [TopicSpec(SINK_REFUSALS, 1, compacted=True)]

    async def _join(self) -> None:
        """Show the log where the group is, before the sink can be reached: retention keeps what it has not read."""
        for topic in self._sink.topics:
            try:
                self._log.partitions(topic)
            except KeyError as error:
                raise ConfigError(f"sink {self._sink.name} reads topic {topic}, which does not exist") from error
            self._committed |= await self._log.positions(self._group, topic)
        await self._copy(self._committed)
        async for entries in self._log.restore(TopicPartition(SINK_REFUSALS, 0)):
            self._refused |= {key: int(value) for key, value in entries}

    async def _connect(self) -> None:
        await self._sink.open()
        ends: dict[TopicPartition, int] = {}
        for topic in self._sink.topics:
            ends |= await self._log.end_offsets(topic)
        self._stored = await self._sink.positions(list(ends))
        for target, position in self._stored.items():
            if position > ends[target]:
                raise ConfigError(
                    f"sink {self._sink.name} has stored {target.topic}/{target.partition} up to {position}, "
                    f"but the log ends at {ends[target]}: it is of another log. Use that log, or another database."
                )
        self._read = dict(self._stored)
        if not self._retries:
            self._enter("running")

    async def _pump(self, stop: asyncio.Event) -> None:
        batch = await self._fetch(stop)
        while batch and not stop.is_set():
            if record_count(batch) < self._max_records:
                await self._clock.sleep(self._linger)
                await self._fill(batch)
            fetching = asyncio.create_task(self._fetch(stop))
            try:
                await self._write(batch)
                if self._retries:
                    logger.info("sink_resumed", sink=self._sink.name, retries=self._retries)
                self._enter("running")
                self._retries = 0
                await self._commit()
                batch = await fetching
            finally:
                await cancel_and_wait(fetching)

    async def _fetch(self, stop: asyncio.Event) -> list[Fetched]:
        batch: list[Fetched] = []
        while not stop.is_set():
            await self._fill(batch)
            if batch:
                break
            await self._reader.wait(self._read, IDLE_WAIT)
        return batch

    async def _fill(self, batch: list[Fetched]) -> None:
        """Add what there is, every partition in its turn, up to the size of a batch."""
        room = self._max_records - record_count(batch)
        room_bytes = MAX_BATCH_BYTES - sum(_size(fetched) for fetched in batch)
        share = max(1, self._max_records // SHARES)
        more = True
        while more:
            more = False
            for target in self._targets():
                if room <= 0 or room_bytes <= 0:
                    return
                limit = min(room, share)
                fetched = await self._reader.read(target, self._read[target], limit)
                if fetched is not None:
                    batch.append(fetched)
                    self._read[target] = fetched.next_offset
                    room -= len(fetched.records)
                    room_bytes -= _size(fetched)
                    more |= len(fetched.records) >= limit // 2

    @property
    def targets(self) -> Set[TopicPartition]:
        """Partitions that it reads here; none before it has connected."""
        return self._stored.keys()

    @property
    def trouble(self) -> str:
        """What keeps it from storing, for a person; empty when nothing does."""
        return f"retrying: {self._last_error}" if self._state == "retrying" else ""

    def _enter(self, state: SinkState) -> None:
        self._state = state
        self._metrics.set_state("headrace_sink_state", state, sink=self._sink.name)

    def _targets(self) -> Iterator[TopicPartition]:
        """All partitions, each time from another one on."""
        targets = list(self._read)
        self._turn = (self._turn + 1) % len(targets)
        yield from targets[self._turn :]
        yield from targets[: self._turn]

    async def _write(self, batch: list[Fetched]) -> None:
        began = self._clock.monotonic()
        try:
            await self._sink.write(batch)
        except Refused as error:
            if record_count(batch) > 1:
                for half in halves(batch):
                    await self._write(half)
                return
            batch = [await self._set_aside(fetched, error) for fetched in batch]
            try:
                await self._sink.write(batch)
            except Refused as again:
                raise RetryLater(f"{self._sink.name} refuses even a position: {again}") from again
        count = record_count(batch)
        self._counts["written"] += count
        self._metrics.count("headrace_sink_records_total", count, sink=self._sink.name)
        seconds = self._clock.monotonic() - began
        self._metrics.observe("headrace_sink_write_seconds", seconds, sink=self._sink.name)
        self._stored |= {fetched.target: fetched.next_offset for fetched in batch}

    async def _set_aside(self, fetched: Fetched, error: Refused) -> Fetched:
        """Dead-letter the one record of `fetched`, if it has one; what is left moves only the position.

        The dead letter and a note of its offset are one commit, so that a crash before the sink moves on, or a database
        restored, dead-letters nothing twice. See test_dead_lettered_once.
        """
        target, offset, next_offset, records, _ = fetched
        if not len(records):
            return fetched
        key = f"{self._sink.name}/{target.topic}/{target.partition}".encode()
        if self._refused.get(key, 0) <= offset:
            send = dead_letter(fetched, 0, str(error), self._sink.name)
            partition = Partitioner(self._log.partitions(send.topic)).partition(records.keys[0] or b"")
            append = Append(TopicPartition(send.topic, partition), send.records, send.tallies)
            note = Changes(TopicPartition(SINK_REFUSALS, 0), {key: str(offset + 1).encode()})
            await self._log.commit(Transaction(appends=[append], changes=[note]))
            self._refused[key] = offset + 1
            self._counts["dead"] += 1
            self._metrics.count("headrace_dead_letters_total", agent=self._sink.name, reason="refused")
        logger.warning(
            "sink_refused",
            sink=self._sink.name,
            topic=target.topic,
            partition=target.partition,
            offset=offset,
            message_id=said("message_id", records.values[0]) or "",
            reason=str(error),
        )
        return Fetched(target, offset, next_offset, Records([], [], []))

    async def _commit(self) -> None:
        """Copy new positions to the log's group."""
        moved = {
            target: position for target, position in self._stored.items() if self._committed.get(target) != position
        }
        if moved and await self._copy(moved):
            self._committed |= moved

    async def _copy(self, positions: Mapping[TopicPartition, int]) -> bool:
        """Whether these are in the log; if not, those of the next batch will be, and the sink goes by its own."""
        try:
            await self._log.commit(Transaction(group=self._group, positions=positions))
        except CommitRefused as error:
            logger.warning("sink_position_not_copied", sink=self._sink.name, error=str(error))
            return False
        return True

    async def _back_off(self, error: HeadraceError, stop: asyncio.Event) -> None:
        delay = min(self._max_backoff, self._first_backoff * 2 ** min(self._retries, 16))
        note = logger.debug if self._state == "retrying" else logger.warning
        note("sink_retrying", sink=self._sink.name, error=str(error), delay=delay)
        self._enter("retrying")
        self._last_error = str(error)
        self._retries += 1
        self._metrics.count("headrace_sink_retries_total", sink=self._sink.name)
        waits = [asyncio.create_task(self._clock.sleep(delay)), asyncio.create_task(stop.wait())]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()


def _size(fetched: Fetched) -> int:
    return sum(len(value) for value in fetched.records.values if value is not None)
