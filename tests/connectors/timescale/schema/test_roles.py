"""Two roles: one owns the tables, the other fills them and can do nothing else to them."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg
import numpy as np
import pytest

from headrace.connectors.timescale.migrations import MIGRATIONS, PRELOADED, migrate, packaged, usable_extensions
from headrace.connectors.timescale.readings_table import ReadingsTable, TableSpec
from headrace.connectors.timescale.roles import KEPT, grant, tables_of
from headrace.connectors.timescale.schema import SchemaKeeper
from headrace.connectors.timescale.sink import TimescaleSink
from headrace.engine.clock import SystemClock
from headrace.engine.errors import ConfigError, RetryLater
from headrace.engine.log import Fetched, TopicPartition
from headrace.engine.testkit import fetched, reading_records
from headrace.schemas import topics
from headrace.schemas.readings import Readings
from tests.connectors.timescale.schema.catalog import Roles
from tests.databases import Connect

AIR = TableSpec("air", ("co2",))
STEPS = [*packaged(MIGRATIONS), *ReadingsTable(AIR).migrations()]


def written(device_type: str, number: int) -> list[Fetched]:
    """The reading at this offset, as the log hands it out."""
    message = f"00000000-0000-0000-0000-{number:012}"
    readings = Readings(
        device_type, np.arange(1), ["a"], np.array([1_700_000_000_000 + number]), [message], {"co2": np.array([1.0])}
    )
    return [fetched(reading_records(readings), topics.READINGS, 0, number)]


@asynccontextmanager
async def connected(connect: Connect) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(**connect)
    try:
        yield connection
    finally:
        await connection.close()


async def opened(data: Connect, owner: Connect | None) -> TimescaleSink:
    sink = TimescaleSink(data, [AIR], SystemClock(), schema=SchemaKeeper(owner))
    try:
        await sink.open()
        await sink.positions([TopicPartition(topics.READINGS, 0)])
    except BaseException:
        await sink.close()
        raise
    return sink


async def test_data_role_fills_what_the_owner_makes(roles: Roles) -> None:
    """Tables are the owner's; the sink stores, completes and counts, in a table nobody announced too."""
    owner, data = roles
    sink = await opened(data, owner)
    await sink.write(written("air", 0))
    await sink.write(
        written("air", 0) + written("brand new", 1)
    )  # the first again: sorted out through the staging table
    await sink.close()

    async with connected(data) as connection:
        owners = await connection.fetch("SELECT DISTINCT tableowner FROM pg_tables WHERE schemaname = 'public'")
        assert [row[0] for row in owners] == [owner["user"]]
        assert await connection.fetchval('SELECT count(*) FROM "readings_brand new"') == 1
        assert await connection.fetchval("SELECT sum(count) FROM ledger WHERE term = 'stored'") == 2


#: What would change more than rows, or rows that say what was done.
FORBIDDEN = (
    "CREATE TABLE mine (x int)",
    "DROP TABLE readings_air",
    "TRUNCATE readings_air",
    "ALTER TABLE readings_air ADD COLUMN x int",
    "CREATE INDEX ON readings_air (co2)",
    "DELETE FROM ledger",
    "DELETE FROM sink_positions",
    "INSERT INTO headrace_migrations VALUES ('x', 'y')",
    "DROP FUNCTION headrace_time(jsonb)",
    "CREATE FUNCTION mine() RETURNS int LANGUAGE sql AS 'SELECT 1'",
)


async def test_what_the_data_role_cannot_do(roles: Roles) -> None:
    """It neither makes nor changes anything but rows, and not those that say what was done."""
    owner, data = roles
    await (await opened(data, owner)).close()

    async with connected(data) as connection:
        for statement in FORBIDDEN:
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await connection.execute(statement)


async def test_current_schema_needs_no_owner(roles: Roles) -> None:
    """Where everything is there and granted, the data role works alone; tables of others stay out of its reach."""
    owner, data = roles
    async with connected(owner) as connection:
        await connection.execute("CREATE TABLE theirs (x int)")
        await migrate(connection, STEPS)
        assert await grant(connection, data["user"], STEPS, write=True)
        assert not await grant(connection, data["user"], STEPS, write=True)

    sink = await opened(data, None)
    await sink.write(written("air", 0))
    await sink.close()

    async with connected(data) as connection:
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await connection.fetch("SELECT * FROM theirs")


async def test_device_type_that_looks_like_sql(roles: Roles) -> None:
    """A name that a device chose gets the data role its own table and no other."""
    owner, data = roles
    async with connected(owner) as connection:
        await connection.execute("CREATE TABLE theirs (x int)")
    sink = await opened(data, owner)
    await sink.write(written('x";\nCREATE TABLE theirs (x int); --', 0))
    await sink.close()

    async with connected(data) as connection:
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await connection.fetch("SELECT * FROM theirs")


