"""Reads a compacted partition from its oldest record to its end, on the I/O thread."""

import asyncio
from collections.abc import Sequence

import aiokafka.errors as kafka_errors
import structlog

from headrace.engine.clock import Clock
from headrace.engine.errors import LogError
from headrace.engine.kafka.client import UNAUTHORIZED, Client, Rejected
from headrace.engine.kafka.fetch import OFFSET_OUT_OF_RANGE, read_on
from headrace.engine.kafka.offsets import EARLIEST, LATEST, READ_UNCOMMITTED, list_offsets
from headrace.engine.log import TopicPartition

#: Seconds without progress before somebody should know; the cluster ends an abandoned transaction in 10 s.
PATIENCE = 30.0

log = structlog.get_logger(__name__)


class CompactedView:
    """Newest value per key of one compacted partition, as far as it was read; `update` reads on.

    When records are deleted at its place, or the topic was made anew, it starts over: what it holds may be gone (see
    `test_restore_starts_over_when_records_are_deleted_below_it`).
    """

    def __init__(self, client: Client, target: TopicPartition, clock: Clock) -> None:
        self._client = client
        self._target = target
        self._clock = clock
        self._position = -1
        self._updating = asyncio.Lock()
        self.entries: dict[bytes, bytes] = {}

    async def update(self) -> dict[bytes, bytes]:
        """Read to what is written now, open transactions of others included: waits for their end.

        A writer that lost the partition may have finished its last transaction a moment ago; its markers count.

        Raises:
            LogError: the partition cannot be read.
        """
        async with self._updating:
            end = await self._end()
            if not 0 <= self._position <= end:
                await self._rewind()
            moved_at = self._clock.monotonic()
            while self._position < end:
                if await self._read():
                    moved_at = self._clock.monotonic()
                    continue
                end = min(end, await self._end())  # less than before if the topic was made anew
                if self._clock.monotonic() - moved_at > PATIENCE:
                    moved_at = self._clock.monotonic()
                    self._warn()
        return self.entries

    def _warn(self) -> None:
        """Whoever began the transaction is to end it, or the cluster; when neither does, somebody has to."""
        log.warning(
            "restore_waits_for_a_transaction",
            topic=self._target.topic,
            partition=self._target.partition,
            offset=self._position,
            advice="if this goes on, the cluster lost its end: kafka-transactions.sh find-hanging, then abort",
        )

    async def _end(self) -> int:
        return (await list_offsets(self._client, [self._target], LATEST, READ_UNCOMMITTED))[self._target]

    async def _rewind(self) -> None:
        self.entries.clear()
        self._position = (await list_offsets(self._client, [self._target], EARLIEST))[self._target]

    async def _read(self) -> bool:
        name = f"{self._target.topic}/{self._target.partition}"
        try:
            found = await read_on(self._client, self._target, self._position, self._clock)
            pieces = [stretch.decode() for stretch in found]
        except Rejected as error:
            if error.code == OFFSET_OUT_OF_RANGE:
                await self._rewind()
                return True
            if error.code in UNAUTHORIZED:
                raise LogError(
                    f"Kafka does not let this user read topic {self._target.topic}; grant READ on it"
                ) from error
            raise LogError(f"{name} cannot be read: {error}") from error
        except kafka_errors.KafkaError as error:
            raise LogError(f"{name} cannot be read: {error}") from error
        for piece in pieces:
            self._take(piece.records.keys, piece.records.values)
            self._position = piece.next_offset
        return bool(pieces)

    def _take(self, keys: Sequence[bytes | None], values: Sequence[bytes | None]) -> None:
        for key, value in zip(keys, values, strict=True):
            if value is None:
                self.entries.pop(key or b"", None)
            else:
                self.entries[key or b""] = value
