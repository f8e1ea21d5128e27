"""The changes of compacted topics that can be read in order, in SQL; see `TopicSpec.retention`."""

import sqlite3

from headrace.engine.embedded import compacted
from headrace.engine.log import Fetched, TopicPartition, given_offsets
from headrace.engine.records import Records

#: Changes since the last time that make it worth looking for those that were replaced long ago.
COMPACT_EVERY = 1_000


def begin_changes(connection: sqlite3.Connection, topic: str, retention: float) -> None:
    """Keep the changes of a compacted topic from now on; what it holds was there from the beginning, time 0."""
    for (partition_id,) in connection.execute(
        "SELECT id FROM partitions WHERE topic = ? AND compacted AND retention IS NULL", (topic,)
    ).fetchall():
        entries = compacted.all_entries(connection, partition_id)
        if entries:
            add_changes(connection, partition_id, Records(list(entries), list(entries.values()), [0] * len(entries)))
        connection.execute("UPDATE partitions SET retention = ? WHERE id = ?", (retention, partition_id))


def add_changes(connection: sqlite3.Connection, partition_id: int, changes: Records) -> int:
    """Append changes to a partition, one or more; returns its new end."""
    base: int = connection.execute("SELECT next_offset FROM partitions WHERE id = ?", (partition_id,)).fetchone()[0]
    rows = zip(changes.keys, changes.values, changes.timestamps, strict=True)
    connection.executemany(
        "INSERT INTO ordered_changes VALUES (?, ?, ?, ?, ?)",
        [(partition_id, base + place, *row) for place, row in enumerate(rows)],
    )
    connection.execute(
        "UPDATE partitions SET next_offset = ?, newest_ms = max(newest_ms, ?) WHERE id = ?",
        (base + len(changes), max(changes.timestamps), partition_id),
    )
    return base + len(changes)


def read_changes(
    connection: sqlite3.Connection, partition_id: int, target: TopicPartition, offset: int, max_records: int
) -> Fetched | None:
    """Up to `max_records` changes from `offset` on; None if there are none."""
    rows = connection.execute(
        "SELECT at_offset, key, value, time_ms FROM ordered_changes WHERE partition_id = ? AND at_offset >= ?"
        " ORDER BY at_offset LIMIT ?",
        (partition_id, offset, max_records),
    ).fetchall()
    if not rows:
        return None
    offsets, keys, values, times = (list(column) for column in zip(*rows, strict=True))
    return Fetched(target, offset, offsets[-1] + 1, Records(keys, values, times), given_offsets(offset, offsets))


def compact(connection: sqlite3.Connection) -> None:
    """Drop what was replaced, or deleted, longer ago than its topic keeps it, by append time."""
    for partition_id, end, newest, retention in connection.execute(
        "SELECT id, next_offset, newest_ms, retention FROM partitions"
        " WHERE compacted AND retention IS NOT NULL AND next_offset >= start_offset + ?",
        (COMPACT_EVERY,),
    ).fetchall():
        before = newest - retention * 1000
        connection.execute(
            "DELETE FROM ordered_changes WHERE partition_id = ?1 AND at_offset IN (SELECT at_offset FROM ("
            "SELECT at_offset, value, time_ms, lead(time_ms) OVER (PARTITION BY key ORDER BY at_offset) AS replaced_ms"
            " FROM ordered_changes WHERE partition_id = ?1)"
            " WHERE replaced_ms < ?2 OR (replaced_ms IS NULL AND value IS NULL AND time_ms < ?2))",
            (partition_id, before),
        )
        # Where this was done; readers are not told, they pass over the gaps.
        connection.execute("UPDATE partitions SET start_offset = ? WHERE id = ?", (end, partition_id))
