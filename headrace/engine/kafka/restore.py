"""Reads a compacted partition to its end, on the I/O thread."""

import asyncio

import aiokafka.errors as kafka_errors
import structlog

from headrace.engine.clock import Clock
from headrace.engine.errors import LogDamaged, LogError
from headrace.engine.kafka.client import UNAUTHORIZED, Client, Rejected
from headrace.engine.kafka.fetch import OFFSET_OUT_OF_RANGE, read_on
from headrace.engine.kafka.offsets import EARLIEST, LATEST, READ_UNCOMMITTED, list_offsets
from headrace.engine.log import Piece, TopicPartition

#: Seconds without progress before somebody should know; the cluster ends an abandoned transaction in 10 s.
PATIENCE = 30.0

log = structlog.get_logger(__name__)


class ChangelogReader:
    """Reads a compacted partition in the order of the log, from `position` on; left out, from its oldest record.

    When records are deleted at its place, or the topic was made anew, it starts over: what it brought may be gone (see
    `test_restore_starts_over_when_records_are_deleted_below_it`).
    """

    def __init__(self, client: Client, target: TopicPartition, clock: Clock, position: int = -1) -> None:
        self._client = client
        self._target = target
        self._clock = clock
        #: Where `read` goes on; less than 0 before the first `look`.
        self.position = position
        #: Oldest offset that there was when reading began, or began again.
        self.start = position
        #: Records that it brought, older values of a key included, count.
        self.records = 0
        self._until = -1
        self._anew = False
        self._moved_at = 0.0

    async def look(self, end: int | None = None) -> None:
        """From now on `read` goes to what is written now, open transactions of others included: waits for their end.

        A writer that lost the partition may have finished its last transaction a moment ago; its markers count.

        Args:
            end: up to which `read` goes instead; somewhere in what was committed.
        """
        self._until = await self._end() if end is None else end
        self._moved_at = self._clock.monotonic()
        if not 0 <= self.position <= self._until:
            await self._rewind()

    async def read(self) -> Piece | None:
        """What comes next; None at the end.

        Raises:
            LogError: the partition cannot be read.
            LogDamaged: what is in it cannot.
        """
        while self.position < self._until:
            if (piece := await self._next()) is not None:
                return piece
            self._until = min(self._until, await self._end())
            if self.position > self._until:  # made anew meanwhile
                await self._rewind()
            if self._clock.monotonic() - self._moved_at > PATIENCE:
                self._moved_at = self._clock.monotonic()
                self._warn()
        if self._anew:
            self._anew = False
            return Piece([], self.position, True)
        return None

    def _warn(self) -> None:
        """Whoever began the transaction is to end it, or the cluster; when neither does, somebody has to."""
        log.warning(
            "restore_waits_for_a_transaction",
            topic=self._target.topic,
            partition=self._target.partition,
            offset=self.position,
            advice="if this goes on, the cluster lost its end: kafka-transactions.sh find-hanging, then abort",
        )

    async def _end(self) -> int:
        return (await list_offsets(self._client, [self._target], LATEST, READ_UNCOMMITTED))[self._target]

    async def _rewind(self) -> None:
        self.position = self.start = (await list_offsets(self._client, [self._target], EARLIEST))[self._target]
        self._anew = True

    async def _next(self) -> Piece | None:
        name = f"{self._target.topic}/{self._target.partition}"
        try:
            found = await read_on(self._client, self._target, self.position, self._clock)
            fetched = [stretch.decode() for stretch in found]
        except Rejected as error:
            if error.code == OFFSET_OUT_OF_RANGE:
                await self._rewind()
                return None
            if error.code in UNAUTHORIZED:
                raise LogError(
                    f"Kafka does not let this user read topic {self._target.topic}; grant READ on it"
                ) from error
            raise LogError(f"{name} cannot be read: {error}") from error
        except kafka_errors.CorruptRecordException as error:
            raise LogDamaged(f"{name} is damaged from offset {self.position} on, as Kafka keeps it: {error}") from error
        except kafka_errors.KafkaError as error:
            raise LogError(f"{name} cannot be read: {error}") from error
        if not fetched:
            return None
        rows = [part.records for part in fetched]
        entries = [(key or b"", value) for part in rows for key, value in zip(part.keys, part.values, strict=True)]
        piece = Piece(entries, self.position, self._anew)
        self.records += len(entries)
        self.position, self._anew = fetched[-1].next_offset, False
        self._moved_at = self._clock.monotonic()
        return piece


class CompactedView:
    """Newest value per key of one compacted partition, as far as it was read; `update` and `follow` read on."""

    def __init__(self, client: Client, target: TopicPartition, clock: Clock) -> None:
        self.reader = ChangelogReader(client, target, clock)
        self._updating = asyncio.Lock()
        self.entries: dict[bytes, bytes] = {}

    async def update(self) -> dict[bytes, bytes]:
        """Read to what is written now, see `ChangelogReader`."""
        return await self._read()

    async def follow(self, end: int) -> None:
        """Read what was committed before `end`; waits for no transaction."""
        await self._read(end)

    async def _read(self, end: int | None = None) -> dict[bytes, bytes]:
        async with self._updating:
            await self.reader.look(end)
            while (piece := await self.reader.read()) is not None:
                self._take(piece)
        return self.entries

    def _take(self, piece: Piece) -> None:
        if piece.anew:
            self.entries.clear()
        for key, value in piece.entries:
            if value is None:
                self.entries.pop(key, None)
            else:
                self.entries[key] = value
