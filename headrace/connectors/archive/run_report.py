"""What a run of the archive did, and why it did not begin."""

from dataclasses import dataclass, field

import asyncpg
import orjson

from headrace.connectors.archive.parts import moment
from headrace.engine.errors import HeadraceError

#: Runs that say how much is usual, and rows that need no asking however unusual.
USUAL_RUNS, FEW_ROWS = 7, 100_000

_USUAL = "SELECT max(rows) FROM (SELECT rows FROM archive_runs WHERE rows > 0 ORDER BY run_id DESC LIMIT $1) AS runs"
_FINISH = """
    UPDATE archive_runs
    SET finished_at = $2, parts = $3, rows = $4, duplicates = $5, conflicts = $6, failures = $7 WHERE run_id = $1
"""


class ArchiveBusy(HeadraceError):
    """Another run is at work on this database."""


class NeedsConfirmation(HeadraceError):
    """The run would delete far more than usual."""


@dataclass(slots=True)
class RunReport:
    """What a run did.

    Args:
        parts: made; rows: moved from the database to the archive, count.
        duplicates, conflicts: rows deleted because the archive has them, or moved to `conflicts`.
        discarded: parts of an interrupted run that were thrown away.
        failures: what could not be done, for a person; nothing of it was deleted.
    """

    parts: int = 0
    rows: int = 0
    bytes: int = 0
    duplicates: int = 0
    conflicts: int = 0
    discarded: int = 0
    failures: list[str] = field(default_factory=list)


async def check_usual(connection: asyncpg.Connection, rows: int, shrink: float) -> None:
    """Compare what is due with what the last runs deleted: a policy with a slip in it shows here.

    Raises:
        NeedsConfirmation: it is more than `shrink` times as much.
    """
    usual = await connection.fetchval(_USUAL, USUAL_RUNS)
    if usual is not None and rows > max(FEW_ROWS, usual * shrink):
        raise NeedsConfirmation(
            f"this run would delete {rows} rows, the last ones deleted {usual} at most: look at `headrace retention`; "
            "if that is meant, run `headrace archive run --yes` once"
        )


async def begin_run(connection: asyncpg.Connection, now_ms: int) -> int:
    """Note that a run began; its id."""
    run_id: int = await connection.fetchval(
        "INSERT INTO archive_runs (started_at) VALUES ($1) RETURNING run_id", moment(now_ms)
    )
    return run_id


async def finish_run(connection: asyncpg.Connection, run_id: int, report: RunReport, now_ms: int) -> None:
    """Note what it did."""
    failures = orjson.dumps(report.failures).decode()
    counts = (report.parts, report.rows, report.duplicates, report.conflicts)
    await connection.execute(_FINISH, run_id, moment(now_ms), *counts, failures)
