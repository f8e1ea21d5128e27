"""Device states: the newest reading of each device, with how long ago it was."""

from collections.abc import Sequence

import orjson

from headrace.connectors.timescale.answers import About, Completeness, DeviceState, States, Stretch
from headrace.connectors.timescale.latest import AS_OF
from headrace.connectors.timescale.query_catalog import check_texts
from headrace.connectors.timescale.query_pool import QueryError, QueryPool

#: Most devices in one answer.
MOST_DEVICES = 1_000_000


async def states(
    pool: QueryPool, device_ids: Sequence[str] | None, device_type: str | None, *, limit: int, now_ms: int
) -> States:
    """See `headrace.connectors.timescale.store.Store.state`. One statement."""
    check_texts([*(device_ids or ()), *([device_type] if device_type else [])])
    if not 0 < limit <= MOST_DEVICES:
        raise QueryError(f"limit must be 1 to {MOST_DEVICES:,}, not {limit}")
    wanted, arguments = ["true"], list[object]([now_ms, limit + 1])
    for condition, value in (("device_id = ANY(${}::text[])", device_ids), ("device_type = ${}", device_type)):
        if value is not None:
            arguments.append(value)
            wanted.append(condition.format(len(arguments)))
    rows = await pool.fetch(
        f"""
        WITH bound AS MATERIALIZED (SELECT {AS_OF} AS as_of), found AS (
            SELECT device_id, device_type, s.time, s.appended_at, s.message_id, s.metrics, p.state, p.time AS since
            FROM device_state AS s LEFT JOIN device_presence AS p USING (device_id)
            WHERE {" AND ".join(wanted)} ORDER BY device_id LIMIT $2
        )
        SELECT as_of, found.* FROM bound LEFT JOIN found ON true ORDER BY device_id
        """,
        *arguments,
    )
    as_of = rows[0][0]
    found = [
        DeviceState(
            row[1], row[2], row[3], row[4], str(row[5]), orjson.loads(row[6]), max(0, as_of - row[3]), row[7], row[8]
        )
        for row in rows[:limit]
        if row[1] is not None
    ]
    about = About("raw", (Stretch("device_state"),), Completeness(as_of, more=len(rows) > limit))
    return States(found, about)
