"""What a database holds: versions, migrations, tables and what TimescaleDB does with them."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import asyncpg

from headrace.connectors.timescale.migrations import PRELOADED, Migration, applied, missing
from headrace.connectors.timescale.policies import Action, missing_features, plan
from headrace.connectors.timescale.readings_table import ReadingsTable
from headrace.connectors.timescale.roles import tables_of
from headrace.connectors.timescale.settings import TimescaleSettings
from headrace.connectors.timescale.timescale_state import TimescaleState, timescale_state
from headrace.engine.errors import ConfigError

_TABLES = """
    SELECT pg_class.relname::text AS name, pg_total_relation_size(pg_class.oid) AS bytes,
        CASE WHEN reltuples < 0 THEN COALESCE(n_live_tup, 0) ELSE reltuples::bigint END AS rows
    FROM pg_class LEFT JOIN pg_stat_user_tables ON relid = pg_class.oid
    WHERE relnamespace = current_schema()::regnamespace AND relkind IN ('r', 'p') AND pg_class.relname = ANY($1::text[])
    ORDER BY pg_class.relname
"""
_HYPERTABLES = """
    SELECT hypertable_name::text AS name, count(*) AS chunks, count(*) FILTER (WHERE is_compressed) AS columnar,
        approximate_row_count(format('%I.%I', hypertable_schema, hypertable_name)::regclass) AS rows,
        hypertable_size(format('%I.%I', hypertable_schema, hypertable_name)::regclass) AS bytes
    FROM timescaledb_information.chunks WHERE hypertable_schema = current_schema()
    GROUP BY hypertable_schema, hypertable_name
"""


@dataclass(frozen=True, slots=True)
class TableStatus:
    """A table of ours.

    Args:
        rows: about so many.
        size: bytes, with indexes; of a hypertable with its chunks.
        chunk_seconds: of event time per chunk; None unless it is a hypertable.
        chunks: of a hypertable, count.
        columnar: of these those that are columns, count.
    """

    name: str
    rows: int
    size: int
    chunk_seconds: float | None = None
    chunks: int = 0
    columnar: int = 0


@dataclass(frozen=True, slots=True)
class DatabaseStatus:
    """What `database_status` found.

    Args:
        server: version of PostgreSQL.
        role: that is connected.
        applied: versions and times, as they were applied.
        missing: versions that this program has and the database has not.
        problems: why it cannot be used as it is.
        tables: by name.
        timescale: what TimescaleDB does; None without it.
        different: what is not as configured.
        notes: what this server cannot do.
    """

    server: str
    role: str
    applied: Sequence[tuple[str, datetime]]
    missing: Sequence[str]
    problems: Sequence[str]
    tables: Sequence[TableStatus]
    timescale: TimescaleState | None
    different: Sequence[Action]
    notes: Sequence[str]


async def database_status(
    connection: asyncpg.Connection,
    steps: Sequence[Migration],
    tables: Sequence[ReadingsTable],
    settings: TimescaleSettings,
) -> DatabaseStatus:
    """Look, and change nothing.

    Args:
        steps: all that this program would apply.
        tables: all readings tables that it knows.
    """
    lacks: list[str] = []
    problems: list[str] = []
    try:
        lacks = [step.version for step in await missing(connection, steps)]
    except ConfigError as error:
        problems += error.mistakes
    done = await applied(connection)
    times = (
        await connection.fetch("SELECT version, applied_at FROM headrace_migrations ORDER BY applied_at, version")
        if done
        else []
    )
    state = await timescale_state(connection)
    notes = missing_features(state)
    if state is None and await _could_have_timescaledb(connection):
        notes.append(
            "TimescaleDB is on this server but not in this database: as a superuser, CREATE EXTENSION timescaledb; "
            "then headrace database up"
        )
    return DatabaseStatus(
        await connection.fetchval("SHOW server_version"),
        await connection.fetchval("SELECT current_user::text"),
        [(row["version"], row["applied_at"]) for row in times],
        lacks,
        problems,
        await _tables(connection, list(tables_of(steps, done)), state),
        state,
        [] if state is None else plan(state, settings, tables),
        notes,
    )


async def _tables(
    connection: asyncpg.Connection, names: Sequence[str], state: TimescaleState | None
) -> list[TableStatus]:
    plain = {
        row["name"]: TableStatus(row["name"], row["rows"], row["bytes"])
        for row in await connection.fetch(_TABLES, names)
    }
    if state is None:
        return list(plain.values())
    found = {name: TableStatus(name, 0, plain[name].size, state.chunks[name]) for name in plain if name in state.chunks}
    for row in await connection.fetch(_HYPERTABLES):
        if row["name"] in found:
            found[row["name"]] = TableStatus(
                row["name"], row["rows"], row["bytes"], state.chunks[row["name"]], row["chunks"], row["columnar"]
            )
    return list((plain | found).values())


async def _could_have_timescaledb(connection: asyncpg.Connection) -> bool:
    found: bool = await connection.fetchval(
        f"SELECT {PRELOADED} AND EXISTS (SELECT FROM pg_available_extensions WHERE name = 'timescaledb')"
    )
    return found
