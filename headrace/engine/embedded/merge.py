"""Moves what was changed in compacted partitions into their base, a little after every commit.

    none ──due──> merging ──every key is in the base──> deleting ──every row is gone──> none

A merge takes the rows of `changes` that there are when it begins, those up to the id `through`. Block by block their
newest values go into the base; `merged_to` is the key before which they have. Then the rows are deleted, the oldest
first.

All of that stands in table `compacted` and moves on in the transaction that does it. So whoever comes next goes on
where it stands: the same process, one that starts after a crash, or another that writes to the folder too.

What is read is the same throughout, because changes hide the base: a key whose newest value up to `through` is in the
base already has it in a row too, or one that is newer. That holds while rows are deleted, as the newest goes last. See
`test_reads_are_right_between_any_two_transactions`.
"""

import sqlite3
from collections.abc import Iterator
from typing import NamedTuple

from headrace.engine.clock import Clock
from headrace.engine.embedded.codec import Entries, decode_entries, encode_entries
from headrace.engine.embedded.compacted import id_range
from headrace.engine.embedded.runs import Runs


class Merging(NamedTuple):
    """When changes are merged, and how much at once; per partition.

    Merging touches every block that has a changed key, so it pays when there are about as many changes as entries.

    Args:
        least: changes, count, below which it is not worth it.
        most, most_bytes: changes, count and bytes, with which it begins however many entries there are; they are in
            memory meanwhile.
        run: changes that are sorted at once, count.
        block_bytes: of a block; one of twice that is split.
        seconds: that one step takes, about. More if changes come faster than they are merged.
    """

    least: int = 20_000
    most: int = 400_000
    most_bytes: int = 128 << 20
    run: int = 20_000
    block_bytes: int = 96 << 10
    seconds: float = 0.02


MERGING = Merging()


class _State(NamedTuple):
    """A row of `compacted`."""

    partition_id: int
    pending: int
    pending_bytes: int
    kept: int
    through: int | None
    merged_to: bytes | None


