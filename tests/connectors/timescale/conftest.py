"""A look at what a sink has stored."""

from collections.abc import AsyncIterator, Callable
from typing import Any

import asyncpg
import pytest

from tests.databases import Connect


@pytest.fixture
async def query(database: Connect) -> AsyncIterator[Callable[..., Any]]:
    """Runs a query beside the sink, for its rows as tuples."""
    connection = await asyncpg.connect(**database)

    async def run(sql: str, *args: object) -> list[tuple[Any, ...]]:
        return [tuple(row) for row in await connection.fetch(sql, *args)]

    yield run
    await connection.close()
