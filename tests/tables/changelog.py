"""A changelog in memory, to which may happen what happens on Kafka: compaction, forgotten deletions, a backup."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from typing import Any, NamedTuple

from headrace.engine.log import Known, Piece, TopicPartition
from headrace.engine.operator import Stored
from headrace.engine.runtime.restoring import restore_table

TARGET = TopicPartition("changelog", 0)
#: Records of a piece.
PIECE = 3


class Entry(NamedTuple):
    """One record; a value of None deletes."""

    offset: int
    key: bytes
    value: bytes | None


class Changelog:
    """Partition 0 of one table."""

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self.end = 0
        #: How many entries the last restore brought.
        self.brought = 0

    def append(self, changes: Mapping[bytes, bytes | None]) -> int:
        """Write a commit; returns where it begins."""
        start = self.end
        self.entries += [Entry(start + number, *change) for number, change in enumerate(changes.items())]
        self.end += len(changes) + 1  # and a marker
        return start

    def newest(self) -> dict[bytes, bytes]:
        """What it says."""
        found = {entry.key: entry.value for entry in self.entries}
        return {key: value for key, value in found.items() if value is not None}

    def compact(self, *, forget_deletions: bool) -> None:
        """Keep the newest entry per key, with the deletions or without."""
        last = {entry.key: entry.offset for entry in self.entries}
        self.entries = [
            entry
            for entry in self.entries
            if last[entry.key] == entry.offset and not (forget_deletions and entry.value is None)
        ]

    def copy(self) -> "Changelog":
        """A backup."""
        other = Changelog()
        other.entries, other.end = list(self.entries), self.end
        return other

    async def catch_up(self, target: TopicPartition, known: Known | None = None) -> AsyncIterator[Piece]:
        """See `headrace.engine.log.Log`."""
        assert target == TARGET
        self.brought = 0
        anew = known is None or known.position > self.end
        left = [entry for entry in self.entries if anew or (known is not None and entry.offset >= known.position)]
        if anew and not left:
            yield Piece([], 0, True)
        for start in range(0, len(left), PIECE):
            part = left[start : start + PIECE]
            self.brought += len(part)
            yield Piece([(entry.key, entry.value) for entry in part], part[0].offset, anew and not start)

    def restore(self, table: Stored) -> None:
        """As a worker does when it is given the partition."""
        log: Any = self
        asyncio.run(restore_table(log, TARGET, table, "start over"))

    def commit(self, table: Stored) -> None:
        """As a worker does between two batches."""
        changes = table.changes(0)
        if changes:
            table.committed(0, self.append(changes))
