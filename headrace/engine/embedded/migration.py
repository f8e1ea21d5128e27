"""From format 1 of the file, where a compacted topic was a row per key in table `latest`; all or nothing."""

import sqlite3
from collections.abc import Iterator

import structlog

from headrace.engine.embedded.codec import encode_entries
from headrace.engine.embedded.compacted import id_range
from headrace.engine.embedded.schema import COMPACTED_SCHEMA, VERSION
from headrace.engine.embedded.wal import use_wal
from headrace.engine.errors import LogInUse

#: The format that is migrated.
FROM = 1
#: Bytes of keys and values in a block.
BLOCK_BYTES = 96 << 10
#: Entries after which it is logged how far it came.
PROGRESS_EVERY = 1_000_000

logger = structlog.get_logger(__name__)


def migrate(connection: sqlite3.Connection, target: str) -> None:
    """Bring the file to the format of today.

    Raises:
        LogInUse: another process has the file open; it may be of the older headrace, and work with what is migrated.
    """
    try:
        # Nobody else may have the file open for this, and it writes the database once, not the WAL first.
        connection.execute("PRAGMA journal_mode = DELETE")
    except sqlite3.OperationalError as error:
        raise LogInUse(
            f"{target} was written by an older headrace and another process has it open; stop that, then try again"
        ) from error
    connection.execute("BEGIN EXCLUSIVE")
    if connection.execute("PRAGMA user_version").fetchone()[0] == FROM:
        for statement in filter(str.strip, COMPACTED_SCHEMA.split(";")):
            connection.execute(statement)
        done = 0
        for (partition_id,) in connection.execute("SELECT id FROM partitions WHERE compacted").fetchall():
            done = _move(connection, partition_id, done)
        connection.execute("DROP TABLE latest")
        connection.execute(f"PRAGMA user_version = {VERSION}")
    connection.execute("COMMIT")
    use_wal(connection)


def _move(connection: sqlite3.Connection, partition_id: int, done: int) -> int:
    """Make blocks of one partition; returns `done`, entries of those before, with its own."""
    kept = 0
    for keys, values in _blocks(connection, partition_id):
        connection.execute(
            "INSERT INTO blocks (partition_id, first_key, entries, body) VALUES (?, ?, ?, ?)",
            (partition_id, keys[0] if kept else b"", len(keys), encode_entries(keys, values)),
        )
        kept += len(keys)
        if (done + kept) // PROGRESS_EVERY > (done + kept - len(keys)) // PROGRESS_EVERY:
            logger.info("log_migration", entries=done + kept)
    if kept:
        connection.execute(
            "INSERT INTO compacted (partition_id, next_id, kept) VALUES (?, ?, ?)",
            (partition_id, id_range(partition_id)[0], kept),
        )
    return done + kept


def _blocks(connection: sqlite3.Connection, partition_id: int) -> Iterator[tuple[list[bytes], list[bytes]]]:
    keys: list[bytes] = []
    values: list[bytes] = []
    size = 0
    for key, value in connection.execute(
        "SELECT key, value FROM latest WHERE partition_id = ? ORDER BY key", (partition_id,)
    ):
        keys.append(key)
        values.append(value)
        size += len(key) + len(value)
        if size >= BLOCK_BYTES:
            yield keys, values
            keys, values, size = [], [], 0
    if keys:
        yield keys, values
