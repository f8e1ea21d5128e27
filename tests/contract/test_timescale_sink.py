"""The TimescaleDB sink keeps the sink contract, on a real PostgreSQL: the embedded one, or HEADRACE_TEST_POSTGRES."""

import asyncio
import os
from collections.abc import AsyncIterator, Iterator
from datetime import datetime
from typing import Any
from urllib.parse import unquote, urlsplit
from uuid import uuid4

import asyncpg
import orjson
import pytest

from headrace.connectors.postgres_server import PostgresAddress, PostgresServer
from headrace.connectors.timescale.readings_table import TableSpec
from headrace.connectors.timescale.sink import TimescaleSink
from headrace.engine.clock import ManualClock
from headrace.engine.embedded.log import EmbeddedLog
from headrace.engine.log import TopicPartition
from tests.contract.cut_proxy import CutProxy
from tests.contract.sink_contract import SinkContract
from tests.contract.sink_traffic import NOW_MS, Newest
from tests.contract.sink_world import SinkWorld

AIR = TableSpec("air", ("co2",))
NEWEST_ROLLUPS = """
    SELECT DISTINCT ON (device_id, "window")
        device_id, "window", (extract(epoch FROM start) * 1000)::bigint, revision, measures
    FROM rollups WHERE NOT retracted ORDER BY device_id, "window", start DESC
"""
STATES = "SELECT device_id, (extract(epoch FROM time) * 1000)::bigint, metrics FROM device_state"
#: Name of the database that all are copies of.
TEMPLATE = "headrace_contract_template"
#: Columns of a readings table that are no values.
ABOUT = {"device_id", "time", "message_id", "appended_at", "extra"}


