"""Brings readings back from the archive into the database."""

from collections.abc import Mapping
from datetime import date
from typing import Any

import asyncpg
import orjson
import polars as pl

from headrace.connectors.archive import parts
from headrace.connectors.archive.dataset import READINGS
from headrace.connectors.archive.due import datasets
from headrace.connectors.archive.late import PLAIN
from headrace.connectors.archive.object_store import ObjectStore
from headrace.connectors.archive.parts import Part
from headrace.connectors.archive.writing import read_back
from headrace.connectors.timescale.errors import translated
from headrace.connectors.timescale.migrations import MIGRATIONS, migrate, packaged
from headrace.connectors.timescale.readings_table import ReadingsTable, TableSpec, quoted
from headrace.connectors.timescale.schema import SchemaKeeper

#: Which rows this transaction inserted.
_RESTORED = """
    CREATE TEMPORARY TABLE IF NOT EXISTS restored (device_id text COLLATE "C", time timestamptz, kind text)
    ON COMMIT DROP
"""
_KEYS = ("device_id", "time", "message_id", "appended_at", "extra")


async def restore(
    connect: Mapping[str, Any], store: ObjectStore, day: date, device_type: str | None = None
) -> dict[str, int]:
    """Insert the archived readings of a day that the database has not; rows by device type.

    A row that the database has stays as it is. The archive keeps its files; the next run of the job finds the rows
    to be duplicates and deletes them again, unless their retention was made longer. All or nothing.

    Raises:
        ArchiveDamaged: a part is not what was written; nothing is restored.
        Disconnected, RetryLater: database or store do not answer now.
    """
    restored: dict[str, int] = {}
    with translated():
        connection = await asyncpg.connect(**connect)
        try:
            await SchemaKeeper().bring_up(connection, packaged(MIGRATIONS), [])
            async with connection.transaction():
                for part in await parts.archived(connection, READINGS, device_type, (day, day)):
                    name = part.place.device_type
                    assert name is not None
                    frame = await read_back(store, part)
                    restored[name] = restored.get(name, 0) + await _insert(connection, part, frame)
        finally:
            connection.terminate()
    return restored


async def _insert(connection: asyncpg.Connection, part: Part, frame: pl.DataFrame) -> int:
    """Rows that were missing."""
    device_type = part.place.device_type
    assert device_type is not None
    known = [each for each in await datasets(connection, [device_type]) if each.device_type == device_type]
    if not known:
        await migrate(connection, ReadingsTable(TableSpec(device_type)).migrations())
        known = [each for each in await datasets(connection, [device_type]) if each.device_type == device_type]
    table, measures = known[0].table, known[0].floats
    there = [name for name in measures if name in frame.columns]
    columns = [*_KEYS, "organisation", *there]
    await connection.execute(f"CREATE TEMPORARY TABLE staging (LIKE {table}) ON COMMIT DROP")
    await connection.execute(_RESTORED)
    await connection.copy_records_to_table(
        "staging", records=_records(frame, part.place.organisation, there), columns=columns
    )
    names = ", ".join(map(quoted, columns))
    # Parts of a day come in the order in which they were made: a later one completes rows of an earlier one.
    filled = ["extra = COALESCE(staged.extra || stored.extra, stored.extra, staged.extra)"]
    filled += [f"{name} = COALESCE(stored.{name}, staged.{name})" for name in map(quoted, there)]
    await connection.execute(
        f"""
        UPDATE {table} AS stored SET {", ".join(filled)} FROM staging AS staged JOIN restored USING (device_id, time)
        WHERE restored.kind = $1 AND stored.device_id = staged.device_id AND stored.time = staged.time
        """,
        device_type,
    )
    status = await connection.execute(
        f"""
        WITH made AS (
            INSERT INTO {table} ({names}) SELECT {names} FROM staging ON CONFLICT (device_id, time) DO NOTHING
            RETURNING device_id, time
        ) INSERT INTO restored SELECT device_id, time, $1 FROM made
        """,
        device_type,
    )
    await connection.execute("DROP TABLE staging")
    return int(status.rsplit(" ", 1)[-1])


def _records(frame: pl.DataFrame, organisation: str | None, measures: list[str]) -> list[tuple[Any, ...]]:
    """Rows for the table; measures that it has no column for go into extra."""
    others = [name for name in frame.columns if name not in PLAIN and name not in measures]
    rows = []
    for row in frame.iter_rows(named=True):
        extra = row["extra"]
        more = {name: row[name] for name in others if row[name] is not None}
        if more:
            extra = orjson.dumps((orjson.loads(extra) if extra else {}) | more).decode()
        values = (row[name] for name in measures)
        key = (row["device_id"], row["time"], row["message_id"], row["appended_at"])
        rows.append((*key, extra, organisation, *values))
    return rows
