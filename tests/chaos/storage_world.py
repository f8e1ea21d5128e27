"""Devices that report, a worker and a sink that run as commands, a database that fails, and what must be stored."""

import asyncio
import itertools
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import asyncpg
import orjson
import psutil

from headrace.connectors.postgres_server import PostgresServer
from headrace.engine.clock import SystemClock
from headrace.engine.intake import Intake
from headrace.engine.log import Log
from headrace.engine.metrics import Metrics

#: Devices, and seconds that a batch of their messages takes.
DEVICES, BEAT = 40, 0.1
#: Seconds until everything has arrived after the last fault.
PATIENCE = 300.0
#: Event time between two readings of a device, ms.
STEP_MS = 10_000
#: One device is hot enough, and for long enough, for the shipped rule "temperature > 40" in every second such stretch.
HOT, HOT_TURNS = 45.0, 30
MEASURES = ("co2", "humidity", "temperature")

clock = SystemClock()

#: What is stored of a reading: (device, event time in ms) → values of MEASURES.
Rows = dict[tuple[str, int], tuple[float | None, ...]]


class Command:
    """One `headrace` command, started again and again.

    Args:
        folder: for its output.
        arguments: of `headrace`.
    """

    def __init__(self, folder: Path, *arguments: str) -> None:
        self._output = folder / f"{arguments[0]}.log"
        self._command = [sys.executable, "-m", "headrace.cli.main", *arguments]
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it."""
        with self._output.open("ab") as output:
            self._process = subprocess.Popen(self._command, stdout=output, stderr=subprocess.STDOUT)

    def kill(self) -> None:
        """End it at once: kill -9."""
        assert self._process is not None
        assert self._process.poll() is None, self.said()
        self._process.kill()
        self._process.wait()

    def stop(self) -> None:
        """End it by SIGTERM."""
        assert self._process is not None
        self._process.terminate()
        assert self._process.wait(PATIENCE) == 0, self.said()

    def end(self) -> None:
        """Leave nothing behind."""
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait()

    def resident(self) -> int:
        """Its resident memory, bytes."""
        assert self._process is not None
        return int(psutil.Process(self._process.pid).memory_info().rss)

    def said(self) -> str:
        """The end of its output."""
        return self._output.read_text(errors="replace")[-4000:]


class Database:
    """A PostgreSQL of its own, which is stopped, killed, and set back to an earlier state. Its address stays.

    Args:
        folder: for its data.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._server = PostgresServer(folder)
        self.dsn = ""
        self.connect: dict[str, Any] = {}

    async def start(self) -> None:
        """Start it and wait until it answers."""
        address = await self._server.start()
        self.dsn, self.connect = address.dsn, address.connect_arguments()

    async def stop(self) -> None:
        """A clean shutdown; clients are cut off."""
        await self._server.stop()

    def kill(self) -> None:
        """kill -9 of the server; its children see it and end."""
        os.kill(int((self._cluster / "postmaster.pid").read_text().split()[0]), signal.SIGKILL)

    def back_up(self) -> None:
        """Keep a copy of a stopped server's data."""
        subprocess.run(["cp", "-a", str(self._cluster), str(self._copy)], check=True)

    def restore(self) -> None:
        """Put the copy in place of a stopped server's data."""
        shutil.rmtree(self._cluster)
        self._copy.rename(self._cluster)

    @property
    def _cluster(self) -> Path:
        return (self._folder / "postgres" / "cluster").resolve()

    @property
    def _copy(self) -> Path:
        return self._cluster.with_name("copy")

    async def fetch(self, query: str, *values: object) -> list[Any]:
        """Rows of a query."""
        connection = await asyncpg.connect(**self.connect)
        try:
            rows: list[Any] = await connection.fetch(query, *values)
            return rows
        finally:
            await connection.close()


