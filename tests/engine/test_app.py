"""Agents on the App: batches, staged effects, retries, dead letters, commits, restart."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from headrace.engine import dead_letters
from headrace.engine.app import App
from headrace.engine.batch import Batch
from headrace.engine.clock import SystemClock
from headrace.engine.embedded.database import MEMORY
from headrace.engine.embedded.log import EmbeddedLog
from headrace.engine.errors import BadRecord, LogError
from headrace.engine.log import Append, Log, TopicPartition, TopicSpec, Transaction
from headrace.engine.records import Record, Records
from headrace.engine.runtime.batches import Batches
from headrace.engine.runtime.settings import RuntimeSettings
from headrace.schemas import topics

IN, OUT = TopicPartition("in", 0), TopicPartition("out", 0)
DLQ = TopicPartition(topics.DEAD_LETTERS, 0)
#: Gives up waiting, seconds: many times what anything here takes.
PATIENCE = 120.0
FAST = RuntimeSettings(linger=0, linger_records=0, commit_interval=0.001, poll_timeout=0.1, drain_timeout=PATIENCE)


class NoWait(SystemClock):
    """Does not wait between tries."""

    async def sleep(self, delay: float) -> None:
        await asyncio.sleep(0)


@pytest.fixture
async def log() -> AsyncIterator[EmbeddedLog]:
    log = EmbeddedLog(MEMORY)
    specs = [TopicSpec("in", 1), TopicSpec("out", 1), TopicSpec(topics.DEAD_LETTERS, 1)]
    await log.create_topics(specs)
    yield log
    await log.close()


async def append(log: Log, *values: bytes) -> None:
    records = Records([b"k"] * len(values), list(values), [1] * len(values))
    await log.commit(Transaction([Append(IN, records)]))


async def everything(log: Log, target: TopicPartition) -> list[Record]:
    fetched = await log.reader().read(target, 0, 1_000_000)
    return list(fetched.records) if fetched else []


async def values(log: Log, target: TopicPartition) -> list[bytes | None]:
    return [record.value for record in await everything(log, target)]


async def run_until(app: App, done: Callable[[], Awaitable[bool]]) -> None:
    """Run the app until `done()`, then stop it."""
    stop = asyncio.Event()
    task = asyncio.create_task(app.run(stop))
    async with asyncio.timeout(PATIENCE):
        while not task.done() and not await done():
            await asyncio.sleep(0.005)
    stop.set()
    await task


def position_is(log: Log, group: str, offset: int) -> Callable[[], Awaitable[bool]]:
    async def done() -> bool:
        return (await log.positions(group, "in"))[IN] >= offset

    return done


async def test_agent_gets_batches_and_its_sends_are_committed_with_the_position(log: EmbeddedLog) -> None:
    """A batch holds what was appended; its outputs and the position after it are in the log."""
    app = App("g", log, runtime=FAST)
    sizes: list[int] = []

    @app.agent(app.batches("in"))
    async def copy(batches: Batches) -> None:
        async for batch in batches:
            sizes.append(len(batch))
            for record in batch:
                batch.send("out", b"k", record.value or b"")

    await append(log, b"1", b"2", b"3")
    await run_until(app, position_is(log, "g", 3))

    assert sizes == [3]
    assert await values(log, OUT) == [b"1", b"2", b"3"]


async def test_agent_that_raises_leaves_no_trace_of_its_half_batch(log: EmbeddedLog) -> None:
    """What was sent before the exception is dropped; the batch comes again, whole, to a fresh function."""
    app = App("g", log, runtime=FAST, clock=NoWait())
    starts: list[int] = []

    @app.agent(app.batches("in"))
    async def flaky(batches: Batches) -> None:
        starts.append(0)
        async for batch in batches:
            for record in batch:
                batch.send("out", b"k", record.value or b"")
                if len(starts) < 3 and record.value == b"2":
                    raise RuntimeError("not yet")

    await append(log, b"1", b"2", b"3")
    await run_until(app, position_is(log, "g", 3))

    assert len(starts) == 3
    assert await values(log, OUT) == [b"1", b"2", b"3"]
    assert await values(log, DLQ) == []


async def test_only_the_raising_record_is_dead_lettered(log: EmbeddedLog) -> None:
    """After its retries the batch is halved until the culprit stands alone; its neighbours go through, in order."""
    app = App("g", log, runtime=FAST, clock=NoWait())
    offered: list[int] = []

    @app.agent(app.batches("in"), name="picky")
    async def picky(batches: Batches) -> None:
        async for batch in batches:
            offered.append(len(batch))
            for record in batch:
                if record.value == b"13":
                    raise ValueError("thirteen")
                batch.send("out", b"k", record.value or b"")

    await append(log, *[b"%d" % n for n in range(32)])
    await run_until(app, position_is(log, "g", 32))

    assert offered[:4] == [32, 32, 32, 16]
    assert await values(log, OUT) == [b"%d" % n for n in range(32) if n != 13]
    (letter,) = await everything(log, DLQ)
    assert letter.value == b"13"
    assert letter.headers[dead_letters.REASON] == b"ValueError: thirteen"
    assert letter.headers[dead_letters.AGENT] == b"picky"
    assert letter.headers[dead_letters.ORIGIN_TOPIC] == b"in"
    assert letter.headers[dead_letters.ORIGIN_OFFSET] == b"13"


async def test_bad_record_is_dead_lettered_without_retries(log: EmbeddedLog) -> None:
    """BadRecord names the record; only what is left is offered again."""
    app = App("g", log, runtime=FAST)
    offered: list[int] = []

    @app.agent(app.batches("in"))
    async def strict(batches: Batches) -> None:
        async for batch in batches:
            offered.append(len(batch))
            for index, record in enumerate(batch):
                if record.value == b"bad":
                    raise BadRecord(index, "it is bad")
                batch.send("out", b"k", record.value or b"")

    await append(log, b"1", b"bad", b"3")
    await run_until(app, position_is(log, "g", 3))

    assert offered == [3, 1, 1]
    assert await values(log, OUT) == [b"1", b"3"]
    assert await values(log, DLQ) == [b"bad"]


async def test_agents_of_a_topic_share_one_fetch_and_fail_alone(log: EmbeddedLog) -> None:
    """One agent's exception drops its own effects only; the other's are there once."""
    app = App("g", log, runtime=FAST, clock=NoWait())
    shared: list[Any] = []
    tries: list[int] = []

    @app.agent(app.batches("in"))
    async def steady(batches: Batches) -> None:
        async for batch in batches:
            shared.append(batch.records)
            batch.send("out", b"k", b"steady")

    @app.agent(app.batches("in"))
    async def broken(batches: Batches) -> None:
        async for batch in batches:
            shared.append(batch.records)
            batch.send("out", b"k", b"broken")
            tries.append(1)
            if len(tries) < 3:
                raise RuntimeError("boom")

    await append(log, b"1")
    await run_until(app, position_is(log, "g", 1))

    assert sorted(await values(log, OUT), key=str) == [b"broken", b"steady"]
    assert all(records is shared[0] for records in shared)


async def test_broken_agent_stops_its_partition_visibly(log: EmbeddedLog) -> None:
    """An agent that fails on everything stops the partition after a limit; the position stays where it was."""
    app = App("g", log, runtime=FAST, clock=NoWait())

    @app.agent(app.batches("in"))
    async def broken(batches: Batches) -> None:
        async for _ in batches:
            raise RuntimeError("always")

    await append(log, *[b"%d" % n for n in range(300)])

    async def stopped() -> bool:
        return bool(app.stopped_partitions)

    await run_until(app, stopped)

    assert "100 records in a row" in app.stopped_partitions[IN]
    assert (await log.positions("g", "in"))[IN] == 0
    assert await values(log, DLQ) == []


async def test_faust_topic_send_inside_an_agent_is_staged(log: EmbeddedLog) -> None:
    """`topic.send`, Faust's own way, is committed with the batch and dropped with it."""
    app = App("g", log, runtime=FAST, clock=NoWait())
    out = app.topic("out", value_serializer="raw")
    tries: list[int] = []

    @app.agent(app.batches("in"))
    async def sender(batches: Batches) -> None:
        async for _ in batches:
            await out.send(value=b"sent")
            tries.append(1)
            if len(tries) < 2:
                raise RuntimeError("once")

    await append(log, b"1")
    await run_until(app, position_is(log, "g", 1))

    assert await values(log, OUT) == [b"sent"]


