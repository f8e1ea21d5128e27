"""How the embedded log keeps a compacted partition: the newest value of each key, and what a commit costs for it.

What a commit changes is appended to table `changes`, whole: a row per commit and partition, as they came. Below lies
the base, table `blocks`: entries in the order of their keys, some 100,000 bytes a block. A block holds the keys from
its `first_key` to that of the next; keys before the first one belong to a block from `b""` on, which is made when it is
needed. An entry of `changes` hides what older rows and blocks have of its key. `merge.py` moves changes into the base
before there are too many.

So a commit writes what it changes, once, wherever the keys lie; the base is written when it is worth it.
"""

import sqlite3
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from itertools import chain
from typing import NamedTuple

from headrace.engine.embedded.codec import decode_entries, encode_entries
from headrace.engine.embedded.schema import OFFSET_BITS

#: A change set larger than either lies in several rows: a row is what is in memory at once, and SQLite limits it.
ROW_ENTRIES = 20_000
ROW_BYTES = 16 << 20


class Row(NamedTuple):
    """A row of `changes` to be: how many entries, and their bytes."""

    entries: int
    body: bytes


def rows(entries: Mapping[bytes, bytes | None]) -> list[Row]:
    """A change set as rows."""
    keys, values = list(entries), list(entries.values())
    made: list[Row] = []
    start = size = 0
    if len(keys) > ROW_ENTRIES or sum(map(len, filter(None, values))) > ROW_BYTES:
        for end, value in enumerate(values):
            if end - start == ROW_ENTRIES or size > ROW_BYTES:
                made.append(Row(end - start, encode_entries(keys[start:end], values[start:end])))
                start, size = end, 0
            size += len(value or b"")
    if start < len(keys):
        made.append(Row(len(keys) - start, encode_entries(keys[start:], values[start:])))
    return made


def append(connection: sqlite3.Connection, partition_id: int, changed: Sequence[Row]) -> None:
    """Newest values for some keys."""
    # An id is never used twice, not even after its row was merged: a `Runs` knows its rows by their ids.
    known = connection.execute("SELECT next_id FROM compacted WHERE partition_id = ?", (partition_id,)).fetchone()
    next_id = known[0] if known else id_range(partition_id)[0]
    connection.executemany(
        "INSERT INTO changes VALUES (?, ?, ?)",
        [(row_id, row.entries, row.body) for row_id, row in enumerate(changed, next_id)],
    )
    connection.execute(
        "INSERT INTO compacted (partition_id, next_id, pending, pending_bytes) VALUES (?, ?, ?, ?)"
        " ON CONFLICT DO UPDATE SET next_id = excluded.next_id,"
        " pending = pending + excluded.pending, pending_bytes = pending_bytes + excluded.pending_bytes",
        (
            partition_id,
            next_id + len(changed),
            sum(row.entries for row in changed),
            sum(len(row.body) for row in changed),
        ),
    )


def all_entries(connection: sqlite3.Connection, partition_id: int) -> dict[bytes, bytes]:
    """Every key and its newest value."""
    found: dict[bytes, bytes | None] = {}
    blocks = connection.execute("SELECT body FROM blocks WHERE partition_id = ?", (partition_id,))
    changes = "SELECT body FROM changes WHERE id BETWEEN ? AND ? ORDER BY id"
    for (body,) in chain(blocks, connection.execute(changes, id_range(partition_id))):
        row = decode_entries(body)
        found.update(zip(row.keys, row.values, strict=True))
    return {key: value for key, value in found.items() if value is not None}


def value(connection: sqlite3.Connection, partition_id: int, key: bytes) -> bytes | None:
    """The value of one key."""
    bodies = connection.execute(
        "SELECT body FROM changes WHERE id BETWEEN ? AND ? ORDER BY id DESC", id_range(partition_id)
    )
    for (body,) in bodies:
        if key in body:  # as it lies in MessagePack; a hundred times as fast as decoding
            row = decode_entries(body)
            if key in row.keys:
                return row.values[row.keys.index(key)]
    block = connection.execute(
        "SELECT body FROM blocks WHERE partition_id = ? AND first_key <= ? ORDER BY first_key DESC LIMIT 1",
        (partition_id, key),
    ).fetchone()
    if block is None:
        return None
    row = decode_entries(block[0])
    place = bisect_left(row.keys, key)
    return row.values[place] if place < len(row.keys) and row.keys[place] == key else None


def id_range(partition_id: int) -> tuple[int, int]:
    """First and last id that the rows of a partition in `changes` may have."""
    return partition_id << OFFSET_BITS, (partition_id + 1 << OFFSET_BITS) - 1