class Merger:
    """Merges one partition after another, in the writer's thread."""

    def __init__(self, merging: Merging, clock: Clock) -> None:
        self._merging = merging
        self._clock = clock
        self._runs: Runs | None = None

    def step(self, connection: sqlite3.Connection) -> None:
        """Go on with the merge in hand, or begin one that is due. Cheap if there is none.

        Raises:
            LogError: a row cannot be read.
        """
        merging = self._merging
        found = connection.execute(
            "SELECT partition_id, pending, pending_bytes, kept, through, merged_to FROM compacted"
            " WHERE through IS NOT NULL OR pending >= max(?, min(kept, ?)) OR pending_bytes >= ?"
            " ORDER BY through IS NULL, pending DESC LIMIT 1",
            (merging.least, merging.most, merging.most_bytes),
        ).fetchone()
        if found is None:
            self._runs = None
            return
        state = _State(*found)
        self._until = self._clock.monotonic() + self._seconds(state)
        if state.through is None:
            state = _begun(connection, state)
        if state.merged_to is None:
            self._delete(connection, state)
        else:
            self._merge(connection, state, state.merged_to)

    def _seconds(self, state: _State) -> float:
        """Grows steeply with the changes, so that commits become slower before the log becomes long."""
        due = max(self._merging.least, min(state.kept, self._merging.most))
        overdue = max(state.pending / due, state.pending_bytes / self._merging.most_bytes, 1.0)
        return self._merging.seconds * overdue**3

    def _in_time(self) -> bool:
        return self._clock.monotonic() < self._until

    def _merge(self, connection: sqlite3.Connection, state: _State, merged_to: bytes) -> None:
        assert state.through is not None
        runs = self._runs
        if runs is None or (runs.partition_id, runs.through) != (state.partition_id, state.through):
            runs = self._runs = Runs(state.partition_id, state.through, self._merging.run)
        if not runs.load(connection, self._in_time):
            return
        runs.go_to(merged_to)
        kept = state.kept
        while (key := runs.next_key()) is not None:
            kept += self._merge_block(connection, runs, key)
            if not self._in_time():
                break
        connection.execute(
            "UPDATE compacted SET kept = ?, merged_to = ? WHERE partition_id = ?",
            (kept, runs.next_key(), state.partition_id),
        )

    def _merge_block(self, connection: sqlite3.Connection, runs: Runs, key: bytes) -> int:
        """Take changes from `key` on into its block; returns how many entries more there are."""
        block = connection.execute(
            "SELECT id, first_key, entries, body FROM blocks WHERE partition_id = ? AND first_key <= ?"
            " ORDER BY first_key DESC LIMIT 1",
            (runs.partition_id, key),
        ).fetchone()
        row_id, first_key, before, body = block or (None, b"", 0, encode_entries([], []))
        end = connection.execute(
            "SELECT min(first_key) FROM blocks WHERE partition_id = ? AND first_key > ?", (runs.partition_id, key)
        ).fetchone()[0]
        entries = _merged(decode_entries(body), runs.take(end, self._merging.run))
        pieces = list(_pieces(entries, self._merging.block_bytes))
        if row_id is not None and not pieces:
            connection.execute("DELETE FROM blocks WHERE id = ?", (row_id,))
        for keys, body in pieces:
            if row_id is not None:
                connection.execute("UPDATE blocks SET entries = ?, body = ? WHERE id = ?", (len(keys), body, row_id))
            else:
                connection.execute(
                    "INSERT INTO blocks (partition_id, first_key, entries, body) VALUES (?, ?, ?, ?)",
                    (runs.partition_id, first_key if keys is pieces[0][0] else keys[0], len(keys), body),
                )
            row_id = None
        return len(entries) - before

    def _delete(self, connection: sqlite3.Connection, state: _State) -> None:
        pending, size = state.pending, state.pending_bytes
        through = state.through
        while True:
            oldest = connection.execute(
                "SELECT id, entries, length(body) FROM changes WHERE id >= ? AND id <= ? ORDER BY id LIMIT 1",
                (id_range(state.partition_id)[0], state.through),
            ).fetchone()
            if oldest is None:
                self._runs = through = None
                break
            connection.execute("DELETE FROM changes WHERE id = ?", oldest[:1])
            pending, size = pending - oldest[1], size - oldest[2]
            if not self._in_time():
                break
        connection.execute(
            "UPDATE compacted SET pending = ?, pending_bytes = ?, through = ? WHERE partition_id = ?",
            (pending, size, through, state.partition_id),
        )


def _begun(connection: sqlite3.Connection, state: _State) -> _State:
    through = connection.execute(
        "SELECT max(id) FROM changes WHERE id BETWEEN ? AND ?", id_range(state.partition_id)
    ).fetchone()[0]
    connection.execute(
        "UPDATE compacted SET through = ?, merged_to = ? WHERE partition_id = ?", (through, b"", state.partition_id)
    )
    return state._replace(through=through, merged_to=b"")


def _merged(old: Entries, changes: dict[bytes, bytes | None]) -> dict[bytes, bytes | None]:
    """A block with changes, in the order of keys."""
    merged = dict(zip(old.keys, old.values, strict=True))
    merged.update(changes)
    if len(merged) > len(old.keys):
        merged = {key: merged[key] for key in sorted(merged)}
    if None in changes.values():
        merged = {key: value for key, value in merged.items() if value is not None}
    return merged


def _pieces(entries: dict[bytes, bytes | None], block_bytes: int) -> Iterator[tuple[list[bytes], bytes]]:
    """The blocks that these entries make: keys, and bytes."""
    keys, values = list(entries), list(entries.values())
    if not keys:
        return
    body = encode_entries(keys, values)
    count = len(body) // block_bytes
    if count < 2:
        yield keys, body
        return
    share, size, start = len(body) / count, 0, 0
    for end, (key, value) in enumerate(entries.items(), 1):
        size += len(key) + len(value or b"")
        if size >= share or end == len(keys):
            yield keys[start:end], encode_entries(keys[start:end], values[start:end])
            start, size = end, 0
