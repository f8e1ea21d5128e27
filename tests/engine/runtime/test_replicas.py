"""Replicated tables in an app on the embedded log."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.engine.agent_replay import REPLAYS, AgentReplay
from headrace.engine.app import App
from headrace.engine.clock import ManualClock, SystemClock
from headrace.engine.embedded.database import MEMORY
from headrace.engine.embedded.log import EmbeddedLog
from headrace.engine.health import Health
from headrace.engine.log import Append, Log, TopicPartition, TopicSpec, Transaction
from headrace.engine.metrics import Metrics
from headrace.engine.records import Records
from headrace.engine.replay_stretches import stretches
from headrace.engine.turn import take_turn
from headrace.tables.registry import Registry
from headrace.tables.replicated import replicated_topic
from tests.engine.runtime.naming import Naming
from tests.engine.runtime.running import FAST, PATIENCE, values

NAMES = "names"
T0 = 1_700_000_000_000


def registry(log: Log, clock: ManualClock) -> Registry[str]:
    """Changes apply at once."""
    return Registry(log, NAMES, str.encode, clock, delay=0)


async def send(log: Log, time_ms: int, *messages: bytes, key: bytes = b"a") -> None:
    records = Records([key] * len(messages), list(messages), [time_ms] * len(messages))
    await log.commit(Transaction([Append(TopicPartition("in", 0), records)]))


async def wait_for(log: Log, *expected: bytes) -> None:
    """Wait until this and nothing else was sent."""
    async with asyncio.timeout(PATIENCE):
        while len(found := await values(log, "out")) < len(expected):
            await asyncio.sleep(0.005)
    assert found == list(expected)


@asynccontextmanager
async def running(log: Log, clock: ManualClock, operator: Naming, **options: Any) -> AsyncIterator[App]:
    """An app with this agent, from start to stop."""
    app = App("group", log, clock=clock, runtime=FAST, **options)
    app.add([operator])
    stop = asyncio.Event()
    task = asyncio.create_task(app.run(stop))
    try:
        yield app
    finally:
        stop.set()
        await task


def naming(**options: Any) -> Naming:
    return Naming("in", "out", NAMES, **options)


async def test_a_change_between_two_batches_applies_to_the_second(log: Log) -> None:
    """However soon one follows the other; a topic that does not exist yet is empty, and is found when it is made."""
    clock = ManualClock(T0)

    async with running(log, clock, naming()):
        await send(log, T0, b"0")
        await wait_for(log, b"0=?")
        for number in range(1, 20):
            clock.advance(1)
            await registry(log, clock).put("a", f"n{number}")
            await send(log, clock.now_ms(), b"%d" % number)
        clock.advance(1)
        await registry(log, clock).delete("a")
        await send(log, clock.now_ms(), b"20")
        await wait_for(log, b"0=?", *(b"%d=n%d" % (number, number) for number in range(1, 20)), b"20=?")


async def test_records_of_one_batch_see_what_held_at_their_time(log: Log) -> None:
    """A change takes effect in the middle of a batch, also in one that is read long after the change."""
    clock = ManualClock(T0 + 10)
    await registry(log, clock).put("a", "old")
    clock.advance(10)
    await registry(log, clock).put("a", "new")
    for time_ms, message in (T0, b"1"), (T0 + 10, b"2"), (T0 + 19, b"3"), (T0 + 20, b"4"):
        await send(log, time_ms, message)

    async with running(log, clock, naming()):
        await wait_for(log, b"1=?", b"2=old", b"3=old", b"4=new")


async def test_a_worker_that_starts_again_finds_the_same(tmp_path: Path) -> None:
    """Times of changes are in the log: records that were left for later see what held when they were appended."""
    clock = ManualClock(T0)
    for left in ([], [(T0 + 19, b"2"), (T0 + 20, b"3")]):
        log = EmbeddedLog(tmp_path)
        await log.create_topics([TopicSpec("in", 1), TopicSpec("out", 1), TopicSpec("telemetry.dlq", 1)])
        clock.advance(10)
        await registry(log, clock).put("a", f"at {clock.now_ms() - T0}")
        await send(log, T0 + 10, b"1")
        for time_ms, message in left:
            await send(log, time_ms, message)
        async with running(log, clock, naming()):
            await wait_for(log, *[b"1=at 10", b"1=at 10", b"2=at 10", b"3=at 20"][: 4 if left else 1])
        await log.close()


async def test_another_process_changes_the_table(tmp_path: Path) -> None:
    """What a second opener of the folder puts, into a topic that it makes, holds for the next record."""
    clock = ManualClock(T0)
    log, other = EmbeddedLog(tmp_path), EmbeddedLog(tmp_path)
    await log.create_topics([TopicSpec("in", 1), TopicSpec("out", 1), TopicSpec("telemetry.dlq", 1)])

    async with running(log, clock, naming()):
        await send(log, T0, b"1")
        await wait_for(log, b"1=?")
        for number in range(2, 12):
            clock.advance(1)
            await registry(other, clock).put("a", f"n{number}")
            await send(log, clock.now_ms(), b"%d" % number)
        await wait_for(log, b"1=?", *(b"%d=n%d" % (number, number) for number in range(2, 12)))

    await log.close()
    await other.close()


async def test_added_partitions_are_read(log: Log) -> None:
    """Keys that go elsewhere from then on are found there, and deleted wherever they were."""
    clock = ManualClock(T0)
    operator = naming()

    async with running(log, clock, operator):
        await registry(log, clock).change({f"k{number}": "old" for number in range(20)})
        await log.extend_topic(NAMES, 4)
        clock.advance(1)
        await registry(log, clock).change({f"k{number}": "new" for number in range(10)})
        clock.advance(1)
        await registry(log, clock).change({f"k{number}": None for number in range(5, 15)})
        await send(log, clock.now_ms(), b"1")
        await wait_for(log, b"1=?")

    held = dict(operator.names.items(clock.now_ms()))
    assert held == {f"k{number}": "new" for number in range(5)} | {f"k{number}": "old" for number in range(15, 20)}


async def test_metrics_and_readiness(log: Log) -> None:
    """Entries, lag and refusals are exported; the worker is not ready before the table is read."""
    metrics, health = Metrics(), Health(SystemClock(), expects=())
    clock = ManualClock(T0)
    await registry(log, clock).change({"a": "hall", "b": "door"})
    await Registry(log, NAMES, bytes, clock).put("c", b"\xff")

    async with running(log, clock, naming(), metrics=metrics, health=health):
        assert "replica names" in {reason.component for reason in health.unready()}
        await send(log, T0, b"1")
        await wait_for(log, b"1=hall")
        assert health.unready() == []

    assert metrics.value("headrace_replica_entries", topic=NAMES) == 2
    assert metrics.value("headrace_replica_lag_records", topic=NAMES) == 0
    assert metrics.value("headrace_replica_refused_total", topic=NAMES) == 1


async def test_a_full_table_holds_its_agents_and_says_so(log: Log) -> None:
    """Nothing is worked on with half a table; when entries are deleted work goes on."""
    health, clock = Health(SystemClock()), ManualClock(T0)
    await registry(log, clock).change({"a": "1", "b": "2"})

    async with running(log, clock, naming(most=1), health=health):
        await send(log, T0, b"1")
        async with asyncio.timeout(PATIENCE):
            while not health.problems():
                await asyncio.sleep(0.005)
        assert "more than 1 keys" in health.problems()[0].what
        assert await values(log, "out") == []
        await registry(log, clock).delete("b")
        await wait_for(log, b"1=1")
        assert health.problems() == []


@pytest.mark.parametrize("delay", [0.0, 1.0])
async def test_a_registry_says_from_when_a_change_applies(log: Log, delay: float) -> None:
    """Append times only grow, so that of two changes in one millisecond the later one holds."""
    clock = ManualClock(T0)
    changes = Registry(log, NAMES, str.encode, clock, delay=delay)

    times = [await changes.put("a", "1"), await changes.put("a", "2"), await changes.delete("a")]

    assert times == [T0 + round(delay * 1000) + number for number in range(3)]


Step = tuple[str, str]
STEPS = st.lists(
    st.tuples(st.sampled_from(["record", "put", "delete"]), st.sampled_from("ab")), min_size=1, max_size=25
)


@settings(max_examples=25)
@given(steps=STEPS, most=st.integers(1, 6))
def test_the_log_once_more_gives_the_same(steps: list[Step], most: int) -> None:
    """Live with changes between records, and afterwards by `headrace replay`, in batches of any size."""
    asyncio.run(_twice(steps, most))


async def _twice(steps: list[Step], most: int) -> None:
    log, clock = EmbeddedLog(MEMORY), ManualClock(T0)
    names = [TopicSpec("in", 1), TopicSpec("out", 1), TopicSpec("telemetry.dlq", 1), replicated_topic(NAMES)]
    await log.create_topics(names)
    sent, changes = 0, registry(log, clock)
    async with running(log, clock, naming()):
        for number, (what, key) in enumerate(steps):
            clock.advance(2)
            if what == "record":
                await send(log, clock.now_ms(), b"%d" % number, key=key.encode())
                sent += 1
            else:
                await changes.change({key: f"{number}" if what == "put" else None})
        async with asyncio.timeout(PATIENCE):
            while len(live := await values(log, "out")) < sent:
                await asyncio.sleep(0.001)

    async with take_turn(log, "again", REPLAYS) as turn:
        plan = await stretches(log, "in", "group", 0, None, None)
        await AgentReplay(turn, SystemClock(), naming(), "again", "group", plan, None, most).run(asyncio.Event())

    assert await values(log, "out") == live * 2
    await log.close()
