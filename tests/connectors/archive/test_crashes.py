"""The archive job, killed and disturbed: no row is lost, none is there twice."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from headrace.connectors.archive.object_store import ArchiveStore
from headrace.engine.errors import RetryLater
from tests.connectors.archive.world import T0, World, air, at, message_id

#: Runs the job in processes of their own; each kills itself with -9 at the step whose number is read.
SCRIPT = """
import asyncio, json, os, signal, sys
from pathlib import Path
from headrace.connectors.archive.job import ArchiveJob
from headrace.connectors.archive.object_store import open_store
from headrace.connectors.archive.settings import ArchiveSettings, RetentionSettings
from headrace.engine.clock import ManualClock

connect, folder, now = json.loads(sys.argv[1])

def run(last):
    steps = 0
    def step(name):
        nonlocal steps
        steps += 1
        if steps == last:
            os.kill(os.getpid(), signal.SIGKILL)
    store = open_store(ArchiveSettings(), Path(folder))
    job = ArchiveJob(connect, store, RetentionSettings(), ManualClock(now), ["air"], part_rows=5, step=step)
    asyncio.run(job.run())

for line in sys.stdin:
    child = os.fork()  # of a process that has imported everything, and has no threads yet
    if not child:
        run(int(line))
        os._exit(0)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


