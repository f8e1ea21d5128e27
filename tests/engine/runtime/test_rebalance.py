"""Partitions that move between workers on a real Kafka: what is finished, what is dropped, who gets what."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiokafka.protocol.group import HeartbeatRequest

from headrace.engine.app import App
from headrace.engine.kafka.coordinator import Coordinator
from headrace.engine.kafka.log import KafkaLog
from headrace.engine.log import TopicSpec
from headrace.engine.runtime.batches import Batches
from tests.engine.runtime.kafka_apps import (
    FAST,
    PATIENCE,
    SETTINGS,
    Build,
    Count,
    Place,
    Server,
    copy_records,
    wait_shared,
    wait_until,
)

pytestmark = pytest.mark.integration
MANY = [b"%d" % number for number in range(200)]


@pytest.fixture
async def place(kafka: Server) -> AsyncIterator[Place]:
    """Topics of one test."""
    log = KafkaLog(f"kafka://{kafka.bootstrap}", SETTINGS)
    await log.start()
    yield Place(kafka, log)
    await log.close()


async def test_nothing_fetched_before_a_rebalance_is_offered_after_it(place: Place) -> None:
    """What an agent has in hand, or was fetched and waits for more, goes nowhere when its partition leaves."""
    in_hand, waiting = (0, 2), (1, 3)
    linger = 2.0
    await place.create(4)
    go_on = asyncio.Event()
    offered: list[tuple[str, int, bytes | None]] = []

    def build(name: str) -> Build:
        def add(app: App) -> None:
            @app.agent(app.batches(place.topic))
            async def copy(batches: Batches) -> None:
                async for batch in batches:
                    offered.extend((name, batch.partition, record.value) for record in batch)
                    if name == "first":
                        await go_on.wait()
                    copy_records(batch, place.output, list(batch))

        return add

    for partition in range(4):
        await place.append(partition, *(MANY if partition in in_hand else MANY[:5]))
    batches_of_ten = FAST.model_copy(update={"max_batch_records": 10, "linger_records": 10})

    async with place.worker(build("first"), runtime=batches_of_ten.model_copy(update={"linger": linger})) as first:
        await wait_until(lambda: {partition for _, partition, _ in offered} >= set(in_hand), "no batch in hand")
        async with place.worker(build("second"), runtime=batches_of_ten) as second:
            await wait_shared([first, second], 4)
            before = len(offered)
            moved = {target.partition for target in second.partitions}
            go_on.set()
            await place.wait_done()
            await asyncio.sleep(linger)

    assert moved & set(in_hand)
    assert moved & set(waiting)
    assert await place.values() == {partition: MANY if partition in in_hand else MANY[:5] for partition in range(4)}
    assert not [name for name, partition, _ in offered[before:] if partition in moved and name == "first"]
    for partition in moved:
        values = [value for name, number, value in offered if (name, number) == ("second", partition)]
        assert values == (MANY if partition in in_hand else MANY[:5])


async def test_finished_work_is_committed_before_its_partition_moves(place: Place) -> None:
    """Long before the next commit is due: whoever takes over has nothing to do again."""
    await place.create(2)
    offered: list[bytes | None] = []

    def add(app: App) -> None:
        @app.agent(app.batches(place.topic))
        async def copy(batches: Batches) -> None:
            async for batch in batches:
                copy_records(batch, place.output, list(batch))
                offered.extend(batch.records.values)

    for partition in range(2):
        await place.append(partition, *MANY)
    runtime = FAST.model_copy(update={"commit_interval": 60.0, "drain_timeout": PATIENCE})

    async with place.worker(add, runtime=runtime) as first:
        await wait_until(lambda: len(offered) == 400, "not everything was offered")
        uncommitted = await place.lag()
        async with place.worker(add, runtime=runtime) as second:
            await wait_shared([first, second], 2)
            left = await place.lag()

    assert uncommitted == 402, "two partitions, and the marker behind each"
    assert left <= 2
    assert len(offered) == 400
    assert await place.values() == {0: MANY, 1: MANY}


class Heard(Coordinator):
    """A member that counts what the group answered to its signs of life."""

    heartbeats = 0

    async def _send_req(self, request: Any) -> Any:
        response = await super()._send_req(request)
        Heard.heartbeats += isinstance(request, HeartbeatRequest)
        return response


@pytest.fixture
def heard(monkeypatch: pytest.MonkeyPatch) -> type[Heard]:
    """Of every worker of the test."""
    monkeypatch.setattr("headrace.engine.kafka.membership.Coordinator", Heard)
    return Heard


async def test_worker_goes_on_after_its_loop_was_blocked(place: Place, heard: type[Heard]) -> None:
    """An agent that computes for longer than any session: the group hears from the worker meanwhile, nothing moves."""
    await place.create(2)

    def add(app: App) -> None:
        @app.agent(app.batches(place.topic))
        async def block(batches: Batches) -> None:
            async for batch in batches:
                until = heard.heartbeats + (5 if b"0" in batch.records.values else 0)
                while heard.heartbeats < until:
                    pass  # as pure Python does, which leaves little to the other threads
                copy_records(batch, place.output, list(batch))

    async with place.worker(add) as worker:
        await wait_shared([worker], 2)
        await place.append(0, *MANY)
        await place.wait_done()
        await place.append(1, *MANY[1:])
        await place.wait_done()

        assert worker.consumer.rebalances == 1
    assert await place.values() == {0: MANY, 1: MANY[1:]}


async def test_every_worker_gets_partitions(place: Place) -> None:
    """Ten partitions of two topics for four workers: each gets some, and the same ones of both topics."""
    await place.create(10)

    def add(app: App) -> None:
        @app.agent(app.batches(place.topic, place.output))
        async def read(batches: Batches) -> None:
            async for _ in batches:
                pass

    async with place.worker(add) as one, place.worker(add) as two, place.worker(add) as three:
        await wait_shared([one, two, three], 20)
        async with place.worker(add) as four:
            workers = [one, two, three, four]
            await wait_shared(workers, 20)
            shares = [worker.partitions for worker in workers]

    assert sorted(len(share) for share in shares) == [4, 4, 6, 6]
    for share in shares:
        numbers = {topic: {p for t, p in share if t == topic} for topic in (place.topic, place.output)}
        assert numbers[place.topic] == numbers[place.output]


async def test_idle_worker_stays_in_its_group(place: Place, heard: type[Heard]) -> None:
    """Without a record it goes on with its signs of life, keeps its partitions, and takes the next record."""
    await place.create(2)

    def add(app: App) -> None:
        app.add([Count(place.topic, place.output)])

    await place.log.create_topics([TopicSpec(f"{place.group}-count-changelog", 2, compacted=True)])
    async with place.worker(add, heartbeat_interval=0.1) as worker:
        await wait_shared([worker], 2)
        idle = heard.heartbeats
        await wait_until(lambda: heard.heartbeats >= idle + 10, "the group does not hear from it")
        await place.append(1, b"a")
        await place.wait_done()

        assert worker.consumer.rebalances == 1
    assert await place.values() == {1: [b"a=1"]}
