"""Lists of stored documents: conflicts, alerts and anomalies, the newest first, page by page."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import orjson

from headrace.connectors.timescale.answers import About, Completeness, Listed, Record, Stretch
from headrace.connectors.timescale.latest import AS_OF
from headrace.connectors.timescale.query_catalog import check_texts
from headrace.connectors.timescale.query_pool import QueryError, QueryPool

#: Most records in one answer.
MOST_RECORDS = 100_000

Kind = Literal["conflicts", "alerts", "anomalies"]


@dataclass(frozen=True, slots=True)
class _Table:
    """Where a kind is: its column of time, what makes the order total, and what one may choose by."""

    time: str
    key: str
    filters: tuple[str, ...]


_TABLES: Mapping[str, _Table] = {
    "conflicts": _Table("time", "message_id::text", ("device_id", "device_type")),
    "alerts": _Table("triggered_at", "alert_id", ("device_id", "rule_id", "severity", "status")),
    "anomalies": _Table(
        "time",
        "concat_ws(chr(31), device_id, metric, detector)",
        ("device_id", "device_type", "metric", "detector"),
    ),
}


async def records(
    pool: QueryPool,
    kind: Kind,
    chosen: Mapping[str, str | None],
    *,
    start_ms: int | None,
    end_ms: int | None,
    limit: int,
    cursor: str | None,
    now_ms: int,
) -> Listed:
    """Documents of a kind by time, the newest first; one statement.

    Args:
        chosen: values by column; None for any.
    """
    table = _TABLES[kind]
    filters = {name: value for name, value in chosen.items() if value is not None}
    assert filters.keys() <= set(table.filters)
    check_texts(filters.values())
    if not 0 < limit <= MOST_RECORDS:
        raise QueryError(f"limit must be 1 to {MOST_RECORDS:,}, not {limit}")
    wanted, arguments = ["true"], list[object]([now_ms, limit + 1])

    def want(condition: str, *values: object) -> None:
        places = range(len(arguments) + 1, len(arguments) + len(values) + 1)
        arguments.extend(values)
        wanted.append(condition.format(*(f"${place}" for place in places)))

    for name, value in filters.items():
        want(f"{name} = {{}}", value)
    if start_ms is not None:
        want(f"{table.time} >= {{}}", start_ms)
    if end_ms is not None:
        want(f"{table.time} < {{}}", end_ms)
    if cursor is not None:
        want(f'({table.time}, {table.key} COLLATE "C") < ({{}}, {{}})', *_position(cursor))
    rows = await pool.fetch(
        f"""
        WITH found AS (
            SELECT {table.time} AS at, device_id, document, {table.key} COLLATE "C" AS key FROM {kind}
            WHERE {" AND ".join(wanted)} ORDER BY {table.time} DESC NULLS LAST, key DESC LIMIT $2
        )
        SELECT {AS_OF}, found.* FROM (SELECT) AS one LEFT JOIN found ON true ORDER BY at DESC NULLS LAST, key DESC
        """,
        *arguments,
    )
    page = [row for row in rows[:limit] if row[3] is not None]
    more = len(rows) > limit
    last = page[-1] if page else None
    after = orjson.dumps([last[1], last[4]]).decode() if more and last is not None and last[1] is not None else None
    about = About("record", (Stretch(kind, start_ms, end_ms),), Completeness(rows[0][0], more=more))
    return Listed([Record(row[1], row[2], orjson.loads(row[3])) for row in page], after, about)


def _position(cursor: str) -> tuple[int, str]:
    try:
        time_ms, key = orjson.loads(cursor)
        if isinstance(time_ms, int) and isinstance(key, str):
            check_texts([key])
            return time_ms, key
    except ValueError:
        pass
    raise QueryError(f"cursor: {cursor!r} is none that an answer gave")
