"""Fetches partitions ahead of their reader, on the I/O thread."""

import asyncio
from collections.abc import Callable, Coroutine, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import aiokafka.errors as kafka_errors
import structlog
from aiokafka.client import ConnectionGroup

from headrace.engine.cancel import cancel_and_wait
from headrace.engine.clock import Clock
from headrace.engine.errors import HeadraceError, LogError
from headrace.engine.kafka.client import Client
from headrace.engine.kafka.decoding import Stretch, stretches
from headrace.engine.kafka.fetch import Part, fetch
from headrace.engine.kafka.fetch_repair import made_anew, repaired
from headrace.engine.kafka.topic_ids import TopicIds
from headrace.engine.log import TopicPartition

#: Bytes fetched and not yet read, as they came over the wire, over all partitions of a reader; shared out among them.
BUFFER_BYTES = 32 << 20
LEAST_PARTITION_BYTES, MOST_PARTITION_BYTES = 128 << 10, 2 << 20
#: Longest that a broker holds a request that it has nothing for, ms.
PATIENT_WAIT_MS = 250
RETRY_PAUSE = 0.1
#: Seconds between two looks whether topics were made anew.
TOPIC_CHECK = 5.0
#: Fetches of damaged records in a row before the partition fails.
MOST_DAMAGED = 5

#: Connections to one broker. What was just sought or emptied does not wait for a patient request of others to return.
PATIENT, QUICK = ConnectionGroup.DEFAULT, "quick"

#: Takes what was fetched for partitions.
Deliver = Callable[[list["Arrival"]], object]

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class Arrival:
    """What one fetch brought for one partition since the seek with this number, or an error."""

    target: TopicPartition
    seek: int
    stretches: list[Stretch]
    error: HeadraceError | None = None


@dataclass(slots=True)
class _Cursor:
    """Where fetching of one partition stands.

    Args:
        busy: a request for it is under way, or a repair.
        strange: it had no leader for a while: the topic may have been made anew meanwhile.
        eager: it may have something: not to wait behind others.
        moved_at: monotonic time of the last arrival or read.
    """

    seek: int
    position: int
    moved_at: float
    unread: int = 0
    busy: int = 0
    eager: bool = True
    strange: bool = False
    failed: bool = False
    damaged: int = 0


