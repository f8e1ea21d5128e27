"""The tables of the embedded log."""

#: Grows when an older headrace could not read the file any more; see `migration.py`.
VERSION = 2
#: A row's id is partition id << OFFSET_BITS | base offset or number: rows of a partition lie together without an index.
OFFSET_BITS = 40

#: What compacted topics are kept in, see `compacted.py`, `merge.py`, `ordered_changes.py`; new in format 2.
COMPACTED_SCHEMA = """
CREATE TABLE IF NOT EXISTS compacted (
    partition_id INTEGER PRIMARY KEY,
    next_id INTEGER NOT NULL,
    pending INTEGER NOT NULL DEFAULT 0,
    pending_bytes INTEGER NOT NULL DEFAULT 0,
    kept INTEGER NOT NULL DEFAULT 0,
    through INTEGER,
    merged_to BLOB
);
CREATE TABLE IF NOT EXISTS changes (
    id INTEGER PRIMARY KEY,
    entries INTEGER NOT NULL,
    body BLOB NOT NULL
);
CREATE TABLE IF NOT EXISTS blocks (
    id INTEGER PRIMARY KEY,
    partition_id INTEGER NOT NULL,
    first_key BLOB NOT NULL,
    entries INTEGER NOT NULL,
    body BLOB NOT NULL,
    UNIQUE (partition_id, first_key)
);
CREATE TABLE IF NOT EXISTS ordered_changes (
    partition_id INTEGER NOT NULL,
    at_offset INTEGER NOT NULL,
    key BLOB NOT NULL,
    value BLOB,
    time_ms INTEGER NOT NULL,
    PRIMARY KEY (partition_id, at_offset)
) WITHOUT ROWID;
"""
SCHEMA = f"""
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
{COMPACTED_SCHEMA}"""
