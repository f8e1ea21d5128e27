"""The archive on TimescaleDB: chunks that are wholly archived are dropped, others lose their rows."""

import os
from collections.abc import AsyncIterator
from pathlib import Path
from uuid import uuid4

import asyncpg
import pytest

from tests.connectors.archive.world import World, air
from tests.databases import Connect


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    """An empty database with the extension, and an empty archive."""
    dsn, name = os.environ["HEADRACE_TEST_TIMESCALEDB_URL"], f"test_{uuid4().hex}"
    admin = await asyncpg.connect(dsn)
    await admin.execute(f"CREATE DATABASE {name}")
    connect: Connect = {"dsn": dsn, "database": name}
    fresh = await asyncpg.connect(**connect)
    await fresh.execute("CREATE EXTENSION IF NOT EXISTS timescaledb")
    await fresh.close()
    made = World(connect, tmp_path)
    await made.open()
    yield made
    await made.close()
    await admin.execute(f"DROP DATABASE {name} WITH (FORCE)")
    await admin.close()


async def chunks(world: World) -> int:
    """Chunks of the readings table."""
    count: int = await world.connection.fetchval(
        "SELECT count(*) FROM timescaledb_information.chunks WHERE hypertable_name = 'readings_air'"
    )
    return count


@pytest.mark.timescaledb
async def test_whole_chunks_are_dropped(world: World) -> None:
    """Days whose every row is archived leave with their chunks."""
    rows = air(3, 3, 4)
    await world.insert(rows)
    assert await chunks(world) == 3

    report = await world.job().run()

    assert (report.failures, report.rows) == ([], len(rows))
    assert await chunks(world) == 0
    assert await world.archived() == rows


@pytest.mark.timescaledb
async def test_a_chunk_with_somebody_elses_rows_stays(world: World) -> None:
    """Rows of an organisation that keeps them for ever keep their chunk; the others of it are deleted."""
    from headrace.connectors.archive.settings import RetentionSettings

    retention = RetentionSettings.model_validate({"policies": [{"organisation": "acme", "days": "never"}]})
    kept, gone = air(1, 1, 2, "acme"), air(1, 1, 2)
    await world.insert(kept + gone)

    report = await world.job(retention=retention).run()

    assert (report.failures, report.rows) == ([], len(gone))
    assert await world.stored() == kept
    assert await chunks(world) == 1


@pytest.mark.timescaledb
async def test_rows_of_the_columnstore(world: World) -> None:
    """A chunk that became columns is archived and dropped like others."""
    rows = air(2, 2, 4)
    await world.insert(rows)
    await world.connection.execute(
        "ALTER TABLE readings_air SET (timescaledb.enable_columnstore, timescaledb.segmentby = 'device_id')"
    )
    for row in await world.connection.fetch("SELECT show_chunks('readings_air')::text AS name"):
        await world.connection.execute(f"CALL convert_to_columnstore('{row['name']}')")

    report = await world.job().run()

    assert (report.failures, report.rows) == ([], len(rows))
    assert await chunks(world) == 0
    assert await world.archived() == rows