class Fetcher:
    """Keeps every partition that is read supplied.

    Lives on the I/O thread; `deliver` is called there. There are at most two requests per broker at a time.
    """

    def __init__(self, client: Client, clock: Clock, deliver: Deliver) -> None:
        self._client = client
        self._clock = clock
        self._deliver = deliver
        self._cursors: dict[TopicPartition, _Cursor] = {}
        self._busy: set[tuple[int, object]] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._ids = TopicIds(client)
        self._closed = False

    def seek(self, target: TopicPartition, offset: int, number: int) -> None:
        """Fetch `target` from `offset` on; arrivals carry `number`, so that older ones are told apart."""
        self._cursors[target] = _Cursor(number, offset, self._clock.monotonic())
        self._client.add_topic(target.topic)
        if not self._ids.known(target.topic):
            self._spawn(self._check_topics(), "topics")
        self._schedule()

    def forget(self, targets: Iterable[TopicPartition]) -> None:
        """Fetch these no more."""
        for target in targets:
            self._cursors.pop(target, None)
        self._schedule()

    def release(self, target: TopicPartition, number: int, size: int) -> None:
        """`size` bytes of `target` were read."""
        cursor = self._cursors.get(target)
        if cursor is not None and cursor.seek == number:
            cursor.unread -= size
            cursor.moved_at = self._clock.monotonic()
            self._schedule()

    def waiting(self) -> Mapping[TopicPartition, tuple[int, float]]:
        """Partitions with nothing unread: (position, monotonic time since when nothing moved)."""
        return {
            target: (cursor.position, cursor.moved_at)
            for target, cursor in self._cursors.items()
            if cursor.unread <= 0 and not cursor.failed
        }

    def positions(self) -> dict[TopicPartition, tuple[int, int]]:
        """Where fetching goes on, by partition, with the number of its seek: what a successor starts from."""
        return {t: (cursor.position, cursor.seek) for t, cursor in self._cursors.items() if not cursor.failed}

    async def close(self) -> None:
        """Stop fetching."""
        self._closed = True
        await cancel_and_wait(*self._tasks)
        await self._client.close()

    def _schedule(self) -> None:
        """Start every request that can be made now."""
        if self._closed:
            return
        if self._cursors and not self._running("topics"):
            self._spawn(self._check_topics(TOPIC_CHECK), "topics")
        for node, targets in self._free().items():
            if (node, PATIENT) not in self._busy:
                self._start(node, PATIENT, targets)
            elif (node, QUICK) not in self._busy:
                self._start(node, QUICK, [target for target in targets if self._cursors[target].eager])

    def _free(self) -> dict[int, list[TopicPartition]]:
        """Partitions with room and no request, by leader; those that moved longest ago come first."""
        limit = self._partition_bytes() // 2
        free = [
            (cursor.moved_at, target)
            for target, cursor in self._cursors.items()
            if not cursor.busy and not cursor.failed and cursor.unread <= limit
        ]
        wanted: dict[int, list[TopicPartition]] = {}
        leaderless = False
        for _, target in sorted(free):
            node = self._client.cluster.leader_for_partition(target)
            if node is None or node == -1:
                leaderless = self._cursors[target].strange = True
            else:
                wanted.setdefault(node, []).append(target)
        if leaderless and not self._running("leaders"):
            self._spawn(self._find_leaders(), "leaders")
        return wanted

    def _partition_bytes(self) -> int:
        share = BUFFER_BYTES // max(1, len(self._cursors))
        return min(MOST_PARTITION_BYTES, max(LEAST_PARTITION_BYTES, share))

    def _start(self, node: int, lane: object, targets: list[TopicPartition]) -> None:
        if not targets:
            return
        asked = {target: self._cursors[target] for target in targets}
        for cursor in asked.values():
            cursor.busy += 1
        self._busy.add((node, lane))
        self._spawn(self._fetch(node, lane, asked), "fetch")

    def _spawn(self, work: Coroutine[Any, Any, None], name: str) -> None:
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        task.add_done_callback(lambda _: self._schedule())

    def _running(self, name: str) -> bool:
        return any(task.get_name() == name for task in self._tasks)

    async def _find_leaders(self) -> None:
        await asyncio.wait([self._client.force_metadata_update()], timeout=RETRY_PAUSE)
        await self._clock.sleep(RETRY_PAUSE / 10)

    async def _fetch(self, node: int, lane: object, asked: Mapping[TopicPartition, _Cursor]) -> None:
        try:
            parts = await fetch(
                self._client,
                node,
                {target: cursor.position for target, cursor in asked.items()},
                self._partition_bytes() // 2,
                PATIENT_WAIT_MS if lane == PATIENT else 0,
                most_bytes=BUFFER_BYTES,
                group=lane,
            )
            await self._recognize(asked)
            arrivals = [self._arrived(target, asked[target], part) for target, part in parts.items()]
            if found := [arrival for arrival in arrivals if arrival is not None]:
                self._deliver(found)
        except kafka_errors.KafkaError as error:
            log.warning("fetch_failed", node=node, error=str(error))
            self._client.force_metadata_update()
            await self._clock.sleep(RETRY_PAUSE)
        except Exception as error:  # whatever it is, fetching goes on
            log.error("fetch_failed", node=node, error=repr(error))
            await self._clock.sleep(RETRY_PAUSE)
        finally:
            self._busy.discard((node, lane))
            for cursor in asked.values():
                cursor.busy -= 1

    async def _recognize(self, asked: Mapping[TopicPartition, _Cursor]) -> None:
        """What had no leader is not read on if its topic is another one now, though its offsets reach as far."""
        strange = {target: cursor for target, cursor in asked.items() if cursor.strange}
        if strange:
            changed = await self._ids.changed({target.topic for target in strange})
            for target, cursor in strange.items():
                cursor.strange = False
                if target.topic in changed:
                    self._fail_topic(target.topic)

    def _arrived(self, target: TopicPartition, cursor: _Cursor, part: Part) -> Arrival | None:
        if self._cursors.get(target) is not cursor or cursor.failed:
            return None  # sought elsewhere meanwhile, or another topic
        if part.code:
            cursor.busy += 1
            self._spawn(self._repair(target, cursor, part.code), "repair")
            return None
        try:
            found = stretches(target, cursor.position, part.body, part.aborted)
        except kafka_errors.CorruptRecordException as error:
            return self._damaged(target, cursor, error)
        cursor.damaged = 0
        cursor.eager = bool(found)
        if not found:
            return None
        cursor.position = found[-1].next_offset
        cursor.unread += sum(len(stretch.payload) for stretch in found)
        cursor.moved_at = self._clock.monotonic()
        return Arrival(target, cursor.seek, found)

    def _damaged(self, target: TopicPartition, cursor: _Cursor, error: Exception) -> Arrival | None:
        cursor.damaged += 1
        log.warning("damaged_records", topic=target.topic, partition=target.partition, error=str(error))
        if cursor.damaged < MOST_DAMAGED:
            return None
        message = f"{target.topic}/{target.partition} cannot be read: {error}; its copies on the brokers are damaged"
        return self._failed(target, cursor, LogError(message))

    async def _repair(self, target: TopicPartition, cursor: _Cursor, code: int) -> None:
        position = cursor.position
        try:
            cursor.position = await repaired(self._client, self._ids, self._clock, target, position, code)
        except HeadraceError as error:
            self._deliver([self._failed(target, cursor, error)])
        else:
            if cursor.position != position:
                self._deliver([Arrival(target, cursor.seek, [Stretch(target, position, cursor.position)])])
        finally:
            cursor.busy -= 1

    @staticmethod
    def _failed(target: TopicPartition, cursor: _Cursor, error: HeadraceError) -> Arrival:
        cursor.failed = True
        return Arrival(target, cursor.seek, [], error)

    async def _check_topics(self, pause: float = 0.0) -> None:
        """A topic that was made anew is not read on, though its offsets reach as far as before."""
        await self._clock.sleep(pause)
        for topic in await self._ids.changed({target.topic for target in self._cursors}):
            self._fail_topic(topic)

    def _fail_topic(self, topic: str) -> None:
        self._deliver(
            [
                self._failed(target, cursor, made_anew(topic))
                for target, cursor in self._cursors.items()
                if target.topic == topic and not cursor.failed
            ]
        )
