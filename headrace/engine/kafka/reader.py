"""`Reader` on Kafka: takes what the fetcher's thread brought, on the caller's loop."""

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable, Coroutine, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import aiokafka.errors as kafka_errors
import structlog

from headrace.engine.cancel import cancel_and_wait
from headrace.engine.clock import Clock
from headrace.engine.errors import HeadraceError, LogError
from headrace.engine.kafka.decoding import Stretch, decode
from headrace.engine.kafka.fetcher import Arrival, Deliver, Fetcher
from headrace.engine.kafka.loop_thread import LoopThread
from headrace.engine.kafka.watchdog import Watchdog
from headrace.engine.log import Fetched, TopicPartition
from headrace.engine.metrics import Metrics

#: Seconds that a stalled fetcher gets to close.
CLOSE_TIMEOUT = 3.0

log = structlog.get_logger(__name__)

#: Makes a fetcher on the I/O thread.
MakeFetcher = Callable[[Deliver], Coroutine[Any, Any, Fetcher]]


@dataclass(slots=True)
class _Buffer:
    """What was fetched of one partition and not yet read, from `position` on; `rest` is of a batch that was cut."""

    number: int
    position: int
    stretches: deque[Stretch] = field(default_factory=deque)
    rest: Fetched | None = None
    error: HeadraceError | None = None

    @property
    def ready(self) -> bool:
        return self.rest is not None or bool(self.stretches) or self.error is not None


class KafkaReader:
    """Reads any partitions, each from where it is asked for; fetches ahead of the last read.

    Fetched records stay as they came until they are read, so that the buffer is small. A batch of them is decoded at
    once, and a read brings whole batches where it can.

    Args:
        thread: where fetching runs.
        make_fetcher: called there, again whenever fetching has stalled.
        watchdog: says that it has.
        clock: waits.
        metrics: told of rebuilds.
        on_close: called with the reader when it is closed.
    """

    def __init__(
        self,
        thread: LoopThread,
        make_fetcher: MakeFetcher,
        watchdog: Watchdog,
        clock: Clock,
        metrics: Metrics,
        on_close: Callable[["KafkaReader"], object],
    ) -> None:
        self._thread = thread
        self._make_fetcher = make_fetcher
        self._watchdog = watchdog
        self._clock = clock
        self._on_close = on_close
        self._fetcher: Fetcher | None = None
        self._opening: asyncio.Task[None] | None = None
        self._loop = asyncio.get_running_loop()
        self._buffers: dict[TopicPartition, _Buffer] = {}
        self._waiters: set[asyncio.Event] = set()
        self._seeks = 0
        self._watching: asyncio.Task[None] | None = None
        self._closed = False
        self._metrics = metrics
        self.rebuilds = 0

    async def read(self, target: TopicPartition, offset: int, max_records: int) -> Fetched | None:
        buffer = self._at(await self._open(), target, offset)
        if buffer.rest is not None or buffer.stretches:
            return self._take(target, buffer, max_records)
        if buffer.error is not None:
            raise buffer.error
        return None

    async def wait(self, positions: Mapping[TopicPartition, int], timeout: float) -> bool:
        fetcher = await self._open()
        buffers = [self._at(fetcher, target, offset) for target, offset in positions.items()]
        arrived = asyncio.Event()
        self._waiters.add(arrived)
        deadline = self._loop.time() + timeout
        try:
            while not any(buffer.ready for buffer in buffers):
                left = deadline - self._loop.time()
                if left <= 0:
                    return False
                arrived.clear()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(left):
                        await arrived.wait()
                self._check_open()
            return True
        finally:
            self._waiters.discard(arrived)

    def forget(self, targets: Iterable[TopicPartition]) -> None:
        known = [target for target in targets if self._buffers.pop(target, None) is not None]
        if known and self._fetcher is not None:
            self._thread.call(self._fetcher.forget, known)

    async def close(self) -> None:
        """Stop fetching; who still waits gets a LogError."""
        if self._closed:
            return
        self._closed = True
        self._buffers.clear()
        self._wake_up()
        await cancel_and_wait(self._opening)
        await cancel_and_wait(self._watching)
        fetcher, self._fetcher = self._fetcher, None
        if fetcher is not None:
            await self._thread.run(fetcher.close())
        self._on_close(self)

    def _check_open(self) -> None:
        if self._closed:
            raise LogError("the reader is closed")

    async def _open(self) -> Fetcher:
        self._check_open()
        if self._fetcher is None:
            if self._opening is None or self._opening.done():
                self._opening = asyncio.create_task(self._start())
            # Goes on when this caller is cancelled: half open, a connection would be left behind.
            opening = self._opening
            await asyncio.wait([opening])
            self._check_open()
            opening.result()
        assert self._fetcher is not None
        return self._fetcher

    async def _start(self) -> None:
        self._fetcher = await self._thread.run(self._make_fetcher(self._deliver))
        self._watching = asyncio.create_task(self._watch())

    async def _watch(self) -> None:
        while True:
            await self._clock.sleep(self._watchdog.interval)
            assert self._fetcher is not None
            stalled = await self._thread.run(self._watchdog.stalled(self._fetcher))
            if stalled:
                log.error("fetching_rebuilt", partitions=[f"{t.topic}/{t.partition}" for t in stalled])
                try:
                    self._fetcher = await self._thread.run(self._replace(self._fetcher))
                    self.rebuilds += 1
                    self._metrics.count("headrace_fetch_rebuilds_total")
                except kafka_errors.KafkaError as error:
                    log.warning("fetching_not_rebuilt", error=str(error))

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
            if buffer is not None and buffer.number == arrival.seek:
                buffer.error = arrival.error
                buffer.stretches.extend(arrival.stretches)
        self._wake_up()

    def _wake_up(self) -> None:
        for waiter in self._waiters:
            waiter.set()

    def _at(self, fetcher: Fetcher, target: TopicPartition, offset: int) -> _Buffer:
        """The buffer of a partition, at this offset."""
        buffer = self._buffers.get(target)
        if buffer is None or buffer.position != offset:
            self._seeks += 1
            buffer = self._buffers[target] = _Buffer(self._seeks, offset)
            self._thread.call(fetcher.seek, target, offset, self._seeks)
        return buffer

    def _take(self, target: TopicPartition, buffer: _Buffer, max_records: int) -> Fetched:
        """Whole batches of about `max_records`; one that is too large is cut."""
        taken: list[Fetched] = []
        total = 0
        if buffer.rest is not None:
            taken.append(buffer.rest)
            total, buffer.rest = len(buffer.rest.records), None
        stretches: list[Stretch] = []
        while buffer.stretches and (not total or total + buffer.stretches[0].count <= max_records):
            stretches.append(buffer.stretches.popleft())
            total += stretches[-1].count
        released = sum(len(stretch.payload) for stretch in stretches)
        if stretches:
            taken.append(_decoded(stretches))
            total = sum(len(piece.records) for piece in taken)
        if total > max_records:
            last = taken.pop()
            cut = max_records - (total - len(last.records))
            taken.append(last.part(0, cut))
            buffer.rest = last.part(cut, len(last.records))
        if released and self._fetcher is not None:
            self._thread.call(self._fetcher.release, target, buffer.number, released)
        buffer.position = taken[-1].next_offset
        return Fetched.joined(taken)


def _decoded(stretches: list[Stretch]) -> Fetched:
    try:
        return decode(stretches)
    except kafka_errors.CorruptRecordException as error:
        topic, number = stretches[0].target
        raise LogError(f"{topic}/{number} cannot be read: {error}") from error
