"""A PostgreSQL for tests of storage: an embedded one, or the one that HEADRACE_TEST_POSTGRES names."""

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any
from uuid import uuid4

import asyncpg
import pytest

from headrace.connectors.postgres_server import PostgresServer
from tests.connectors.timescale.storing import Connect


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Connect]:
    """A server, as arguments for `asyncpg.connect`."""
    if "HEADRACE_TEST_POSTGRES" in os.environ:
        yield {"dsn": os.environ["HEADRACE_TEST_POSTGRES"]}
        return
    server = PostgresServer(tmp_path_factory.mktemp("postgres"))
    address = asyncio.run(server.start())
    yield address.connect_arguments()
    asyncio.run(server.stop())


@pytest.fixture
async def database(postgres: Connect) -> AsyncIterator[Connect]:
    """An empty database of its own, as arguments for `asyncpg.connect`."""
    name = f"test_{uuid4().hex}"
    admin = await asyncpg.connect(**postgres)
    await admin.execute(f"CREATE DATABASE {name}")
    yield {**postgres, "database": name}
    await admin.execute(f"DROP DATABASE {name} WITH (FORCE)")
    await admin.close()


@pytest.fixture
async def query(database: Connect) -> AsyncIterator[Callable[..., Any]]:
    """Runs a query beside the sink, for its rows as tuples."""
    connection = await asyncpg.connect(**database)

    async def run(sql: str, *args: object) -> list[tuple[Any, ...]]:
        return [tuple(row) for row in await connection.fetch(sql, *args)]

    yield run
    await connection.close()
