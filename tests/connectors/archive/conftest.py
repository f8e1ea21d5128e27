"""A world of its own for each test of the archive."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.connectors.archive.world import World
from tests.databases import Connect


@pytest.fixture
async def world(database: Connect, tmp_path: Path) -> AsyncIterator[World]:
    """An empty database with the readings table `air`, and an empty archive on disk."""
    made = World(database, tmp_path)
    await made.open()
    yield made
    await made.close()
