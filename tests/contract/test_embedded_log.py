"""The embedded log keeps the contract, in a file and in memory, and what only a file can show."""

import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from headrace.engine.embedded.database import MEMORY
from headrace.engine.embedded.lock import WorkerLock
from headrace.engine.embedded.log import EmbeddedLog
from headrace.engine.embedded.ordered_changes import COMPACT_EVERY
from headrace.engine.errors import LogError, LogInUse
from headrace.engine.log import Append, Changes, TopicPartition, TopicSpec, Transaction
from headrace.engine.log_range import reading
from tests.contract.log_access import PATIENCE, append, read_all, read_records, records, restore_all
from tests.contract.log_contract import LogContract

EVENTS = "events"
P0 = TopicPartition(EVENTS, 0)


class TestFile(LogContract):
    """In a folder."""

    @pytest.fixture
    async def log(self, tmp_path: Path) -> AsyncIterator[EmbeddedLog]:
        log = EmbeddedLog(tmp_path / "data")
        yield log
        await log.close()


class TestMemory(LogContract):
    """The in-memory twin."""

    @pytest.fixture
    async def log(self) -> AsyncIterator[EmbeddedLog]:
        log = EmbeddedLog(MEMORY)
        yield log
        await log.close()


async def test_another_opener_reads_and_appends(tmp_path: Path) -> None:
    """A second opener of the folder sees the records, appends, and the first notices while it waits."""
    first, second = EmbeddedLog(tmp_path), EmbeddedLog(tmp_path)
    await first.create_topics([TopicSpec(EVENTS, 2)])
    await second.create_topics([])
    await append(first, P0, b"a")

    assert await second.end_offsets(EVENTS)
    assert await read_all(second, P0) == [b"a"]
    await append(second, P0, b"b")

    assert await first.wait({P0: 1}, PATIENCE)
    assert await read_all(first, P0) == [b"a", b"b"]
    await first.close()
    await second.close()


async def test_reading_what_is_no_longer_in_memory(tmp_path: Path) -> None:
    """Records beyond the tail kept in memory come from the file, the same."""
    log = EmbeddedLog(tmp_path)
    await log.create_topics([TopicSpec(EVENTS, 2)])
    for start in range(0, 30_000, 1000):
        await append(log, P0, *[b"%d" % n for n in range(start, start + 1000)])

    values = await read_all(log, P0, max_records=700)

    assert values == [b"%d" % n for n in range(30_000)]
    await log.close()


async def test_retention_drops_old_records_but_none_that_is_unread(tmp_path: Path) -> None:
    """Records older than the retention go, except what a group has not passed yet."""
    log = EmbeddedLog(tmp_path, retention=10)
    await log.create_topics([TopicSpec(EVENTS, 1)])
    for second in range(0, 100, 10):
        stamped = records(b"%d" % second)
        stamped.timestamps = [second * 1000]
        await log.commit(Transaction([Append(P0, stamped)]))
    await log.commit(Transaction(group="slow", positions={P0: 3}))

    await log.apply_retention()

    log_again = EmbeddedLog(tmp_path, retention=10)
    await log_again.create_topics([])
    assert await read_all(log_again, P0) == [b"%d" % second for second in range(30, 100, 10)]
    await log_again.commit(Transaction(group="slow", positions={P0: 10}))
    assert await log_again.apply_retention() == 5
    await log.close()
    await log_again.close()


def test_second_worker_is_refused(tmp_path: Path) -> None:
    """The lock names the process that has it, and is free again afterwards."""
    first, second = WorkerLock(tmp_path), WorkerLock(tmp_path)
    first.acquire()

    with pytest.raises(LogInUse, match=str(os.getpid())):
        second.acquire()

    first.release()
    second.acquire()
    second.release()


APPENDER = """
import asyncio, sys
from pathlib import Path
from headrace.engine.embedded.log import EmbeddedLog
from headrace.engine.log import Append, Changes, TopicPartition, TopicSpec, Transaction
from headrace.engine.log_range import reading
from headrace.engine.records import Records

async def main():
    log = EmbeddedLog(Path(sys.argv[1]))
    names = "events", "state"
    await log.create_topics([TopicSpec(name, 1, name == "state", 3600.0) for name in names])
    for n in range(1_000_000):
        records = Records([b"k"], [b"%d" % n], [1])
        await log.commit(Transaction([Append(TopicPartition(name, 0), records) for name in names]))
        print(n, flush=True)

asyncio.run(main())
"""