class Killer:
    """Runs the job, and kills it."""

    def __init__(self, world: World) -> None:
        arguments = json.dumps([world.connect, str(world.folder), world.clock.now_ms()])
        command = [sys.executable, "-c", SCRIPT, arguments]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def run(self, last: int) -> bool:
        """Whether a run was killed at its step number `last`; else it came to its end."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(last, file=self._process.stdin, flush=True)
        code = int(self._process.stdout.readline())
        assert code in (0, -signal.SIGKILL)
        return code != 0

    def close(self) -> None:
        self._process.communicate()


@pytest.fixture
def killer(world: World) -> Iterator[Killer]:
    made = Killer(world)
    yield made
    made.close()


@pytest.mark.timeout(300)
async def test_killed_at_every_step(world: World, killer: Killer) -> None:
    """Killed with -9 at each step in turn, run after run, the job leaves every row in exactly one place."""
    rows = air(2, 1, 3)
    await world.insert(rows)

    kills = 0
    for last in range(1, 200):
        if not killer.run(last):
            break
        kills += 1
        stored, archived = await world.stored(), await world.archived("d0", "d1")
        assert sorted(stored + archived, key=str) == sorted(rows, key=str)
        await world.insert(archived)  # all over again, as if nothing had been archived
        await world.connection.execute("UPDATE archive_parts SET state = 'verified'")

    assert kills > 14
    assert await world.stored() == []
    assert await world.archived() == rows
    assert len(await world.objects()) == len(await world.parts()) == 2


async def test_goes_on_after_a_kill(world: World, killer: Killer) -> None:
    """A run after a killed one deletes what was half done and makes it anew; no object is there that nobody knows."""
    rows = air(2, 2, 4)
    await world.insert(rows)
    for last in (3, 9, 4, 14, 2):
        killer.run(last)

    report = await world.job().run()

    assert report.failures == []
    assert await world.stored() == []
    assert await world.archived() == rows
    known = await world.connection.fetch("SELECT object FROM archive_parts WHERE state = 'deleted' ORDER BY object")
    assert [row["object"] for row in known] == sorted(await world.objects())


class Disturbance:
    """Changes rows in a process of its own, when the job is at a step for the first time."""

    def __init__(self, world: World, at_step: str, sql: str) -> None:
        self._arguments = [json.dumps(world.connect), sql]
        self._step = at_step
        self.done = False

    def __call__(self, name: str) -> None:
        if name != self._step or self.done:
            return
        self.done = True
        script = (
            "import asyncio, asyncpg, json, sys\n"
            "async def main():\n"
            "    connection = await asyncpg.connect(**json.loads(sys.argv[1]))\n"
            "    await connection.execute(sys.argv[2])\n"
            "asyncio.run(main())"
        )
        subprocess.run([sys.executable, "-c", script, *self._arguments], check=True)


@pytest.mark.parametrize("step", ["begun", "put", "written", "read back", "verified", "deleting"])
async def test_no_row_is_lost_between_read_and_delete(world: World, step: str) -> None:
    """Rows that arrive, or are completed, while their day is written are in the archive too, with all they say."""
    rows = [("a", T0, 1.0, None, None), ("c", T0, 2.0, None, None)]
    await world.insert(rows)
    disturbance = Disturbance(
        world,
        step,
        f"""
        INSERT INTO readings_air (device_id, time, message_id, appended_at, co2)
        VALUES ('b', '{at(T0)}', '{message_id("b", T0)}', '{at(T0)}', 5.0);
        UPDATE readings_air SET temperature = 6.0 WHERE device_id = 'a';
        """,
    )

    report = await world.job(step=disturbance).run()

    assert disturbance.done
    assert report.failures == []
    assert await world.stored() == []
    assert await world.archived() == [
        ("a", T0, 1.0, 6.0, None),
        ("b", T0, 5.0, None, None),
        ("c", T0, 2.0, None, None),
    ]


async def test_waits_for_a_writer(world: World) -> None:
    """A transaction that has completed a row when the job comes to delete it is waited for, and its values are kept."""
    await world.insert([("a", T0, 1.0, None, None)])
    writer = world.connection.transaction()
    loop = asyncio.get_running_loop()
    started = asyncio.Event()

    def step(name: str) -> None:
        if name == "deleting":
            loop.call_soon_threadsafe(started.set)

    await writer.start()
    await world.connection.execute("UPDATE readings_air SET temperature = 6.0")
    running = asyncio.create_task(world.job(step=step).run())
    await started.wait()
    await writer.commit()
    report = await running

    assert report.failures == []
    assert await world.stored() == []
    assert await world.archived() == [("a", T0, 1.0, 6.0, None)]


class FaultyStore(ArchiveStore):
    """The folder of a world, with faults on the way.

    Args:
        corrupts: flip a bit of what is stored.
        refuses: number of requests after which none works any more.
        loses: say that it was stored, and store nothing.
    """

    def __init__(
        self, world: World, *, corrupts: bool = False, refuses: int | None = None, loses: bool = False
    ) -> None:
        assert isinstance(world.store, ArchiveStore)
        self.__dict__ |= world.store.__dict__
        self._corrupts, self._refuses, self._loses = corrupts, refuses, loses

    def repair(self) -> None:
        """From now on everything works."""
        self._corrupts, self._refuses, self._loses = False, None, False

    def _request(self) -> None:
        if self._refuses is not None:
            self._refuses -= 1
            if self._refuses < 0:
                raise RetryLater("archive: the disk is full")

    async def put(self, name: str, data: bytes) -> None:
        self._request()
        if self._corrupts:
            data = data[:100] + bytes([data[100] ^ 1]) + data[101:]
        if not self._loses:
            await super().put(name, data)

    async def get(self, name: str) -> bytes:
        self._request()
        return await super().get(name)

    async def delete(self, name: str) -> None:
        self._request()
        await super().delete(name)


@pytest.mark.parametrize("faults", [{"corrupts": True}, {"loses": True}, {"refuses": 0}, {"refuses": 1}], ids=str)
async def test_store_out_of_order(world: World, faults: dict[str, Any]) -> None:
    """While the store corrupts, loses or refuses objects nothing is deleted, and it is said; the next run goes on."""
    rows = air(2, 2, 2)
    await world.insert(rows)

    report = await world.job(FaultyStore(world, **faults)).run()

    assert report.failures
    assert report.rows == 0
    assert await world.stored() == rows
    assert await world.archived("d0", "d1") == []
    again = await world.job().run()
    assert (again.failures, again.rows) == ([], len(rows))
    assert await world.archived() == rows
    assert len(await world.objects()) == 2


async def test_disk_that_nobody_may_write(world: World) -> None:
    """A folder that cannot be written is a failure that says so, and nothing is deleted."""
    if os.geteuid() == 0:
        (world.folder / "archive" / "readings").touch()  # where a folder should be; to root nothing is forbidden
    else:
        (world.folder / "archive").chmod(0o500)
    await world.insert(air())

    report = await world.job().run()

    assert "archive" in report.failures[0]
    assert await world.stored() == air()
