"""Reads one shard of a Kinesis stream into the log, from its position to its end."""

import asyncio
from collections.abc import Awaitable, Callable
from random import Random
from typing import Protocol, TypeVar

import structlog

from headrace.connectors.kinesis.messages import MessageMaker, Messages
from headrace.connectors.kinesis.position import Position
from headrace.connectors.kinesis.shards import IteratorExpired, PositionGone, Read, ShardsClient
from headrace.connectors.kinesis.source_settings import KinesisSourceSettings
from headrace.engine.cancel import cancel_and_wait
from headrace.engine.clock import Clock
from headrace.engine.errors import RetryLater

log = structlog.get_logger(__name__)

#: What Kinesis lets all readers of a shard have together: five reads and 2 MB a second.
LEAST_INTERVAL, BYTES_PER_SECOND = 0.2, 2_000_000
#: First and longest limit of the wait before a repetition, seconds; it doubles while nothing gets through.
FIRST_BACKOFF, LONGEST_BACKOFF = 0.2, 30.0
#: Records of a read after many that failed, at least: less may come through where the line is slow.
LEAST_RECORDS = 50
#: Milliseconds after which the position of a shard is committed though nothing came: that all was read up to then.
IDLE_MARK_MS = 60_000
T = TypeVar("T")


class Told(Protocol):
    """What a reader tells of its shard."""

    def received(self, shard_id: str, read: Read) -> None:
        """Records came; they are not in the log yet."""
        ...

    def failed(self, shard_id: str, error: RetryLater) -> None:
        """A request failed, and is repeated."""
        ...

    def lost(self, shard_id: str, position: Position, until_ms: int) -> None:
        """What arrived behind `position`, before `until_ms`, was gone before it was read."""
        ...


class ShardReader:
    """Reads as fast as Kinesis allows while it is behind, else every `read_interval`.

    The next read begins when all messages of the last are in the log. One read, up to 10 MiB, is all that it holds.

    Args:
        client: of the stream.
        shard_id: which.
        position: where it goes on.
        since_ms: where a shard without position begins; None for its oldest record.
        append: puts messages and position into the log.
        slots: one is held while a read is under way or being appended: bounds what all shards hold.
        told: of what happens.
        retention_ms: how old records may be, asked when a position is taken up.
    """

    def __init__(
        self,
        client: ShardsClient,
        shard_id: str,
        position: Position,
        since_ms: int | None,
        append: Callable[[str, Messages], Awaitable[None]],
        slots: asyncio.Semaphore,
        told: Told,
        maker: MessageMaker,
        settings: KinesisSourceSettings,
        clock: Clock,
        random: Random,
        retention_ms: Callable[[], int],
    ) -> None:
        self.shard_id = shard_id
        self.position = position
        self._client = client
        self._since_ms = since_ms
        self._append = append
        self._slots = slots
        self._told = told
        self._maker = maker
        self._settings = settings
        self._clock = clock
        self._random = random
        self._retention_ms = retention_ms
        self._iterator: str | None = None
        self._failures = 0
        self._limit = settings.max_records

    async def run(self, stop: asyncio.Event) -> None:
        """Read until the shard has ended or `stop` is set; an append that has begun is finished.

        Raises:
            ShardGone: the stream has it no more.
            ConfigError, LogError: as the client, or the append.
        """
        while not (stop.is_set() or self.position.ended):
            began = self._clock.monotonic()
            async with self._slots:
                read = await unless(stop, self._read()) if not stop.is_set() else None
                if read is not None:
                    self._told.received(self.shard_id, read)
                    await self._take(read, stop)
            pause = self._pause(read) - (self._clock.monotonic() - began)
            if pause > 0 and not self.position.ended:
                await unless(stop, self._clock.sleep(pause))

    async def _read(self) -> Read | None:
        """What comes next; None if that failed."""
        try:
            if self._iterator is None:
                self._iterator = await self._begin()
            read = await self._client.read(self._iterator, self._limit)
        except RetryLater as error:
            self._failures += 1
            self._limit = max(self._limit // 2, min(LEAST_RECORDS, self._settings.max_records))
            self._told.failed(self.shard_id, error)
            return None
        except IteratorExpired:
            log.debug("kinesis_iterator_expired", shard=self.shard_id)
            self._iterator = None
            return None
        self._failures = 0
        self._limit = min(2 * self._limit, self._settings.max_records)
        return read

    async def _begin(self) -> str:
        """An iterator at our position, or at the oldest record there is if that is gone."""
        position, oldest_ms = self.position, self._clock.now_ms() - self._retention_ms()
        gone = 0 < position.until_ms < oldest_ms
        try:
            iterator = await self._client.iterator(self.shard_id, position, self._since_ms)
        except PositionGone:
            iterator = await self._client.iterator(self.shard_id, Position(), None)
            gone, oldest_ms = True, max(oldest_ms, position.until_ms)
        if gone:
            self._told.lost(self.shard_id, position, oldest_ms)
            self.position = position._replace(sequence="", taken=None, until_ms=oldest_ms)
        return iterator

    async def _take(self, read: Read, stop: asyncio.Event) -> None:
        before = self.position
        until_ms = self._clock.now_ms() - read.behind_ms
        for piece in self._maker.pieces(read, before, until_ms):
            idle = piece.position.until_ms - before.until_ms >= IDLE_MARK_MS
            if piece.payloads or piece.position.ended or idle:
                await self._append(self.shard_id, piece)
                self.position = piece.position
            if stop.is_set():
                return
        self._iterator = read.iterator

    def _pause(self, read: Read | None) -> float:
        """Seconds from the beginning of a read to that of the next."""
        if self._failures:
            longest = min(FIRST_BACKOFF * 2 ** min(self._failures, 16), LONGEST_BACKOFF)
            return self._random.uniform(LEAST_INTERVAL, max(LEAST_INTERVAL, longest))
        if read is None:
            return LEAST_INTERVAL
        size = sum([len(record.data) + len(record.key) for record in read.records])
        interval = LEAST_INTERVAL if read.behind_ms else self._settings.read_interval
        return max(interval, size / BYTES_PER_SECOND)


async def unless(stop: asyncio.Event, work: Awaitable[T]) -> T | None:
    """What `work` gives; None if `stop` is set before it is done: then it is cancelled."""
    working, stopping = asyncio.ensure_future(work), asyncio.ensure_future(stop.wait())
    try:
        await asyncio.wait((working, stopping), return_when=asyncio.FIRST_COMPLETED)
        return working.result() if working.done() else None
    finally:
        await cancel_and_wait(working, stopping)
        if not working.cancelled():
            working.exception()  # of a request that failed while we stopped nobody wants to know