async def test_stop_leaves_unfinished_work_in_the_log(log: EmbeddedLog) -> None:
    """A batch that is not finished when the app stops is neither committed nor lost."""
    app = App("g", log, runtime=FAST.model_copy(update={"drain_timeout": 0.05}))
    entered = asyncio.Event()

    @app.agent(app.batches("in"))
    async def stuck(batches: Batches) -> None:
        async for batch in batches:
            batch.send("out", b"k", b"half")
            entered.set()
            await asyncio.Event().wait()

    await append(log, b"1")

    async def is_in() -> bool:
        return entered.is_set()

    await run_until(app, is_in)

    assert (await log.positions("g", "in"))[IN] == 0
    assert await values(log, OUT) == []


class SilentLog(EmbeddedLog):
    """Does not say any more where a group stands."""

    def __init__(self) -> None:
        super().__init__(MEMORY)
        self.asked = asyncio.Event()

    async def positions(self, group: str, topic: str) -> dict[TopicPartition, int]:
        self.asked.set()
        await asyncio.Event().wait()
        raise AssertionError


async def test_stop_ends_a_start_that_waits_for_the_log() -> None:
    """The log went away before the app had begun to work."""
    log = SilentLog()
    await log.create_topics([TopicSpec("in", 1)])
    app = App("g", log, runtime=FAST)

    @app.agent(app.batches("in"))
    async def agent(batches: Batches) -> None:
        async for _ in batches:
            pass

    stop = asyncio.Event()
    async with asyncio.timeout(PATIENCE):
        running = asyncio.create_task(app.run(stop))
        await log.asked.wait()
        stop.set()
        await running
    await log.close()


