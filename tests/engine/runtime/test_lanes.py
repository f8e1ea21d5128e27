"""The priority lane in a running app: who goes first, and tables that are written from two topics."""

import asyncio
from collections.abc import AsyncIterator, Mapping

import pytest

from headrace.engine.app import App
from headrace.engine.clock import SystemClock
from headrace.engine.embedded.database import MEMORY
from headrace.engine.embedded.log import EmbeddedLog
from headrace.engine.errors import CommitRefused
from headrace.engine.log import Log, TopicPartition, TopicSpec, Transaction
from headrace.engine.runtime.batches import Batches
from headrace.engine.runtime.lanes import MOST_HOLD, SLICE, SLICE_IN_USE, Lanes
from headrace.schemas import topics
from tests.engine.runtime.kafka_apps import Count, CountBoth
from tests.engine.runtime.running import FAST, HandClock, NoWait, append, committed, holds, lag, run_until, values

LANES = (topics.READINGS, topics.READINGS_PRIORITY)
#: Commits that are refused, by number.
REFUSED = {2, 3, 5}


class RefusingLog(EmbeddedLog):
    """Refuses some commits of the group, as if it had moved on."""

    commits = 0

    async def commit(self, transaction: Transaction) -> Mapping[TopicPartition, int]:
        self.commits += transaction.group == "g"
        if transaction.group == "g" and self.commits in REFUSED:
            raise CommitRefused("on purpose")
        return await super().commit(transaction)


@pytest.fixture
async def lanes_log() -> AsyncIterator[RefusingLog]:
    """In memory, with both lanes."""
    log = RefusingLog(MEMORY)
    names = [topics.RAW, topics.RAW_PRIORITY, *LANES, "out", topics.DEAD_LETTERS]
    await log.create_topics([TopicSpec(name, 1) for name in names])
    yield log
    await log.close()


async def test_table_of_two_lanes_survives_refused_commits_and_restarts(lanes_log: RefusingLog) -> None:
    """Each record of either lane is counted once: positions, table and outputs are one step for both."""

    async def feed() -> None:
        for number in range(20):
            before = lanes_log.commits
            await append(lanes_log, LANES[number % 2], b"n")
            # The first are committed one by one, or some of those that are to be refused would not be tried.
            while number <= max(REFUSED) and lanes_log.commits == before:
                await asyncio.sleep(0.001)

    for _ in range(2):
        app = _counting(lanes_log)
        await app.create_topics([], partitions=1)
        feeding = asyncio.create_task(feed())
        await run_until(app, holds(feeding.done))
    await run_until(_counting(lanes_log), committed(lanes_log, "g", *LANES))

    assert lanes_log.commits > max(REFUSED)
    assert await values(lanes_log, "out") == [b"n=%d" % (number + 1) for number in range(40)]


def _counting(log: Log) -> App:
    app = App("g", log, runtime=FAST.model_copy(update={"max_batch_records": 3}))
    app.add([CountBoth(LANES, "out")])
    return app


async def test_alarms_are_committed_while_an_ordinary_agent_is_busy(lanes_log: RefusingLog) -> None:
    """A batch that takes for ever holds up its own partition only."""
    app = App("other", lanes_log, runtime=FAST)
    in_hand, go_on = asyncio.Event(), asyncio.Event()

    @app.agent(app.batches(topics.RAW))
    async def slow(batches: Batches) -> None:
        async for _ in batches:
            in_hand.set()
            await go_on.wait()

    @app.agent(app.batches(topics.RAW_PRIORITY))
    async def copy(batches: Batches) -> None:
        async for batch in batches:
            for record in batch:
                batch.send("out", b"k", record.value or b"")

    async def alarms_are_through() -> bool:
        if in_hand.is_set() and not await lag(lanes_log, "other", topics.RAW_PRIORITY):
            left.append(await lag(lanes_log, "other", topics.RAW))
            go_on.set()
        return go_on.is_set()

    left: list[int] = []
    await append(lanes_log, topics.RAW, b"telemetry")
    await append(lanes_log, topics.RAW_PRIORITY, b"1", b"2", b"3")
    await run_until(app, alarms_are_through)

    assert left == [1]
    assert await values(lanes_log, "out") == [b"1", b"2", b"3"]


async def test_partition_that_stops_takes_the_other_lane_along(lanes_log: RefusingLog) -> None:
    """Half of a shared table must not be committed; whoever looks is told why."""

    class Broken(CountBoth):
        def process(self, batch: object) -> None:
            raise ValueError("broken")

    app = App("broken", lanes_log, clock=NoWait(), runtime=FAST)
    app.add([Broken(LANES, "out"), Count(LANES[1], "out")])
    await app.create_topics([], partitions=1)
    await append(lanes_log, LANES[0], *[b"1"] * 100)
    stopped: dict[TopicPartition, str] = {}

    async def both_stop() -> bool:
        if app.assigned:
            stopped.update(app.stopped_partitions)
        if len(stopped) == 1 and not await lag(lanes_log, "broken", LANES[1]):
            await append(lanes_log, LANES[1], b"1")
        return len(stopped) == 2

    await run_until(app, both_stop)

    assert stopped.keys() == {TopicPartition(topic, 0) for topic in LANES}
    assert await values(lanes_log, "out") == []


async def test_batches_are_small_while_the_priority_lane_is_in_use() -> None:
    """And ordinary ones come one at a time."""
    lanes = Lanes(SystemClock())
    alarm, one, two = (TopicPartition(name, 0) for name in (topics.RAW_PRIORITY, topics.RAW, topics.READINGS))
    before = lanes.most
    async with lanes.one_at_a_time(one), lanes.one_at_a_time(two):
        pass
    await lanes.begin(alarm)
    held = asyncio.create_task(_hold(lanes, two))

    async with lanes.one_at_a_time(one):
        await asyncio.sleep(0)
        waits = not held.done()
    await held

    assert (before, lanes.most) == (SLICE, SLICE_IN_USE)
    assert waits


async def test_ordinary_work_stands_still_for_an_alarm_but_not_for_ever() -> None:
    """Until what came of it is durable, or too long is over; not what a commit of the alarm waits for."""
    clock = HandClock()
    lanes = Lanes(clock)
    alarm, one, two = (TopicPartition(name, 0) for name in (topics.READINGS_PRIORITY, topics.RAW, topics.READINGS))
    await lanes.begin(alarm)
    lanes.want(frozenset({two}))
    await lanes.wait_turn(two)
    waiting = asyncio.create_task(lanes.wait_turn(one))
    await asyncio.sleep(0)
    still = not waiting.done()
    lanes.end([alarm])
    await waiting
    await lanes.begin(alarm)
    lanes.want(frozenset())
    waiting = asyncio.create_task(lanes.wait_turn(one))
    await asyncio.sleep(0)
    still_again = not waiting.done()
    clock.advance(round(MOST_HOLD * 1000))
    await waiting

    assert still
    assert still_again


async def _hold(lanes: Lanes, target: TopicPartition) -> None:
    async with lanes.one_at_a_time(target):
        pass
