"""Migrations forward, on a real PostgreSQL: once, by one at a time, whoever else is there or dies."""

import asyncio
import signal
import sys

import asyncpg
import pytest

from headrace.connectors.timescale.migrations import LOCK, MIGRATIONS, Migration, applied, migrate, missing, packaged
from headrace.connectors.timescale.readings_table import ReadingsTable, TableSpec
from headrace.engine.errors import ConfigError
from tests.connectors.timescale.schema.catalog import catalog
from tests.databases import Connect
from tests.loop_time import skip

AIR = ReadingsTable(TableSpec("air", ("co2", "temperature")))
STEPS = [*packaged(MIGRATIONS), *AIR.migrations()]
#: A process that migrates, and says when it is about to.
PROGRAM = """
import asyncio, sys, asyncpg
from headrace.connectors.timescale.migrations import MIGRATIONS, Migration, migrate, packaged
async def main():
    connection = await asyncpg.connect(**eval(sys.argv[1]))
    print("ready", flush=True)
    print(await migrate(connection, [*packaged(MIGRATIONS), *eval(sys.argv[2])]), flush=True)
asyncio.run(main())
"""


async def process(database: Connect, extra: str = "[]") -> asyncio.subprocess.Process:
    """Another process that migrates the same database; ready to."""
    arguments = [sys.executable, "-c", PROGRAM, repr(database), extra]
    started = await asyncio.create_subprocess_exec(*arguments, stdout=asyncio.subprocess.PIPE)
    assert started.stdout is not None
    assert await started.stdout.readline() == b"ready\n"
    return started


async def waiting_for(connection: asyncpg.Connection, query: str) -> int:
    """Wait until `query` finds the process id of a connection."""
    while (pid := await connection.fetchval(query)) is None:
        await connection.execute("SELECT pg_sleep(0.01)")
    return int(pid)


async def test_second_time_changes_nothing(connection: asyncpg.Connection) -> None:
    """What was applied once is not applied again, and the schema stays as it is."""
    first = await migrate(connection, STEPS)
    before = await catalog(connection)

    assert await migrate(connection, STEPS) == []
    assert await catalog(connection) == before
    assert set(first) == set(await applied(connection)) == {step.version for step in STEPS if not step.extension}


async def test_missing_changes_nothing(connection: asyncpg.Connection) -> None:
    """Asking what is missing of an empty database makes no table."""
    assert [step.version for step in await missing(connection, STEPS)] == [
        step.version for step in STEPS if not step.extension
    ]
    assert await catalog(connection) == [[], [], [], [], [], []]


async def test_many_at_once(database: Connect) -> None:
    """Ten connections that start together apply each step once between them."""
    connections = [await asyncpg.connect(**database) for _ in range(10)]

    done = await asyncio.gather(*(migrate(connection, STEPS) for connection in connections))

    assert sorted(version for each in done for version in each) == sorted(
        step.version for step in STEPS if not step.extension
    )
    for connection in connections:
        await connection.close()


async def test_killed_in_the_middle(database: Connect, connection: asyncpg.Connection) -> None:
    """A process killed inside a step leaves nothing of it, and another one that waited goes on."""
    await migrate(connection, packaged(MIGRATIONS))
    slow = "[Migration('slow', 'CREATE TABLE half (x int); SELECT pg_sleep(600)')]"
    victim = await process(database, slow)
    pid = await waiting_for(connection, "SELECT pid FROM pg_stat_activity WHERE query LIKE 'CREATE TABLE half%pg_sl%'")
    other = await asyncpg.connect(**database)
    heir = asyncio.create_task(migrate(other, [Migration("slow", "CREATE TABLE whole (x int)")]))
    await waiting_for(
        connection,
        f"SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND NOT granted AND objid = {LOCK & 0xFFFFFFFF}",
    )

    victim.send_signal(signal.SIGKILL)
    await victim.wait()
    # The server itself notices only when the statement ends; an operator would not wait ten minutes either.
    await connection.execute("SELECT pg_terminate_backend($1)", pid)

    assert await heir == ["slow"]
    assert await connection.fetchval("SELECT to_regclass('half')") is None
    assert await connection.fetchval("SELECT to_regclass('whole')") is not None
    await other.close()


