"""What a transaction makes of keys of compacted topics, by `Changes` and by `Append`, as the SQL wants it."""

from collections.abc import Mapping

from headrace.engine.embedded import compacted
from headrace.engine.embedded.operations import Changed, Partition
from headrace.engine.errors import LogError
from headrace.engine.log import Append, Changes
from headrace.engine.records import Records


def by_changes(partition: Partition, changes: Changes, now_ms: int) -> Changed:
    """Keys that are set as of `Changes.time_ms`, or of now."""
    entries = changes.entries
    shown = None
    if partition.ordered:
        time_ms = now_ms if changes.time_ms is None else changes.time_ms
        shown = Records(list(entries), list(entries.values()), [time_ms] * len(entries))
    return Changed(partition, compacted.rows(entries), shown, {})


def by_append(partition: Partition, append: Append) -> Changed:
    """Keys that records set, one after the other, each as of its own append time; headers are left out.

    Raises:
        LogError: a record has no key.
    """
    records = append.records
    entries: Mapping[bytes | None, bytes | None] = dict(zip(records.keys, records.values, strict=True))
    keyed = {key: value for key, value in entries.items() if key is not None}
    if len(keyed) < len(entries):
        raise LogError(f"topic {append.target.topic!r} is compacted: every record that is sent there needs a key")
    return Changed(partition, compacted.rows(keyed), records if partition.ordered else None, append.tallies)
