"""What TimescaleDB has to be told so that it does as configured: the difference, as SQL, and carrying it out."""

import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import asyncpg
import orjson

from headrace.connectors.timescale.continuous_aggregates import BINS, views_of
from headrace.connectors.timescale.migrations import PATIENCE, take_lock
from headrace.connectors.timescale.readings_table import ReadingsTable, literal, quoted
from headrace.connectors.timescale.settings import TimescaleSettings
from headrace.connectors.timescale.timescale_state import REFRESH, TimescaleState, plain, timescale_state

#: Columns that rows of one group have in common, and their order in it.
READINGS_COLUMNS = ("device_id", "time DESC")
ROLLUP_COLUMNS = ('device_type, device_id, "window"', "start DESC")


class Action(NamedTuple):
    """Something to change: what it is, for a person, and the SQL."""

    what: str
    sql: str


async def apply_policies(
    connection: asyncpg.Connection, settings: TimescaleSettings, tables: Sequence[ReadingsTable]
) -> list[str]:
    """Set up what is missing or different; the continuous aggregates that there are. Does nothing without TimescaleDB.

    Safe in many processes at once. Raises errors of PostgreSQL; then nothing was changed.
    """
    state = await timescale_state(connection)
    if state is None:
        return []
    if plan(state, settings, tables):
        async with connection.transaction():
            await take_lock(connection)
            state = await timescale_state(connection)
            assert state is not None
            for action in plan(state, settings, tables):
                await connection.execute(action.sql, timeout=PATIENCE)
        state = await timescale_state(connection)
        assert state is not None
    return sorted(state.views)


def plan(state: TimescaleState, settings: TimescaleSettings, tables: Sequence[ReadingsTable]) -> list[Action]:
    """What to change, in this order; empty if everything is as configured. Tables that are no hypertables are left out.

    Args:
        tables: readings tables.
    """
    readings = [table for table in tables if table.name in state.chunks]
    actions = [*_chunks(state, settings, readings)]
    if state.has_columnstore:
        for table in readings:
            actions += _columnstore(state, settings, table.name, READINGS_COLUMNS)
        if "rollups" in state.chunks:
            actions += _columnstore(state, settings, "rollups", ROLLUP_COLUMNS)
    if state.community:
        if "rollups" in state.chunks:
            actions += _retention(state, "rollups", settings.rollup_retention)
        actions += _aggregates(state, settings, readings)
    return actions


def job_removal(state: TimescaleState) -> list[str]:
    """SQL that takes away the refresh job."""
    return [f"SELECT delete_job({job.number})" for job in state.jobs]


def view_removal(names: Sequence[str]) -> list[str]:
    """SQL that drops continuous aggregates, those that others are made from last, so that their tables can be dropped.

    >>> view_removal(["readings_air_15m", "readings_air_1d"])
    ['DROP MATERIALIZED VIEW "readings_air_1d"', 'DROP MATERIALIZED VIEW "readings_air_15m"']
    """
    coarsest = [name for bin_ in reversed(list(BINS)) for name in names if re.search(rf"_{bin_}(_\d+)?$", name)]
    return [f"DROP MATERIALIZED VIEW {quoted(name)}" for name in coarsest]


def missing_features(state: TimescaleState | None) -> list[str]:
    """What this server does not do, for a person."""
    if state is None:
        return ["no TimescaleDB: plain tables with BRIN indexes on time; no columnstore, continuous aggregates or jobs"]
    if not state.community:
        return [
            "TimescaleDB under the Apache licence: hypertables only; columnstore, continuous aggregates and jobs are "
            "in its community edition"
        ]
    if not state.has_columnstore:
        return ["TimescaleDB older than 2.18: no columnstore; hypertables and continuous aggregates only"]
    return []


def _chunks(state: TimescaleState, settings: TimescaleSettings, readings: Sequence[ReadingsTable]) -> Iterator[Action]:
    wanted = {table.name: settings.chunk_interval for table in readings}
    wanted |= dict.fromkeys(("rollups", "anomalies"), settings.rollup_chunk_interval)
    for name, seconds in wanted.items():
        if name in state.chunks and state.chunks[name] != seconds:
            sql = f"SELECT set_chunk_time_interval({_table(name)}, {_interval(seconds)})"
            yield Action(f"{name}: new chunks of {seconds:g} s", sql)


