"""SQL that names what TimescaleDB has, run against a stand-in: its names, columns and types, without what it does."""

from pathlib import Path

import asyncpg
import pytest

from headrace.connectors.timescale.migrations import MIGRATIONS, migrate, packaged
from headrace.connectors.timescale.readings_table import ReadingsTable, TableSpec
from headrace.connectors.timescale.settings import DAY, TimescaleSettings
from headrace.connectors.timescale.status import database_status
from headrace.connectors.timescale.timescale_state import RefreshJob, timescale_state
from tests.databases import Connect

TABLE = ReadingsTable(TableSpec("air", ("co2",)))
STEPS = [*packaged(MIGRATIONS), *TABLE.migrations()]
STAND_IN = (Path(__file__).parent / "stand_in.sql").read_text()
FILLED = """
    INSERT INTO timescaledb_information.dimensions VALUES ('public', 'readings_air', 1, 'time', '1 day');
    INSERT INTO timescaledb_information.hypertable_columnstore_settings VALUES
        ('readings_air', 'device_id', '"time" DESC'), ('rollups', 'device_type,device_id,"window"', 'start DESC');
    INSERT INTO timescaledb_information.continuous_aggregates VALUES
        ('public', 'readings_air', 'public', 'readings_air_1h', false, '_timescaledb_internal', '_materialized_2');
    INSERT INTO timescaledb_information.jobs VALUES
        (1, '12:00', '_timescaledb_functions', 'policy_compression',
            '{"hypertable_id": 1, "compress_after": "168:00:00"}', 'public', 'readings_air'),
        (2, '1 day', '_timescaledb_functions', 'policy_retention', '{"drop_after": "400 days"}',
            '_timescaledb_internal', '_materialized_2'),
        (3, '1 day', '_timescaledb_functions', 'policy_compression', '{"compress_created_before": "1 day"}',
            'public', 'rollups'),
        (4, '00:15', 'public', 'headrace_refresh', '{"views": ["readings_air_1h"], "window": "60 seconds"}',
            NULL, NULL),
        (5, '1 day', '_timescaledb_functions', 'policy_retention', '{"drop_after": "1 day"}', 'theirs', 'readings_air');
    INSERT INTO timescaledb_information.chunks VALUES
        ('public', 'readings_air', '_hyper_1_1_chunk', true), ('public', 'readings_air', '_hyper_1_2_chunk', false);
    CREATE VIEW readings_air_1h AS SELECT 'a' AS device_id, now() AS bucket, 1 AS count_co2;
"""


@pytest.fixture
async def standing_in(connection: asyncpg.Connection) -> asyncpg.Connection:
    """A database that looks as if it had TimescaleDB, with all migrations."""
    await connection.execute(STAND_IN)
    await migrate(connection, [step for step in STEPS if step.version != "0002_hypertables"])
    # This one's CREATE EXTENSION would look for the real one; and it is the one that steps of the extension wait for.
    for step in STEPS:
        if step.extension and step.version != "0002_hypertables":
            await connection.execute(step.up)
            await connection.execute("INSERT INTO headrace_migrations VALUES ($1, $2)", step.version, step.checksum)
    return connection


async def test_state_is_read_as_it_is_listed(standing_in: asyncpg.Connection) -> None:
    """By table and view of this schema; a policy of a view under the view, whatever the version lists it under."""
    await standing_in.execute("DELETE FROM timescaledb_information.dimensions")
    await standing_in.execute(FILLED)

    state = await timescale_state(standing_in)

    assert state is not None
    assert (state.version, state.community) == ((2, 22, 1), True)
    assert state.chunks == {"readings_air": DAY}
    assert state.columnstore == {
        "readings_air": ("device_id", "time DESC"),
        "rollups": ("device_type, device_id, window", "start DESC"),
    }
    assert state.after == {"readings_air": 7 * DAY, "rollups": -1}
    assert state.retention == {"readings_air_1h": 400 * DAY}
    assert state.views == {"readings_air_1h": frozenset({"device_id", "bucket", "count_co2"})}
    assert state.jobs == [RefreshJob(4, 900.0, {"views": ["readings_air_1h"], "window": "60 seconds"})]


async def test_status_counts_chunks(standing_in: asyncpg.Connection) -> None:
    """Of hypertables, with those that are columns."""
    await standing_in.execute("DELETE FROM timescaledb_information.dimensions")
    await standing_in.execute(FILLED)

    found = await database_status(standing_in, STEPS, [TABLE], TimescaleSettings())

    table = next(each for each in found.tables if each.name == "readings_air")
    assert (table.rows, table.size, table.chunk_seconds, table.chunks, table.columnar) == (42, 4096, DAY, 2, 1)
    assert [action.what for action in found.different if "1h" in action.what and "retention" in action.what]


async def test_refresh_goes_through_its_views(database: Connect, standing_in: asyncpg.Connection) -> None:
    """One after the other in the order told, with a transaction each, without those that are gone; and lets go."""
    await standing_in.execute('CREATE VIEW "fine \'1" AS SELECT 1; CREATE VIEW coarse AS SELECT 1')
    call = """CALL headrace_refresh(1, '{"views": ["fine ''1", "gone", "coarse"], "window": "30 days"}')"""

    await standing_in.execute(call)
    other = await asyncpg.connect(**database)
    await other.execute(call)
    await other.close()

    calls = [row["name"] for row in await standing_in.fetch("SELECT name FROM calls ORDER BY place")]
    assert calls == ['"fine \'1" 30 days', "coarse 30 days"] * 2


async def test_refresh_beside_a_refresh(database: Connect, standing_in: asyncpg.Connection) -> None:
    """While another session refreshes, nothing is done, and that is no failure."""
    await standing_in.execute("CREATE VIEW fine AS SELECT 1")
    other = await asyncpg.connect(**database)
    await other.execute(f"SELECT pg_advisory_lock({int.from_bytes(b'headrace') + 1})")

    await standing_in.execute("""CALL headrace_refresh(1, '{"views": ["fine"], "window": "30 days"}')""")

    assert await standing_in.fetchval("SELECT count(*) FROM calls") == 0
    await other.close()