class Fleet:
    """Devices that report in event time; one message in 50 is sent twice, and one in 100 contradicts an earlier one.

    Args:
        log: where to.
    """

    def __init__(self, log: Log) -> None:
        self._intake = Intake(log, clock, Metrics())
        self._numbers = itertools.count()
        self._start = clock.now_ms() - 86_400_000
        #: Messages that the log has acknowledged, and of these what must be stored, repeated, or kept aside.
        self.accepted = 0
        self.rows: Rows = {}
        self.repeats = self.conflicts = 0

    @asynccontextmanager
    async def reporting(self, per_second: float) -> AsyncIterator[None]:
        """Send so many messages a second for as long as the `async with` lasts."""
        stop = asyncio.Event()
        task = asyncio.create_task(self._run(max(1, round(per_second * BEAT)), stop))
        try:
            yield
        finally:
            stop.set()
            await task

    async def wait_accepted(self, count: int) -> None:
        """Wait until the log has acknowledged so many messages."""
        deadline = clock.monotonic() + PATIENCE
        while self.accepted < count:
            assert clock.monotonic() < deadline, f"{self.accepted} of {count} messages are accepted"
            await clock.sleep(BEAT)

    async def _run(self, size: int, stop: asyncio.Event) -> None:
        due = clock.monotonic()
        while not stop.is_set():
            await self.report(size)
            due += BEAT
            await clock.sleep(max(0.0, due - clock.monotonic()))

    async def report(self, count: int) -> None:
        """Send `count` new messages, and what goes with them."""
        devices, payloads = list[bytes](), list[bytes]()
        rows: Rows = {}
        repeats = conflicts = 0
        for number in itertools.islice(self._numbers, count):
            device, turn = f"d{number % DEVICES:02}", number // DEVICES
            time = self._start + turn * STEP_MS + number % DEVICES
            hot = number % DEVICES == 0 and turn // HOT_TURNS % 2
            values = (400.0 + turn % 300, 40.0 + number % 7, HOT if hot else 20.5)
            rows[device, time] = values
            sent = [values]
            if number % 50 == 7:
                sent.append(values)
                repeats += 1
            if number % 100 == 11:
                sent.append((1.0, *values[1:]))
                conflicts += 1
            for each in sent:
                devices.append(device.encode())
                payloads.append(orjson.dumps({"timestamp": time, **dict(zip(MEASURES, each, strict=True))}))
        await self._intake.append(devices, payloads, device_type="environmental", profile="chaos")
        self.accepted += len(payloads)
        self.rows |= rows
        self.repeats += repeats
        self.conflicts += conflicts


async def stored_rows(database: Database) -> Rows:
    """Every reading in the database."""
    names = ", ".join(MEASURES)
    rows = await database.fetch(f"SELECT device_id, time, {names} FROM readings_environmental")
    return {
        (row["device_id"], round(row["time"].timestamp() * 1000)): tuple(row[name] for name in MEASURES) for row in rows
    }


async def wait_stored(fleet: Fleet, database: Database, sink: Command) -> None:
    """Wait until as many rows are stored as must be by now."""
    deadline = clock.monotonic() + PATIENCE
    count, expected = 0, len(fleet.rows)
    while count < expected:
        assert clock.monotonic() < deadline, f"{count} of {expected} rows are stored\n{sink.said()}"
        await clock.sleep(0.25)
        try:
            count = (await database.fetch("SELECT count(*) FROM readings_environmental"))[0][0]
        except (OSError, asyncpg.PostgresError):
            count = 0  # no table yet


async def check(fleet: Fleet, database: Database, sink: Command) -> None:
    """Wait for the last rows; exactly what was accepted is stored, each once, and what follows from it agrees."""
    await wait_stored(fleet, database, sink)
    assert await stored_rows(database) == fleet.rows

    ledger = dict(await database.fetch("SELECT term, sum(count)::bigint FROM ledger GROUP BY term"))
    assert ledger == {"stored": len(fleet.rows)}, "ingest decides about repeats, the sink sees each reading once"
    newest = await database.fetch("SELECT device_id, max(time) AS time FROM readings_environmental GROUP BY device_id")
    states = await database.fetch("SELECT device_id, time, metrics FROM device_state")
    assert {tuple(row)[:2] for row in states} == {tuple(row) for row in newest}
    for row in states:
        metrics = orjson.loads(row["metrics"])
        key = row["device_id"], round(row["time"].timestamp() * 1000)
        assert tuple(metrics[name] for name in MEASURES) == fleet.rows[key]
    await wait_conflicts(fleet, database)


async def wait_conflicts(fleet: Fleet, database: Database) -> None:
    """Conflicts come by a topic of their own, and may come later."""
    deadline = clock.monotonic() + PATIENCE
    while (count := (await database.fetch("SELECT count(*) FROM conflicts"))[0][0]) < fleet.conflicts:
        assert clock.monotonic() < deadline, f"{count} of {fleet.conflicts} conflicts are stored"
        await clock.sleep(0.25)
    assert count == fleet.conflicts


async def contents(database: Database) -> Mapping[str, list[tuple[object, ...]]]:
    """Every row of every table, with the transaction that wrote it."""
    tables = await database.fetch(
        "SELECT table_name FROM information_schema.tables "
        "WHERE table_schema = 'public' AND table_type = 'BASE TABLE' AND table_name NOT IN ('sink_positions')"
    )
    found = {}
    for (name,) in map(tuple, tables):
        rows = await database.fetch(f'SELECT xmin::text, t.* FROM "{name}" AS t ORDER BY t::text')
        found[name] = [tuple(row) for row in rows]
    return found
