"""The sink runner, on the embedded log in memory and the memory sink."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Mapping

import pytest

from headrace.engine.clock import SystemClock
from headrace.engine.dead_letters import ORIGIN_OFFSET
from headrace.engine.embedded.database import MEMORY
from headrace.engine.embedded.log import EmbeddedLog
from headrace.engine.errors import CommitRefused, ConfigError
from headrace.engine.log import Append, Fetched, TopicPartition, TopicSpec, Transaction
from headrace.engine.memory_sink import MemorySink
from headrace.engine.records import Record, Records
from headrace.engine.sink import halves, record_count
from headrace.engine.sink_batches import SinkBatches
from headrace.engine.sink_runner import SinkRunner
from headrace.schemas import topics

TOPIC = "things"
TARGETS = [TopicPartition(TOPIC, partition) for partition in range(3)]


@pytest.fixture
async def log() -> AsyncIterator[EmbeddedLog]:
    """A log with one topic of three partitions."""
    log = EmbeddedLog(MEMORY)
    await log.create_topics([TopicSpec(TOPIC, 3), TopicSpec(topics.DEAD_LETTERS, 2), *SinkRunner.topic_specs()])
    yield log
    await log.close()


async def append(log: EmbeddedLog, target: TopicPartition, values: list[bytes]) -> None:
    """Append values with an empty key."""
    await log.commit(Transaction(appends=[Append(target, records(values))]))


def records(values: list[bytes]) -> Records:
    """Records with these values."""
    return Records([b"k"] * len(values), list(values), [1] * len(values))


def values_of(sink: MemorySink, target: TopicPartition) -> list[bytes | None]:
    """Values that the sink has of one partition, in order."""
    return [record.value for record in sink.stored.get(target, [])]


class Untimed(SystemClock):
    """On it no write is slow: one that is makes the next ones smaller."""

    def monotonic(self) -> float:
        return 0.0


def runner_of(log: EmbeddedLog, sink: MemorySink, max_records: int = 100) -> SinkRunner:
    """A runner that is quick to try again."""
    return SinkRunner(
        log, sink, Untimed(), max_records=max_records, linger=0.001, first_backoff=0.001, max_backoff=0.005
    )


async def until(condition: Callable[[], bool]) -> None:
    """Wait for a condition, looking every millisecond."""
    async with asyncio.timeout(120):
        while not condition():
            await SystemClock().sleep(0.001)


async def run_until(runner: SinkRunner, condition: Callable[[], bool]) -> None:
    """Run until `condition` holds, then stop."""
    stop = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        group.create_task(runner.run(stop))
        await until(condition)
        stop.set()


async def test_everything_arrives_in_order(log: EmbeddedLog) -> None:
    """Every partition's records reach the sink once and in order, and the group's position follows."""
    for target in TARGETS:
        await append(log, target, [f"{target.partition}-{i}".encode() for i in range(250)])
    sink = MemorySink("sink", [TOPIC])
    runner = runner_of(log, sink)

    await run_until(runner, lambda: runner.statistics().written == 750)

    for target in TARGETS:
        assert values_of(sink, target) == [f"{target.partition}-{i}".encode() for i in range(250)]
    assert await log.positions("sink", TOPIC) == dict.fromkeys(TARGETS, 250)
    assert runner.statistics().state == "running"


async def test_partitions_share_a_write(log: EmbeddedLog) -> None:
    """A long backlog in one partition leaves room for the others in the first write."""
    for _ in range(100):
        await append(log, TARGETS[0], [b"x"] * 10)
    await append(log, TARGETS[1], [b"y"] * 5)
    await append(log, TARGETS[2], [b"z"] * 5)
    sink = MemorySink("sink", [TOPIC])
    runner = runner_of(log, sink)

    await run_until(runner, lambda: runner.statistics().written == 1010)

    assert max(sink.writes) <= 110
    assert len(sink.writes) <= 1010 // 100 + 2


async def test_continues_where_the_store_says(log: EmbeddedLog) -> None:
    """The sink's own store is the truth, not the position in the log's group."""
    await append(log, TARGETS[0], [b"0", b"1", b"2", b"3"])
    await log.commit(Transaction(group="sink", positions={TARGETS[0]: 4}))
    sink = MemorySink("sink", [TOPIC])
    sink.store[TARGETS[0]] = 1
    runner = runner_of(log, sink)

    await run_until(runner, lambda: runner.statistics().written == 3)

    assert values_of(sink, TARGETS[0]) == [b"1", b"2", b"3"]


async def test_outage(log: EmbeddedLog) -> None:
    """A sink that goes down is tried again until it is back, visibly, and then nothing is missing or doubled."""
    await append(log, TARGETS[0], [b"before"])
    sink = MemorySink("sink", [TOPIC])
    runner = runner_of(log, sink)

    stop = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        group.create_task(runner.run(stop))
        await until(lambda: runner.statistics().written == 1)
        sink.down = True
        await append(log, TARGETS[0], [b"during"])
        await until(lambda: runner.statistics().retries >= 3)
        down = runner.statistics()
        sink.down = False
        await append(log, TARGETS[1], [b"after"])
        await until(lambda: runner.statistics().written == 3)
        stop.set()

    assert (down.state, down.last_error) == ("retrying", "sink sink is down")
    assert values_of(sink, TARGETS[0]) == [b"before", b"during"]
    assert (runner.statistics().state, runner.statistics().retries) == ("running", 0)


async def test_seeks_back_after_restore(log: EmbeddedLog) -> None:
    """When the store is restored to an earlier state, the records since then are written again."""
    await append(log, TARGETS[0], [b"0", b"1", b"2"])
    sink = MemorySink("sink", [TOPIC])
    runner = runner_of(log, sink)

    stop = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        group.create_task(runner.run(stop))
        await until(lambda: runner.statistics().written == 3)
        sink.store[TARGETS[0]] = 1
        sink.stored[TARGETS[0]] = sink.stored[TARGETS[0]][:1]
        await append(log, TARGETS[0], [b"3"])
        await until(lambda: runner.statistics().written == 6)
        stop.set()

    assert values_of(sink, TARGETS[0]) == [b"0", b"1", b"2", b"3"]
    assert await log.positions("sink", TOPIC) == {TARGETS[0]: 4, TARGETS[1]: 0, TARGETS[2]: 0}


async def test_refused_record_is_dead_lettered_alone(log: EmbeddedLog) -> None:
    """Records that the sink refuses go to the dead letters with their origin; all others are stored, in order."""
    bad = {b"13", b"14", b"99"}
    await append(log, TARGETS[0], [str(i).encode() for i in range(100)])
    await append(log, TARGETS[1], [b"13", b"fine"])
    sink = MemorySink("sink", [TOPIC], refuses=lambda record: record.value in bad)
    runner = runner_of(log, sink)

    await run_until(runner, lambda: runner.statistics().written == 98)

    assert values_of(sink, TARGETS[0]) == [str(i).encode() for i in range(100) if str(i).encode() not in bad]
    assert values_of(sink, TARGETS[1]) == [b"fine"]
    assert runner.statistics().dead_lettered == 4
    assert sorted((r.value or b"", r.headers[ORIGIN_OFFSET]) for r in await dead_letters(log)) == [
        (b"13", b"0"),
        (b"13", b"13"),
        (b"14", b"14"),
        (b"99", b"99"),
    ]


class RefusingLog(EmbeddedLog):
    """Refuses positions twice, as Kafka does with a transaction that took too long."""

    refusals = 2

    async def commit(self, transaction: Transaction) -> Mapping[TopicPartition, int]:
        if transaction.positions and self.refusals:
            self.refusals -= 1
            raise CommitRefused("the transaction was aborted")
        return await super().commit(transaction)


async def test_refused_positions_are_copied_later() -> None:
    """The store has its own: a position that is not in the log holds nothing up, and comes with the next batch."""
    log = RefusingLog(MEMORY)
    await log.create_topics([TopicSpec(TOPIC, 1), *SinkRunner.topic_specs()])
    await append(log, TARGETS[0], [b"%d" % number for number in range(500)])
    sink = MemorySink("sink", [TOPIC])
    runner = runner_of(log, sink)

    await run_until(runner, lambda: runner.statistics().written == 500)

    assert values_of(sink, TARGETS[0]) == [b"%d" % number for number in range(500)]
    assert log.refusals == 0
    assert await log.positions("sink", TOPIC) == {TARGETS[0]: 500}
    await log.close()


async def test_dead_lettered_once(log: EmbeddedLog) -> None:
    """A store restored to before a refused record refuses it again, but it is dead-lettered only once."""
    await append(log, TARGETS[0], [b"bad", b"good"])
    for _ in range(2):
        sink = MemorySink("sink", [TOPIC], refuses=lambda record: record.value == b"bad")
        runner = runner_of(log, sink)
        await run_until(runner, lambda runner=runner: runner.statistics().written == 1)  # type: ignore[misc]

    assert [record.value for record in await dead_letters(log)] == [b"bad"]


async def test_store_of_another_log(log: EmbeddedLog) -> None:
    """A store that is ahead of the log stops the runner with a clear error instead of skipping records."""
    sink = MemorySink("sink", [TOPIC])
    sink.store[TARGETS[0]] = 7

    with pytest.raises(ConfigError, match="of another log"):
        await runner_of(log, sink).run(asyncio.Event())


async def test_missing_topic(log: EmbeddedLog) -> None:
    """A topic that does not exist is a mistake in the configuration."""
    with pytest.raises(ConfigError, match="nowhere"):
        await runner_of(log, MemorySink("sink", ["nowhere"])).run(asyncio.Event())


async def test_stop_while_down(log: EmbeddedLog) -> None:
    """A runner that waits for its next try stops at once."""
    sink = MemorySink("sink", [TOPIC])
    sink.down = True
    runner = SinkRunner(log, sink, SystemClock(), first_backoff=1000.0, max_backoff=1000.0)

    await run_until(runner, lambda: runner.statistics().state == "retrying")


class SilentReader:
    """Has nothing, and waits for as long as nobody cancels it."""

    def __init__(self) -> None:
        self.waits = asyncio.Event()
        self.waiting = False

    async def read(self, target: TopicPartition, offset: int, max_records: int) -> Fetched | None:
        return None

    async def wait(self, positions: Mapping[TopicPartition, int], timeout: float) -> bool:
        self.waiting = True
        self.waits.set()
        try:
            return await asyncio.Event().wait()
        finally:
            self.waiting = False

    def forget(self, targets: Iterable[TopicPartition]) -> None:
        pass

    async def close(self) -> None:
        pass


async def test_stop_while_there_is_nothing_to_read() -> None:
    """A stop does not wait until the log has looked for new records, and leaves nobody behind who does."""
    reader, stop = SilentReader(), asyncio.Event()
    fetching = asyncio.create_task(SinkBatches(reader, dict.fromkeys(TARGETS, 0)).fetch(100, stop))
    await reader.waits.wait()

    stop.set()

    assert await fetching == []
    assert not reader.waiting


def test_halves() -> None:
    """Halves hold the same records in the same order, and their offsets meet in the middle."""
    batch = [Fetched(TARGETS[0], 5, 8, records([b"a", b"b", b"c"])), Fetched(TARGETS[1], 0, 2, records([b"d", b"e"]))]

    first, second = halves(batch)

    assert [(f.target.partition, f.base_offset, f.next_offset, f.records.values) for f in first + second] == [
        (0, 5, 7, [b"a", b"b"]),
        (0, 7, 8, [b"c"]),
        (1, 0, 2, [b"d", b"e"]),
    ]
    assert (record_count(first), record_count(second)) == (2, 3)


async def dead_letters(log: EmbeddedLog) -> list[Record]:
    """All of `telemetry.dlq`."""
    found: list[Record] = []
    for partition in range(log.partitions(topics.DEAD_LETTERS)):
        fetched = await log.read(TopicPartition(topics.DEAD_LETTERS, partition), 0, 1000)
        found += list(fetched.records) if fetched else []
    return found
