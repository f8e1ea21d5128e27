"""Fetches partitions ahead of their reader, on the I/O thread."""

import asyncio
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import aiokafka.errors as kafka_errors
import structlog
from aiokafka.client import AIOKafkaClient
from aiokafka.protocol.fetch import FetchRequest

from headrace.engine.clock import Clock
from headrace.engine.errors import HeadraceError, LogError, TopicChanged
from headrace.engine.kafka.codec import decode
from headrace.engine.kafka.offsets import EARLIEST, LATEST, list_offsets
from headrace.engine.log import Fetched, TopicPartition
from headrace.engine.records import Records

#: Bytes fetched and not yet read, over all partitions of a reader; shared out among them.
BUFFER_BYTES = 32 << 20
LEAST_PARTITION_BYTES = 128 << 10
MOST_PARTITION_BYTES = 1 << 20
#: Longest that a broker holds a request that it has nothing for, ms; shorter while a full partition is left out of it.
MAX_WAIT_MS = 500
FULL_WAIT_MS = 20
#: Records per piece handed over.
PIECE_RECORDS = 5_000
RETRY_PAUSE = 0.1
READ_COMMITTED = 1

#: Takes what was fetched for one partition since the last seek with this number: pieces, their bytes, or an error.
Deliver = Callable[[list["Arrival"]], object]

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class Arrival:
    """What one fetch brought for one partition; `size` bytes are to be released when it is read."""

    target: TopicPartition
    seek: int
    pieces: list[Fetched]
    size: int
    error: HeadraceError | None = None


@dataclass(slots=True)
class _Cursor:
    """Where fetching of one partition stands."""

    seek: int
    position: int
    unread: int = 0
    end: int = 0
    failed: bool = False
    moved_at: float = 0.0


