"""Outages of a real PostgreSQL: only storing waits, visibly, goes on by itself, and then everything is stored once."""

import asyncio
import os
import signal
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from math import log2
from pathlib import Path
from typing import Any
from uuid import uuid4

import asyncpg
import psutil
import pytest

from headrace.connectors.postgres_server import PostgresServer
from headrace.connectors.timescale.sink import TimescaleSink
from headrace.engine import dead_letters
from headrace.engine.clock import SystemClock
from headrace.engine.embedded.database import MEMORY
from headrace.engine.embedded.log import EmbeddedLog
from headrace.engine.health import Health
from headrace.engine.log import Append, Fetched, TopicPartition, TopicSpec, Transaction
from headrace.engine.memory_sink import MemorySink
from headrace.engine.metrics import Metrics
from headrace.engine.sink_runner import SinkRunner
from headrace.schemas import topics
from tests.connectors.timescale.storing import AIR, air, documents, running, until
from tests.connectors.timescale.throttle import Throttle
from tests.databases import Connect

TROUBLED = ("retrying", "probing")
PIECES = 20


class Server:
    """A server that these tests may break; all of them use it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._server = PostgresServer(folder)

    async def start(self) -> None:
        """Start it; again after it was stopped or killed."""
        self.connect = (await self._server.start()).connect_arguments()

    async def stop(self) -> None:
        """Stop it as an administrator does."""
        await self._server.stop()

    @property
    def process(self) -> psutil.Process:
        """The postmaster."""
        return psutil.Process(int((self._folder / "postgres/cluster/postmaster.pid").read_text().split()[0]))

    async def crash(self) -> None:
        """Immediate shutdown: no goodbye to anybody, and a recovery at the next start."""
        process = self.process
        os.kill(process.pid, signal.SIGQUIT)
        while process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
            await asyncio.sleep(0.01)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server, started."""
    server = Server(tmp_path_factory.mktemp("outages"))
    asyncio.run(server.start())
    yield server
    asyncio.run(server.stop())


