"""Takes messages from a stream of Amazon Kinesis into the log."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import TypeVar

import structlog

from headrace.connectors.kinesis.append import Append, KinesisAppend
from headrace.connectors.kinesis.messages import MessageMaker, Messages
from headrace.connectors.kinesis.position import Position, Start
from headrace.connectors.kinesis.shard_reader import FIRST_BACKOFF, LONGEST_BACKOFF, ShardReader, unless
from headrace.connectors.kinesis.shards import Read, Shard, ShardGone, ShardsClient, Stream, open_shards
from headrace.connectors.kinesis.source_settings import KinesisSourceSettings
from headrace.connectors.topic_profile import SHIPPED, TopicProfile
from headrace.engine.cancel import cancel_and_wait
from headrace.engine.clock import Clock
from headrace.engine.errors import ConfigError, RetryLater, first
from headrace.engine.file_lock import LockHeld, lock_file
from headrace.engine.health import Health, Progress
from headrace.engine.intake import Intake, Mark
from headrace.engine.metrics import Metrics

log = structlog.get_logger(__name__)

#: Seconds between two looks for new shards; also as soon as one has ended.
LOOK_INTERVAL = 30.0
#: Seconds that appends under way get when the source is stopped.
STOP_TIMEOUT = 10.0
#: Requests for one shard that fail in a row before the source is not ready.
MANY_FAILURES = 3
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class KinesisSourceStatistics:
    """What a source did so far, counts.

    Args:
        received: records that came; one of the Producer Library may be many messages.
        appended: messages that the log took.
        retries: requests that failed and were repeated.
        shards_ended: shards read to their end.
        lost_ranges: stretches of a shard that were gone before they were read.
    """

    received: int
    appended: int
    retries: int
    shards_ended: int
    lost_ranges: int


@asynccontextmanager
async def open_kinesis_source(
    settings: KinesisSourceSettings,
    intake: Intake,
    clock: Clock,
    lock: Path | None = None,
    *,
    profiles: Sequence[TopicProfile] = SHIPPED,
    metrics: Metrics | None = None,
    health: Health | None = None,
) -> AsyncIterator["KinesisSource"]:
    """A source for as long as the `async with` lasts.

    Args:
        lock: file that only one process at a time may have, beside an embedded log; on Kafka the last to claim the
            stream has it.
        profiles: of topics, for `settings.topic`.
    Raises:
        ConfigError: aiobotocore is not installed, no stream or region is named, or another process has the lock.
    """
    try:
        held = None if lock is None else lock_file(lock)
    except LockHeld as error:
        raise ConfigError(
            f"[kinesis_source] stream {settings.stream}: process {error.owner} takes it into the same log already"
        ) from error
    try:
        async with open_shards(settings) as client:
            yield KinesisSource(settings, client, intake, clock, profiles=profiles, metrics=metrics, health=health)
    finally:
        if held is not None:
            held.close()


class KinesisSource:
    """Reads every shard in order, and commits how far with the messages: none is lost, none appended twice by us.

    In order per partition key, also where shards are split and merged: a shard is read when its parents have ended and
    are in the log. What a producer sends twice comes twice; ingest recognises it.

    One process per stream and log: it claims the stream for its intake, see `Log.claim`. Once another process has done
    that, an append of this one is refused, and it ends.

    Args:
        settings: stream, batches.
        client: of the stream.
        intake: appends, and keeps the positions; nobody else's.
        clock: for waiting.
        random: jitter of the backoff.
        profiles: of topics, for `settings.topic`.
        metrics, health: of the process; told how it goes.
    """

    name = "kinesis"

    def __init__(
        self,
        settings: KinesisSourceSettings,
        client: ShardsClient,
        intake: Intake,
        clock: Clock,
        random: Random | None = None,
        *,
        profiles: Sequence[TopicProfile] = SHIPPED,
        metrics: Metrics | None = None,
        health: Health | None = None,
    ) -> None:
        self._settings = settings
        self._client = client
        self._intake = intake
        self._clock = clock
        self._random = random or Random()
        self._metrics = metrics = metrics or Metrics()
        self._put: Append = KinesisAppend(settings, intake, profiles, clock, metrics)
        self._health = health or Health(clock, expects=[self.name])
        self._slots = asyncio.Semaphore(settings.requests)
        self._stream = Stream("", 0, 0)
        self._since_ms: int | None = None
        self._positions: dict[str, Position] = {}
        self._reading: dict[str, asyncio.Task[None]] = {}
        self._ended = asyncio.Event()
        self._behind_ms: dict[str, int] = {}
        self._failing: dict[str, int] = {}
        self._appending = 0
        self._received = self._appended = self._retries = self._shards_ended = self._lost_ranges = 0

    def statistics(self) -> KinesisSourceStatistics:
        """A snapshot of the counters."""
        return KinesisSourceStatistics(
            self._received, self._appended, self._retries, self._shards_ended, self._lost_ranges
        )

    def progress(self) -> Progress:
        """How far it has come, for health: behind is appends under way and milliseconds of the slowest shard."""
        return Progress(self._appended, self._appending + max(self._behind_ms.values(), default=0))

    async def run(self, stop: asyncio.Event) -> None:
        """Read until `stop` is set; then finish the appends that have begun. Runs once per object.

        Raises:
            LogError: an append failed; nothing of it is in the log.
            LogInUse: likewise, as another process takes the stream now.
            ConfigError: there is no such stream, or the credentials are not good for it.
        """
        running = asyncio.ensure_future(self._read_stream(stop))
        try:
            await unless(stop, asyncio.shield(running))
            await asyncio.wait([running], timeout=STOP_TIMEOUT)
            if running.done():
                running.result()
            else:
                log.warning("kinesis_append_left", reason="the log takes nothing; what it did not take is read again")
        except ExceptionGroup as errors:
            raise first(errors) from None
        finally:
            await cancel_and_wait(running)

    async def _read_stream(self, stop: asyncio.Event) -> None:
        described = await self._try(self._client.describe, stop)
        if described is None:
            return
        self._stream = described
        await self._load()
        self._note_ready()
        async with asyncio.TaskGroup() as group:
            while not stop.is_set():
                self._ended.clear()
                shards = await self._try(self._client.shards, stop)
                if shards is None:
                    return
                await self._note_gone({shard.shard_id for shard in shards})
                for shard in self._readable(shards):
                    self._reading[shard.shard_id] = group.create_task(self._read_shard(shard.shard_id, stop))
                self._metrics.set("headrace_source_shards", len(self._reading), source=self.name)
                await unless(stop, self._wait_look())
                await self._look_again(stop)

    async def _wait_look(self) -> None:
        await unless(self._ended, self._clock.sleep(LOOK_INTERVAL))

    async def _look_again(self, stop: asyncio.Event) -> None:
        described = await self._try(self._client.describe, stop) or self._stream
        if described.created_ms != self._stream.created_ms:
            raise ConfigError(f"[kinesis_source] stream {self._client.stream} was deleted and made anew: start again")
        self._stream = described

    async def _try(self, ask: Callable[[], Awaitable[T]], stop: asyncio.Event) -> T | None:
        """The answer, asked for until there is one; None if `stop` is set first."""
        longest = FIRST_BACKOFF
        while not stop.is_set():
            try:
                answer = await unless(stop, ask())
            except RetryLater as error:
                self.failed("", error)
                await unless(stop, self._clock.sleep(self._random.uniform(0, longest)))
                longest = min(2 * longest, LONGEST_BACKOFF)
            else:
                if longest > FIRST_BACKOFF:
                    self._note_ready()
                return answer
        return None

    # -- where to go on

    @property
    def _prefix(self) -> str:
        """Of the names under which positions are kept. A stream that was made anew is another one."""
        return f"kinesis:{self._stream.arn}:{self._stream.created_ms}:"

    async def _load(self) -> None:
        """Be the only one here, and take up the positions; at the first start on this log, fix where it begins."""
        name = f"kinesis:{self._stream.arn}"
        await self._intake.claim(name)
        kept = await self._intake.positions(name)
        start = Start.loads(kept[name]) if name in kept else None
        if start is None or start.created_ms != self._stream.created_ms:
            if start is None:
                start = Start(self._stream.created_ms, self._first_ms())
            else:
                log.error(
                    "kinesis_stream_replaced",
                    stream=self._stream.arn,
                    reason="it was deleted and made anew: what was in it and not read is lost; read from its beginning",
                )
                self._count_lost()
                start = Start(self._stream.created_ms, None)
            await self._put(Messages(), Mark(name, start.dumps()))
        self._since_ms = start.since_ms
        for key, value in kept.items():
            if key.startswith(self._prefix):
                self._positions[key[len(self._prefix) :]] = Position.loads(value)

    def _first_ms(self) -> int | None:
        if self._settings.start == "latest":
            return self._clock.now_ms()
        given = self._settings.start_timestamp
        return None if given is None else round(given.timestamp() * 1000)

    # -- shards

    def _readable(self, shards: Sequence[Shard]) -> list[Shard]:
        """Those to begin with now: not ended, not begun, and their parents ended or gone from the stream."""
        listed = {shard.shard_id for shard in shards}
        waiting = {each for each in listed if not self._position(each).ended}
        return [
            shard
            for shard in shards
            if shard.shard_id in waiting and shard.shard_id not in self._reading and waiting.isdisjoint(shard.parents)
        ]

    def _position(self, shard_id: str) -> Position:
        return self._positions.get(shard_id, Position())

    async def _note_gone(self, listed: set[str]) -> None:
        """Shards that were not read to their end and that the stream has no more."""
        for shard_id, position in list(self._positions.items()):
            if shard_id not in listed and shard_id not in self._reading and not position.ended:
                await self._end_lost(shard_id)

    async def _end_lost(self, shard_id: str) -> None:
        position = self._position(shard_id)
        self.lost(shard_id, position, self._clock.now_ms() - self._stream.retention_ms)
        await self._append(shard_id, Messages(position=position._replace(ended=True)))

    async def _read_shard(self, shard_id: str, stop: asyncio.Event) -> None:
        reader = ShardReader(
            self._client,
            shard_id,
            self._position(shard_id),
            self._since_ms,
            self._append,
            self._slots,
            self,
            MessageMaker(f"{self._stream.arn.rpartition('/')[2]}/{shard_id}", self._settings),
            self._settings,
            self._clock,
            self._random,
            lambda: self._stream.retention_ms,
        )
        try:
            await reader.run(stop)
        except ShardGone:
            await self._end_lost(shard_id)
        finally:
            del self._reading[shard_id]
            self._behind_ms.pop(shard_id, None)
            self._note_success(shard_id)
        if self._position(shard_id).ended:
            self._shards_ended += 1
            log.info("kinesis_shard_ended", shard=shard_id)
            self._ended.set()

    async def _append(self, shard_id: str, messages: Messages) -> None:
        self._appending += 1
        try:
            await self._put(messages, Mark(self._prefix + shard_id, messages.position.dumps()))
        finally:
            self._appending -= 1
        self._positions[shard_id] = messages.position
        self._appended += len(messages.payloads)
        self._metrics.count("headrace_source_appended_total", len(messages.payloads), source=self.name)

    # -- what readers tell

    def received(self, shard_id: str, read: Read) -> None:
        """See `Told`."""
        self._received += len(read.records)
        self._behind_ms[shard_id] = read.behind_ms
        self._metrics.set("headrace_source_behind_seconds", max(self._behind_ms.values()) / 1000, source=self.name)
        self._note_success(shard_id)

    def failed(self, shard_id: str, error: RetryLater) -> None:
        """See `Told`; without a shard it is the stream that could not be asked."""
        self._retries += 1
        self._metrics.count("headrace_source_retries_total", source=self.name)
        log.warning("kinesis_retry", stream=self._client.stream, shard=shard_id, reason=str(error))
        if shard_id:
            self._failing[shard_id] = self._failing.get(shard_id, 0) + 1
        if not shard_id or self._failing[shard_id] >= MANY_FAILURES:
            self._health.not_ready(self.name, str(error))
            self._metrics.set("headrace_source_connected", 0, source=self.name)

    def lost(self, shard_id: str, position: Position, until_ms: int) -> None:
        """See `Told`."""
        self._count_lost()
        log.error(
            "kinesis_records_lost",
            shard=shard_id,
            after_sequence=position.sequence,
            from_ms=position.until_ms,
            until_ms=until_ms,
            reason="what arrived in this time and is not in the log was older than the stream's retention",
            remedy="keep records for longer than the bridge may be away: IncreaseStreamRetentionPeriod",
        )

    def _note_success(self, shard_id: str) -> None:
        failures = self._failing.pop(shard_id, 0)
        if failures >= MANY_FAILURES and not self._failing:
            self._note_ready()

    def _note_ready(self) -> None:
        self._health.ready(self.name)
        self._metrics.set("headrace_source_connected", 1, source=self.name)

    def _count_lost(self) -> None:
        self._lost_ranges += 1
        self._metrics.count("headrace_source_lost_ranges_total", source=self.name)
