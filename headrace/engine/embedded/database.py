"""The SQLite file of the embedded log: its tables, and connections that are set up for durable commits."""

import sqlite3
from pathlib import Path

from headrace.engine.errors import LogError

SCHEMA_VERSION = 1
MEMORY = Path(":memory:")
#: A batch row's id is partition id << OFFSET_BITS | base offset, so rows of a partition lie together without an index.
OFFSET_BITS = 40
#: Another process may hold the write lock for one commit; longer than this is an error.
BUSY_TIMEOUT_MS = 30_000

_SCHEMA = """
CREATE TABLE IF NOT EXISTS partitions (
    id INTEGER PRIMARY KEY,
    topic TEXT NOT NULL,
    partition INTEGER NOT NULL,
    compacted INTEGER NOT NULL,
    retention REAL,
    start_offset INTEGER NOT NULL DEFAULT 0,
    next_offset INTEGER NOT NULL DEFAULT 0,
    newest_ms INTEGER NOT NULL DEFAULT 0,
    bytes INTEGER NOT NULL DEFAULT 0,
    UNIQUE (topic, partition)
);
CREATE TABLE IF NOT EXISTS batches (
    id INTEGER PRIMARY KEY,
    next_offset INTEGER NOT NULL,
    newest_ms INTEGER NOT NULL,
    body BLOB NOT NULL
);
CREATE TABLE IF NOT EXISTS latest (
    partition_id INTEGER NOT NULL,
    key BLOB NOT NULL,
    value BLOB NOT NULL,
    PRIMARY KEY (partition_id, key)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS positions (
    consumer_group TEXT NOT NULL,
    partition_id INTEGER NOT NULL,
    next_offset INTEGER NOT NULL,
    PRIMARY KEY (consumer_group, partition_id)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS tallies (
    topic TEXT NOT NULL,
    minute_ms INTEGER NOT NULL,
    device_type TEXT NOT NULL,
    count INTEGER NOT NULL,
    PRIMARY KEY (topic, minute_ms, device_type)
) WITHOUT ROWID;
"""
#: What data folders that were made by an earlier headrace do not have yet; it does not mind.
_ADDED = """
CREATE TABLE IF NOT EXISTS changes (
    partition_id INTEGER NOT NULL,
    at_offset INTEGER NOT NULL,
    key BLOB NOT NULL,
    value BLOB,
    time_ms INTEGER NOT NULL,
    PRIMARY KEY (partition_id, at_offset)
) WITHOUT ROWID;
"""


def connect(folder: Path) -> sqlite3.Connection:
    """Open `folder`/log.sqlite, or a database in memory, and make its tables.

    Raises:
        LogError: the file is not ours, damaged, or of a newer headrace.
    """
    target = ":memory:" if folder == MEMORY else str(folder / "log.sqlite")
    connection = sqlite3.connect(target, isolation_level=None, check_same_thread=False)
    try:
        connection.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_MS}")
        connection.execute("PRAGMA page_size = 16384")
        connection.execute("PRAGMA journal_mode = WAL")
        # NORMAL does not sync on commit: an acknowledged record could vanish with the power.
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA wal_autocheckpoint = 4000")
        connection.execute("PRAGMA temp_store = MEMORY")
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        if version not in (0, SCHEMA_VERSION):
            raise LogError(f"{target} has format {version}, this headrace reads {SCHEMA_VERSION}; upgrade headrace")
        if version == 0:
            connection.executescript(f"BEGIN IMMEDIATE;{_SCHEMA}PRAGMA user_version = {SCHEMA_VERSION};COMMIT;")
        connection.executescript(_ADDED)
    except sqlite3.Error as error:
        connection.close()
        raise LogError(f"cannot open the log {target}: {error}") from error
    except LogError:
        connection.close()
        raise
    return connection
