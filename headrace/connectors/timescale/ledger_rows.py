"""The sink's ledger, added up per minute, hour or day of append time."""

from collections.abc import Mapping

from headrace.connectors.timescale.answers import About, Completeness, LedgerAnswer, LedgerRow, Stretch
from headrace.connectors.timescale.latest import AS_OF
from headrace.connectors.timescale.ledger import TERMS
from headrace.connectors.timescale.query_catalog import check_texts
from headrace.connectors.timescale.query_pool import QueryError, QueryPool

#: Widths of the rows, as SQL writes them.
RESOLUTIONS: Mapping[str, str] = {"1m": "1 minute", "1h": "1 hour", "1d": "1 day"}


async def ledger_rows(
    pool: QueryPool,
    resolution: str | None,
    device_type: str | None,
    *,
    start_ms: int | None,
    end_ms: int | None,
    now_ms: int,
) -> LedgerAnswer:
    """See `headrace.connectors.timescale.store.Store.ledger`. One statement."""
    if resolution is not None and resolution not in RESOLUTIONS:
        raise QueryError(f"the ledger is kept per {', '.join(RESOLUTIONS)}, or None for all time; not {resolution!r}")
    if device_type is not None:
        check_texts([device_type])
    wanted, arguments = ["true"], list[object]([now_ms])
    for condition, value in (("minute >= ${}", start_ms), ("minute < ${}", end_ms), ("device_type = ${}", device_type)):
        if value is not None:
            arguments.append(value)
            wanted.append(condition.format(len(arguments)))
    start = "min(minute)"
    groups = "2"
    if resolution is not None:
        start, groups = f"date_bin('{RESOLUTIONS[resolution]}', minute, 'epoch')", "1, 2"
    sums = ", ".join(f"COALESCE(sum(count) FILTER (WHERE term = '{term}'), 0)::bigint" for term in TERMS)
    rows = await pool.fetch(
        f"""
        WITH found AS (
            SELECT {start} AS start, device_type, {sums}
            FROM ledger WHERE {" AND ".join(wanted)} GROUP BY {groups}
        )
        SELECT {AS_OF}, found.* FROM (SELECT) AS one LEFT JOIN found ON true ORDER BY start, device_type
        """,
        *arguments,
    )
    found = [LedgerRow(*row[1:]) for row in rows if row[1] is not None]
    totals: dict[str, int] = {term: sum(getattr(row, term) for row in found) for term in TERMS}
    about = About(resolution or "all", (Stretch("ledger", start_ms, end_ms),), Completeness(rows[0][0]))
    return LedgerAnswer(found, totals, about)
