"""A compacted partition in a folder, one transaction at a time, with thresholds so low that everything happens."""

import sqlite3
from collections.abc import Callable, Mapping
from pathlib import Path

from headrace.engine.clock import SteppedClock
from headrace.engine.embedded import compacted, operations
from headrace.engine.embedded.database import connect
from headrace.engine.embedded.merge import Merger, Merging
from headrace.engine.embedded.restore import Restore
from headrace.engine.log import TopicSpec

#: A merge is due at four changes; a block holds two or three entries; every step is as short as it can be.
TINY = Merging(least=4, most=12, most_bytes=1 << 20, run=3, block_bytes=24, seconds=0.0)
PARTITION = 1


class TickingClock(SteppedClock):
    """A second passes whenever somebody looks."""

    def monotonic(self) -> float:
        self.advance(1000)
        return super().monotonic()


class CompactedLog:
    """What a process has of it: a connection, and a merge in hand."""

    def __init__(self, folder: Path, merging: Merging = TINY) -> None:
        self.connection = connect(folder)
        self.connection.execute("PRAGMA synchronous = OFF")  # a crash of the process, not of the machine
        self.merger = Merger(merging, TickingClock())
        self._transact(lambda: operations.create_topics(self.connection, [TopicSpec("state", 2, compacted=True)]))

    def commit(self, entries: Mapping[bytes, bytes | None]) -> None:
        """A change set."""
        self._transact(lambda: compacted.append(self.connection, PARTITION, compacted.rows(entries)))

    def step(self) -> None:
        """What the writer does after a commit."""
        self._transact(lambda: self.merger.step(self.connection))

    def restored(self) -> list[tuple[bytes, bytes]]:
        """Everything, a step of a merge between any two chunks."""
        reading, found = Restore(PARTITION), list[tuple[bytes, bytes]]()
        while (chunk := reading.chunk(self.connection)) is not None:
            found += chunk
            self.step()
        return found

    def value(self, key: bytes) -> bytes | None:
        """The value of one key."""
        return compacted.value(self.connection, PARTITION, key)

    def counts(self) -> tuple[int, int]:
        """Entries of `changes`, and bytes, as the rows say."""
        row: tuple[int, int] = self.connection.execute(
            "SELECT coalesce(sum(entries), 0), coalesce(sum(length(body)), 0) FROM changes"
        ).fetchone()
        return row

    def state(self) -> tuple[int, int, int, int | None]:
        """What `compacted` says: pending, pending_bytes, kept, through."""
        row: tuple[int, int, int, int | None] | None = self.connection.execute(
            "SELECT pending, pending_bytes, kept, through FROM compacted WHERE partition_id = ?", (PARTITION,)
        ).fetchone()
        return row or (0, 0, 0, None)

    def blocks(self) -> list[tuple[bytes, int]]:
        """First key and entries of each block."""
        return self.connection.execute(
            "SELECT first_key, entries FROM blocks WHERE partition_id = ? ORDER BY first_key", (PARTITION,)
        ).fetchall()

    def close(self) -> None:
        """As after a crash: nothing is finished."""
        self.connection.close()

    def _transact(self, job: Callable[[], None]) -> None:
        self.connection.execute("BEGIN IMMEDIATE")
        try:
            job()
        except BaseException:
            self.connection.execute("ROLLBACK")
            raise
        self.connection.execute("COMMIT")


def damage(connection: sqlite3.Connection, table: str) -> None:
    """Tear every row of a table."""
    connection.execute(f"UPDATE {table} SET body = substr(body, 1, length(body) - 2)")
