"""Migrations back, on a real PostgreSQL."""

import asyncpg
import pytest

from headrace.connectors.timescale.migrations import MIGRATIONS, applied, migrate, packaged
from headrace.connectors.timescale.readings_table import ReadingsTable, TableSpec
from headrace.connectors.timescale.revert import NOTHING, revert
from headrace.engine.errors import ConfigError
from tests.connectors.timescale.schema.catalog import catalog
from tests.databases import Connect

AIR = ReadingsTable(TableSpec("air.v2", ("co2", "temperature")))
STEPS = [*packaged(MIGRATIONS), *AIR.migrations()]
PLAIN = [step.version for step in packaged(MIGRATIONS) if not step.extension]
ROWS = """
    INSERT INTO rollups (device_type, device_id, window_seconds, start, revision, measures, details, "window") VALUES
        ('air', 'a', 60, now(), 0, '{}', '{}', '1m'),
        ('air', 'a', 60, now(), 0, '{}', '{}', '1m every 10s'),
        ('air', 'a', NULL, now(), 0, '{}', '{}', 'session 1m');
    INSERT INTO "readings_air.v2" (device_id, time, message_id, appended_at)
        SELECT 'a', now(), gen_random_uuid(), now();
"""


async def test_up_down_up(connection: asyncpg.Connection) -> None:
    """All up, all down leaves nothing; all up again makes the same schema."""
    await migrate(connection, STEPS)
    first = await catalog(connection)

    await revert(connection, NOTHING)
    assert await catalog(connection) == [[], [], [], [], [], []]
    await migrate(connection, STEPS)

    assert await catalog(connection) == first


@pytest.mark.parametrize("version", PLAIN)
async def test_down_to_each_and_up(connection: asyncpg.Connection, version: str) -> None:
    """Down to any version gives the schema that it made, and up again the newest one."""
    at = [step for step in packaged(MIGRATIONS) if step.version <= version]
    await migrate(connection, at)
    then = await catalog(connection)
    await migrate(connection, STEPS)
    newest = await catalog(connection)

    await revert(connection, version)
    tables = [[row for row in rows if "readings_air" not in str(row)] for rows in await catalog(connection)]
    assert tables == then
    assert {each for each in await applied(connection) if each[0] == "0"} == {
        step.version for step in at if not step.extension
    }

    await migrate(connection, STEPS)
    assert [sorted(map(str, rows)) for rows in await catalog(connection)][1:] == [
        sorted(map(str, rows)) for rows in newest
    ][1:]


async def test_rows_are_not_lost_unasked(connection: asyncpg.Connection) -> None:
    """Tables and columns with something in them stay, and all of them are named with their counts."""
    await migrate(connection, STEPS)
    await connection.execute(ROWS)
    before = await catalog(connection)

    with pytest.raises(ConfigError) as raised:
        await revert(connection, NOTHING)

    assert await catalog(connection) == before
    assert set(raised.value.mistakes[:-1]) == {
        "would be lost: table rollups: 3 rows",
        "would be lost: table readings_air.v2: 1 rows",
    }


async def test_columns_and_rows_that_older_tables_cannot_hold(connection: asyncpg.Connection) -> None:
    """Values of columns that go, and rows that an older key cannot tell apart, count as losses; told so, they go."""
    await migrate(connection, STEPS)
    await connection.execute(ROWS)

    planned = await revert(connection, "0001_sink", dry_run=True)
    assert [str(loss) for loss in planned.losses] == [
        "table rollups: 2 rows",
        "column window of table rollups: 3 values",
        "column log_offset of table rollups: 3 values",
        "column retracted of table rollups: 3 values",
    ]
    assert await connection.fetchval("SELECT count(*) FROM rollups") == 3

    done = await revert(connection, "0001_sink", lose=True)
    assert list(done.versions) == sorted(set(PLAIN) - {"0001_sink"}, reverse=True)
    assert await connection.fetchval("SELECT count(*) FROM rollups") == 1


async def test_unknown_targets(connection: asyncpg.Connection) -> None:
    """A version that the database does not have is a mistake, and one of a newer headrace cannot be undone here."""
    await migrate(connection, STEPS)
    with pytest.raises(ConfigError, match="has no migration 0001; it has 0, 0001_sink"):
        await revert(connection, "0001")

    await connection.execute("INSERT INTO headrace_migrations (version, checksum) VALUES ('9999_b', '')")
    with pytest.raises(ConfigError, match="9999_b is of a newer headrace"):
        await revert(connection, "0001_sink")


async def test_failure_in_the_middle_changes_nothing(database: Connect, connection: asyncpg.Connection) -> None:
    """A view of somebody else on one of the tables stops it, and everything is as before."""
    await migrate(connection, STEPS)
    await connection.execute("CREATE VIEW theirs AS SELECT * FROM ledger")
    before = await catalog(connection)

    with pytest.raises(asyncpg.DependentObjectsStillExistError):
        await revert(connection, NOTHING, lose=True)

    assert await catalog(connection) == before


def test_every_migration_can_be_undone() -> None:
    """There is a down file beside each up file."""
    assert [step.version for step in packaged(MIGRATIONS) if step.down is None] == []
