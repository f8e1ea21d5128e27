"""The cache sink: writes device states and rollups through to Redis, never back in time."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, cast

import structlog

from headrace.connectors.redis.changes import Changes
from headrace.connectors.redis.client import close, connect, translated
from headrace.connectors.redis.entries import Keys
from headrace.connectors.redis.scripts import WRITE
from headrace.connectors.redis.settings import RedisSettings
from headrace.engine.clock import Clock
from headrace.engine.errors import Disconnected
from headrace.engine.log import Fetched, Log, TopicPartition
from headrace.engine.metrics import Metrics
from headrace.engine.sink import PositionMoved
from headrace.schemas import topics

if TYPE_CHECKING:
    from redis.asyncio import Redis

#: How much later than its append a record's data may be, ms: `agents.ingest` refuses data from further ahead.
AHEAD_MS = 300_000
#: Most records per write, for `SinkRunner`: Redis does nothing else meanwhile.
MAX_RECORDS = 4_096

logger = structlog.get_logger(__name__)


class RedisSink:
    """Keeps, per device, its newest reading and the newest window of each kind, until its data is too old.

    Effectively once: entries and positions change together in one script, which compares the positions first. It
    refuses nothing: a cache is no place of record, and what it cannot read it leaves out, counted. Where Redis has lost
    the positions, or has old ones, it goes on from that place in the log since which all data was appended that may
    still be in the cache: so it is complete again without anything else, the database included.

    Args:
        settings: where Redis is, and how long entries live.
        log: the one that is read; asked for its ends and for the place to begin.
        clock: says how old data is.
        name: positions are kept under it.
        metrics: told what could not be read.
    """

    topics: Sequence[str] = (topics.READINGS, topics.ROLLUPS)

    def __init__(
        self, settings: RedisSettings, log: Log, clock: Clock, *, name: str = "redis", metrics: Metrics | None = None
    ) -> None:
        self.name = name
        self._settings = settings
        self._log = log
        self._keys = Keys(settings, clock)
        self._metrics = metrics or Metrics()
        self._redis: Redis | None = None
        self._stored: dict[TopicPartition, bytes] = {}

    async def open(self) -> None:
        """Connect afresh."""
        await self.close()
        self._redis = connect(self._settings, f"headrace-{self.name}")
        self._write = self._redis.register_script(WRITE)
        with translated():
            await self._redis.ping()

    async def positions(self, targets: Sequence[TopicPartition]) -> dict[TopicPartition, int]:
        """Where to continue: from Redis, but not before the oldest data that may be in it."""
        with translated():
            found = await self._stored_positions(targets)
        self._stored = {target: each or b"" for target, each in zip(targets, found, strict=True)}
        positions = {}
        for topic in {target.topic for target in targets}:
            ends = await self._log.end_offsets(topic)
            oldest = self._keys.oldest_rollup() if topic == topics.ROLLUPS else self._keys.oldest_status()
            starts = await self._log.offsets_at(topic, oldest - AHEAD_MS)
            for target in targets:
                if target.topic == topic:
                    positions[target] = _position(self._stored[target], starts[target], ends[target])
        lost = [target for target in targets if str(positions[target]).encode() != self._stored[target]]
        if any(positions[target] for target in lost):
            logger.info("cache_begins_anew", sink=self.name, partitions=len(lost))
        return positions

    async def write(self, fetched: Sequence[Fetched]) -> None:
        """Change entries and positions in one script."""
        if self._redis is None:
            raise Disconnected(f"sink {self.name} has no connection to Redis")
        changes = Changes(self._keys)
        for part in fetched:
            if part.target.topic == topics.ROLLUPS:
                changes.add_rollups(part)
            else:
                changes.add_readings(part)
        after = {part.target: b"%d" % part.next_offset for part in fetched}
        keys, arguments = [self._keys.positions(self.name)], [b"%d" % len(after)]
        for target, position in after.items():
            arguments += [_field(target), self._stored.get(target, b""), position]
        for entry, left_ms, value in changes:
            keys.append(entry.key)
            arguments += [b"%d" % number for number in (*entry.order, *entry.place, left_ms)]
            arguments.append(value)
        with translated():
            changed = await self._write(keys, arguments)
        if changed < 0:
            raise PositionMoved(
                f"sink {self.name}: a position in Redis is not the one read before; another sink has the partition, or "
                "Redis lost it",
                after=0.0,
            )
        self._stored |= after
        if changes.unreadable:
            self._metrics.count("headrace_cache_unreadable_total", changes.unreadable)
            logger.debug("cache_unreadable", sink=self.name, records=changes.unreadable)

    async def close(self) -> None:
        redis, self._redis = self._redis, None
        await close(redis)

    async def _stored_positions(self, targets: Sequence[TopicPartition]) -> Sequence[bytes | None]:
        if self._redis is None:
            raise Disconnected(f"sink {self.name} has no connection to Redis")
        key = self._keys.positions(self.name)
        if not targets or await self._redis.type(key) != b"hash":
            return [None] * len(targets)
        return cast(Sequence[bytes | None], await self._redis.hmget(key, [_field(target) for target in targets]))


def _field(target: TopicPartition) -> bytes:
    return f"{target.topic}/{target.partition}".encode()


def _position(stored: bytes, start: int, end: int) -> int:
    """The stored position, if it can be one of this log and is not long ago; otherwise `start`."""
    if not stored.isdigit() or int(stored) > end:
        return start
    return max(int(stored), start)