async def test_schema_that_is_not_current(roles: Roles) -> None:
    """A data role alone says which steps are missing, and what to run."""
    owner, data = roles
    async with connected(owner) as connection:
        await migrate(connection, STEPS[:1])
        await grant(connection, data["user"], STEPS, write=True)

    with pytest.raises(ConfigError, match=r"lacks 0003_windows.*readings_air\..*headrace database up"):
        await opened(data, None)


async def test_empty_database(roles: Roles) -> None:
    """The same where there is nothing at all."""
    with pytest.raises(ConfigError, match=r"lacks 0001_sink.*may not make tables"):
        await opened(roles[1], None)


async def test_schema_without_grants(roles: Roles) -> None:
    """A data role that may look at the versions and nothing else says what it lacks."""
    owner, data = roles
    async with connected(owner) as connection:
        await migrate(connection, STEPS)
        with pytest.raises(ConfigError, match="may not look at headrace_migrations"):
            await opened(data, None)
        await connection.execute(f"GRANT SELECT ON headrace_migrations TO {data['user']}")

    with pytest.raises(ConfigError, match=r"lacks .*INSERT, SELECT, UPDATE on table ledger"):
        await opened(data, None)


async def test_unknown_type_waits(roles: Roles) -> None:
    """Readings of a type without a table wait, with advice; when the table is there they are stored."""
    owner, data = roles
    await (await opened(data, owner)).close()
    sink = await opened(data, None)

    with pytest.raises(RetryLater, match="headrace database up --device-type noise") as raised:
        await sink.write(written("air", 0) + written("noise", 1))
    assert raised.value.after > 1
    assert await sink.ledger() == {"stored": 0, "duplicate": 0, "conflict": 0}

    async with connected(owner) as connection:
        steps = ReadingsTable(TableSpec("noise")).migrations()
        await migrate(connection, steps)
        await grant(connection, data["user"], steps, write=True)
    await sink.open()
    await sink.positions([TopicPartition(topics.READINGS, 0)])
    await sink.write(written("air", 0) + written("noise", 1))
    assert await sink.ledger() == {"stored": 2, "duplicate": 0, "conflict": 0}
    await sink.close()


async def test_many_sinks_at_once(roles: Roles) -> None:
    """Sinks that start together migrate and grant once, and none of them fails."""
    owner, data = roles

    sinks = await asyncio.gather(*(opened(data, owner) for _ in range(5)))

    for sink in sinks:
        await sink.close()


async def test_reading_role(roles: Roles) -> None:
    """A role that only looks sees every table, later ones too, and changes none."""
    owner, reader = roles
    async with connected(owner) as connection:
        await migrate(connection, STEPS)
        await grant(connection, reader["user"], STEPS, write=False)
        await migrate(connection, ReadingsTable(TableSpec("later")).migrations())

    async with connected(reader) as connection:
        for table in ("readings_air", "readings_later", "ledger", "headrace_migrations"):
            assert await connection.fetch(f"SELECT * FROM {table} LIMIT 1") is not None
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await connection.execute(f"DELETE FROM {table}")


async def test_grants_that_the_owner_cannot_give(roles: Roles, connection: asyncpg.Connection) -> None:
    """What only a greater role may grant is named."""
    owner, data = roles
    async with connected(owner) as owning:
        await migrate(owning, STEPS)
    name = await connection.fetchval("SELECT current_database()")
    await connection.execute(f"ALTER DATABASE {name} OWNER TO CURRENT_USER")
    await connection.execute(f"REVOKE TEMPORARY ON DATABASE {name} FROM PUBLIC")
    await connection.execute(f"GRANT TEMPORARY ON DATABASE {name} TO {owner['user']}")

    async with connected(owner) as owning:
        with pytest.raises(ConfigError, match="needs TEMPORARY on the database"):
            await grant(owning, data["user"], STEPS, write=True)


async def test_any_role_can_ask_for_extensions(roles: Roles) -> None:
    """What the server preloads is not for everybody to see; asking whether it does is."""
    async with connected(roles[1]) as connection:
        assert await connection.fetchval(f"SELECT {PRELOADED}") is False
        assert "plpgsql" in await usable_extensions(connection)


async def test_every_table_is_known(connection: asyncpg.Connection) -> None:
    """What the migrations make is what is granted: no table is missed."""
    await migrate(connection, STEPS)

    names = await connection.fetch(
        "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'v')"
    )
    assert {row[0] for row in names} == set(tables_of(STEPS))


def test_tables_that_are_kept_exist() -> None:
    """Every table with rights of its own is one that migrations make."""
    made = " ".join(step.up for step in packaged(MIGRATIONS)) + " headrace_migrations"
    assert [name for name in KEPT if name not in made] == []