class Fetcher:
    """Keeps every partition that is read supplied, one request per broker at a time.

    Lives on the I/O thread; `deliver` is called there.
    """

    def __init__(self, client: AIOKafkaClient, clock: Clock, deliver: Deliver) -> None:
        self._client = client
        self._clock = clock
        self._deliver = deliver
        self._cursors: dict[TopicPartition, _Cursor] = {}
        self._busy: set[int] = set()
        self._requests: set[asyncio.Task[None]] = set()
        self._changed = asyncio.Event()
        self._task = asyncio.create_task(self._run())

    def seek(self, target: TopicPartition, offset: int, number: int) -> None:
        """Fetch `target` from `offset` on; arrivals carry `number`, so that older ones are told apart."""
        self._cursors[target] = _Cursor(number, offset, moved_at=self._clock.monotonic())
        self._client.add_topic(target.topic)
        self._changed.set()

    def forget(self, targets: Iterable[TopicPartition]) -> None:
        """Fetch these no more."""
        for target in targets:
            self._cursors.pop(target, None)

    def release(self, target: TopicPartition, number: int, size: int) -> None:
        """`size` bytes of `target` were read."""
        cursor = self._cursors.get(target)
        if cursor is not None and cursor.seek == number:
            cursor.unread -= size
            cursor.moved_at = self._clock.monotonic()
            self._changed.set()

    def waiting(self) -> Mapping[TopicPartition, tuple[int, float]]:
        """Partitions with nothing unread: (position, monotonic time since when nothing moved)."""
        return {
            target: (cursor.position, cursor.moved_at)
            for target, cursor in self._cursors.items()
            if cursor.unread <= 0 and not cursor.failed
        }

    def positions(self) -> dict[TopicPartition, tuple[int, int]]:
        """Where fetching goes on, by partition, with the number of its seek: what a successor starts from."""
        return {t: (c.position, c.seek) for t, c in self._cursors.items() if not c.failed}

    async def close(self) -> None:
        """Stop fetching."""
        for task in [self._task, *self._requests]:
            task.cancel()
        await asyncio.wait([self._task, *self._requests])
        await self._client.close()

    async def _run(self) -> None:
        while True:
            self._changed.clear()
            for node, targets in self._wanted().items():
                self._busy.add(node)
                task = asyncio.create_task(self._fetch(node, targets))
                self._requests.add(task)
                task.add_done_callback(self._requests.discard)
            await self._changed.wait()

    def _wanted(self) -> dict[int, list[TopicPartition]]:
        wanted: dict[int, list[TopicPartition]] = {}
        limit = self._partition_bytes()
        leaderless = False
        for target, cursor in self._cursors.items():
            if cursor.unread >= limit or cursor.failed:
                continue
            node = self._client.cluster.leader_for_partition(target)
            if node is None or node == -1:
                leaderless = True
            elif node not in self._busy:
                wanted.setdefault(node, []).append(target)
        if leaderless:
            self._client.force_metadata_update()
            asyncio.get_running_loop().call_later(RETRY_PAUSE, self._changed.set)
        return wanted

    def _partition_bytes(self) -> int:
        share = BUFFER_BYTES // max(1, len(self._cursors))
        return min(MOST_PARTITION_BYTES, max(LEAST_PARTITION_BYTES, share))

    async def _fetch(self, node: int, targets: list[TopicPartition]) -> None:
        try:
            arrivals = await self._request(node, targets)
            if arrivals:
                self._deliver(arrivals)
        except (kafka_errors.KafkaError, TimeoutError) as error:
            log.warning("fetch_failed", node=node, error=repr(error))
            self._client.force_metadata_update()
            await self._clock.sleep(RETRY_PAUSE)
        finally:
            self._busy.discard(node)
            self._changed.set()

    async def _request(self, node: int, targets: list[TopicPartition]) -> list[Arrival]:
        asked = {target: (self._cursors[target].seek, self._cursors[target].position) for target in targets}
        limit = self._partition_bytes()
        topics: dict[str, list[tuple[int, int, int]]] = {}
        for target, (_, position) in asked.items():
            topics.setdefault(target.topic, []).append((target.partition, position, limit))
        full = any(cursor.unread >= limit for cursor in self._cursors.values())
        request = FetchRequest(
            FULL_WAIT_MS if full else MAX_WAIT_MS, 1, BUFFER_BYTES, READ_COMMITTED, list(topics.items())
        )
        response = await self._client.send(node, request)
        arrivals = []
        for topic, partitions in response.topics:
            for number, code, _, last_stable, *rest in partitions:
                target = TopicPartition(topic, number)
                cursor = self._cursors.get(target)
                if cursor is None or (cursor.seek, cursor.position) != asked.get(target):
                    continue  # sought elsewhere meanwhile
                if code:
                    arrivals += await self._failed(target, cursor, kafka_errors.for_code(code))
                    continue
                cursor.end = last_stable
                aborted, body = (rest[1], rest[-1]) if response.API_VERSION >= 5 else (rest[0], rest[-1])
                arrivals += self._arrived(target, cursor, aborted, body)
        return arrivals

    def _arrived(self, target: TopicPartition, cursor: _Cursor, aborted: Any, body: bytes | None) -> list[Arrival]:
        if not body:
            return []
        pieces = decode(target, cursor.position, body, aborted, PIECE_RECORDS)
        if not pieces:
            return []
        cursor.position = pieces[-1].next_offset
        cursor.unread += len(body)
        cursor.moved_at = self._clock.monotonic()
        return [Arrival(target, cursor.seek, pieces, len(body))]

    async def _failed(self, target: TopicPartition, cursor: _Cursor, error: type[Exception]) -> list[Arrival]:
        """Repair what can be repaired; what cannot goes to the reader."""
        position = cursor.position
        if error is kafka_errors.OffsetOutOfRangeError:
            problem = await self._out_of_range(target, cursor)
        elif issubclass(error, kafka_errors.TopicAuthorizationFailedError):
            problem = LogError(f"Kafka does not let this user read topic {target.topic}; grant READ on it")
        else:
            # The leader moved, or is on its way: look again.
            self._client.force_metadata_update()
            await self._clock.sleep(RETRY_PAUSE)
            problem = None
        if problem is None:
            return self._skipped(target, cursor, position)
        cursor.failed = True
        return [Arrival(target, cursor.seek, [], 0, problem)]

    @staticmethod
    def _skipped(target: TopicPartition, cursor: _Cursor, position: int) -> list[Arrival]:
        if cursor.position == position:
            return []
        return [Arrival(target, cursor.seek, [Fetched(target, position, cursor.position, Records([], [], []))], 0)]

    async def _out_of_range(self, target: TopicPartition, cursor: _Cursor) -> HeadraceError | None:
        first = (await list_offsets(self._client, [target], EARLIEST))[target]
        end = (await list_offsets(self._client, [target], LATEST))[target]
        if cursor.position > end:
            return TopicChanged(
                f"{target.topic}/{target.partition} ends at {end}, but was read up to {cursor.position}: "
                f"the topic was deleted and made anew. `headrace topics reset {target.topic}` starts it over"
            )
        log.error(
            "records_lost",
            topic=target.topic,
            partition=target.partition,
            count=first - cursor.position,
            reason="retention dropped records that were not read yet",
        )
        cursor.position = first
        return None
