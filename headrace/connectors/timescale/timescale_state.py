"""What TimescaleDB has been told already, from its information views."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import asyncpg
import orjson

#: Procedure of the refresh job, see 0005.
REFRESH = "headrace_refresh"

_CHUNKS = """
    SELECT hypertable_name::text AS name, extract(epoch FROM time_interval)::float8 AS seconds
    FROM timescaledb_information.dimensions
    WHERE hypertable_schema = current_schema() AND dimension_number = 1 AND time_interval IS NOT NULL
"""
_COLUMNSTORE = """
    SELECT relname::text AS name, COALESCE(segmentby, '') AS segmentby, COALESCE(orderby, '') AS orderby
    FROM timescaledb_information.hypertable_columnstore_settings JOIN pg_class ON pg_class.oid = hypertable
    WHERE relnamespace = current_schema()::regnamespace
"""
# The policy of a view is listed under the view, or under the table behind it, by version. One that goes by when chunks
# were made has no such interval, and is never as configured.
_POLICIES = """
    SELECT COALESCE(view_name, jobs.hypertable_name)::text AS name, proc_name::text AS procedure,
        COALESCE(extract(epoch FROM COALESCE(
            config->>'compress_after', config->>'after', config->>'drop_after')::interval)::float8, -1) AS seconds
    FROM timescaledb_information.jobs LEFT JOIN timescaledb_information.continuous_aggregates
        ON (jobs.hypertable_schema, jobs.hypertable_name) IN (
            (materialization_hypertable_schema, materialization_hypertable_name), (view_schema, view_name))
    WHERE proc_name IN ('policy_compression', 'policy_columnstore', 'policy_retention')
        AND COALESCE(view_schema, jobs.hypertable_schema) = current_schema()
"""
_VIEWS = """
    SELECT view_name::text AS name, array_agg(attname::text) AS columns
    FROM timescaledb_information.continuous_aggregates
        JOIN pg_attribute ON attrelid = format('%I.%I', view_schema, view_name)::regclass AND attnum > 0
    WHERE view_schema = current_schema() GROUP BY view_name
"""
_JOBS = """
    SELECT job_id, extract(epoch FROM schedule_interval)::float8 AS every, config::text AS config
    FROM timescaledb_information.jobs WHERE proc_schema = current_schema() AND proc_name = $1 ORDER BY job_id
"""


@dataclass(frozen=True, slots=True)
class RefreshJob:
    """A job that refreshes continuous aggregates.

    Args:
        number: its id.
        every: seconds between two runs.
        config: what it was told.
    """

    number: int
    every: float
    config: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class TimescaleState:
    """What is set up.

    Args:
        version: of the extension.
        community: whether its licence has columnstore, continuous aggregates and jobs.
        chunks: by hypertable, seconds per chunk.
        columnstore: by hypertable that has one, what it is segmented and ordered by.
        after: by hypertable with such a policy, seconds after which chunks become columns.
        retention: by hypertable or view with such a policy, seconds after which chunks are dropped.
        views: by continuous aggregate its columns.
        jobs: of ours.
    """

    version: tuple[int, ...] = (2, 22)
    community: bool = True
    chunks: Mapping[str, float] = field(default_factory=dict)
    columnstore: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    after: Mapping[str, float] = field(default_factory=dict)
    retention: Mapping[str, float] = field(default_factory=dict)
    views: Mapping[str, frozenset[str]] = field(default_factory=dict)
    jobs: Sequence[RefreshJob] = ()

    @property
    def has_columnstore(self) -> bool:
        """By the names that came with 2.18."""
        return self.community and self.version >= (2, 18)


async def timescale_state(connection: asyncpg.Connection) -> TimescaleState | None:
    """What is set up in the current schema; None without TimescaleDB."""
    version = await connection.fetchval("SELECT extversion FROM pg_extension WHERE extname = 'timescaledb'")
    if version is None:
        return None
    numbers = tuple(int(part) for part in version.split("-")[0].split(".") if part.isdigit())
    community = await connection.fetchval("SELECT current_setting('timescaledb.license', true)") != "apache"
    state = TimescaleState(numbers, community)
    policies = await connection.fetch(_POLICIES)
    columnstore = await connection.fetch(_COLUMNSTORE) if state.has_columnstore else []
    jobs = await connection.fetch(_JOBS, REFRESH)
    return TimescaleState(
        numbers,
        community,
        chunks={row["name"]: row["seconds"] for row in await connection.fetch(_CHUNKS)},
        columnstore={row["name"]: (plain(row["segmentby"]), plain(row["orderby"])) for row in columnstore},
        after={row["name"]: row["seconds"] for row in policies if row["procedure"] != "policy_retention"},
        retention={row["name"]: row["seconds"] for row in policies if row["procedure"] == "policy_retention"},
        views={row["name"]: frozenset(row["columns"]) for row in await connection.fetch(_VIEWS)},
        jobs=[RefreshJob(row["job_id"], row["every"], orjson.loads(row["config"] or "{}")) for row in jobs],
    )


def plain(columns: str) -> str:
    """A list of columns in the one form that can be compared.

    >>> plain('device_id,  "window"')
    'device_id, window'
    """
    return ", ".join(" ".join(part.split()) for part in columns.replace('"', "").split(","))
