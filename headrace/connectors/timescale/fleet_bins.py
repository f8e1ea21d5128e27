"""Bins of many devices at once, from the readings."""

from collections.abc import Sequence

import numpy as np

from headrace.connectors.timescale.answers import About, Bins, Completeness, FleetBins, Stretch
from headrace.connectors.timescale.query_catalog import TypeTable, check_texts
from headrace.connectors.timescale.query_pool import QueryError, QueryPool
from headrace.connectors.timescale.readings_table import quoted
from headrace.engine.intake import MINUTE_MS
from headrace.schemas.window import duration

#: Most bins per device that one answer covers.
MOST_BINS = 100_000


async def fleet_bins(
    pool: QueryPool,
    table: TypeTable,
    metric: str,
    device_ids: Sequence[str] | None,
    *,
    start_ms: int,
    end_ms: int,
    bin_ms: int,
    now_ms: int,
    grace_ms: int,
    below: float | None,
    above: float | None,
) -> FleetBins:
    """See `headrace.connectors.timescale.store.Store.bins`. Reads the table's blocks of the time range (BRIN), or by
    its key for chosen devices; one statement."""
    check_texts(device_ids or ())
    (metric,) = table.chosen([metric])
    start, end = start_ms // bin_ms * bin_ms, -(-end_ms // bin_ms) * bin_ms
    if not 0 < (end - start) // bin_ms <= MOST_BINS:
        raise QueryError(f"a range of 1 to {MOST_BINS:,} bins, not {(end - start) // bin_ms:,}: choose wider bins")
    column = quoted(metric)
    arguments: list[object] = [start, end, now_ms]
    wanted = ""
    if device_ids is not None:
        arguments.append(list(device_ids))
        wanted = f"AND device_id = ANY(${len(arguments)}::text[])"
    having = f"HAVING count({column}) > 0"
    for sign, limit in (("<", below), (">", above)):
        if limit is not None:
            arguments.append(limit)
            having += f" AND avg({column}) {sign} ${len(arguments)}"
    # Epochs as floats: asyncpg takes a tenth of the time for them, and a fleet's day has 100,000 bins.
    rows = await pool.fetch(
        f"""
        WITH found AS (
            SELECT device_id, date_bin('{int(bin_ms)} milliseconds', time, 'epoch') AS bin,
                avg({column}) AS avg, min({column}) AS min, max({column}) AS max, count({column}) AS count
            FROM {table.name} WHERE time >= $1 AND time < $2 {wanted} GROUP BY 1, 2 {having}
        )
        SELECT NULL::text, date_part('epoch', LEAST($3::timestamptz, max(minute) + interval '1 minute')),
            NULL::float8, NULL::float8, NULL::float8, NULL::bigint FROM ledger
        UNION ALL (
            SELECT device_id, date_part('epoch', bin), avg, min, max, count FROM found ORDER BY bin DESC, device_id
        )
        """,
        *arguments,
    )
    as_of_ms = round(rows[0][1] * 1000)
    ids, seconds, avg, low, high, count = zip(*rows[1:], strict=True) if len(rows) > 1 else ((),) * 6
    floats = [np.array(column, dtype=np.float64) for column in (avg, low, high)]
    final = (as_of_ms - MINUTE_MS - grace_ms) // bin_ms * bin_ms
    about = About(duration(bin_ms), (Stretch("readings", start, end),), Completeness(as_of_ms, final_until_ms=final))
    times = np.rint(np.array(seconds, dtype=np.float64) * 1000).astype(np.int64)
    found = Bins(floats[0], floats[1], floats[2], np.array(count, dtype=np.int64))
    return FleetBins(table.device_type, metric, start, end, ids, times, found, about)