class TimescaleWorld(SinkWorld):
    """A database of its own, behind a proxy; a backup is a copy of it."""

    def __init__(self, server: dict[str, Any]) -> None:
        super().__init__()
        self._server = server
        self._name = f"contract_{uuid4().hex}"
        self._proxy = CutProxy(self._dial)

    async def start(self) -> None:
        """Make it."""
        await self._proxy.start()
        self._admin = await asyncpg.connect(**self._server)
        await self.empty()

    async def stop(self) -> None:
        """Remove it."""
        await self._proxy.stop()
        for name in (self._name, self._backup):
            await self._admin.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
        await self._admin.close()

    @property
    def _backup(self) -> str:
        return f"{self._name}_backup"

    async def _dial(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        host, port = self._server["host"], self._server["port"]
        if host.startswith("/"):
            return await asyncio.open_unix_connection(f"{host}/.s.PGSQL.{port}")
        return await asyncio.open_connection(host, port)

    async def make(self, log: EmbeddedLog) -> TimescaleSink:
        proxied = {"host": self._proxy.host, "port": self._proxy.port, "database": self._name, "ssl": False}
        return TimescaleSink({**self._server, **proxied}, [AIR], self.clock)

    async def cut(self, after: int) -> None:
        await self._proxy.cut(after)

    def is_cut(self) -> bool:
        return self._proxy.is_cut

    async def mend(self) -> None:
        # A session whose connection was cut may be slow to end, and still commit what it was sent before.
        left = "SELECT count(*) FROM pg_stat_activity WHERE datname = $1 AND backend_type = 'client backend'"
        while self._proxy.is_cut and await self._admin.fetchval(left, self._name):
            await asyncio.sleep(0.002)
        self._proxy.mend()

    async def newest(self) -> Newest:
        found: Newest = {}
        connection = await asyncpg.connect(**{**self._server, "database": self._name})
        for table in await self._tables(connection):
            if table.startswith("readings_"):
                newest = (
                    f'SELECT DISTINCT ON (device_id) to_jsonb(r) FROM "{_q(table)}" r ORDER BY device_id, time DESC'
                )
                for (text,) in await connection.fetch(newest):
                    self._reading(found, orjson.loads(text))
        if "device_state" in await self._tables(connection):
            states = await connection.fetch(STATES)
            assert {device: (time, orjson.loads(metrics)) for device, time, metrics in states} == {
                key[1]: (entry["time"], entry["values"]) for key, entry in found.items()
            }
        if "rollups" in await self._tables(connection):
            rows = await connection.fetch(NEWEST_ROLLUPS)
            for device, window, start, revision, measures in rows:
                entry = {"start": start, "revision": revision, "measures": orjson.loads(measures)}
                found["rollup", device, window] = entry
        await connection.close()
        return found

    @staticmethod
    def _reading(found: Newest, row: dict[str, Any]) -> None:
        values = {name: value for name, value in row.items() if name not in ABOUT and value is not None}
        time = _milliseconds(row["time"])
        key = ("reading", row["device_id"])
        if key not in found or found[key]["time"] < time:
            found[key] = {"time": time, "values": values | (row["extra"] or {})}

    async def everything(self) -> Any:
        connection = await asyncpg.connect(**{**self._server, "database": self._name})
        found = {}
        for table in await self._tables(connection):
            rows = await connection.fetch(f'SELECT t::text FROM "{_q(table)}" t ORDER BY 1')
            found[table] = [row[0] for row in rows]
        await connection.close()
        found["sink_positions"] = [row for row in found.get("sink_positions", []) if not row.endswith(",0)")]
        return {table: rows for table, rows in found.items() if rows}

    async def _tables(self, connection: asyncpg.Connection) -> list[str]:
        rows = await connection.fetch(
            "SELECT tablename FROM pg_tables WHERE schemaname = 'public' AND tablename NOT LIKE '%migrations'"
        )
        return sorted(row[0] for row in rows)

    async def rewind(self, positions: dict[TopicPartition, int]) -> None:
        connection = await asyncpg.connect(**{**self._server, "database": self._name})
        for (topic, partition), position in positions.items():
            await connection.execute(
                "UPDATE sink_positions SET next_offset = $3 WHERE topic = $1 AND partition = $2",
                topic,
                partition,
                position,
            )
        await connection.close()

    async def save(self) -> None:
        await self._copy(self._name, self._backup)

    async def restore(self) -> None:
        await self._copy(self._backup, self._name)

    async def empty(self) -> None:
        await self._copy(TEMPLATE, self._name)

    async def _copy(self, source: str, target: str) -> None:
        """Also ends the connections to both: a sink may be at work."""
        end = "SELECT pg_terminate_backend(pid, 60000) FROM pg_stat_activity WHERE datname = $1"
        await self._admin.execute(f"DROP DATABASE IF EXISTS {target} WITH (FORCE)")
        await self._admin.execute(f"ALTER DATABASE {source} ALLOW_CONNECTIONS false")
        await self._admin.fetch(end, source)
        await self._admin.execute(f"CREATE DATABASE {target} TEMPLATE {source}")
        await self._admin.execute(f"ALTER DATABASE {source} ALLOW_CONNECTIONS true")


async def make_template(server: dict[str, Any]) -> None:
    """Make a database with the sink's tables: most of what a new sink takes, and what these tests are not about."""
    admin = await asyncpg.connect(**server)
    await admin.execute(f"DROP DATABASE IF EXISTS {TEMPLATE} WITH (FORCE)")
    await admin.execute(f"CREATE DATABASE {TEMPLATE}")
    await admin.close()
    sink = TimescaleSink({**server, "database": TEMPLATE}, [AIR], ManualClock(NOW_MS))
    await sink.open()
    await sink.close()


def _q(name: str) -> str:
    return name.replace('"', '""')


def _milliseconds(text: str) -> int:
    return round(datetime.fromisoformat(text).timestamp() * 1000)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """A server with the template, as arguments for `asyncpg.connect`."""
    if "HEADRACE_TEST_POSTGRES" in os.environ:
        url = urlsplit(os.environ["HEADRACE_TEST_POSTGRES"])
        user, password = unquote(url.username or "postgres"), unquote(url.password or "")
        place = PostgresAddress(url.hostname or "localhost", url.port or 5432, user)._asdict()
        place |= {"database": url.path.removeprefix("/") or "postgres", "password": password}
        asyncio.run(make_template(place))
        yield place
        return
    own = PostgresServer(tmp_path_factory.mktemp("postgres"))
    address = asyncio.run(own.start()).connect_arguments()
    asyncio.run(make_template(address))
    yield address
    asyncio.run(own.stop())


class TestTimescaleSink(SinkContract):
    """Skips nothing."""

    @pytest.fixture
    async def world(self, server: dict[str, Any]) -> AsyncIterator[TimescaleWorld]:
        world = TimescaleWorld(server)
        await world.start()
        yield world
        await world.stop()
