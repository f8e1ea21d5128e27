"""A data folder of format 1, made as headrace made it then."""

import sqlite3
from pathlib import Path

import pytest

from headrace.engine.embedded import migration
from headrace.engine.embedded.database import connect
from headrace.engine.embedded.log import EmbeddedLog
from headrace.engine.embedded.schema import COMPACTED_SCHEMA
from headrace.engine.errors import LogError, LogInUse
from headrace.engine.log import Changes, TopicPartition, TopicSpec, Transaction
from tests.contract.log_access import append, read_all, restore_all

FORMAT_1 = """
CREATE TABLE partitions (
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
CREATE TABLE batches (
    id INTEGER PRIMARY KEY,
    next_offset INTEGER NOT NULL,
    newest_ms INTEGER NOT NULL,
    body BLOB NOT NULL
);
CREATE TABLE latest (
    partition_id INTEGER NOT NULL,
    key BLOB NOT NULL,
    value BLOB NOT NULL,
    PRIMARY KEY (partition_id, key)
) WITHOUT ROWID;
CREATE TABLE positions (
    consumer_group TEXT NOT NULL,
    partition_id INTEGER NOT NULL,
    next_offset INTEGER NOT NULL,
    PRIMARY KEY (consumer_group, partition_id)
) WITHOUT ROWID;
CREATE TABLE tallies (
    topic TEXT NOT NULL,
    minute_ms INTEGER NOT NULL,
    device_type TEXT NOT NULL,
    count INTEGER NOT NULL,
    PRIMARY KEY (topic, minute_ms, device_type)
) WITHOUT ROWID;
INSERT INTO partitions (topic, partition, compacted) VALUES ('state', 0, 1), ('state', 1, 1), ('empty', 0, 1);
INSERT INTO partitions (topic, partition, compacted) VALUES ('events', 0, 0);
INSERT INTO positions VALUES ('group', 4, 7);
PRAGMA user_version = 1;
"""
ENTRIES = {
    TopicPartition("state", 0): {b"%d" % number: b"value %d" % number * 20 for number in range(5000)},
    TopicPartition("state", 1): {b"": b"of the empty key", b"k": b""},
    TopicPartition("empty", 0): {},
}


def write_format_1(folder: Path) -> sqlite3.Connection:
    """A folder with entries and a position; the connection is still open."""
    connection = sqlite3.connect(folder / "log.sqlite", isolation_level=None)
    connection.execute("PRAGMA page_size = 16384")
    connection.execute("PRAGMA journal_mode = WAL")
    connection.executescript(FORMAT_1)
    connection.execute("BEGIN")
    for number, entries in enumerate(ENTRIES.values(), 1):
        connection.executemany("INSERT INTO latest VALUES (?, ?, ?)", [(number, *entry) for entry in entries.items()])
    connection.execute("COMMIT")
    return connection


async def test_everything_is_there_afterwards(tmp_path: Path) -> None:
    """Entries and positions are the same, and can be changed, merged and read again."""
    write_format_1(tmp_path).close()

    log = EmbeddedLog(tmp_path)
    await log.create_topics([TopicSpec("more", 1)])

    for target, entries in ENTRIES.items():
        assert await restore_all(log, target) == entries
    assert list((await log.positions("group", "events")).values()) == [7]
    state = TopicPartition("state", 0)
    await log.commit(Transaction(changes=[Changes(state, {b"1": None, b"2": b"new", b"~": b"another"})]))
    await append(log, TopicPartition("more", 0), b"a")
    await log.close()
    again = EmbeddedLog(tmp_path)
    await again.create_topics([])
    left = {key: value for key, value in ENTRIES[state].items() if key != b"1"}
    assert await restore_all(again, state) == {**left, b"2": b"new", b"~": b"another"}
    assert await read_all(again, TopicPartition("more", 0)) == [b"a"]
    await again.close()


def test_the_file_is_of_the_new_format(tmp_path: Path) -> None:
    """Blocks of a good size, WAL as before, and a version that an older headrace refuses."""
    write_format_1(tmp_path).close()

    connection = connect(tmp_path)

    assert connection.execute("PRAGMA user_version").fetchone() == (2,)
    assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert connection.execute("SELECT count(*) FROM sqlite_schema WHERE name = 'latest'").fetchone() == (0,)
    sizes = [size for (size,) in connection.execute("SELECT length(body) FROM blocks WHERE partition_id = 1")]
    assert len(sizes) > 5
    assert max(sizes) < 1.2 * migration.BLOCK_BYTES
    connection.close()


def test_a_file_that_is_in_use_stays_as_it_is(tmp_path: Path) -> None:
    """While an older worker runs on the folder nothing is migrated under it."""
    worker = write_format_1(tmp_path)
    worker.execute("SELECT count(*) FROM latest").fetchone()

    with pytest.raises(LogInUse, match="another process has it open; stop that"):
        EmbeddedLog(tmp_path)

    assert worker.execute("PRAGMA user_version").fetchone() == (1,)
    assert worker.execute("SELECT count(*) FROM latest").fetchone() == (5002,)
    worker.close()
    connect(tmp_path).close()


def test_a_migration_that_fails_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is one transaction: the next one begins anew."""
    write_format_1(tmp_path).close()
    broken = COMPACTED_SCHEMA + "INSERT INTO nowhere VALUES (1);"
    monkeypatch.setattr("headrace.engine.embedded.migration.COMPACTED_SCHEMA", broken)

    with pytest.raises(LogError, match="cannot open the log"):
        connect(tmp_path)

    monkeypatch.undo()
    connection = connect(tmp_path)
    assert connection.execute("SELECT sum(entries) FROM blocks").fetchone() == (5002,)
    connection.close()


def test_a_newer_format_is_refused(tmp_path: Path) -> None:
    """As an older headrace refuses this one's."""
    connection = connect(tmp_path)
    connection.execute("PRAGMA user_version = 3")
    connection.close()

    with pytest.raises(LogError, match="upgrade headrace"):
        connect(tmp_path)
