"""Tables and positions when partitions are taken over, come back, or lost a commit, on a real Kafka."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from headrace.engine.app import App
from headrace.engine.errors import LogError
from headrace.engine.kafka.log import KafkaLog
from headrace.engine.log import Append, TopicPartition, TopicSpec, Transaction
from headrace.engine.records import Records
from headrace.engine.runtime.batches import Batches
from tests.engine.runtime.kafka_apps import (
    FAST,
    SETTINGS,
    Build,
    Count,
    CountBoth,
    Counts,
    Place,
    Server,
    copy_records,
    wait_shared,
    wait_until,
)

pytestmark = pytest.mark.integration
PARTITIONS = 4


@pytest.fixture
async def place(kafka: Server) -> AsyncIterator[Place]:
    """Topics and a changelog of one test."""
    log = KafkaLog(f"kafka://{kafka.bootstrap}", SETTINGS)
    await log.start()
    place = Place(kafka, log)
    await place.create(PARTITIONS)
    await log.create_topics([TopicSpec(f"{place.group}-count-changelog", PARTITIONS, compacted=True)])
    yield place
    await log.close()


def counting(place: Place, tables: dict[str, Counts], name: str) -> Build:
    """An app that counts; its table is put into `tables`."""

    def build(app: App) -> None:
        operator = Count(place.topic, place.output)
        tables[name] = operator.table
        app.add([operator])

    return build


def everywhere(*values: bytes) -> dict[int, list[bytes]]:
    """These values in every partition."""
    return {partition: list(values) for partition in range(PARTITIONS)}


async def append_everywhere(place: Place, *values: bytes) -> None:
    for partition in range(PARTITIONS):
        await place.append(partition, *values)


async def test_table_state_is_kept_when_the_partition_comes_back(place: Place) -> None:
    """Another worker comes and goes: what stays is neither dropped nor restored, what leaves comes back as it was."""
    tables: dict[str, Counts] = {}

    async with place.worker(counting(place, tables, "stays")) as stays:
        await wait_shared([stays], PARTITIONS)
        await append_everywhere(place, b"a", b"a")
        await place.wait_done()
        async with place.worker(counting(place, tables, "comes")) as comes:
            await wait_shared([stays, comes], PARTITIONS)
            moved = sorted(target.partition for target in comes.partitions)
            await append_everywhere(place, b"a")
            await place.wait_done()
            restored_by_both = sorted(tables["stays"].restores), sorted(tables["comes"].restores)
        await wait_shared([stays], PARTITIONS)
        await append_everywhere(place, b"a")
        await place.wait_done()

    assert restored_by_both == ([0, 1, 2, 3], moved)
    assert sorted(tables["stays"].restores) == sorted([0, 1, 2, 3, *moved])
    assert await place.values() == everywhere(b"a=1", b"a=2", b"a=3", b"a=4")


async def test_tables_are_restored_after_a_refused_commit(place: Place) -> None:
    """A commit that Kafka aborts leaves tables ahead of the log: they are restored, and the records done again."""
    tables: dict[str, Counts] = {}
    same_name = KafkaLog(place.url, SETTINGS.model_copy(update={"instance": "fenced"}))
    await same_name.start()

    async with place.worker(counting(place, tables, "w"), instance="fenced") as worker:
        await wait_shared([worker], PARTITIONS)
        await append_everywhere(place, b"a", b"a")
        await place.wait_done()
        note = Append(TopicPartition(place.output, 0), Records([None], [b"fenced"], [1]))
        await same_name.commit(Transaction([note], group=place.group))
        await append_everywhere(place, b"a", b"b")
        await place.wait_done()

        assert not worker.task.done()
        assert worker.consumer.rebalances == 1
    await same_name.close()
    assert len(tables["w"].restores) > PARTITIONS
    counts = everywhere(b"a=1", b"a=2", b"a=3", b"b=1")
    counts[0].insert(2, b"fenced")
    assert await place.values() == counts


class _SlowRestore(KafkaLog):
    """Restores nothing before it may."""

    def __init__(self, *args: Any, begun: asyncio.Event, go_on: asyncio.Event) -> None:
        super().__init__(*args)
        self._begun = begun
        self._go_on = go_on

    async def restore(self, target: TopicPartition) -> AsyncIterator[Sequence[tuple[bytes, bytes]]]:
        self._begun.set()
        await self._go_on.wait()
        async for entries in super().restore(target):
            yield entries


async def test_second_rebalance_during_a_restore(place: Place) -> None:
    """A worker that still restores is given other partitions: it begins anew with those, and counts on exactly."""
    tables: dict[str, Counts] = {}
    begun, go_on = asyncio.Event(), asyncio.Event()

    async with place.worker(counting(place, tables, "first")) as first:
        await wait_shared([first], PARTITIONS)
        await append_everywhere(place, b"a")
        await place.wait_done()
        slow = partial(_SlowRestore, begun=begun, go_on=go_on)
        async with place.worker(counting(place, tables, "second"), make_log=slow) as second:
            await begun.wait()
            async with place.worker(counting(place, tables, "third")) as third:
                await wait_until(lambda: bool(third.partitions), "the third gets nothing while the second restores")
                await append_everywhere(place, b"a")
                go_on.set()
                await wait_shared([first, second, third], PARTITIONS)
                await place.wait_done()

    assert await place.values() == everywhere(b"a=1", b"a=2")


class _BrokenRestore(KafkaLog):
    """Cannot read changelogs to their end."""

    async def restore(self, target: TopicPartition) -> AsyncIterator[Sequence[tuple[bytes, bytes]]]:
        async for entries in super().restore(target):
            yield entries
        raise LogError("cannot be read")


async def test_worker_that_cannot_restore_ends_and_does_nothing(place: Place) -> None:
    """With the error; not a record is worked on with tables that are not complete."""
    await append_everywhere(place, b"a")

    async with place.worker(counting(place, {}, "w"), make_log=_BrokenRestore) as worker:
        with pytest.raises(LogError, match="cannot be read"):
            await worker.task

    assert await place.values() == {}
    assert await place.lag() > 0


async def test_slow_agent_holds_back_only_its_own_partition(place: Place) -> None:
    """While it waits inside a batch of one partition, the others are read and committed, and its position stays."""
    go_on = asyncio.Event()

    def build(app: App) -> None:
        @app.agent(app.batches(place.topic))
        async def wait(batches: Batches) -> None:
            async for batch in batches:
                if batch.partition == 0:
                    await go_on.wait()
                copy_records(batch, place.output, list(batch))

    async with place.worker(build) as worker:
        await wait_shared([worker], PARTITIONS)
        await append_everywhere(place, b"1")
        for number in range(2, 5):
            await append_everywhere(place, b"%d" % number)
            ends = await place.log.end_offsets(place.topic)

            async def others_done(ends: dict[TopicPartition, int] = ends) -> bool:
                positions = await place.log.positions(place.group, place.topic)
                return all(positions[target] == end for target, end in ends.items() if target.partition)

            await wait_until(others_done, "the other partitions wait")
        stuck = (await place.log.positions(place.group, place.topic))[place.target(0)]
        go_on.set()
        await place.wait_done()

    assert stuck == 0
    assert await place.values() == everywhere(b"1", b"2", b"3", b"4")


async def test_lag_reaches_zero_behind_an_aborted_transaction(place: Place) -> None:
    """The last offsets of a topic are no records: the position passes them all the same."""
    servers = place.url.removeprefix("kafka://")
    aborts = AIOKafkaProducer(bootstrap_servers=servers, transactional_id=f"{place.group}-aborts")
    async with aborts, place.worker(counting(place, {}, "w")) as worker:
        await wait_shared([worker], PARTITIONS)
        await place.append(0, b"a")
        await aborts.begin_transaction()
        await aborts.send_and_wait(place.topic, b"never", partition=0)
        await aborts.abort_transaction()
        await wait_until(partial(_ends_behind, place, 4), "the transaction was not aborted")
        await place.wait_done()

    assert await place.values() == {0: [b"a=1"]}


async def _ends_behind(place: Place, offset: int) -> bool:
    return (await place.log.end_offsets(place.topic))[place.target(0)] >= offset


async def test_topic_that_was_made_anew_stops(place: Place) -> None:
    """Positions of the old one say nothing about it: its partitions stop and say what to do. Other topics go on."""
    other = f"{place.topic}-other"
    await place.log.create_topics([TopicSpec(other, 1)])

    def build(app: App) -> None:
        @app.agent(app.batches(place.topic, other))
        async def copy(batches: Batches) -> None:
            async for batch in batches:
                copy_records(batch, place.output, list(batch))

    async with place.worker(build, runtime=FAST) as worker:
        await wait_shared([worker], PARTITIONS + 1)
        await append_everywhere(place, *[b"old"] * 10)
        await place.wait_done()
        async with _admin(place) as admin:
            await admin.delete_topics([place.topic])
            await admin.create_topics([NewTopic(place.topic, PARTITIONS, 1)])
        await wait_until(partial(_appended, place, b"new"), "the new topic takes nothing")
        await wait_until(lambda: place.target(0) in worker.app.stopped_partitions, "it goes on")
        await place.append(0, b"other", topic=other)
        await place.wait_done(other)

        assert f"headrace topics reset {place.topic}" in worker.app.stopped_partitions[place.target(0)]
        assert TopicPartition(other, 0) not in worker.app.stopped_partitions
    assert (await place.values())[0] == [*[b"old"] * 10, b"other"]


async def test_topic_that_was_away_for_a_while_stops(place: Place) -> None:
    """Deleted, and made anew when the worker has noticed: Kafka has forgotten the positions, the worker has not."""
    async with place.worker(counting(place, {}, "w")) as worker:
        await wait_shared([worker], PARTITIONS)
        await append_everywhere(place, b"old")
        await place.wait_done()
        async with _admin(place) as admin:
            await admin.delete_topics([place.topic])
            await wait_until(lambda: not worker.partitions and not worker.app.rebalancing, "it is not missed")
            await admin.create_topics([NewTopic(place.topic, PARTITIONS, 1)])
        await wait_until(lambda: len(worker.app.stopped_partitions) == PARTITIONS, "it goes on")

        assert f"headrace topics reset {place.topic}" in worker.app.stopped_partitions[place.target(0)]
    assert await place.values() == everywhere(b"old=1")


@asynccontextmanager
async def _admin(place: Place) -> AsyncIterator[AIOKafkaAdminClient]:
    admin = AIOKafkaAdminClient(bootstrap_servers=place.url.removeprefix("kafka://"))
    await admin.start()
    yield admin
    await admin.close()


async def _appended(place: Place, value: bytes) -> bool:
    try:
        await place.append(0, value)
    except LogError:
        return False  # not known yet
    return True


async def test_table_of_two_topics_moves_with_both(place: Place) -> None:
    """Partition 1 of both is with one worker, counted on by whoever has it, also after a refused commit."""
    other = f"{place.topic}-other"
    same_name = KafkaLog(place.url, SETTINGS.model_copy(update={"instance": "both"}))
    await same_name.start()
    await place.log.create_topics([TopicSpec(other, PARTITIONS)])

    def both(app: App) -> None:
        app.add([CountBoth((place.topic, other), place.output)])

    async def append_to_both() -> None:
        for topic in (place.topic, other):
            for partition in range(PARTITIONS):
                await place.append(partition, b"n", b"n", topic=topic)

    async def wait_done() -> None:
        await place.wait_done()
        await place.wait_done(other)

    async with place.worker(both, instance="both") as first:
        await append_to_both()
        await wait_done()
        note = Append(TopicPartition(place.output, 0), Records([None], [b"fenced"], [1]))
        await same_name.commit(Transaction([note], group=place.group))
        await append_to_both()
        await wait_done()
        async with place.worker(both) as second:
            await wait_shared([first, second], 2 * PARTITIONS)
            shares = [{each.partition for each in worker.partitions} for worker in (first, second)]
            await append_to_both()
            await wait_done()
    await same_name.close()

    assert shares[0].isdisjoint(shares[1])
    found = await place.values()
    assert found[0].pop(4) == b"fenced"
    assert found == everywhere(*(b"n=%d" % (number + 1) for number in range(12)))
