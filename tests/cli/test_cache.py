"""`headrace cache` as a user meets it."""

import asyncio
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import asyncpg
import pytest
import redis

from headrace.connectors.postgres_server import PostgresServer
from headrace.connectors.timescale.sink import TimescaleSink
from headrace.engine.clock import SystemClock
from tests.cli.conftest import Headrace

pytestmark = pytest.mark.integration


async def make_database(folder: Path) -> None:
    """A database with one device, seen just now."""
    async with PostgresServer(folder) as address:
        sink = TimescaleSink(address.connect_arguments(), [], SystemClock())
        await sink.open()
        await sink.close()
        connection = await asyncpg.connect(**address.connect_arguments())
        now = datetime.now(UTC)
        insert = "INSERT INTO device_state VALUES ('roof 7', 'air', $1, $1, $2, '{\"co2\": 415}')"
        await connection.execute(insert, now, uuid4())
        await connection.close()


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder with that database."""
    folder = tmp_path_factory.mktemp("data")
    asyncio.run(make_database(folder))
    return folder


@pytest.fixture
def config(tmp_path: Path, redis_url: str) -> Path:
    """Settings that name the Redis."""
    path = tmp_path / "headrace.toml"
    path.write_text(f'[redis]\nurl = "{redis_url}"\n')
    return path


@pytest.fixture(autouse=True)
def cache(redis_url: str) -> Iterator[Any]:
    """An empty cache."""
    with redis.Redis.from_url(redis_url) as client:
        client.flushall()
        yield client


def test_verify_and_show(headrace: Headrace, data: Path, config: Path) -> None:
    """A dry run says what is missing, a run adds it, and then it can be shown."""
    options = ("--once", "--data", data, "--config", config)
    dry = headrace("cache", "verify", "--dry-run", *options)
    nothing = headrace("cache", "show", "roof 7", "--config", config)
    done = headrace("cache", "verify", "--json", *options)
    again = headrace("cache", "verify", "--json", *options)
    shown = headrace("cache", "show", "roof 7", "--json", "--config", config)
    table = headrace("cache", "show", "roof 7", "--config", config)

    assert b"missing 1" in dry.stdout
    assert b"nothing was repaired" in dry.stdout
    assert b"nothing of roof 7" in nothing.stdout
    assert json.loads(done.stdout.splitlines()[-1]).items() >= {"missing": 1, "added": 1, "complete": True}.items()
    assert json.loads(again.stdout.splitlines()[-1])["equal"] == 1
    (entry,) = json.loads(shown.stdout)["entries"]
    assert entry["document"]["metrics"] == {"co2": 415}
    assert 0 < entry["expires_in"] <= 300
    assert b"415" in table.stdout


def test_mistakes(headrace: Headrace, config: Path, tmp_path: Path) -> None:
    """No Redis in the settings, no database: exit code 2, with what to write."""
    empty = tmp_path / "empty.toml"
    empty.write_text("")

    assert "[redis] url" in headrace("cache", "show", "a", "--config", empty, code=2).stderr
    assert "[redis] url" in headrace("cache", "verify", "--config", empty, code=2).stderr
    assert "--data is missing" in headrace("cache", "verify", "--config", config, code=2).stderr


def test_redis_away(headrace: Headrace, tmp_path: Path) -> None:
    """A Redis that cannot be reached is a failure, not a mistake."""
    config = tmp_path / "away.toml"
    config.write_text('[redis]\nurl = "unix:///nonexistent/socket"\n')

    assert "Redis" in headrace("cache", "show", "a", "--config", config, code=1).stderr
