"""Operators that get the batches of several partitions at once, in an app on the embedded log."""

import asyncio
from collections.abc import Iterable, Sequence

from headrace.engine.app import App
from headrace.engine.batch import Batch, Shared
from headrace.engine.clock import SystemClock
from headrace.engine.errors import BadRecord
from headrace.engine.log import Log, TopicSpec
from headrace.engine.records import Records
from headrace.engine.runtime.lanes import SLICE, Lanes
from headrace.engine.runtime.together import GROUP, Together
from headrace.engine.testkit import fetched
from headrace.schemas import topics
from tests.engine.runtime.running import FAST, NoWait, append, committed, everything, run_until

PARTITIONS = 6


class Copying:
    """Copies its topic; a record `bad` is one that can never be processed."""

    name = "copying"
    topic = "many"
    tables = ()

    def __init__(self) -> None:
        #: Partitions that came together, and what came alone.
        self.groups: list[list[int]] = []
        self.alone: list[int] = []

    def process(self, batch: Batch) -> None:
        self.alone.append(batch.partition)
        self._copy(batch)

    def process_together(self, batches: Sequence[Batch]) -> None:
        self.groups.append([batch.partition for batch in batches])
        for batch in batches:
            self._copy(batch)

    @staticmethod
    def _copy(batch: Batch) -> None:
        for row, value in enumerate(batch.records.values):
            batch.send("copies", b"%d" % batch.partition, value or b"")
            if value == b"bad":
                raise BadRecord(row, "it says so itself")


async def run(log: Log, agent: Copying, filled: Iterable[tuple[int, Sequence[bytes]]]) -> App:
    """Run the agent over what the partitions are filled with."""
    await log.create_topics([TopicSpec("many", PARTITIONS), TopicSpec("copies", PARTITIONS)])
    app = App("g", log, clock=NoWait(), runtime=FAST)
    app.add([agent])
    for partition, values in filled:
        await append(log, "many", *values, partition=partition)
    await run_until(app, committed(log, "g", "many"))
    return app


async def copies(log: Log) -> list[tuple[bytes, bytes]]:
    """What was copied, in order within a partition."""
    return sorted((record.key or b"", record.value or b"") for record in await everything(log, "copies"))


async def test_partitions_come_together(log: Log) -> None:
    """What is ready of several partitions is one call, and each is finished and committed by itself."""
    agent = Copying()
    await run(log, agent, [(partition, [b"1", b"2"]) for partition in range(PARTITIONS)])

    assert max(map(len, agent.groups)) > 1
    assert sorted(partition for group in agent.groups for partition in group) == list(range(PARTITIONS))
    assert agent.alone == []
    assert await copies(log) == [(b"%d" % number, value) for number in range(PARTITIONS) for value in (b"1", b"2")]


async def test_a_failure_is_found_alone(log: Log) -> None:
    """Of those that came with a bad record nothing is lost, doubled or dead-lettered, and nobody waits."""
    agent = Copying()
    filled = [(partition, [b"1", b"2"]) for partition in range(PARTITIONS) if partition != 2]
    app = await run(log, agent, [*filled, (2, [b"1", b"bad", b"3"])])

    assert {0, 1, 2} <= set(agent.alone)
    assert await copies(log) == sorted(
        (b"%d" % number, value) for number in range(PARTITIONS) for value in (b"1", b"3" if number == 2 else b"2")
    )
    assert [record.value for record in await everything(log, topics.DEAD_LETTERS)] == [b"bad"]
    assert app.metrics.value("headrace_retries_total", agent="copying") == 0


def a_batch(partition: int, size: int) -> Batch:
    """A batch of `many`."""
    return Batch(Shared(fetched(Records([b"k"] * size, [b"1"] * size, [0] * size), "many", partition)))


async def test_what_comes_at_once_is_bounded() -> None:
    """The priority lane waits for a group; a batch that is larger than one comes alone."""
    agent = Copying()
    together = Together(agent, Lanes(SystemClock()), SystemClock())
    most = GROUP * SLICE
    sizes = [most // 2, most // 2, 1, 2 * most, most]

    await asyncio.gather(*(together.process(a_batch(partition, size)) for partition, size in enumerate(sizes)))

    assert agent.groups == [[0, 1], [2], [3], [4]]


async def test_a_partition_that_is_taken_away_is_left_out() -> None:
    """Whoever waits beside it gets its turn, also behind the one whose turn it was."""
    agent = Copying()
    together = Together(agent, Lanes(SystemClock()), SystemClock())
    tasks = [asyncio.create_task(together.process(a_batch(partition, 1))) for partition in range(4)]
    await asyncio.sleep(0)
    tasks[0].cancel()
    tasks[2].cancel()

    done = await asyncio.gather(*tasks, return_exceptions=True)

    assert [isinstance(each, asyncio.CancelledError) for each in done] == [True, False, True, False]
    assert [partition for group in agent.groups for partition in group] == [1, 3]