async def test_slow_server(database: Connect, connection: asyncpg.Connection) -> None:
    """A step, and waiting for another's, may take longer than the statements of the sink."""
    limits = {"statement_timeout": "1000", "lock_timeout": "1000"}
    patient = [await asyncpg.connect(**database, command_timeout=60, server_settings=limits) for _ in range(2)]

    migrating = asyncio.gather(*(migrate(each, [Migration("slow", "SELECT pg_sleep(1.3)")]) for each in patient))
    sleeper = "SELECT pid FROM pg_stat_activity WHERE state = 'active' AND query LIKE 'SELECT pg_sl%(1.3)'"
    await waiting_for(connection, f"{sleeper} AND datname = current_database()")
    await waiting_for(
        connection,
        f"SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND NOT granted AND objid = {LOCK & 0xFFFFFFFF}",
    )
    skip(60)

    assert sorted(await migrating) == [[], ["slow"]]
    for each in patient:
        await each.close()


async def test_deadlock_with_somebody_at_work(connection: asyncpg.Connection) -> None:
    """A step that the server ends because it and a writer wait for each other is tried again."""
    # A sequence counts on although the transaction is rolled back.
    await connection.execute("CREATE SEQUENCE tries")
    step = "IF nextval('tries') < 3 THEN RAISE 'waits for you' USING ERRCODE = 'deadlock_detected'; END IF;"

    done = await migrate(connection, [Migration("1", f"CREATE TABLE one (x int); DO $$ BEGIN {step} END $$")])

    assert done == ["1"]
    assert await connection.fetchval("SELECT last_value FROM tries") == 3


async def test_failing_step_leaves_nothing(connection: asyncpg.Connection) -> None:
    """Of a step that fails nothing is there, and those before it stay."""
    steps = [Migration("1", "CREATE TABLE one (x int)"), Migration("2", "CREATE TABLE two (x int); SELECT 1 / 0")]

    with pytest.raises(asyncpg.DivisionByZeroError):
        await migrate(connection, steps)

    assert list(await applied(connection)) == ["1"]
    assert await connection.fetchval("SELECT to_regclass('two')") is None


async def test_newer_database(connection: asyncpg.Connection) -> None:
    """A database that a newer headrace migrated is left alone, with its steps named."""
    await migrate(connection, STEPS)
    await connection.execute(
        "INSERT INTO headrace_migrations (version, checksum) VALUES ('9998_a', ''), ('9999_b', '')"
    )

    with pytest.raises(ConfigError, match="does not know its migrations 9998_a, 9999_b"):
        await migrate(connection, STEPS)


async def test_changed_while_waiting(connection: asyncpg.Connection) -> None:
    """A step that another process applied with other SQL is noticed."""
    await migrate(connection, [Migration("1", "SELECT 1"), Migration("2", "SELECT 2")])

    with pytest.raises(ConfigError) as raised:
        await migrate(connection, [Migration("1", "SELECT 3"), Migration("2", "SELECT 3")])

    assert len(raised.value.mistakes) == 2


async def test_stores_step_rewrites_no_table(connection: asyncpg.Connection) -> None:
    """0004 adds columns with defaults to tables with rows, and they stay in the files that they are in."""
    tables = ("rollups", "anomalies", "alerts")
    await migrate(connection, [step for step in packaged(MIGRATIONS) if step.version < "0004"])
    await connection.execute(
        """
        INSERT INTO rollups VALUES ('air', 'a', 60, now(), 0, '{}', '{}', '1m');
        INSERT INTO anomalies VALUES ('a', 'co2', now(), 'sigma', 'air', '{}');
        INSERT INTO alerts (alert_id, document) VALUES ('x', '{}');
        """
    )
    query = "SELECT pg_relation_filenode(name::regclass) FROM unnest($1::text[]) AS name"
    before = await connection.fetch(query, tables)

    await migrate(connection, [step for step in packaged(MIGRATIONS) if step.version.startswith("0004")])

    assert await connection.fetch(query, tables) == before
    assert await connection.fetchval("SELECT log_offset FROM alerts") == -1