class World:
    """A log, a sink at work on a database of its own, and another group that has nothing to do with it."""

    def __init__(self, log: EmbeddedLog, server: Server, name: str, connect: Connect) -> None:
        self.log = log
        self.server = server
        self.name = name
        self.metrics = Metrics()
        self.health = Health(SystemClock(), expects=())
        self.sink = TimescaleSink(connect, [AIR], SystemClock(), alone=True)
        self.alerts = MemorySink("alerts", [topics.ALERTS])
        told: dict[str, Any] = {"metrics": self.metrics, "health": self.health}
        quick: dict[str, Any] = {"linger": 0.001, "first_backoff": 0.01, "max_backoff": 0.05}
        self.runner = SinkRunner(log, self.sink, SystemClock(), **told, **quick)
        self.bystander = SinkRunner(log, self.alerts, SystemClock(), linger=0.001)
        self.appended = self.alerted = 0

    async def append(self, count: int) -> None:
        """Readings of new devices, in pieces."""
        for start in range(self.appended, self.appended + count, max(1, count // PIECES)):
            rows = [(f"d{n}", n, 1.0, 2.0) for n in range(start, start + max(1, count // PIECES))]
            target = TopicPartition(topics.READINGS, start % 2)
            await self.log.commit(Transaction([Append(target, air(*rows))]))
            self.appended += len(rows)

    async def stored(self) -> None:
        """Wait until the sink has everything."""
        await until(lambda: sum(self.runner.statistics().positions.values()) == self.appended + self.alerted)

    async def alert(self) -> None:
        """An alert, which reaches the other group whatever the database does."""
        document = {"time": "2025-01-01T00:00:00Z", "data": {"alertId": str(self.alerted), "status": "triggered"}}
        await self.log.commit(Transaction([Append(TopicPartition(topics.ALERTS, 0), documents(document))]))
        self.alerted += 1
        await until(lambda: sum(self.alerts.writes) == self.alerted)

    async def admin(self, *statements: str) -> None:
        """Carry out statements, whatever the server's defaults are."""
        settings = {"default_transaction_read_only": "off"}
        connection = await asyncpg.connect(**self.server.connect | {"database": self.name}, server_settings=settings)
        for statement in statements:
            await connection.execute(statement)
        await connection.close()

    async def check(self) -> None:
        """Every reading is there, once, and counted once."""
        connection = await asyncpg.connect(**self.server.connect | {"database": self.name})
        ids = [row[0] for row in await connection.fetch("SELECT device_id FROM readings_air")]
        counted = await connection.fetch("SELECT term, sum(count)::int FROM ledger GROUP BY 1")
        states = await connection.fetchval("SELECT count(*) FROM device_state")
        alerts = await connection.fetchval("SELECT count(*) FROM alerts")
        await connection.close()
        assert sorted(ids) == sorted(f"d{n}" for n in range(self.appended))
        assert [tuple(row) for row in counted] == [("stored", self.appended)]
        assert (states, alerts) == (self.appended, self.alerted)


Worlds = Callable[..., AbstractAsyncContextManager[World]]


@pytest.fixture
async def worlds(server: Server) -> AsyncIterator[Worlds]:
    """Makes a world, with its runners at work; connections go where `connect` says."""
    name = f"test_{uuid4().hex}"
    log = EmbeddedLog(MEMORY, retention_bytes=1)  # of what every group has read
    await log.create_topics([*(TopicSpec(each, 2) for each in TimescaleSink.topics), *SinkRunner.topic_specs()])

    @asynccontextmanager
    async def make(**connect: Any) -> AsyncIterator[World]:
        admin = await asyncpg.connect(**server.connect)
        await admin.execute(f"CREATE DATABASE {name}")
        await admin.close()
        world = World(log, server, name, {**server.connect, "database": name, **connect})
        async with running(world.runner), running(world.bystander):
            yield world

    yield make
    await log.close()
    admin = await asyncpg.connect(**server.connect)
    await admin.execute(f"DROP DATABASE {name} WITH (FORCE)")
    await admin.close()


KILL = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'headrace timescale'"
KILL_HOLDER = """
    SELECT pg_terminate_backend(pid) FROM pg_locks JOIN pg_database AS d ON d.oid = database
    WHERE locktype = 'advisory' AND d.datname = current_database()
"""
RAISE = """
    CREATE OR REPLACE FUNCTION lose() RETURNS trigger LANGUAGE plpgsql AS
        $$BEGIN RAISE EXCEPTION 'lost' USING ERRCODE = '{code}'; END$$;
    CREATE TRIGGER lose BEFORE INSERT ON readings_air EXECUTE FUNCTION lose()
"""


@asynccontextmanager
async def down(world: World) -> AsyncIterator[None]:
    """Nobody listens."""
    await world.server.stop()
    try:
        yield
    finally:
        await world.server.start()


@asynccontextmanager
async def read_only(world: World) -> AsyncIterator[None]:
    """As a standby, or a server that protects its full disk."""
    await world.admin("ALTER SYSTEM SET default_transaction_read_only = on", "SELECT pg_reload_conf()", KILL)
    try:
        yield
    finally:
        await world.admin("ALTER SYSTEM RESET default_transaction_read_only", "SELECT pg_reload_conf()")


@asynccontextmanager
async def too_many_connections(world: World) -> AsyncIterator[None]:
    """Others have all of `max_connections` when the sink must connect again."""
    taken: list[asyncpg.Connection] = []

    async def take() -> None:
        while True:
            try:
                taken.append(await asyncpg.connect(**world.server.connect))
            except asyncpg.TooManyConnectionsError:
                return

    await take()
    try:
        # A place that somebody else leaves late may be the sink's again: until it is left out.
        while "53300" not in world.runner.trouble:
            await taken[0].execute(KILL)
            await take()
            await world.append(20)
        yield
    finally:
        for connection in taken:
            connection.terminate()


def lost_race(code: str) -> Callable[[World], AbstractAsyncContextManager[None]]:
    """A trigger that ends every write with this error code."""

    @asynccontextmanager
    async def fault(world: World) -> AsyncIterator[None]:
        await world.admin(RAISE.format(code=code))
        yield
        await world.admin("DROP TRIGGER lose ON readings_air")

    return fault


@asynccontextmanager
async def hanging(world: World) -> AsyncIterator[None]:
    """The machine of the server stands still; connections stay open."""
    processes = [world.server.process, *world.server.process.children()]
    for process in processes:
        process.suspend()
    try:
        yield
    finally:
        for process in processes:
            process.resume()


#: How it begins and ends, what is said of it, and how long the sink waits for the server, if that matters.
FAULTS: dict[str, tuple[Any, str, dict[str, float]]] = {
    "down": (down, "Error", {}),
    "read only": (read_only, "25006", {}),
    "too many connections": (too_many_connections, "53300", {}),
    "serialization failure": (lost_race("40001"), "40001", {}),
    "deadlock": (lost_race("40P01"), "40P01", {}),
    "hanging": (hanging, "TimeoutError", {"timeout": 1.0, "command_timeout": 1.0}),
}


@pytest.mark.parametrize("name", FAULTS)
async def test_outage(worlds: Worlds, name: str) -> None:
    """The sink says what is wrong and tries again; others go on; then everything is stored, exactly once."""
    fault, said, limits = FAULTS[name]
    async with worlds(**limits) as world:
        await world.append(200)
        await world.stored()

        async with fault(world):
            await world.append(200)
            await until(lambda: world.runner.statistics().retries >= 2)
            await world.alert()
            state, trouble = world.runner.statistics().state, world.runner.trouble
            unready = world.health.unready()
            shown = [s for s in TROUBLED if world.metrics.value("headrace_sink_state", sink="timescale", state=s)]
        await world.append(200)
        await world.stored()
        await world.check()

    assert state in TROUBLED
    assert shown
    assert said in trouble
    assert said in unready[0].why
    assert world.runner.statistics().state == "running"
    assert world.health.unready() == []


async def test_crashes_in_the_middle_of_writes(worlds: Worlds, server: Server) -> None:
    """The server is shut down at once, without goodbye, while the sink writes: three times, and nothing is missing."""
    async with worlds() as world:
        for _ in range(3):
            written = world.runner.statistics().written
            await world.append(4_000)
            await until(lambda written=written: world.runner.statistics().written > written)  # type: ignore[misc]
            await server.crash()
            await server.start()
        await world.stored()
        await world.check()


async def test_slow_database(worlds: Worlds, server: Server) -> None:
    """A hundred times slower, so that no full write is done in time: small ones are, and others do not notice."""

    async def dial() -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_unix_connection(f"{server.connect['host']}/.s.PGSQL.{server.connect['port']}")

    async with Throttle(dial) as throttle:
        where = {"host": throttle.host, "port": throttle.port, "ssl": False, "command_timeout": 1.0}
        async with worlds(**where) as world:
            await world.append(200)
            await world.stored()

            throttle.pause = 0.05
            await world.append(4_000)
            await until(lambda: world.runner.statistics().retries >= 1)
            await world.alert()
            before = world.runner.statistics().written
            await until(lambda: world.runner.statistics().written >= before + 200)
            throttle.pause = 0.0
            await world.stored()
            await world.check()


async def test_disk_full(worlds: Worlds, server: Server, tmp_path: Path) -> None:
    """The disk of the readings is full: the sink waits until there is room."""
    with small_disk(tmp_path, server) as disk:
        async with worlds() as world:
            await world.append(20)
            await world.stored()
            await world.admin(
                f"CREATE TABLESPACE small LOCATION '{disk}'", "ALTER TABLE readings_air SET TABLESPACE small"
            )

            await world.append(8_000)
            await until(lambda: "53100" in world.runner.trouble and world.runner.statistics().retries >= 2)
            await world.alert()
            subprocess.run(["mount", "-o", "remount,size=64m", str(disk)], check=True)
            await world.stored()
            await world.check()
        await world.admin("DROP TABLE readings_air", "DROP TABLESPACE small")


class small_disk:
    """A disk of 256 kB in memory that the server may write to."""

    def __init__(self, folder: Path, server: Server) -> None:
        self._disk = folder / "disk"
        self._owner = server.process.uids().effective

    def __enter__(self) -> Path:
        self._disk.mkdir()
        options = f"size=256k,mode=700,uid={self._owner}"
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(self._disk)], capture_output=True, check=False
        )
        if done.returncode:
            pytest.skip(f"only root can make a small disk: {done.stderr.decode().strip()}")
        for parent in self._disk.parents:
            if parent.stat().st_uid == os.getuid() and parent != Path("/"):
                parent.chmod(parent.stat().st_mode | 0o111)
        return self._disk

    def __exit__(self, *error: object) -> None:
        subprocess.run(["umount", "--lazy", str(self._disk)], check=False)


async def test_refused_row(worlds: Worlds) -> None:
    """A row that somebody's CHECK refuses is dead-lettered alone, with the error code; finding it costs 2 log2(n)."""
    count = 1_024
    async with worlds() as world:
        await world.append(20)
        await world.stored()
        await world.admin("ALTER TABLE readings_air ADD CONSTRAINT plausible CHECK (co2 < 10)")
        rows = [(f"e{n}", n, 99.0 if n == 700 else 1.0, 1.0) for n in range(count)]
        tries = 0
        write = world.sink.write

        async def counted(fetched: Sequence[Fetched]) -> None:
            nonlocal tries
            tries += 1
            await write(fetched)

        world.sink.write = counted  # type: ignore[method-assign]
        await world.log.commit(Transaction([Append(TopicPartition(topics.READINGS, 0), air(*rows))]))
        await until(lambda: world.runner.statistics().written == 20 + count - 1 + 1)  # and the dead letter itself
        (letter,) = await dead_letters_of(world.log)

    assert b"23514" in letter.headers[dead_letters.REASON]
    assert b'"e700"' in (letter.value or b"")
    assert tries <= 2 * log2(count) + 4
    assert world.runner.statistics().dead_lettered == 1


async def dead_letters_of(log: EmbeddedLog) -> list[Any]:
    """All of `telemetry.dlq`."""
    found = [await log.read(TopicPartition(topics.DEAD_LETTERS, number), 0, 1000) for number in range(2)]
    return [record for each in found if each is not None for record in each.records]


async def test_second_process_stands_by(worlds: Worlds, server: Server) -> None:
    """Two of the same sink: one waits and says for whom, and takes over when the other's connection ends."""
    async with worlds() as world:
        await world.append(20)
        await world.stored()
        other = TimescaleSink({**server.connect, "database": world.name}, [AIR], SystemClock(), alone=True)
        second = SinkRunner(world.log, other, SystemClock(), linger=0.001, max_backoff=0.02)
        async with running(second):
            await until(lambda: second.statistics().state == "standby")
            await world.append(20)
            await world.stored()
            waiting = second.trouble
            for _ in range(200):  # whoever is first to notice takes over
                await world.admin(KILL_HOLDER)
                await world.append(20)
                await until(lambda: "running" in (world.runner.statistics().state, second.statistics().state))
                if second.statistics().written:
                    break
            await until(lambda: {world.runner.statistics().state, second.statistics().state} == {"running", "standby"})
            await until_stored(world, second)
            await world.check()

    assert "another process stores already: headrace timescale" in waiting
    assert second.statistics().written


async def until_stored(world: World, second: SinkRunner) -> None:
    """Wait until either has everything."""
    total = world.appended + world.alerted
    await until(lambda: total in (sum(r.statistics().positions.values()) for r in (world.runner, second)))


async def test_restored_database_behind_retention(worlds: Worlds) -> None:
    """Restored to before what the log has dropped since: the log, health and a metric say how much is lost."""
    async with worlds() as world:
        await world.append(2_000)
        await world.stored()
        while await world.log.apply_retention():
            pass
        await world.admin("UPDATE sink_positions SET next_offset = 1 WHERE topic = 'telemetry.readings'", KILL)
        await world.append(20)
        await until(lambda: world.runner.statistics().lost > 0)
        await world.stored()

    lost = world.runner.statistics().lost
    problems = world.health.problems()
    assert world.metrics.value("headrace_sink_lost_offsets_total", sink="timescale", topic=topics.READINGS) == lost
    assert f"{lost:,} offsets were dropped" in problems[0].what
