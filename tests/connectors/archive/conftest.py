"""One PostgreSQL for all tests of the archive, and a world of its own for each."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from uuid import uuid4

import asyncpg
import pytest

from headrace.connectors.postgres_server import PostgresServer
from tests.connectors.archive.world import Connect, World


@pytest.fixture(scope="session")
def archive_postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Connect]:
    """A server, as arguments for `asyncpg.connect`."""
    server = PostgresServer(tmp_path_factory.mktemp("postgres"))
    address = asyncio.run(server.start())
    yield address.connect_arguments()
    asyncio.run(server.stop())


@pytest.fixture
async def world(archive_postgres: Connect, tmp_path: Path) -> AsyncIterator[World]:
    """An empty database with the readings table `air`, and an empty archive on disk."""
    name = f"test_{uuid4().hex}"
    admin = await asyncpg.connect(**archive_postgres)
    await admin.execute(f"CREATE DATABASE {name}")
    made = World({**archive_postgres, "database": name}, tmp_path)
    await made.open()
    yield made
    await made.close()
    await admin.execute(f"DROP DATABASE {name} WITH (FORCE)")
    await admin.close()
