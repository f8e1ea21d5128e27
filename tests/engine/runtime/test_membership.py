"""Instance names, and topics that change, on a real Kafka."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from headrace.engine.app import App
from headrace.engine.errors import ConfigError
from headrace.engine.kafka.log import KafkaLog
from headrace.engine.log import TopicPartition, TopicSpec
from headrace.engine.runtime.batches import Batches
from tests.engine.runtime.kafka_apps import (
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


@pytest.fixture
async def place(kafka: Server) -> AsyncIterator[Place]:
    """Topics of one test."""
    log = KafkaLog(f"kafka://{kafka.bootstrap}", SETTINGS)
    await log.start()
    yield Place(kafka, log)
    await log.close()


def copying(place: Place, *topics: str) -> Build:
    """An agent without tables, which copies to `output`."""

    def build(app: App) -> None:
        @app.agent(app.batches(*(topics or [place.topic])))
        async def copy(batches: Batches) -> None:
            async for batch in batches:
                copy_records(batch, place.output, list(batch))

    return build


async def test_two_workers_with_one_name_end_with_an_error(place: Place) -> None:
    """The first ends with an error that names the setting; the second has everything, and keeps it."""
    await place.create(2)

    async with place.worker(copying(place), instance="same") as first:
        await wait_shared([first], 2)
        async with place.worker(copying(place), instance="same") as second:
            async with asyncio.timeout(PATIENCE):
                with pytest.raises(ConfigError, match=r"name same, .* \[kafka\] instance"):
                    await first.task
            await wait_shared([second], 2)
            await place.append(0, b"a")
            await place.wait_done()

            assert second.consumer.rebalances <= 2
    assert await place.values() == {0: [b"a"]}


async def test_restart_within_the_session_moves_nothing(place: Place) -> None:
    """A worker that comes back under its name gets what it had, and the others do not notice."""
    await place.create(4)

    async with place.worker(copying(place), instance="stays") as stays:
        async with place.worker(copying(place), instance="restarts") as worker:
            await wait_shared([stays, worker], 4)
            rebalances, had = stays.consumer.rebalances, worker.partitions
        async with place.worker(copying(place), instance="restarts") as worker:
            await wait_shared([stays, worker], 4)
            for partition in range(4):
                await place.append(partition, b"a")
            await place.wait_done()

            assert worker.partitions == had
            assert stays.consumer.rebalances == rebalances
    assert await place.values() == {partition: [b"a"] for partition in range(4)}


async def test_added_partitions_are_picked_up(place: Place) -> None:
    """A topic without tables gets partitions: running workers read them, and nothing of the others is lost."""
    await place.create(2)
    await place.append(0, b"before")

    async with place.worker(copying(place)) as one, place.worker(copying(place)) as two:
        await wait_shared([one, two], 2)
        await place.log.extend_topic(place.output, 6)
        await place.log.extend_topic(place.topic, 6)
        await place.append(5, b"new")
        await wait_shared([one, two], 6)
        await place.append(4, b"newer")
        await place.wait_done()

    assert await place.values() == {0: [b"before"], 4: [b"newer"], 5: [b"new"]}


async def test_added_partitions_are_picked_up_after_the_leader_restarted(place: Place) -> None:
    """A leader that comes back under its name is not told that it leads; somebody has to watch the topics."""
    await place.create(2)

    async with place.worker(copying(place), instance="leads") as leader:
        await wait_shared([leader], 2)
    async with place.worker(copying(place), instance="leads") as leader:
        await wait_shared([leader], 2)
        await place.log.extend_topic(place.output, 3)
        await place.log.extend_topic(place.topic, 3)
        await wait_shared([leader], 3)


async def test_added_partitions_stop_a_topic_with_tables(place: Place) -> None:
    """Its keys have moved, its tables have not: all its partitions stop and say what to do. Other topics go on."""
    other = f"{place.topic}-other"
    await place.create(2)
    await place.log.create_topics([TopicSpec(other, 1), TopicSpec(f"{place.group}-count-changelog", 2, compacted=True)])

    def build(app: App) -> None:
        app.add([Count(place.topic, place.output)])
        copying(place, other)(app)

    async with place.worker(build) as worker:
        await wait_shared([worker], 3)
        await place.append(0, b"a", b"a")
        await place.wait_done()
        await place.log.extend_topic(place.topic, 4)
        await wait_until(lambda: len(worker.app.stopped_partitions) == 4, "the topic goes on")
        await place.append(0, b"too late")
        await place.append(0, b"other", topic=other)
        await place.wait_done(other)

        reasons = set(worker.app.stopped_partitions.values())
    assert {target.topic for target in worker.app.stopped_partitions} == {place.topic}
    assert len(reasons) == 1
    assert f"headrace topics reset {place.topic} --group {place.group}" in reasons.pop()
    assert (await place.values())[0] == [b"a=1", b"a=2", b"other"]


async def test_topic_that_is_made_later_is_picked_up(place: Place) -> None:
    """A worker starts before its topic is there, beside one that is."""
    late = f"{place.topic}-late"
    await place.create(2)

    async with place.worker(copying(place, place.topic, late)) as worker:
        await place.append(0, b"first")
        await place.wait_done()
        await place.log.create_topics([TopicSpec(late, 1)])
        await place.append(0, b"second", topic=late)
        await place.wait_done(late)

        assert TopicPartition(late, 0) in worker.partitions
    assert await place.values() == {0: [b"first", b"second"]}
