"""With the extension: hypertables, columnstore, continuous aggregates, jobs and two roles, as a sink uses them.

They need a server that HEADRACE_TEST_TIMESCALEDB_URL names, as a superuser, with TimescaleDB 2.18 or newer preloaded.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from uuid import UUID

import asyncpg
import numpy as np
import pytest

from headrace.connectors.timescale.migrations import MIGRATIONS, applied, migrate, packaged
from headrace.connectors.timescale.policies import apply_policies, job_removal, plan, view_removal
from headrace.connectors.timescale.readings_table import ReadingsTable, TableSpec
from headrace.connectors.timescale.revert import NOTHING, revert
from headrace.connectors.timescale.schema import SchemaKeeper
from headrace.connectors.timescale.settings import DAY, TimescaleSettings
from headrace.connectors.timescale.sink import TimescaleSink
from headrace.connectors.timescale.status import database_status
from headrace.connectors.timescale.timescale_state import TimescaleState, timescale_state
from headrace.engine.clock import SystemClock
from headrace.engine.log import TopicPartition
from headrace.engine.testkit import fetched, reading_records
from headrace.schemas import topics
from headrace.schemas.readings import Readings
from tests.connectors.timescale.schema.catalog import Roles
from tests.databases import Connect

pytestmark = pytest.mark.timescaledb

AIR = TableSpec("air", ("co2",))
TABLES = [ReadingsTable(AIR)]
STEPS = [*packaged(MIGRATIONS), *TABLES[0].migrations()]
SETTINGS = TimescaleSettings()
VIEWS = ["readings_air_15m", "readings_air_1d", "readings_air_1h"]
#: Two days ago at midnight: inside every window, older than every bin that is open.
DAY_START = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0) - timedelta(days=2)
Row = tuple[str, float, float | None]


@asynccontextmanager
async def connected(connect: Connect) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(**connect)
    try:
        yield connection
    finally:
        await connection.close()


@asynccontextmanager
async def open_sink(
    connect: Connect, owner: Connect | None = None, settings: TimescaleSettings = SETTINGS, spec: TableSpec = AIR
) -> AsyncIterator[TimescaleSink]:
    """A sink that has read its positions."""
    sink = TimescaleSink(connect, [spec], SystemClock(), schema=SchemaKeeper(owner, settings))
    await sink.open()
    await sink.positions([TopicPartition(topics.READINGS, 0)])
    yield sink
    await sink.close()


async def write(sink: TimescaleSink, base: int, rows: Sequence[Row], extras: Sequence[str | None] = ()) -> None:
    """Store readings: (device, minutes after `DAY_START`, co2); message ids count from `base`."""
    start = int(DAY_START.timestamp() * 1000)
    readings = Readings(
        "air",
        np.arange(len(rows)),
        [row[0] for row in rows],
        np.array([start + round(row[1] * 60_000) for row in rows], dtype=np.int64),
        [str(UUID(int=base + place)) for place in range(len(rows))],
        {"co2": np.array([np.nan if row[2] is None else row[2] for row in rows])},
        [None if extra is None else {"note": extra} for extra in extras] or None,
    )
    await sink.write([fetched(reading_records(readings), topics.READINGS, 0, base)])


async def state_of(connection: asyncpg.Connection) -> TimescaleState:
    state = await timescale_state(connection)
    assert state is not None
    return state


async def make_columns(connection: asyncpg.Connection, table: str) -> int:
    """Turn all chunks of a table into columns; how many."""
    chunks = await connection.fetch("SELECT format('%s', c) AS name FROM show_chunks($1::regclass) AS c", table)
    for chunk in chunks:
        await connection.execute(f"CALL convert_to_columnstore('{chunk['name']}')")
    return len(chunks)


async def materialised(connection: asyncpg.Connection, view: str, expected: list[tuple[float, ...]]) -> None:
    """Run the refresh job until the view alone, without readings, has these (count, sum, min, max) by bin.

    The scheduler may be running it at the same moment; then our run ends at once.
    """
    await connection.execute(f"ALTER MATERIALIZED VIEW {view} SET (timescaledb.materialized_only = true)")
    job = (await state_of(connection)).jobs[0].number
    query = f"SELECT count_co2, sum_co2, min_co2, max_co2 FROM {view} ORDER BY device_id, bucket"
    async with asyncio.timeout(60):
        while [tuple(row) for row in await connection.fetch(query)] != expected:
            await connection.execute(f"CALL run_job({job})")


async def test_everything_is_set_up_once(timescaledb: Connect) -> None:
    """A sink that opens sets up hypertables, columnstore, views and one job; a second one finds nothing to do."""
    async with open_sink(timescaledb), connected(timescaledb) as connection:
        first = await state_of(connection)
        assert set(first.chunks) == {"readings_air", "rollups", "anomalies"}
        assert first.columnstore == {
            "readings_air": ("device_id", "time DESC"),
            "rollups": ("device_type, device_id, window", "start DESC"),
        }
        assert first.after == {"readings_air": 7 * DAY, "rollups": 7 * DAY}
        assert (sorted(first.views), first.retention, len(first.jobs)) == (VIEWS, {}, 1)
        assert plan(first, SETTINGS, TABLES) == []

        async with open_sink(timescaledb):
            assert await state_of(connection) == first


async def test_many_sinks_at_once(timescaledb: Connect) -> None:
    """Five that start together set everything up once."""
    sinks = [TimescaleSink(timescaledb, [AIR], SystemClock(), schema=SchemaKeeper(None, SETTINGS)) for _ in range(5)]

    await asyncio.gather(*(sink.open() for sink in sinks))

    async with connected(timescaledb) as connection:
        assert len((await state_of(connection)).jobs) == 1
    for sink in sinks:
        await sink.close()


async def test_changed_settings_are_taken_over(timescaledb: Connect) -> None:
    """Each policy and interval follows, to and fro."""
    changed = TimescaleSettings(
        chunk_interval=DAY / 2,
        columnstore_after=14 * DAY,
        refresh_every=3600.0,
        rollup_retention=400 * DAY,
        aggregate_retention=800 * DAY,
    )
    async with open_sink(timescaledb), connected(timescaledb) as connection:
        for settings in (changed, TimescaleSettings(columnstore=False, aggregates=False), SETTINGS):
            await apply_policies(connection, settings, TABLES)
            state = await state_of(connection)
            assert plan(state, settings, TABLES) == []
            assert state.chunks["readings_air"] == settings.chunk_interval
            assert len(state.jobs) == settings.aggregates
            assert state.after == ({} if not settings.columnstore else dict.fromkeys(
                ("readings_air", "rollups"), settings.columnstore_after
            ))  # fmt: skip


async def test_aggregates_equal_the_readings(timescaledb: Connect) -> None:
    """Bins of each size hold count, sum, min and max of the values that are not null, and a late one corrects them."""
    async with open_sink(timescaledb) as sink, connected(timescaledb) as connection:
        await write(sink, 0, [("a", 0, 1.0), ("a", 14, 3.0), ("a", 15, 5.0), ("a", 61, 7.0), ("a", 62, None)])
        await materialised(connection, "readings_air_15m", [(2, 4, 1, 3), (1, 5, 5, 5), (1, 7, 7, 7)])
        await materialised(connection, "readings_air_1h", [(3, 9, 1, 5), (1, 7, 7, 7)])
        await materialised(connection, "readings_air_1d", [(4, 16, 1, 7)])

        await write(sink, 5, [("a", 1, -2.0)])
        await materialised(connection, "readings_air_15m", [(3, 2, -2, 3), (1, 5, 5, 5), (1, 7, 7, 7)])
        await materialised(connection, "readings_air_1d", [(5, 14, -2, 7)])


async def test_aggregates_answer_before_they_are_refreshed(timescaledb: Connect) -> None:
    """What no refresh has reached is computed from readings, on every level."""
    async with open_sink(timescaledb) as sink, connected(timescaledb) as connection:
        await connection.execute(f"SELECT alter_job({(await state_of(connection)).jobs[0].number}, scheduled => false)")
        await write(sink, 0, [("a", 0, 1.0), ("a", 3, 2.0)])

        for view in VIEWS:
            assert [tuple(row) for row in await connection.fetch(f"SELECT count_co2, sum_co2 FROM {view}")] == [
                (2, 3.0)
            ]


async def test_new_measure_gets_views_beside_the_old(timescaledb: Connect) -> None:
    """The older views keep what they hold, and both are refreshed by the one job."""
    both = TableSpec("air", ("co2", "noise"))
    async with open_sink(timescaledb) as sink, connected(timescaledb) as connection:
        await write(sink, 0, [("a", 0, 1.0)])
        async with open_sink(timescaledb, spec=both):
            state = await state_of(connection)

        assert sorted(state.views) == sorted([*VIEWS, *(f"{view}_2" for view in VIEWS)])
        assert "count_noise" in state.views["readings_air_15m_2"]
        assert "count_co2" not in state.views["readings_air_15m_2"]
        assert len(state.jobs) == 1
        assert set(state.jobs[0].config["views"]) == set(state.views)
        await connection.execute(f"CALL run_job({state.jobs[0].number})")


async def test_refreshes_at_the_same_time(timescaledb: Connect) -> None:
    """Of runs that coincide one refreshes; none fails, none is left holding the lock."""
    async with open_sink(timescaledb) as sink, connected(timescaledb) as connection:
        await write(sink, 0, [("a", minute, 1.0) for minute in range(1440)])
        call = f"CALL run_job({(await state_of(connection)).jobs[0].number})"
        others = [await asyncpg.connect(**timescaledb) for _ in range(4)]

        await asyncio.gather(*(each.execute(call) for each in others))

        await materialised(connection, "readings_air_1d", [(1440, 1440, 1, 1)])
        for each in others:
            await each.close()


async def test_repeats_in_columnar_chunks(timescaledb: Connect) -> None:
    """In chunks that are columns, readings are stored, completed, recognised as repeats and contradicted as in rows."""
    async with open_sink(timescaledb) as sink, connected(timescaledb) as connection:
        await write(sink, 0, [("a", 0, 1.0), ("b", 0, None), ("c", 0, 3.0)], [None, "x", None])
        assert await make_columns(connection, "readings_air") == 1

        await write(sink, 3, [("a", 0, 1.0), ("b", 0, 2.0), ("c", 0, 9.0), ("d", 0, 4.0)], [None, "x", None, None])

        rows = await connection.fetch("SELECT device_id, co2 FROM readings_air ORDER BY device_id")
        assert [tuple(row) for row in rows] == [("a", 1.0), ("b", 2.0), ("c", 3.0), ("d", 4.0)]
        assert await sink.ledger() == {"stored": 5, "duplicate": 1, "conflict": 1}


async def test_backlog_into_columnar_chunks(timescaledb: Connect) -> None:
    """More rows than the server would turn back from columns by default are no error, and only those of the devices."""
    async with open_sink(timescaledb) as sink, connected(timescaledb) as connection:
        await connection.execute(
            "INSERT INTO readings_air (device_id, time, message_id, appended_at, co2) "
            "SELECT 'd' || n % 150, $1::timestamptz + n / 150 * interval '1 minute', gen_random_uuid(), now(), NULL "
            "FROM generate_series(0, 149999) AS n",
            DAY_START,
        )
        await make_columns(connection, "readings_air")

        await write(sink, 0, [(f"d{number}", minute, 1.0) for number in range(150) for minute in (0, 500, 999)])

        assert await connection.fetchval("SELECT count(*) FROM readings_air WHERE co2 = 1") == 450
        assert await connection.fetchval("SELECT count(*) FROM readings_air") == 150_000


async def test_rollups_change_in_columnar_chunks(timescaledb: Connect) -> None:
    """A correction of a window whose chunk is columns replaces it."""
    async with open_sink(timescaledb), connected(timescaledb) as connection:
        insert = """
            INSERT INTO rollups (device_type, device_id, "window", start, revision, measures, details)
            VALUES ('air', 'a', '1h', $1, $2, '{}', '{}') ON CONFLICT (device_type, device_id, "window", start)
            DO UPDATE SET revision = EXCLUDED.revision
        """
        await connection.execute(insert, DAY_START, 0)
        assert await make_columns(connection, "rollups") == 1

        await connection.execute(insert, DAY_START, 1)

        assert [row[0] for row in await connection.fetch("SELECT revision FROM rollups")] == [1]


async def test_two_roles(timescaledb_roles: Roles) -> None:
    """The role that fills tables makes chunks by it, changes columns, reads aggregates, and can do no more."""
    owner, data = timescaledb_roles
    async with open_sink(data, owner) as sink, connected(owner) as owning, connected(data) as connection:
        await write(sink, 0, [("a", 0, 1.0), ("a", 2000, 2.0)])
        assert await make_columns(owning, "readings_air") == 2
        await write(sink, 2, [("a", 1, 3.0)])
        for view in VIEWS:
            assert await connection.fetchval(f"SELECT sum(count_co2) FROM {view}") == 3

        for forbidden in (
            "SELECT drop_chunks('readings_air', older_than => now())",
            "CALL remove_columnstore_policy('readings_air')",
            f"SELECT delete_job({(await state_of(owning)).jobs[0].number})",
            "DROP MATERIALIZED VIEW readings_air_1d",
            "ALTER TABLE readings_air ADD COLUMN x int",
        ):
            with pytest.raises(asyncpg.PostgresError, match=r"owner|permission"):
                await connection.execute(forbidden)


async def test_extension_that_a_role_cannot_make(timescaledb: Connect, timescaledb_roles: Roles) -> None:
    """In a database without the extension an ordinary owner gets plain tables, and status says how to get more."""
    owner, _ = timescaledb_roles
    async with connected(timescaledb) as admin:
        await admin.execute("DROP EXTENSION timescaledb CASCADE")
    async with connected(owner) as owning:
        await migrate(owning, STEPS)

        found = await database_status(owning, STEPS, TABLES, SETTINGS)

        assert (found.timescale, found.missing) == (None, [])
        assert "CREATE EXTENSION timescaledb" in found.notes[-1]


async def test_extension_that_comes_later(timescaledb: Connect) -> None:
    """Plain tables with rows become hypertables with the rows in them."""
    plain = [step for step in STEPS if not step.extension]
    async with connected(timescaledb) as connection:
        await migrate(connection, plain)
        await connection.execute(
            "INSERT INTO readings_air (device_id, time, message_id, appended_at) "
            "SELECT 'a', now() - n * interval '1 day', gen_random_uuid(), now() FROM generate_series(0, 9) AS n"
        )

        await migrate(connection, STEPS)
        await apply_policies(connection, SETTINGS, TABLES)

        assert set((await state_of(connection)).chunks) == {"readings_air", "rollups", "anomalies"}
        assert await connection.fetchval("SELECT count(*) FROM readings_air") == 10
        assert await connection.fetchval("SELECT count(*) FROM show_chunks('readings_air')") >= 10


async def test_status(timescaledb: Connect) -> None:
    """Rows, chunks and columns per hypertable."""
    async with open_sink(timescaledb) as sink, connected(timescaledb) as connection:
        await write(sink, 0, [("a", 0, 1.0), ("a", 2000, 2.0)])
        await make_columns(connection, "readings_air")

        found = await database_status(connection, STEPS, TABLES, SETTINGS)

        table = next(each for each in found.tables if each.name == "readings_air")
        assert (table.chunk_seconds, table.chunks, table.columnar) == (DAY, 2, 2)
        assert table.size > 0
        assert (found.missing, found.problems, found.different, found.notes) == ([], [], [], [])


async def test_down_and_up(timescaledb: Connect) -> None:
    """Everything goes, views and job too, what they hold is named, and everything comes back."""
    async with open_sink(timescaledb) as sink:
        await write(sink, 0, [("a", 0, 1.0)])
    async with connected(timescaledb) as connection:
        before = await state_of(connection)
        first, views = [*job_removal(before), *view_removal(sorted(before.views))], sorted(before.views)

        planned = await revert(connection, NOTHING, dry_run=True, first=first, views=views)
        assert {loss.table for loss in planned.losses} >= {"readings_air", *VIEWS}
        assert sorted((await state_of(connection)).views) == VIEWS

        await revert(connection, NOTHING, lose=True, first=first, views=views)
        left = await state_of(connection)
        assert (dict(left.views), list(left.jobs), dict(left.chunks), await applied(connection)) == ({}, [], {}, {})

    async with open_sink(timescaledb), connected(timescaledb) as connection:
        assert sorted((await state_of(connection)).views) == VIEWS
