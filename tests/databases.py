"""Empty databases for tests, on a server that many share."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from uuid import uuid4

import asyncpg

#: Arguments of `asyncpg.connect`.
Connect = dict[str, Any]


@asynccontextmanager
async def fresh_database(server: Connect) -> AsyncIterator[Connect]:
    """An empty database of its own, for as long as the `async with` lasts."""
    name = f"test_{uuid4().hex}"
    admin = await asyncpg.connect(**server)
    await admin.execute(f"CREATE DATABASE {name}")
    try:
        yield {**server, "database": name}
    finally:
        await admin.execute(f"DROP DATABASE {name} WITH (FORCE)")
        await admin.close()
