"""Databases to change the schema of: on the embedded PostgreSQL, or the server that HEADRACE_TEST_POSTGRES names."""

import asyncio
import os
from collections.abc import AsyncIterator, Iterator
from uuid import uuid4

import asyncpg
import pytest

from headrace.connectors.postgres_server import PostgresServer
from tests.connectors.timescale.schema.catalog import Connect, Roles

TIMESCALEDB_URL = "HEADRACE_TEST_TIMESCALEDB_URL"


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Connect]:
    """A server, as arguments for `asyncpg.connect`."""
    if "HEADRACE_TEST_POSTGRES" in os.environ:
        yield {"dsn": os.environ["HEADRACE_TEST_POSTGRES"]}
        return
    server = PostgresServer(tmp_path_factory.mktemp("schema"))
    address = asyncio.run(server.start())
    yield address.connect_arguments()
    asyncio.run(server.stop())


@pytest.fixture
async def database(postgres: Connect) -> AsyncIterator[Connect]:
    """An empty database of its own, as arguments for `asyncpg.connect`."""
    async for connect in _fresh(postgres):
        yield connect


@pytest.fixture
async def timescaledb() -> AsyncIterator[Connect]:
    """The same on a server with TimescaleDB; only for tests that are marked so."""
    async for connect in _fresh({"dsn": os.environ[TIMESCALEDB_URL]}):
        yield connect


async def _fresh(server: Connect) -> AsyncIterator[Connect]:
    name = f"test_{uuid4().hex}"
    admin = await asyncpg.connect(**server)
    await admin.execute(f"CREATE DATABASE {name}")
    yield {**server, "database": name}
    await admin.execute(f"DROP DATABASE {name} WITH (FORCE)")
    await admin.close()


@pytest.fixture
async def connection(database: Connect) -> AsyncIterator[asyncpg.Connection]:
    """To the empty database."""
    connection = await asyncpg.connect(**database)
    yield connection
    await connection.close()


@pytest.fixture
async def roles(database: Connect) -> AsyncIterator[Roles]:
    """How the role that owns the database connects, and one that may do nothing in it yet but what PUBLIC may."""
    async for both in _two_roles(database):
        yield both


@pytest.fixture
async def timescaledb_roles(timescaledb: Connect) -> AsyncIterator[Roles]:
    """The same with TimescaleDB, which a superuser has made ready."""
    async for both in _two_roles(timescaledb, "CREATE EXTENSION IF NOT EXISTS timescaledb"):
        yield both


async def _two_roles(database: Connect, first: str = "SELECT 1") -> AsyncIterator[Roles]:
    owner, data = (f"{kind}_{uuid4().hex}" for kind in ("owner", "data"))
    admin = await asyncpg.connect(**database)
    await admin.execute(first)
    for name in (owner, data):
        await admin.execute(f"CREATE ROLE {name} LOGIN PASSWORD 'secret'")
    await admin.execute(f"ALTER DATABASE {database['database']} OWNER TO {owner}")
    yield as_role(database, owner), as_role(database, data)
    await admin.execute(f"ALTER DATABASE {database['database']} OWNER TO CURRENT_USER")
    await admin.execute(f"DROP OWNED BY {data}, {owner} CASCADE")
    await admin.execute(f"DROP ROLE {data}, {owner}")
    await admin.close()


def as_role(database: Connect, name: str) -> Connect:
    """The same database for another role."""
    return {**database, "user": name, "password": "secret"}
