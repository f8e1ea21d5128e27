"""Tables of a worker, in memory and on disk, on both transports: killed, restarted, moved, and restored."""

import os
import shutil
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from headrace.engine.errors import ConfigError
from headrace.engine.log import Append, Known, Log, Piece, TopicPartition, TopicSpec, Transaction
from headrace.engine.records import Records
from headrace.tables.rocks import RocksStores
from headrace.tables.schema import plain_schema
from tests.tables.stored_worker import DoorKey, Doors, door, door_key, opened, run

#: Keys of a table, and records that are appended, and so read, in one piece.
KEYS, APPENDED = 12_000, 500
#: At which workers kill themselves, one after the other; "restore" means with an empty folder.
MOMENTS = ["commit 2", "restore 2", "commit 1"]
CODEC = plain_schema(str.encode, bytes.decode, ()).codec(timed=False)


class Place:
    """A log with an input topic that is also the group's name, and a folder for stores."""

    def __init__(self, url: str, folder: Path) -> None:
        self.url = url
        self.topic = f"doors-{os.urandom(4).hex()}"
        self.folder = folder
        self.changelog = TopicPartition(f"{self.topic}-doors-changelog", 0)
        self.expected: Counter[DoorKey] = Counter()

    async def append(self, log: Log, *keys: int, delete: bool = False) -> None:
        """Append a record about each key."""
        names = [b"%d" % key for key in keys]
        value = b"" if delete else b"x"
        parts = [names[start : start + APPENDED] for start in range(0, len(names), APPENDED)]
        target = TopicPartition(self.topic, 0)
        appends = [Append(target, Records([*part], [value] * len(part), [1] * len(part))) for part in parts]
        await log.commit(Transaction(appends))
        for name in names:
            self.expected[door_key(name)] += 1
            if delete:
                del self.expected[door_key(name)]

    def stores(self) -> RocksStores:
        """The stores of a worker."""
        return RocksStores(self.folder)

    def worker(self, moment: str) -> "subprocess.CompletedProcess[str]":
        """Run a worker that dies at a moment."""
        script = Path(__file__).parent / "stored_worker.py"
        command = [sys.executable, str(script), self.url, self.topic, str(self.folder), moment]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    def check(self, doors: Doors) -> None:
        """The table is what the input makes of it, in the order of keys."""
        expected = [(key, door(key, count)) for key, count in sorted(self.expected.items())]
        assert list(doors.table.range(0)) == expected


@pytest.fixture(params=["embedded", pytest.param("kafka", marks=pytest.mark.integration)])
async def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """On each transport."""
    if request.param == "embedded":
        url = str(tmp_path / "log")
    else:
        url = f"kafka://{request.getfixturevalue('kafka').bootstrap}"
    place = Place(url, tmp_path / "stores")
    async with opened(url) as log:
        await log.create_topics([TopicSpec(place.topic, 1), TopicSpec("telemetry.dlq", 1)])
    return place


class Watched:
    """Counts what a log brings for a table."""

    def __init__(self, log: Any) -> None:
        self.entries = 0
        self.anew = 0
        self._catch_up = log.catch_up
        log.catch_up = self.catch_up

    async def catch_up(self, target: TopicPartition, known: Known | None = None) -> AsyncIterator[Piece]:
        async for piece in self._catch_up(target, known):
            self.entries += len(piece.entries)
            self.anew += piece.anew
            yield piece


@asynccontextmanager
async def watched(place: Place) -> AsyncIterator[tuple[Log, Watched]]:
    async with opened(place.url) as log:
        yield log, Watched(log)


@pytest.mark.parametrize("first", ["memory", "rocksdb"])
async def test_table_goes_on_after_a_restart(place: Place, first: str) -> None:
    """Whatever the store and the transport; what one kind of store wrote the other goes on with."""
    on_disk = first == "rocksdb"
    async with opened(place.url) as log:
        for part in (1, 2, 3, 4):
            await place.append(log, *range(part * 10, 100))
            await place.append(log, *range(part * 20, part * 20 + 5), delete=True)
            await run(log, place.topic, place.stores() if on_disk else None, place.check)
            on_disk = not on_disk if part % 2 else on_disk


async def test_restart_reads_only_the_tail(place: Place) -> None:
    """A table on disk is not read again: only how its last commit ended, and what others wrote since."""
    async with opened(place.url) as log:
        await place.append(log, *range(KEYS))
        await run(log, place.topic, place.stores(), place.check)
    async with watched(place) as (log, watch):
        await run(log, place.topic, place.stores(), place.check)

    assert watch.anew == 0
    assert 0 < watch.entries < 10


@pytest.mark.parametrize("what", ["another", "gone"])
async def test_changelog_that_is_not_the_stores(place: Place, what: str) -> None:
    """A store that was on another changelog, or is ahead of this one, is made anew from it."""
    async with opened(place.url) as log:
        await place.append(log, *range(100))
        await run(log, place.topic, place.stores())
    other = Place(place.url, place.folder)
    async with opened(place.url) as log:
        await log.create_topics([TopicSpec(other.topic, 1)])
        if what == "another":
            await other.append(log, *range(50))
            await run(log, other.topic, None, other.check)
            await other.append(log, *range(3))
        await run(log, other.topic, other.stores(), other.check)


async def test_killed_at_any_moment(place: Place) -> None:
    """Between a commit and its write to the store, and half-way through a restore: the table is its changelog."""
    async with opened(place.url) as log:
        await place.append(log, *range(KEYS))
        await run(log, place.topic, place.stores())
    for number, moment in enumerate(MOMENTS):
        if moment.startswith("restore"):
            shutil.rmtree(place.folder)
        async with opened(place.url) as log:
            await place.append(log, *range(number, KEYS, 5))
            await place.append(log, *range(number, KEYS, 7), delete=True)
        killed = place.worker(moment)
        assert killed.returncode == -signal.SIGKILL, killed.stderr

    async with opened(place.url) as log:
        await run(log, place.topic, place.stores(), place.check)
        await run(log, place.topic, None, place.check)


async def test_folder_is_one_workers(place: Place) -> None:
    """A second one ends with an error that says who has it."""

    async def second(url: str) -> None:
        async with opened(url) as log:
            await run(log, place.topic, place.stores())

    holder = place.stores().store("doors", 1, CODEC)
    holder.known()
    with pytest.raises(ConfigError, match=rf"another worker \(process {os.getpid()}\) has the table folder"):
        await second(place.url)
    holder.close()
    await second(place.url)
