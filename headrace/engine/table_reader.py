"""What tables hold, read from their changelogs: what was committed, whoever keeps the table in memory."""

from collections.abc import AsyncIterator, Iterator
from typing import Any, NamedTuple

from headrace.engine.log import Log, TopicPartition
from headrace.engine.operator import Readable
from headrace.engine.partitioner import Partitioner
from headrace.engine.runtime.restoring import NOTES, readable
from headrace.engine.runtime.tables import changelog_topic


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


async def table_rows(log: Log, group: str, table: Readable, device: str | None = None) -> AsyncIterator[TableRow]:
    """The rows of a table, partition by partition, in the order of their keys.

    Reads the changelog of each partition whole, or with `device` that of its partition.

    Args:
        table: an object that knows the table's entries; what it holds itself is not looked at.
        device: only rows about it.
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
            for row in _about(table.rows(entries), device):
                yield TableRow(number, row)


def _about(rows: Iterator[dict[str, Any]], device: str | None) -> Iterator[dict[str, Any]]:
    return (row for row in rows if device is None or row.get("device_id") == device)
