"""Collectors: what is read at intervals, on the embedded log in memory."""

import asyncio
from collections.abc import AsyncIterator

import pytest
import structlog

from headrace.engine.clock import SteppedClock, SystemClock
from headrace.engine.collectors import Collectors, LagCollector, Reads, ledger_collector
from headrace.engine.embedded.database import MEMORY
from headrace.engine.embedded.log import EmbeddedLog
from headrace.engine.errors import LogError
from headrace.engine.health import Health
from headrace.engine.ledger import Ledger
from headrace.engine.log import Append, TopicPartition, TopicSpec, Transaction
from headrace.engine.metrics import Metrics
from headrace.engine.records import Records

TARGETS = [TopicPartition("things", partition) for partition in range(3)]


@pytest.fixture
async def log() -> AsyncIterator[EmbeddedLog]:
    """A log with a topic of three partitions, five records in each."""
    log = EmbeddedLog(MEMORY)
    await log.create_topics([TopicSpec("things", 3)])
    await log.commit(Transaction([Append(target, Records([b"k"] * 5, [b"v"] * 5, [0] * 5)) for target in TARGETS]))
    yield log
    await log.close()


async def move(log: EmbeddedLog, group: str, target: TopicPartition, position: int) -> None:
    """Commit a position."""
    await log.commit(Transaction(group=group, positions={target: position}))


def lag(metrics: Metrics, group: str, target: TopicPartition) -> float:
    """The exported lag."""
    return metrics.value("headrace_lag_records", group=group, topic=target.topic, partition=target.partition)


async def test_lag_and_position_of_the_partitions_here(log: EmbeddedLog) -> None:
    """Per group, of those partitions that it reads in this process, and no others."""
    metrics, clock = Metrics(), SteppedClock()
    mine = set(TARGETS[:2])
    collector = LagCollector(log, metrics, Health(clock), [Reads("g", lambda: mine), Reads("sink", lambda: TARGETS)])
    await move(log, "g", TARGETS[0], 2)
    await move(log, "g", TARGETS[2], 4)
    await move(log, "sink", TARGETS[2], 5)

    await collector.collect()

    assert [lag(metrics, "g", target) for target in TARGETS] == [3, 5, 0]
    assert [lag(metrics, "sink", target) for target in TARGETS] == [5, 5, 0]
    assert metrics.value("headrace_committed_offset", group="g", topic="things", partition=0) == 2
    exported = {family.name: family.samples for family in metrics.collect()}
    assert len(exported["headrace_lag_records"]) == 5


async def test_partition_that_moved_away_is_exported_no_more(log: EmbeddedLog) -> None:
    """What this worker lost it says nothing about."""
    metrics, mine = Metrics(), set(TARGETS)
    collector = LagCollector(log, metrics, Health(SteppedClock()), [Reads("g", lambda: mine)])
    await collector.collect()

    mine.remove(TARGETS[1])
    await collector.collect()

    assert [lag(metrics, "g", target) for target in TARGETS] == [5, 0, 5]


async def test_lag_is_progress_for_health(log: EmbeddedLog) -> None:
    """A partition that stands still is named with what is known; a commit ends it."""
    clock = SteppedClock()
    health = Health(clock)
    collector = LagCollector(log, Metrics(), health, [Reads("sink", lambda: TARGETS[:1], lambda: "retrying: refused")])

    await collector.collect()
    clock.advance(60_000)
    await collector.collect()

    (problem,) = health.problems()
    assert problem.component == "sink things[0]"
    assert problem.what == "stands at 0 for 60 s, with 5 to go: retrying: refused"

    await move(log, "sink", TARGETS[0], 1)
    await collector.collect()
    assert health.problems() == []


async def test_topic_without_records_has_no_lag(log: EmbeddedLog) -> None:
    """Its partitions are there, at 0."""
    await log.create_topics([TopicSpec("empty", 1)])
    metrics, target = Metrics(), TopicPartition("empty", 0)

    await LagCollector(log, metrics, Health(SteppedClock()), [Reads("g", lambda: [target])]).collect()

    exported = {family.name: family.samples for family in metrics.collect()}
    assert [sample.value for sample in exported["headrace_lag_records"]] == [0]


async def test_ledger_is_exported_by_term() -> None:
    """Every term of it, as it is."""
    metrics = Metrics()

    async def read() -> Ledger:
        return Ledger(10, 4, 3, 2, 1, 0)

    await ledger_collector(metrics, read)()

    terms = [metrics.value("headrace_ledger_messages", term=term) for term in Ledger._fields]
    assert terms == [10, 4, 3, 2, 1, 0]


async def test_failure_leaves_what_was_there() -> None:
    """It is counted each time, logged once until it succeeds again, and raised never."""
    metrics, clock = Metrics(), SteppedClock(1_000_000)
    broken = False

    async def collect() -> None:
        if broken:
            raise LogError("no broker")
        metrics.set("headrace_lag_records", 7, group="g", topic="t", partition=0)

    collectors = Collectors(metrics, clock)
    await collectors.collect_once("lag", collect)
    broken = True
    clock.advance(5_000)
    with structlog.testing.capture_logs() as logged:
        await collectors.collect_once("lag", collect)
        await collectors.collect_once("lag", collect)

    assert metrics.value("headrace_lag_records", group="g", topic="t", partition=0) == 7
    assert metrics.value("headrace_collector_failures_total", collector="lag") == 2
    assert metrics.value("headrace_collected_timestamp_seconds", collector="lag") == 1_000
    assert [entry["log_level"] for entry in logged] == ["warning", "debug"]

    broken = False
    await collectors.collect_once("lag", collect)
    assert metrics.value("headrace_collected_timestamp_seconds", collector="lag") == 1_005


async def test_collector_that_hangs_is_given_up() -> None:
    """After its time, with a failure counted; it runs again."""
    metrics = Metrics()
    collectors = Collectors(metrics, SystemClock(), patience=0.01)

    await collectors.collect_once("ledger", asyncio.Event().wait)
    await collectors.collect_once("ledger", asyncio.Event().wait)

    assert metrics.value("headrace_collector_failures_total", collector="ledger") == 2


async def test_collectors_do_not_wait_for_each_other() -> None:
    """While one hangs the other is run again and again; cancelling ends both."""
    runs, enough = 0, asyncio.Event()

    async def collect() -> None:
        nonlocal runs
        runs += 1
        if runs == 5:
            enough.set()

    clock = SteppedClock()
    collectors = Collectors(Metrics(), clock, patience=60)
    collectors.add("ledger", asyncio.Event().wait, 5)
    collectors.add("lag", collect, 5)

    running = asyncio.create_task(collectors.run())
    await enough.wait()
    assert clock.monotonic() >= 20
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