async def test_stop_commits_what_is_finished(log: EmbeddedLog) -> None:
    """Stopping waits for running batches and commits them, even long before the next commit is due."""
    app = App("g", log, runtime=FAST.model_copy(update={"commit_interval": 60.0}))
    finished = asyncio.Event()

    @app.agent(app.batches("in"))
    async def copy(batches: Batches) -> None:
        async for batch in batches:
            batch.send("out", b"k", b"x")
            finished.set()

    await append(log, b"1")

    async def is_done() -> bool:
        return finished.is_set()

    await run_until(app, is_done)

    assert await values(log, OUT) == [b"x"]
    assert (await log.positions("g", "in"))[IN] == 1


class Counter:
    """Counts values; a table with one entry per value."""

    name = "count"

    def __init__(self) -> None:
        self.counts: dict[bytes, int] = {}
        self.dirty: set[bytes] = set()

    def restore(self, partition: int, entries: Sequence[tuple[bytes, bytes]]) -> None:
        self.counts.update({key: int(value) for key, value in entries})

    def restored(self, partition: int) -> None:
        """Nothing to do."""

    def changes(self, partition: int) -> dict[bytes, bytes | None]:
        changed: dict[bytes, bytes | None] = {key: b"%d" % self.counts[key] for key in self.dirty}
        self.dirty.clear()
        return changed

    def forget(self, partition: int) -> None:
        self.counts.clear()


class Count:
    """Counts values into a table and sends the count so far."""

    name = "counter"
    topic = "in"

    def __init__(self) -> None:
        self.table = Counter()
        self.tables = [self.table]

    def process(self, batch: Batch) -> None:
        counts = dict(self.table.counts)
        for record in batch:
            value = record.value or b""
            counts[value] = counts.get(value, 0) + 1
            batch.send("out", b"k", value + b"=%d" % counts[value])

        def apply() -> None:
            self.table.dirty |= {value or b"" for value in batch.records.values}
            self.table.counts = counts

        batch.on_finish(apply)


async def test_tables_outputs_and_position_survive_a_restart_together(tmp_path: Path) -> None:
    """A new app on the same folder goes on exactly where the last one committed."""
    for run in range(3):
        log = EmbeddedLog(tmp_path)
        app = App("g", log, runtime=FAST)
        app.add([Count()])
        await app.create_topics([TopicSpec("in", 1), TopicSpec("out", 1)], partitions=1)
        await append(log, b"a", b"b", b"a")
        await run_until(app, position_is(log, "g", 3 * (run + 1)))
        sent = await values(log, OUT)
        await log.close()

    assert sent == [b"a=1", b"b=1", b"a=2", b"a=3", b"b=2", b"a=4", b"a=5", b"b=3", b"a=6"]


async def test_log_failure_stops_the_app_with_its_error(log: EmbeddedLog) -> None:
    """When a commit cannot be made durable the app ends with that error, not quietly."""
    app = App("g", log, runtime=FAST)

    @app.agent(app.batches("in"))
    async def to_nowhere(batches: Batches) -> None:
        async for batch in batches:
            batch.send_records("out", Records([b"k"], [b"v"], [1]), partition=99)

    await append(log, b"1")

    async def never() -> bool:
        return False

    with pytest.raises(LogError, match="no partition 99"):
        await run_until(app, never)
