"""`Reader` on Kafka: takes what the fetcher's thread brought, on the caller's loop."""

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable, Coroutine, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import structlog

from headrace.engine.clock import Clock
from headrace.engine.errors import HeadraceError
from headrace.engine.kafka.fetcher import Arrival, Deliver, Fetcher
from headrace.engine.kafka.loop_thread import LoopThread
from headrace.engine.kafka.watchdog import Watchdog
from headrace.engine.log import Fetched, TopicPartition

#: Seconds that a stalled fetcher gets to close.
CLOSE_TIMEOUT = 3.0

log = structlog.get_logger(__name__)

#: Makes a fetcher on the I/O thread.
MakeFetcher = Callable[[Deliver], Coroutine[Any, Any, Fetcher]]


@dataclass(slots=True)
class _Buffer:
    """Pieces of one partition that were fetched and not yet read, from `position` on."""

    number: int
    position: int
    pieces: deque[tuple[Fetched, int]] = field(default_factory=deque)
    error: HeadraceError | None = None


class KafkaReader:
    """Reads any partitions, each from where it is asked for; fetches ahead of the last read.

    Args:
        thread: where fetching runs.
        make_fetcher: called there, again whenever fetching has stalled.
        watchdog: says that it has.
        clock: waits.
    """

    def __init__(self, thread: LoopThread, make_fetcher: MakeFetcher, watchdog: Watchdog, clock: Clock) -> None:
        self._thread = thread
        self._make_fetcher = make_fetcher
        self._fetcher: Fetcher | None = None
        self._opening = asyncio.Lock()
        self._loop = asyncio.get_running_loop()
        self._buffers: dict[TopicPartition, _Buffer] = {}
        self._waiters: set[asyncio.Event] = set()
        self._seeks = 0
        self._watchdog = watchdog
        self._clock = clock
        self._watching: asyncio.Task[None] | None = None
        self.rebuilds = 0

    async def read(self, target: TopicPartition, offset: int, max_records: int) -> Fetched | None:
        fetcher = await self._open()
        buffer = self._buffers.get(target)
        if buffer is None or buffer.position != offset:
            buffer = self._seek(fetcher, target, offset)
        if buffer.error is not None:
            raise buffer.error
        return self._take(fetcher, target, buffer, max_records)

    async def wait(self, positions: Mapping[TopicPartition, int], timeout: float) -> bool:
        fetcher = await self._open()
        for target, offset in positions.items():
            buffer = self._buffers.get(target)
            if buffer is None or buffer.position != offset:
                self._seek(fetcher, target, offset)
        arrived = asyncio.Event()
        self._waiters.add(arrived)
        deadline = self._loop.time() + timeout
        try:
            while not any(self._ready(target) for target in positions):
                left = deadline - self._loop.time()
                if left <= 0:
                    return False
                arrived.clear()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(left):
                        await arrived.wait()
            return True
        finally:
            self._waiters.discard(arrived)

    def forget(self, targets: Iterable[TopicPartition]) -> None:
        known = [target for target in targets if self._buffers.pop(target, None) is not None]
        if known and self._fetcher is not None:
            self._thread.call(self._fetcher.forget, known)

    async def close(self) -> None:
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.wait([self._watching])
        fetcher, self._fetcher = self._fetcher, None
        self._buffers.clear()
        if fetcher is not None:
            await self._thread.run(fetcher.close())

    def _ready(self, target: TopicPartition) -> bool:
        buffer = self._buffers.get(target)
        return buffer is not None and (bool(buffer.pieces) or buffer.error is not None)

    async def _open(self) -> Fetcher:
        if self._fetcher is None:
            async with self._opening:
                if self._fetcher is None:
                    self._fetcher = await self._thread.run(self._make_fetcher(self._deliver))
                    self._watching = asyncio.create_task(self._watch())
        return self._fetcher

    async def _watch(self) -> None:
        while True:
            await self._clock.sleep(self._watchdog.interval)
            assert self._fetcher is not None
            stalled = await self._thread.run(self._watchdog.stalled(self._fetcher))
            if stalled:
                self.rebuilds += 1
                log.error("fetching_rebuilt", partitions=[f"{t.topic}/{t.partition}" for t in stalled])
                self._fetcher = await self._thread.run(self._replace(self._fetcher))

    async def _replace(self, stalled: Fetcher) -> Fetcher:
        """A new fetcher, on new connections, that goes on where the stalled one stands. On the I/O thread."""
        fetcher = await self._make_fetcher(self._deliver)
        for target, (position, number) in stalled.positions().items():
            fetcher.seek(target, position, number)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_TIMEOUT):
                await stalled.close()
        return fetcher

    def _deliver(self, arrivals: list[Arrival]) -> None:
        """On the I/O thread."""
        self._loop.call_soon_threadsafe(self._arrived, arrivals)

    def _arrived(self, arrivals: list[Arrival]) -> None:
        for arrival in arrivals:
            buffer = self._buffers.get(arrival.target)
            if buffer is None or buffer.number != arrival.seek:
                continue
            buffer.error = arrival.error
            last = len(arrival.pieces) - 1
            buffer.pieces.extend(
                (piece, arrival.size if index == last else 0) for index, piece in enumerate(arrival.pieces)
            )
        for waiter in self._waiters:
            waiter.set()

    def _seek(self, fetcher: Fetcher, target: TopicPartition, offset: int) -> _Buffer:
        self._seeks += 1
        buffer = self._buffers[target] = _Buffer(self._seeks, offset)
        self._thread.call(fetcher.seek, target, offset, self._seeks)
        return buffer

    def _take(self, fetcher: Fetcher, target: TopicPartition, buffer: _Buffer, max_records: int) -> Fetched | None:
        """Whole pieces, about `max_records`; a piece that is too large is cut."""
        taken: list[Fetched] = []
        room, released = max_records, 0
        while buffer.pieces and (room > 0 or not len(buffer.pieces[0][0].records)):
            piece, size = buffer.pieces.popleft()
            total = len(piece.records)
            if total > room:
                buffer.pieces.appendleft((piece.part(room, total), size))
                piece, size = piece.part(0, room), 0
            taken.append(piece)
            room -= len(piece.records)
            released += size
        if not taken:
            return None
        if released:
            self._thread.call(fetcher.release, target, buffer.number, released)
        buffer.position = taken[-1].next_offset
        return Fetched.joined(taken)
