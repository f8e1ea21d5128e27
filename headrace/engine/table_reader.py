"""What tables hold, read from their changelogs: what was committed, whoever keeps the table in memory."""

from collections.abc import AsyncIterator, Iterator
from typing import Any, NamedTuple

from headrace.engine.changelog import changelog_topic
from headrace.engine.log import Log, TopicPartition
from headrace.engine.operator import Readable
from headrace.engine.partitioner import Partitioner
from headrace.engine.runtime.restoring import NOTES, readable


class TableRow(NamedTuple):
    """One row of a table, and the partition that it is in."""

    partition: int
    row: dict[str, Any]


def partition_of(log: Log, group: str, table: str, device: str) -> int:
    """The partition that a device's rows are in.

    Raises:
        KeyError: the table has no changelog.
    """
    return Partitioner(log.partitions(changelog_topic(group, table))).partition(device.encode())


async def table_rows(
    log: Log,
    group: str,
    table: Readable,
    device: str | None = None,
    first_ms: int | None = None,
    last_ms: int | None = None,
) -> AsyncIterator[TableRow]:
    """The rows of a table, partition by partition, in the order of their keys.

    Reads the changelog of each partition whole, or with `device` that of its partition.

    Args:
        table: an object that knows the table's entries; what it holds itself is not looked at.
        device: only rows about it.
        first_ms, last_ms: only rows whose `start` (or `time`) is in between, both included; ms since 1970 UTC.
    Raises:
        KeyError: the table has no changelog.
        LogError, TableUnreadable: it cannot be read.
    """
    changelog = changelog_topic(group, table.name)
    numbers = range(log.partitions(changelog)) if device is None else [partition_of(log, group, table.name, device)]
    for number in numbers:
        target = TopicPartition(changelog, number)
        with readable(target, "`headrace topics reset` starts tables over"):
            found = {key: value async for part in log.restore(target) for key, value in part}
            entries = {key: value for key, value in found.items() if key not in NOTES}
            for row in between(table.rows(entries), device, first_ms, last_ms):
                yield TableRow(number, row)


def between(
    rows: Iterator[dict[str, Any]], device: str | None, first_ms: int | None, last_ms: int | None
) -> Iterator[dict[str, Any]]:
    """The rows about a device (None: all) whose `start`, or else `time`, is in a range; both ends included."""
    for row in rows:
        if device is None or row.get("device_id") == device:
            time = row.get("start", row.get("time"))
            if first_ms is last_ms is None or (time is not None and _is_in(time, first_ms, last_ms)):
                yield row


def _is_in(time: int, first_ms: int | None, last_ms: int | None) -> bool:
    return (first_ms is None or time >= first_ms) and (last_ms is None or time <= last_ms)
