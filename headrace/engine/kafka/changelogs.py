"""What whoever restores tables reads: changelogs, or copies of them and what came since. On the I/O thread."""

from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import Protocol

from headrace.engine.clock import Clock
from headrace.engine.kafka.client import Client
from headrace.engine.kafka.offsets import EARLIEST, list_offsets
from headrace.engine.kafka.restore import ChangelogReader, CompactedView
from headrace.engine.kafka.standbys import Standbys
from headrace.engine.log import Known, Piece, TopicPartition
from headrace.engine.metrics import Metrics

#: Entries handed over at once.
CHUNK = 10_000


class Pieces(Protocol):
    """What is read."""

    async def read(self) -> Piece | None:
        """The next; None at the end."""
        ...


class _Chunks:
    """Pieces that are there."""

    def __init__(self, entries: Sequence[tuple[bytes, bytes]], start: int) -> None:
        self._left = deque(Piece(entries[at : at + CHUNK], start, at == 0) for at in range(0, len(entries) or 1, CHUNK))

    async def read(self) -> Piece | None:
        return self._left.popleft() if self._left else None


class _Counted:
    """Pieces of the log."""

    def __init__(self, reader: ChangelogReader, count: Callable[[int], None]) -> None:
        self._reader = reader
        self._count = count

    async def read(self) -> Piece | None:
        piece = await self._reader.read()
        if piece is not None:
            self._count(len(piece.entries))
        return piece


class Changelogs:
    """Compacted partitions, and the copies that are kept of some.

    Args:
        client: gives the connection that they are read by.
        standbys: the copies.
        metrics: told what is read.
    """

    def __init__(self, client: Callable[[], Client], standbys: Standbys, clock: Clock, metrics: Metrics) -> None:
        self._client = client
        self.standbys = standbys
        self._clock = clock
        self._metrics = metrics

    async def newest(self, target: TopicPartition) -> Pieces:
        """Every key once."""
        return await self._newest(target, await self.standbys.view(target))

    async def changes(self, target: TopicPartition, known: Known | None) -> Pieces:
        """What changed since `known`; without it everything, a copy in place of what was overwritten."""
        copy = await self.standbys.view(target) if known is None else None
        if copy is not None:
            return await self._newest(target, copy)
        reader = ChangelogReader(self._client(), target, self._clock, -1 if known is None else known.position)
        await reader.look()
        return _Counted(reader, partial(self._count, target))

    async def first_offset(self, target: TopicPartition) -> int:
        """Where the partition begins."""
        return (await list_offsets(self._client(), [target], EARLIEST))[target]

    async def _newest(self, target: TopicPartition, copy: CompactedView | None) -> Pieces:
        view = copy or CompactedView(self._client(), target, self._clock)
        before = view.reader.records
        entries = list((await view.update()).items())
        self._count(target, view.reader.records - before)
        return _Chunks(entries, view.reader.start)

    def _count(self, target: TopicPartition, records: int) -> None:
        self._metrics.count("headrace_restore_records_total", records, topic=target.topic)