async def test_acknowledged_records_survive_kill(tmp_path: Path) -> None:
    """After kill -9 every record whose commit returned is there, in order, once; in a compacted topic as well."""
    command = [sys.executable, "-c", APPENDER, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        acknowledged = [int(process.stdout.readline()) for _ in range(200)]
        process.send_signal(signal.SIGKILL)
        acknowledged += [int(line) for line in process.stdout.read().split()]

    log = EmbeddedLog(tmp_path)
    await log.create_topics([])
    values = [int(value or b"") for value in await read_all(log, P0)]

    assert values == list(range(len(values)))
    assert len(values) >= len(acknowledged)
    state = TopicPartition("state", 0)
    assert await read_all(log, state) == [b"%d" % value for value in values]
    assert await restore_all(log, state) == {b"k": b"%d" % values[-1]}
    await log.close()


FAILING = """
import asyncio, resource, signal, sys
from pathlib import Path
from headrace.engine.embedded.log import EmbeddedLog
from headrace.engine.errors import LogError
from headrace.engine.log import Append, Changes, TopicPartition, TopicSpec, Transaction
from headrace.engine.log_range import reading
from headrace.engine.records import Records

async def main():
    log = EmbeddedLog(Path(sys.argv[1]))
    await log.create_topics([TopicSpec("events", 1)])
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, resource.RLIM_INFINITY))  # the disk is "full" at 1 MiB
    acknowledged = 0
    failures = 0
    for n in range(200):
        try:
            await log.commit(Transaction([Append(TopicPartition("events", 0), Records([b"k"], [b"x" * 20_000], [1]))]))
        except LogError:
            failures += 1
            resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        else:
            assert not failures, "acknowledged after a failure"
            acknowledged += 1
    print(acknowledged, failures)

asyncio.run(main())
"""


async def test_failed_sync_acknowledges_nothing(tmp_path: Path) -> None:
    """When the disk refuses a write, that commit and all later ones fail; what was acknowledged before is there."""
    done = subprocess.run([sys.executable, "-c", FAILING, str(tmp_path)], capture_output=True, text=True, check=True)
    acknowledged, failures = map(int, done.stdout.split())

    log = EmbeddedLog(tmp_path)
    await log.create_topics([])

    assert acknowledged > 0
    assert failures > 0
    assert len(await read_all(log, P0)) == acknowledged
    await log.close()


def test_a_file_that_is_not_ours_is_refused(tmp_path: Path) -> None:
    """A damaged or foreign file gives a clear error."""
    (tmp_path / "log.sqlite").write_bytes(b"this is not a database" * 1000)

    with pytest.raises(LogError, match="cannot open the log"):
        EmbeddedLog(tmp_path)


async def test_large_records_do_not_fill_memory(tmp_path: Path) -> None:
    """Reads are bounded in bytes too: many large records come in several fetches, all of them."""
    log = EmbeddedLog(tmp_path)
    await log.create_topics([TopicSpec(EVENTS, 2)])
    for number in range(60):
        await append(log, P0, b"%d" % number + b"x" * (1 << 20))

    fetched = await log.read(P0, 0, 1000)

    assert fetched is not None
    assert len(fetched.records) < 20
    assert len(await read_all(log, P0)) == 60
    await log.close()


async def test_changes_replaced_long_ago_are_dropped(tmp_path: Path) -> None:
    """Of a compacted topic that is read in order stay the newest values, and what was replaced within its retention."""
    log = EmbeddedLog(tmp_path)
    await log.create_topics([TopicSpec("rules", 1, compacted=True, retention=1.0)])
    target = TopicPartition("rules", 0)
    many: dict[bytes, bytes | None] = {b"k%d" % number: b"old" for number in range(COMPACT_EVERY)}
    for time_ms, entries in (0, many), (1_000, {b"k0": b"new"}), (5_000, {b"k1": b"new"}), (5_500, {b"k2": None}):
        await log.commit(Transaction(changes=[Changes(target, entries, time_ms)]))

    await log.apply_retention()

    async with reading(log) as reader:
        found = await reader.read(target, 0, 10_000)
    assert found is not None
    assert len(found.records) == COMPACT_EVERY + 2
    assert [found.offset(0), found.records.keys[0], found.next_offset] == [1, b"k1", COMPACT_EVERY + 3]
    await log.close()


async def test_a_compacted_topic_can_be_read_in_order_from_some_day_on(tmp_path: Path) -> None:
    """Made with a retention when it is there already: what it holds was there from the beginning."""
    log, target = EmbeddedLog(tmp_path), TopicPartition("rules", 0)
    await log.create_topics([TopicSpec("rules", 1, compacted=True)])
    await log.commit(Transaction(changes=[Changes(target, {b"a": b"1", b"b": b"1"}, 10)]))

    for _ in range(2):
        await log.create_topics([TopicSpec("rules", 1, compacted=True, retention=1.0)])
    await log.commit(Transaction(changes=[Changes(target, {b"a": b"2"}, 20)]))

    found = await read_records(log, target)
    assert [found.keys, found.values, found.timestamps] == [[b"a", b"b", b"a"], [b"1", b"1", b"2"], [0, 0, 20]]
    await log.close()
