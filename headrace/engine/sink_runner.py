"""Runs a sink: reads its topics in a consumer group of its own, and never lets its troubles reach anybody else."""

import asyncio
from collections.abc import Mapping, Set

import structlog

from headrace.engine.cancel import cancel_and_wait
from headrace.engine.circuit_breaker import CircuitBreaker
from headrace.engine.clock import Clock
from headrace.engine.errors import CommitRefused, ConfigError, Disconnected, HeadraceError, RetryLater
from headrace.engine.health import Health
from headrace.engine.log import Fetched, Log, TopicPartition, TopicSpec, Transaction
from headrace.engine.metrics import Metrics
from headrace.engine.sink import Refused, Sink, SinkStatistics, Standby, halves, record_count
from headrace.engine.sink_batches import SinkBatches
from headrace.engine.sink_losses import SinkLosses
from headrace.engine.sink_refusals import SinkRefusals

logger = structlog.get_logger(__name__)


class SinkRunner:
    """Moves records from the log to one sink, effectively once.

    Reads the next batch while the current one is written. The sink's own store says where to continue; the position in
    the log's group is a copy, for lag. A sink that is down is tried again for ever, and only its own partitions wait;
    see `headrace.engine.circuit_breaker`. A record that it refuses is dead-lettered alone: one of n in a write costs
    about 2 log2(n) writes, in which each of the others is sent up to three times. Holds at most two batches.

    Args:
        log: where from; the sink's topics, `telemetry.dlq` and `topic_specs()` exist.
        sink: where to; the runner opens and closes it.
        clock: waits.
        group: consumer group in the log; the sink's name unless given.
        max_records: most records per write, about.
        linger: seconds to wait for more when a batch is not full.
        metrics: told how it goes; ones of its own if left out.
        health: told whether it works, as component `sink NAME`.
        first_backoff, max_backoff: seconds before the first retry, where the error does not say; and before any.
    """

    def __init__(
        self,
        log: Log,
        sink: Sink,
        clock: Clock,
        *,
        group: str = "",
        metrics: Metrics | None = None,
        health: Health | None = None,
        max_records: int = 16_384,
        linger: float = 0.03,
        first_backoff: float = 0.1,
        max_backoff: float = 30.0,
    ) -> None:
        self._log = log
        self._reader = log.reader()
        self._sink = sink
        self._clock = clock
        self._group = group or sink.name
        self._linger = linger
        self._metrics = metrics or Metrics()
        self._breaker = CircuitBreaker(
            sink.name, max_records, self._metrics, health, first_backoff=first_backoff, max_backoff=max_backoff
        )
        self._refusals = SinkRefusals(log, sink.name, self._metrics)
        self._losses = SinkLosses(log, sink.name, self._metrics, health)
        self._written = 0
        self._writing: float | None = None
        self._stored: dict[TopicPartition, int] = {}
        self._committed: dict[TopicPartition, int] = {}

    def statistics(self) -> SinkStatistics:
        """How it is going."""
        breaker, refusals = self._breaker, self._refusals
        return SinkStatistics(
            state=breaker.state,
            written=self._written,
            dead_lettered=refusals.dead_lettered,
            retries=breaker.failures,
            last_error=breaker.last_error,
            positions=dict(self._stored),
            lost=self._losses.lost,
            passed_over=refusals.passed_over,
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
        return SinkRefusals.topic_specs()

    @property
    def targets(self) -> Set[TopicPartition]:
        """Partitions that it reads here; none before it has connected."""
        return self._stored.keys()

    @property
    def trouble(self) -> str:
        """What keeps it from storing, for a person; empty when nothing does."""
        return self._breaker.trouble

    async def _join(self) -> None:
        """Show the log where the group is, before the sink can be reached: retention keeps what it has not read."""
        for topic in self._sink.topics:
            try:
                self._log.partitions(topic)
            except KeyError as error:
                raise ConfigError(f"sink {self._sink.name} reads topic {topic}, which does not exist") from error
            self._committed |= await self._log.positions(self._group, topic)
        await self._copy(self._committed)
        await self._refusals.load()

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
        await self._losses.look(self._stored, self._committed)
        if not self._breaker.failures or self._stored == ends:
            self._went_well()  # else the first write will tell

    async def _pump(self, stop: asyncio.Event) -> None:
        batches = SinkBatches(self._reader, self._stored)
        batch = await batches.fetch(self._breaker.limit, stop)
        while batch and not stop.is_set():
            if record_count(batch) < self._breaker.limit:
                await self._clock.sleep(self._linger)
                await batches.fill(batch, self._breaker.limit)
            fetching = asyncio.create_task(batches.fetch(self._breaker.limit, stop))
            try:
                began = self._writing = self._clock.monotonic()
                await self._write(batch)
                self._writing = None
                self._went_well(self._clock.monotonic() - began)
                await self._commit()
                batch = await fetching
            finally:
                await cancel_and_wait(fetching)

    def _went_well(self, seconds: float = 0.0) -> None:
        if self._breaker.failures:
            logger.info("sink_resumed", sink=self._sink.name, retries=self._breaker.failures)
        self._breaker.succeeded(seconds)

    async def _write(self, batch: list[Fetched]) -> None:
        began = self._clock.monotonic()
        try:
            await self._sink.write(batch)
        except Refused as error:
            if record_count(batch) > 1:
                for half in halves(batch):
                    await self._write(half)
                return
            batch = [await self._refusals.set_aside(fetched, error) for fetched in batch]
            try:
                await self._sink.write(batch)
            except Refused as again:
                raise RetryLater(f"{self._sink.name} refuses even a position: {again}") from again
        count = record_count(batch)
        self._written += count
        self._metrics.count("headrace_sink_records_total", count, sink=self._sink.name)
        seconds = self._clock.monotonic() - began
        self._metrics.observe("headrace_sink_write_seconds", seconds, sink=self._sink.name)
        self._stored |= {fetched.target: fetched.next_offset for fetched in batch}

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
        began, self._writing = self._writing, None
        state = self._breaker.state
        delay = self._breaker.failed(error, self._clock.monotonic() - began if began is not None else 0.0)
        if isinstance(error, Standby):
            if state != "standby":
                logger.info("sink_standby", sink=self._sink.name, reason=str(error))
        else:
            note = logger.debug if self._breaker.failures > 1 else logger.warning
            note("sink_retrying", sink=self._sink.name, error=str(error), delay=delay)
        waits = [asyncio.create_task(self._clock.sleep(delay)), asyncio.create_task(stop.wait())]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
        if not stop.is_set():
            self._breaker.waited()
