"""What the embedded log does in SQL; each function runs in the writer's or the reader's thread."""

import sqlite3
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from headrace.engine.embedded import codec, compacted
from headrace.engine.embedded.ordered_changes import add_changes, begin_changes, compact
from headrace.engine.embedded.schema import OFFSET_BITS
from headrace.engine.log import Append, Fetched, Tally, TopicPartition, TopicSpec
from headrace.engine.records import Records

#: A read ends behind the row that passes this, so that large payloads do not fill memory.
MAX_READ_BYTES = 16 << 20
#: Rows that one round of retention looks at per partition: it shares its transaction with appends that wait.
MAX_RETAIN_ROWS = 1_000


class Partition(NamedTuple):
    """A partition as the database knows it."""

    id: int
    target: TopicPartition
    compacted: bool
    next_offset: int
    #: Compacted, with its changes in order besides.
    ordered: bool


class Changed(NamedTuple):
    """A change set of one compacted partition.

    Args:
        rows: the newest value of each key.
        shown: every change, in order, where readers are shown that; else None.
        tallies: what it adds to the topic's counters.
    """

    partition: Partition
    rows: Sequence[compacted.Row]
    shown: Records | None
    tallies: Mapping[Tally, int]


class Committed(NamedTuple):
    """Base offset of each append, and new ends of partitions whose changes are kept in order."""

    bases: list[int]
    ends: dict[TopicPartition, int]


class Retention(NamedTuple):
    """What is kept: `seconds` of append time and `max_bytes` per partition."""

    seconds: float
    max_bytes: int


def create_topics(connection: sqlite3.Connection, topics: Sequence[TopicSpec]) -> None:
    """Add the partitions of topics that have none yet."""
    for topic in topics:
        if connection.execute("SELECT 1 FROM partitions WHERE topic = ?", (topic.name,)).fetchone():
            if topic.compacted and topic.retention is not None:
                begin_changes(connection, topic.name, topic.retention)
            continue
        connection.executemany(
            "INSERT INTO partitions (topic, partition, compacted, retention) VALUES (?, ?, ?, ?)",
            [(topic.name, number, topic.compacted, topic.retention) for number in range(topic.partitions)],
        )


def extend_topic(connection: sqlite3.Connection, name: str, partitions: int) -> None:
    """Add partitions to a topic that exists, up to `partitions` in all."""
    connection.execute(
        "WITH RECURSIVE numbers(n) AS (SELECT max(partition) + 1 FROM partitions WHERE topic = ?1"
        " UNION ALL SELECT n + 1 FROM numbers WHERE n + 1 < ?2)"
        " INSERT INTO partitions (topic, partition, compacted, retention)"
        " SELECT topic, n, compacted, retention FROM numbers, partitions WHERE topic = ?1 AND partition = 0 AND n < ?2",
        (name, partitions),
    )


def partitions(connection: sqlite3.Connection) -> list[Partition]:
    """Every partition there is."""
    rows = connection.execute("SELECT id, topic, partition, compacted, next_offset, retention FROM partitions")
    return [
        Partition(row[0], TopicPartition(row[1], row[2]), bool(row[3]), row[4], bool(row[3]) and row[5] is not None)
        for row in rows
    ]


def commit(
    connection: sqlite3.Connection,
    appends: Sequence[tuple[Partition, bytes, Append]],
    changes: Sequence[Changed],
    group: str,
    positions: Sequence[tuple[int, int]],
) -> Committed:
    """All effects of one `Transaction`."""
    bases = [_append(connection, partition, body, append) for partition, body, append in appends]
    ends: dict[TopicPartition, int] = {}
    for changed in changes:
        compacted.append(connection, changed.partition.id, changed.rows)
        if changed.shown is not None:
            ends[changed.partition.target] = add_changes(connection, changed.partition.id, changed.shown)
        _count(connection, changed.partition.target.topic, changed.tallies)
    connection.executemany(
        "INSERT INTO positions VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET next_offset = excluded.next_offset",
        [(group, partition_id, offset) for partition_id, offset in positions],
    )
    return Committed(bases, ends)


def _append(connection: sqlite3.Connection, partition: Partition, body: bytes, append: Append) -> int:
    # Read, not remembered: another process may have appended since.
    base: int = connection.execute("SELECT next_offset FROM partitions WHERE id = ?", (partition.id,)).fetchone()[0]
    next_offset, newest = base + len(append.records), max(append.records.timestamps)
    connection.execute(
        "INSERT INTO batches VALUES (?, ?, ?, ?)", (partition.id << OFFSET_BITS | base, next_offset, newest, body)
    )
    connection.execute(
        "UPDATE partitions SET next_offset = ?, newest_ms = max(newest_ms, ?), bytes = bytes + ? WHERE id = ?",
        (next_offset, newest, len(body), partition.id),
    )
    _count(connection, append.target.topic, append.tallies)
    return base