def _columnstore(
    state: TimescaleState, settings: TimescaleSettings, name: str, columns: tuple[str, str]
) -> Iterator[Action]:
    segment, order = columns
    after = state.after.get(name)
    if not settings.columnstore:
        if after is not None:
            yield Action(f"{name}: chunks stay rows", f"CALL remove_columnstore_policy({_table(name)})")
        return
    if state.columnstore.get(name) != (plain(segment), plain(order)):
        yield Action(
            f"{name}: columnstore by {plain(segment)}, ordered by {plain(order)}",
            f"ALTER TABLE {quoted(name)} SET (timescaledb.enable_columnstore = true, "
            f"timescaledb.segmentby = {literal(segment)}, timescaledb.orderby = {literal(order)})",
        )
    if after != settings.columnstore_after:
        if after is not None:
            yield Action(
                f"{name}: columnstore policy of {after:g} s goes", f"CALL remove_columnstore_policy({_table(name)})"
            )
        yield Action(
            f"{name}: chunks become columns after {settings.columnstore_after:g} s",
            f"CALL add_columnstore_policy({_table(name)}, after => {_interval(settings.columnstore_after)})",
        )


def _retention(state: TimescaleState, name: str, seconds: float | None) -> Iterator[Action]:
    found = state.retention.get(name)
    if found == seconds:
        return
    if found is not None:
        yield Action(f"{name}: retention of {found:g} s goes", f"SELECT remove_retention_policy({_table(name)})")
    if seconds is not None:
        sql = f"SELECT add_retention_policy({_table(name)}, drop_after => {_interval(seconds)})"
        yield Action(f"{name}: chunks leave after {seconds:g} s", sql)


def _aggregates(
    state: TimescaleState, settings: TimescaleSettings, readings: Sequence[ReadingsTable]
) -> Iterator[Action]:
    if not settings.aggregates:
        for job in state.jobs:
            yield Action(f"refresh job {job.number} goes; views stay", f"SELECT delete_job({job.number})")
        return
    names: list[str] = []
    for table in readings:
        new, views = views_of(table, state.views)
        yield from (Action(f"{view.name}: continuous aggregate of {view.source}", view.create) for view in new)
        for name in views:
            yield from _retention(state, name, settings.aggregate_retention)
        names += views
    yield from _job(state, settings, names)


def _job(state: TimescaleState, settings: TimescaleSettings, names: Sequence[str]) -> Iterator[Action]:
    """One job for all: policies that refresh at the same time are what deadlocks."""
    for surplus in state.jobs[1:]:
        yield Action(f"refresh job {surplus.number} is one too many", f"SELECT delete_job({surplus.number})")
    # A process that knows few tables, or adds one, takes none away from the job.
    kept = state.jobs[0].config.get("views", []) if state.jobs else []
    views = [*kept, *(name for name in names if name not in kept)]
    if not views:
        return
    config = {"views": views, "window": f"{settings.refresh_window:.12g} seconds"}
    told = f"{_interval(settings.refresh_every)}, config => {literal(orjson.dumps(config).decode())}::jsonb"
    if not state.jobs:
        sql = f"SELECT add_job({literal(REFRESH)}, {told}, fixed_schedule => false)"
        yield Action(f"{len(views)} continuous aggregates are refreshed one after the other", sql)
    elif state.jobs[0].config != config or state.jobs[0].every != settings.refresh_every:
        sql = f"SELECT alter_job({state.jobs[0].number}, schedule_interval => {told})"
        yield Action(f"refresh job: {len(views)} continuous aggregates, every {settings.refresh_every:g} s", sql)


def _table(name: str) -> str:
    return literal(quoted(name))


def _interval(seconds: float) -> str:
    return f"INTERVAL '{seconds:.12g} seconds'"
