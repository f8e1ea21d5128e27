"""Newest values: of chosen devices, or of all of a type; each metric with its own time."""

from collections.abc import Sequence
from functools import lru_cache

from headrace.connectors.timescale.answers import About, Completeness, Latest, LatestValue, Stretch
from headrace.connectors.timescale.query_catalog import TypeTable, check_texts
from headrace.connectors.timescale.query_pool import QueryError, QueryPool
from headrace.connectors.timescale.readings_table import quoted

#: How far back is looked unless told otherwise, seconds: an hour, as the seed documents' query.
WITHIN = 3600.0
#: Longest that may be asked for, seconds: a hundred years.
LONGEST = 100 * 366 * 86_400.0

#: End of the newest minute in which something was appended that is stored; not after $1, the time it is.
AS_OF = "LEAST($1::timestamptz, (SELECT max(minute) + interval '1 minute' FROM ledger))"

#: Whose values: for one device PostgreSQL plans once and for all, for an array each time.
_ONE = "(VALUES ($3::text)) AS devices(device_id)"
_CHOSEN = "unnest($3::text[]) AS devices(device_id)"
_ALL = "(SELECT device_id FROM device_state WHERE device_type = $3) AS devices"


async def latest(
    pool: QueryPool,
    table: TypeTable,
    device_ids: Sequence[str] | None,
    metrics: Sequence[str],
    *,
    now_ms: int,
    as_of_ms: int | None,
    within: float,
    below: float | None,
    above: float | None,
) -> Latest:
    """See `headrace.connectors.timescale.store.Store.latest`. One statement, one index probe per device."""
    check_texts(device_ids or ())
    if not 0 < within <= LONGEST:
        raise QueryError(f"within must be more than 0 s and at most 100 years, not {within:g} s")
    names = table.chosen(metrics)
    asked = [limit for limit in (below, above) if limit is not None]
    signs = ("<" if below is not None else "") + (">" if above is not None else "")
    devices, chosen = _CHOSEN, device_ids
    if device_ids is None:
        devices, chosen = _ALL, table.device_type
    elif len(device_ids) == 1:
        devices, chosen = _ONE, device_ids[0]
    rows = await pool.fetch(
        _statement(table.name, names, devices, as_of_ms is not None, signs),
        now_ms if as_of_ms is None else as_of_ms,
        float(within),
        chosen,
        *asked,
    )
    as_of, since = rows[0][0], rows[0][1]
    values = [
        LatestValue(row[2], name, row[place], row[place + 1])
        for row in rows
        for place, name in zip(range(3, 3 + 2 * len(names), 2), names, strict=True)
        if row[place] is not None
    ]
    about = About("raw", (Stretch("readings", since, as_of_ms),), Completeness(as_of))
    return Latest(table.device_type, since, values, about)


@lru_cache(maxsize=256)
def _statement(table: str, names: tuple[str, ...], devices: str, as_asked: bool, signs: str) -> str:
    until = "AND time <= bound.as_of" if as_asked else ""
    if len(names) == 1:
        # Planning takes longer than everything else: a third of it is the look at older readings.
        parts = [_newest(table, names, f"{until} AND {quoted(names[0])} IS NOT NULL")]
        columns = ", newest.time AS t0, newest.v0"
    else:
        parts = [_newest(table, names, until)]
        parts += [_older(table, quoted(name), place, until) for place, name in enumerate(names)]
        columns = "".join(
            f""",
            CASE WHEN newest.v{place} IS NULL THEN m{place}.time ELSE newest.time END AS t{place},
            COALESCE(newest.v{place}, m{place}.value) AS v{place}"""
            for place in range(len(names))
        )
    wanted = [
        "(" + (" OR ".join(f"v{place} {sign} ${number}" for place in range(len(names))) or "false") + ")"
        for number, sign in enumerate(signs, 4)
    ]
    return f"""
        WITH bound AS MATERIALIZED (
            SELECT as_of, as_of - make_interval(secs => $2) AS since
            FROM (SELECT {"$1::timestamptz" if as_asked else AS_OF} AS as_of OFFSET 0) AS asked
        ), found AS (
            SELECT * FROM (
                SELECT devices.device_id{columns}
                FROM bound CROSS JOIN {devices} {" ".join(parts)}
            ) AS each {"WHERE " + " AND ".join(wanted) if wanted else ""}
        )
        SELECT as_of, since, found.* FROM bound LEFT JOIN found ON true
    """


def _newest(table: str, names: Sequence[str], until: str) -> str:
    """The newest reading, which has most metrics, mostly."""
    columns = "".join(f", {quoted(name)} AS v{place}" for place, name in enumerate(names))
    return f"""CROSS JOIN LATERAL (
        SELECT time{columns} FROM {table}
        WHERE device_id = devices.device_id AND time > bound.since {until} ORDER BY time DESC LIMIT 1
    ) AS newest"""


def _older(table: str, column: str, place: int, until: str) -> str:
    """The newest reading with a metric that the newest of all does not have; not looked for where it has."""
    return f"""LEFT JOIN LATERAL (
        SELECT time, {column} AS value FROM {table}
        WHERE newest.v{place} IS NULL AND device_id = devices.device_id AND time > bound.since {until}
            AND {column} IS NOT NULL
        ORDER BY time DESC LIMIT 1
    ) AS m{place} ON true"""