def _count(connection: sqlite3.Connection, topic: str, tallies: Mapping[Tally, int]) -> None:
    connection.executemany(
        "INSERT INTO tallies VALUES (?, ?, ?, ?) ON CONFLICT DO UPDATE SET count = count + excluded.count",
        [(topic, key.minute_ms, key.device_type, count) for key, count in tallies.items()],
    )


def read(
    connection: sqlite3.Connection, partition: Partition, offset: int, max_records: int
) -> list[tuple[int, int, bytes]]:
    """Rows (base offset, next offset, body) that hold `offset` and what follows, about `max_records` at most."""
    low, high = partition.id << OFFSET_BITS, (partition.id + 1) << OFFSET_BITS
    first = connection.execute(
        "SELECT id FROM batches WHERE id >= ? AND id <= ? AND next_offset > ? ORDER BY id DESC LIMIT 1",
        (low, low | offset, offset),
    ).fetchone()
    rows: list[tuple[int, int, bytes]] = []
    total = size = 0
    for row_id, next_offset, body in connection.execute(
        "SELECT id, next_offset, body FROM batches WHERE id >= ? AND id < ? ORDER BY id",
        (first[0] if first else low | offset, high),
    ):
        rows.append((row_id - low, next_offset, body))
        total += next_offset - max(offset, row_id - low)
        size += len(body)
        if total >= max_records or size >= MAX_READ_BYTES:
            break
    return rows


def row_at(connection: sqlite3.Connection, partition: Partition, time_ms: int) -> list[tuple[int, int, bytes]]:
    """The first row (base offset, next offset, body) with a record appended at `time_ms` or later, if there is one."""
    low, high = partition.id << OFFSET_BITS, (partition.id + 1) << OFFSET_BITS
    found = connection.execute(
        "SELECT id, next_offset, body FROM batches WHERE id >= ? AND id < ? AND newest_ms >= ? ORDER BY id LIMIT 1",
        (low, high, time_ms),
    ).fetchall()
    return [(row_id - low, next_offset, body) for row_id, next_offset, body in found]


def assemble(target: TopicPartition, offset: int, rows: Sequence[tuple[int, int, bytes]]) -> Fetched | None:
    """The records of these rows from `offset` on; whole rows, so that a read costs no splitting later."""
    if not rows:
        return None
    base = max(offset, rows[0][0])
    parts = [codec.decode(body) for _, _, body in rows]
    if base > rows[0][0]:
        parts[0] = parts[0].slice(base - rows[0][0], len(parts[0]))
    return Fetched(target, base, rows[-1][1], Records.concat(parts))


def positions(connection: sqlite3.Connection, group: str) -> dict[int, int]:
    """Committed positions of a group by partition id."""
    return dict(
        connection.execute(
            "SELECT partition_id, next_offset FROM positions WHERE consumer_group = ?", (group,)
        ).fetchall()
    )


def tallies(connection: sqlite3.Connection, topic: str) -> dict[Tally, int]:
    """The ledger counters of a topic."""
    rows = connection.execute("SELECT minute_ms, device_type, count FROM tallies WHERE topic = ?", (topic,))
    return {Tally(minute, device_type): count for minute, device_type, count in rows}


def retain(connection: sqlite3.Connection, keep: Retention) -> int:
    """Drop old rows; returns how many records. What a group has yet to read stays, however old."""
    compact(connection)
    dropped = 0
    found = connection.execute(
        "SELECT p.id, p.start_offset, p.newest_ms, p.bytes, coalesce(p.retention, ?), min(g.next_offset)"
        " FROM partitions p LEFT JOIN positions g ON g.partition_id = p.id WHERE NOT p.compacted GROUP BY p.id",
        (keep.seconds,),
    ).fetchall()
    for partition_id, start, newest, size, seconds, slowest in found:
        low, high = partition_id << OFFSET_BITS, (partition_id + 1) << OFFSET_BITS
        left, kept_from = size, start
        for row_id, next_offset, row_newest, length in connection.execute(
            "SELECT id, next_offset, newest_ms, length(body) FROM batches WHERE id >= ? AND id < ? ORDER BY id LIMIT ?",
            (low, high, MAX_RETAIN_ROWS),
        ).fetchall():
            is_old = row_newest < newest - seconds * 1000
            if (slowest is not None and next_offset > slowest) or not (is_old or left > keep.max_bytes):
                break
            connection.execute("DELETE FROM batches WHERE id = ?", (row_id,))
            left -= length
            dropped += next_offset - max(kept_from, row_id - low)
            kept_from = next_offset
        connection.execute(
            "UPDATE partitions SET start_offset = ?, bytes = ? WHERE id = ?", (kept_from, left, partition_id)
        )
    return dropped
