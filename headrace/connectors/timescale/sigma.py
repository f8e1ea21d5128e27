"""Values further than some standard deviations from the device's own mean: the seed documents' third query."""

from collections.abc import Sequence

from headrace.connectors.timescale.answers import About, Completeness, Outlier, Outliers, Stretch
from headrace.connectors.timescale.query_catalog import TypeTable, check_texts
from headrace.connectors.timescale.query_pool import QueryError, QueryPool
from headrace.connectors.timescale.readings_table import quoted
from headrace.engine.intake import MINUTE_MS

WINDOW = 7 * 86_400.0
RECENT = 3600.0
SIGMAS = 3.0


async def sigma(
    pool: QueryPool,
    table: TypeTable,
    metric: str,
    device_ids: Sequence[str] | None,
    *,
    end_ms: int,
    window: float,
    recent: float,
    sigmas: float,
    as_of_ms: int | None,
    grace_ms: int,
) -> Outliers:
    """See `headrace.connectors.timescale.store.Store.sigma`. Two scans of time ranges, one statement."""
    check_texts(device_ids or ())
    (metric,) = table.chosen([metric])
    if not (0 < recent <= window and sigmas > 0):
        raise QueryError("sigma: 0 < recent <= window and 0 < sigmas must hold")
    column = quoted(metric)
    start = end_ms - round(window * 1000)
    arguments: list[object] = [start, end_ms - round(recent * 1000), end_ms, float(sigmas)]
    wanted = ""
    if device_ids is not None:
        arguments.append(list(device_ids))
        wanted = "AND device_id = ANY($5::text[])"
    rows = await pool.fetch(
        f"""
        WITH stats AS (
            SELECT device_id, avg({column}) AS mean, stddev_samp({column}) AS stddev
            FROM {table.name} WHERE time > $1 AND time <= $3 {wanted} GROUP BY device_id
        )
        SELECT device_id, time, {column}, mean, stddev FROM {table.name} JOIN stats USING (device_id)
        WHERE time > $2 AND time <= $3 {wanted} AND abs({column} - mean) > $4 * stddev
        ORDER BY time DESC, device_id
        """,
        *arguments,
    )
    about = About(
        "raw",
        (Stretch("readings", start, end_ms),),
        Completeness(as_of_ms, final_until_ms=None if as_of_ms is None else as_of_ms - MINUTE_MS - grace_ms),
    )
    return Outliers(table.device_type, metric, start, end_ms, [Outlier(*row) for row in rows], about)
