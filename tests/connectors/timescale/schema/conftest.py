"""Databases to change the schema of: on the embedded PostgreSQL, or the server that HEADRACE_TEST_POSTGRES names."""

import os
from collections.abc import AsyncIterator
from uuid import uuid4

import asyncpg
import pytest

from tests.connectors.timescale.schema.catalog import Roles
from tests.databases import Connect, fresh_database

TIMESCALEDB_URL = "HEADRACE_TEST_TIMESCALEDB_URL"


@pytest.fixture
async def timescaledb() -> AsyncIterator[Connect]:
    """An empty database on a server with TimescaleDB; only for tests that are marked so."""
    async with fresh_database({"dsn": os.environ[TIMESCALEDB_URL]}) as connect:
        yield connect


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
