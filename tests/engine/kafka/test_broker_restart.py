"""Brokers die and come back under a log that commits and reads: nothing acknowledged is lost or there twice."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from local_kafka.cluster import Cluster

from headrace.engine.errors import CommitRefused
from headrace.engine.kafka.log import KafkaLog
from headrace.engine.kafka.settings import KafkaSettings
from headrace.engine.log import Append, Changes, TopicPartition, Transaction
from headrace.engine.log_range import reading
from tests.contract.log_access import PATIENCE, Assignments, Names, append, fetch, numbers, records, restore_all

pytestmark = [pytest.mark.integration, pytest.mark.chaos]

SETTINGS = KafkaSettings(session_timeout=3.0, heartbeat_interval=0.5, transaction_timeout=5.0, request_timeout=5.0)
#: Commits of each writer behind the last fault.
AFTERWARDS = 10


class Source:
    """Appends numbers one after another, as a connector does: without positions."""

    def __init__(self, log: KafkaLog, target: TopicPartition) -> None:
        self._log, self._target = log, target
        self.acknowledged = 0

    async def run(self) -> None:
        while True:
            await append(self._log, self._target, b"%d" % self.acknowledged)
            self.acknowledged += 1


class Worker:
    """Copies one partition to another and counts in a table, as a member of a group, each step with its position."""

    def __init__(self, log: KafkaLog, names: Names) -> None:
        self._log, self._names = log, names
        self.listener = Assignments()
        self.done = 0
        self.refused = 0

    async def run(self) -> None:
        names = self._names
        await self._log.join(names.group, [names.events], self.listener)
        await self.listener.wait_for({names.p0, names.p1})
        async with reading(self._log) as reader:
            while True:
                try:
                    position = (await self._log.positions(names.group, names.events))[names.p0]
                    self.done = int((await restore_all(self._log, names.s0)).get(b"count", b"0"))
                    while True:
                        fetched = await fetch(reader, names.p0, position, 5)
                        position = fetched.next_offset
                        done = self.done + len(fetched.records)
                        await self._log.commit(
                            Transaction(
                                [Append(names.p1, records(*[value or b"" for value in fetched.records.values]))],
                                [Changes(names.s0, {b"count": b"%d" % done})],
                                names.group,
                                {names.p0: position},
                                self.listener.member,
                            )
                        )
                        self.done = done
                except CommitRefused:
                    self.refused += 1
                    await asyncio.sleep(0.1)


async def started(cluster: Cluster) -> KafkaLog:
    log = KafkaLog(f"kafka://{cluster.bootstrap}", SETTINGS)
    await log.start()
    return log


@pytest.fixture
async def one_broker(kafka_tools: None) -> AsyncIterator[Cluster]:
    with Cluster() as cluster:
        yield cluster


async def check(
    cluster: Cluster, source: Source, worker: Worker, names: Names, tasks: list["asyncio.Task[None]"]
) -> None:
    """After the last fault everybody goes on, and the log holds every number once, in order, in both partitions."""
    target = source.acknowledged + AFTERWARDS
    async with asyncio.timeout(PATIENCE):
        while not (source.acknowledged >= target and worker.done >= target):
            assert not any(task.done() for task in tasks), [task for task in tasks if task.done()]
            await asyncio.sleep(0.05)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)

    fresh = await started(cluster)
    found = await values(fresh, names.p0)
    copied = await values(fresh, names.p1)
    count = int((await restore_all(fresh, names.s0))[b"count"])
    position = (await fresh.positions(names.group, names.events))[names.p0]
    await fresh.close()
    # The last commit of each may have been cancelled with its answer on the way.
    assert source.acknowledged <= len(found) <= source.acknowledged + 1
    assert found == numbers(len(found))
    assert copied == numbers(len(copied)) == numbers(count)
    assert position > 0


async def values(log: KafkaLog, target: TopicPartition) -> list[bytes | None]:
    end = (await log.end_offsets(target.topic))[target]
    found: list[bytes | None] = []
    offset = 0
    async with reading(log) as reader:
        while offset < end:
            fetched = await fetch(reader, target, offset)
            found += fetched.records.values
            offset = fetched.next_offset
    return found


async def progress(source: Source, worker: Worker, tasks: list["asyncio.Task[None]"], steps: int = 5) -> None:
    """Until both have done so many more."""
    wanted, copied = source.acknowledged + steps, worker.done + steps
    async with asyncio.timeout(PATIENCE):
        while source.acknowledged < wanted or worker.done < copied:
            assert not any(task.done() for task in tasks), [task for task in tasks if task.done()]
            await asyncio.sleep(0.02)


@pytest.mark.parametrize("seconds_down", [0.5, 5.0], ids=["shorter than the session", "longer than the session"])
async def test_killed_broker_comes_back(one_broker: Cluster, seconds_down: float) -> None:
    """The only broker is killed twice: commits wait for it, the reader goes on, nobody without positions notices."""
    names = Names.new()
    log = await started(one_broker)
    await log.create_topics(names.specs())
    source, worker = Source(log, names.p0), Worker(log, names)
    tasks = [asyncio.create_task(source.run()), asyncio.create_task(worker.run())]

    for _ in range(2):
        await progress(source, worker, tasks)
        one_broker.kill(0)
        await asyncio.sleep(seconds_down)
        await asyncio.to_thread(one_broker.restart, 0)

    await check(one_broker, source, worker, names, tasks)
    await log.close()
