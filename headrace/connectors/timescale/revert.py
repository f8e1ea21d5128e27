"""Undoing migrations: all of it or nothing, and never rows that nobody agreed to lose."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import asyncpg

from headrace.connectors.timescale.migrations import (
    MIGRATIONS,
    PATIENCE,
    Migration,
    applied,
    is_numbered,
    packaged,
    take_lock,
)
from headrace.connectors.timescale.readings_table import quoted
from headrace.engine.errors import ConfigError

#: Version before the first.
NOTHING = "0"

_COLUMNS = """
    SELECT relname::text AS name, array_agg(attname::text ORDER BY attnum) AS columns
    FROM pg_class JOIN pg_attribute ON attrelid = pg_class.oid AND attnum > 0 AND NOT attisdropped
    WHERE relnamespace = current_schema()::regnamespace AND relkind IN ('r', 'p') GROUP BY relname
"""
_DELETED = """
    SELECT relname::text AS name, n_tup_del AS count FROM pg_stat_xact_user_tables WHERE schemaname = current_schema()
"""


@dataclass(frozen=True, slots=True)
class Loss:
    """Rows that would be gone, or values, where a column goes."""

    table: str
    rows: int
    column: str | None = None

    def __str__(self) -> str:
        if self.column is None:
            return f"table {self.table}: {self.rows:,} rows"
        return f"column {self.column} of table {self.table}: {self.rows:,} values"


@dataclass(frozen=True, slots=True)
class Reversal:
    """What undoing does.

    Args:
        versions: steps, the newest first.
        losses: of tables and columns that hold something.
    """

    versions: Sequence[str]
    losses: Sequence[Loss]


@dataclass(slots=True)
class _Before:
    columns: Mapping[str, Sequence[str]]
    deleted: Mapping[str, int]


@dataclass(slots=True)
class _Gone:
    tables: list[str] = field(default_factory=list)
    columns: list[tuple[str, str]] = field(default_factory=list)
    rows: dict[str, int] = field(default_factory=dict)


async def revert(
    connection: asyncpg.Connection,
    to: str,
    *,
    lose: bool = False,
    dry_run: bool = False,
    first: Sequence[str] = (),
    views: Sequence[str] = (),
) -> Reversal:
    """Undo every migration after `to`, in one transaction. Undoing everything takes the readings tables with it.

    Args:
        to: version that stays as the last one; `NOTHING` for none.
        lose: go on although rows are lost.
        dry_run: change nothing, and say what would be lost.
        first: statements to run before, to free tables of what hangs on them.
        views: that these statements drop, and that hold rows of their own.
    Raises:
        ConfigError: there is no such version, a step cannot be undone, or rows would be lost; says which.
    """
    transaction = connection.transaction()
    await transaction.start()
    try:
        await take_lock(connection)
        done = await applied(connection)
        steps = _steps(to, done)
        statements = [*first, *(step.down or "" for step in steps)] if steps else []
        losses = await _losses(connection, statements, views)
        if losses and not lose and not dry_run:
            raise ConfigError(*(f"would be lost: {loss}" for loss in losses), "if that is meant, say so: --yes")
        if not dry_run:
            await _run(connection, statements)
            await _forget(connection, [step.version for step in steps], everything=to == NOTHING)
    except BaseException:
        await transaction.rollback()
        raise
    await (transaction.rollback() if dry_run else transaction.commit())
    return Reversal([step.version for step in steps], losses)


def _steps(to: str, done: Mapping[str, str]) -> list[Migration]:
    """What to undo, the newest first."""
    known = {step.version: step for step in packaged(MIGRATIONS)}
    numbered = sorted(version for version in done if is_numbered(version))
    if to != NOTHING and to not in numbered:
        raise ConfigError(f"--to: the database has no migration {to}; it has {', '.join([NOTHING, *numbered])}")
    undone = [version for version in reversed(numbered) if to == NOTHING or version > to]
    newer = [f"migration {each} is of a newer headrace; undo it with that" for each in undone if each not in known]
    final = [f"migration {each} cannot be undone" for each in undone if each in known and known[each].down is None]
    if newer or final:
        raise ConfigError(*newer, *final)
    steps = [known[version] for version in undone]
    if to != NOTHING:
        return steps
    tables = sorted(version for version in done if not is_numbered(version))
    return [Migration(each, "", down=f"DROP TABLE IF EXISTS {quoted(readings_table(each))}") for each in tables] + steps


def readings_table(version: str) -> str:
    """The table that a migration of a readings table made.

    >>> readings_table("readings_a.b.hypertable")
    'readings_a.b'
    """
    return version.rpartition(".")[0]


async def _losses(connection: asyncpg.Connection, statements: Sequence[str], views: Sequence[str]) -> list[Loss]:
    """What these statements would take away. They are run for it, and undone: nobody has to keep a list of it."""
    before = await _before(connection)
    trial = connection.transaction()
    await trial.start()
    await _run(connection, statements)
    gone = _gone(before, await _before(connection))
    await trial.rollback()
    losses = [Loss(table, count) for table, count in gone.rows.items()]
    for table in (*views, *gone.tables):
        losses.append(Loss(table, await connection.fetchval(f"SELECT count(*) FROM {quoted(table)}", timeout=PATIENCE)))
    for table, column in gone.columns:
        count = await connection.fetchval(f"SELECT count({quoted(column)}) FROM {quoted(table)}", timeout=PATIENCE)
        losses.append(Loss(table, count, column))
    return [loss for loss in losses if loss.rows]


async def _before(connection: asyncpg.Connection) -> _Before:
    columns: dict[str, Any] = {row["name"]: row["columns"] for row in await connection.fetch(_COLUMNS)}
    columns.pop("headrace_migrations", None)
    return _Before(columns, {row["name"]: row["count"] for row in await connection.fetch(_DELETED)})


def _gone(before: _Before, after: _Before) -> _Gone:
    gone = _Gone()
    for table, columns in before.columns.items():
        if table not in after.columns:
            gone.tables.append(table)
            continue
        gone.columns += [(table, column) for column in columns if column not in after.columns[table]]
        deleted = after.deleted.get(table, 0) - before.deleted.get(table, 0)
        if deleted:
            gone.rows[table] = deleted
    return gone


async def _run(connection: asyncpg.Connection, statements: Sequence[str]) -> None:
    for statement in statements:
        await connection.execute(statement, timeout=PATIENCE)


async def _forget(connection: asyncpg.Connection, versions: Sequence[str], *, everything: bool) -> None:
    if everything:
        await connection.execute("DROP TABLE IF EXISTS headrace_migrations")
    else:
        await connection.execute("DELETE FROM headrace_migrations WHERE version = ANY($1::text[])", versions)
