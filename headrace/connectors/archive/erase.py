"""Deletes rows whose file was read back: only exactly these rows, in the transaction that makes the file theirs."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any

import asyncpg

from headrace.connectors.archive.dataset import Dataset
from headrace.connectors.archive.digest import content_digest, from_records
from headrace.connectors.archive.parts import advance, bounds
from headrace.engine.errors import HeadraceError

#: Longest wait for writers of the table, ms. Whoever writes meanwhile waits behind us.
LOCK_TIMEOUT_MS = 10_000

#: Chunks that are wholly in a day.
_DROP = "SELECT drop_chunks($1::text::regclass, older_than => $2::timestamptz, newer_than => $3::timestamptz)"
_CONFLICTS = """
    INSERT INTO conflicts (message_id, device_type, device_id, time, document)
    SELECT (d->>'message_id')::uuid, d->>'device_type', d->>'device_id', headrace_time(d->'time'), d
    FROM unnest($1::jsonb[]) AS input(d) ON CONFLICT (message_id) DO NOTHING
"""


class RowsChanged(HeadraceError):
    """Rows were added, completed or removed since they were read: nothing was deleted."""


@dataclass(frozen=True, slots=True)
class Verified:
    """Rows that may go: their file is in the store, and was read back.

    Args:
        part_id: of their part.
        organisation, day: whose, and when.
        first, last: keys of the first and last row, in the total order of the dataset.
        rows: of them, those included that the file need not hold, count.
        content: their digest, see `content_digest`.
        conflicts: documents of those that contradict the archive.
    """

    part_id: int
    organisation: str | None
    day: date
    first: tuple[Any, Any]
    last: tuple[Any, Any]
    rows: int
    content: bytes
    conflicts: Sequence[bytes] = ()

    @property
    def arguments(self) -> tuple[Any, ...]:
        """Of the statements of a dataset about a part."""
        return (*bounds(self.day), self.organisation, *self.first, *self.last)


async def check(connection: asyncpg.Connection, statement: str, rows: Verified) -> None:
    """Let `statement`, of a dataset, digest the rows in the database, and compare.

    Raises:
        RowsChanged: they are not what was read.
    """
    found = from_records(await connection.fetch(statement, *rows.arguments))
    count = sum(digest.rows for digest in found.values())
    if count != rows.rows:
        raise RowsChanged(f"rows changed since they were read: {count} now, {rows.rows} then")
    if content_digest(found) != rows.content:
        raise RowsChanged("rows changed since they were read: as many as then, with other values")


async def erase(connection: asyncpg.Connection, dataset: Dataset, rows: Verified, now_ms: int) -> None:
    """Delete the rows of one part, in one transaction.

    The table takes no writes meanwhile: a sink that has seen one of these rows, and means to complete it, finishes
    first, and one that comes later finds none. See test_no_row_is_lost_between_read_and_delete.

    Raises:
        RowsChanged: they are not what was read; none is deleted.
    """
    async with connection.transaction():
        await _lock(connection, dataset)
        await check(connection, dataset.delete, rows)
        await _settle(connection, rows, now_ms)


async def drop_day(connection: asyncpg.Connection, dataset: Dataset, day: Sequence[Verified], now_ms: int) -> bool:
    """Drop the chunk of a day whose every row was verified; False where it cannot be had so: then `erase` each part.

    Raises:
        RowsChanged: rows are not what was read; the chunk stays.
    """
    begin, end = bounds(day[0].day)
    if not await _owns(connection, dataset) or not await _own_chunk(connection, dataset, begin, end):
        return False
    async with connection.transaction():
        await _lock(connection, dataset)
        held = await connection.fetchval(
            f"SELECT count(*) FROM {dataset.table} WHERE {dataset.time} >= $1 AND {dataset.time} < $2", begin, end
        )
        if held != sum(rows.rows for rows in day):
            return False  # rows of somebody whose policy keeps them, or new ones
        for rows in day:
            await check(connection, dataset.digest, rows)
        await connection.execute(_DROP, dataset.table, end, begin)
        left = await connection.fetchval(
            f"SELECT count(*) FROM {dataset.table} WHERE {dataset.time} >= $1 AND {dataset.time} < $2", begin, end
        )
        if left:
            raise RowsChanged(f"drop_chunks left {left} rows of {dataset.label} on {day[0].day}")
        for rows in day:
            await _settle(connection, rows, now_ms)
    return True


async def _own_chunk(connection: asyncpg.Connection, dataset: Dataset, begin: datetime, end: datetime) -> bool:
    """Whether the table is a hypertable with a chunk that is in this day and no other that is partly in it."""
    if not await connection.fetchval("SELECT to_regclass('timescaledb_information.chunks') IS NOT NULL"):
        return False
    chunks = await connection.fetch(
        """
        SELECT range_start, range_end FROM timescaledb_information.chunks
        WHERE format('%I.%I', hypertable_schema, hypertable_name)::regclass = $1::text::regclass
            AND range_start < $3 AND range_end > $2
        """,
        dataset.table,
        begin,
        end,
    )
    return bool(chunks) and all(row["range_start"] >= begin and row["range_end"] <= end for row in chunks)


async def _owns(connection: asyncpg.Connection, dataset: Dataset) -> bool:
    """Whether the table is this role's, or it is a superuser: nobody else may drop chunks."""
    query = "SELECT pg_has_role(relowner, 'USAGE') FROM pg_class WHERE oid = $1::text::regclass"
    return bool(await connection.fetchval(query, dataset.table))


async def _lock(connection: asyncpg.Connection, dataset: Dataset) -> None:
    await connection.execute(f"SET LOCAL lock_timeout = {LOCK_TIMEOUT_MS}")
    await connection.execute(f"LOCK TABLE {dataset.table} IN SHARE ROW EXCLUSIVE MODE")


async def _settle(connection: asyncpg.Connection, rows: Verified, now_ms: int) -> None:
    if rows.conflicts:
        await connection.execute(_CONFLICTS, [document.decode() for document in rows.conflicts])
    await advance(connection, rows.part_id, "deleted", now_ms)
