"""The table `archive_parts`: what the archive holds, and what a run is at."""

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any, Literal

import asyncpg

from headrace.connectors.archive.layout import Place

State = Literal["writing", "written", "verified", "deleted"]
DAY = timedelta(days=1)

_COLUMNS = (
    "part_id, dataset, device_type, organisation, day, number, object, state, rows, bytes, groups, sha256, content, "
    "first_group, last_group, first_time, last_time, duplicates, conflicts, deleted_at"
)
_INSERT = """
    INSERT INTO archive_parts (dataset, device_type, organisation, day, number, object, state, rows, bytes, groups,
        sha256, content, first_group, last_group, first_time, last_time, duplicates, conflicts)
    VALUES ($1, $2, $3, $4, $5, $6, 'writing', $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17)
    RETURNING part_id
"""
_NEXT = """
    SELECT COALESCE(max(number), 0) + 1 FROM archive_parts
    WHERE dataset = $1 AND device_type IS NOT DISTINCT FROM $2 AND organisation IS NOT DISTINCT FROM $3 AND day = $4
"""
_STAMPED: dict[State, str] = {
    "written": "UPDATE archive_parts SET state = $2, written_at = $3 WHERE part_id = $1 AND state = 'writing'",
    "verified": "UPDATE archive_parts SET state = $2, verified_at = $3 WHERE part_id = $1 AND state = 'written'",
    "deleted": "UPDATE archive_parts SET state = $2, deleted_at = $3 WHERE part_id = $1 AND state <> 'deleted'",
}


@dataclass(frozen=True, slots=True)
class Part:
    """A row of the table; see migration 0010. `size` is in bytes; `object` is None where nothing had to be written."""

    place: Place
    number: int
    object: str | None
    rows: int
    size: int
    groups: int
    sha256: bytes
    content: bytes
    first_group: str
    last_group: str
    first_time: datetime | None
    last_time: datetime | None
    duplicates: int = 0
    conflicts: int = 0
    state: State = "writing"
    deleted_at: datetime | None = None


def part_of(row: Any) -> Part:
    """A part from a record with `_COLUMNS`."""
    place = Place(row["dataset"], row["device_type"], row["organisation"], row["day"])
    same = ("number", "object", "rows", "groups", "first_group", "last_group", "first_time", "last_time")
    more = ("duplicates", "conflicts", "state", "deleted_at")
    fields = {name: row[name] for name in (*same, *more)}
    return Part(place, size=row["bytes"], sha256=bytes(row["sha256"]), content=bytes(row["content"]), **fields)


async def next_number(connection: asyncpg.Connection, place: Place) -> int:
    """The number of the next part at `place`, from 1."""
    number: int = await connection.fetchval(_NEXT, *place)
    return number


async def begin(connection: asyncpg.Connection, part: Part) -> int:
    """Note a part before its object is made, so that none is ever there that nobody knows of; its id."""
    part_id: int = await connection.fetchval(
        _INSERT,
        *part.place,
        part.number,
        part.object,
        part.rows,
        part.size,
        part.groups,
        part.sha256,
        part.content,
        part.first_group,
        part.last_group,
        part.first_time,
        part.last_time,
        part.duplicates,
        part.conflicts,
    )
    return part_id


async def advance(connection: asyncpg.Connection, part_id: int, state: State, now_ms: int) -> None:
    """Move a part on, from the state before."""
    status = await connection.execute(_STAMPED[state], part_id, state, moment(now_ms))
    assert status == "UPDATE 1", f"part {part_id} is not where it was"


async def unfinished(connection: asyncpg.Connection) -> list[tuple[int, str | None]]:
    """Id and object of parts whose rows are still in the database."""
    rows = await connection.fetch("SELECT part_id, object FROM archive_parts WHERE state <> 'deleted' ORDER BY part_id")
    return [(row["part_id"], row["object"]) for row in rows]


async def forget(connection: asyncpg.Connection, part_id: int) -> None:
    """Take an unfinished part off the table."""
    await connection.execute("DELETE FROM archive_parts WHERE part_id = $1 AND state <> 'deleted'", part_id)


async def archived(
    connection: asyncpg.Connection,
    dataset: str,
    device_type: str | None = None,
    days: tuple[date, date] | None = None,
    groups: tuple[str, str] | None = None,
) -> list[Part]:
    """Parts whose rows are in the archive alone, by place and number, as far as they may hold what is asked for.

    Args:
        device_type: of readings; None for all.
        days: first and last.
        groups: least and greatest.
    """
    rows = await connection.fetch(
        f"""
        SELECT {_COLUMNS} FROM archive_parts
        WHERE state = 'deleted' AND object IS NOT NULL AND dataset = $1 AND ($2::text IS NULL OR device_type = $2)
            AND ($3::date IS NULL OR day BETWEEN $3 AND $4)
            AND ($5::text IS NULL OR (first_group <= $6::text COLLATE "C" AND last_group >= $5::text COLLATE "C"))
        ORDER BY day, deleted_at, part_id
        """,
        dataset,
        device_type,
        *(days or (None, None)),
        *(groups or (None, None)),
    )
    return [part_of(row) for row in rows]


async def everything(connection: asyncpg.Connection, day: date | None = None) -> list[Part]:
    """All parts, of all states, by place and number."""
    rows = await connection.fetch(
        f"""
        SELECT {_COLUMNS} FROM archive_parts WHERE $1::date IS NULL OR day = $1
        ORDER BY dataset, device_type, organisation, day, number
        """,
        day,
    )
    return [part_of(row) for row in rows]


def moment(time_ms: int) -> datetime:
    """As PostgreSQL takes it."""
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=time_ms)


def bounds(day: date) -> tuple[datetime, datetime]:
    """When a day begins and ends, UTC."""
    begin_at = datetime(day.year, day.month, day.day, tzinfo=UTC)
    return begin_at, begin_at + DAY
