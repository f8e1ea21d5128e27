"""Workers that keep copies of each other's tables, and what becomes of a group that loses one, on a real Kafka."""

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager
from functools import partial
from typing import Any

import pytest
from local_kafka.cluster import Cluster

from headrace.connectors import die_with_parent
from headrace.engine.kafka.log import KafkaLog
from headrace.engine.log import Append, TopicPartition, TopicSpec, Transaction
from headrace.engine.metrics import Metrics
from headrace.engine.records import Records
from headrace.engine.topic_reset import carry_out, plan_reset
from tests.engine.kafka.admin import allow_deletion, delete_records, end_session, members
from tests.engine.runtime import counting_worker
from tests.engine.runtime.kafka_apps import (
    FAST,
    SETTINGS,
    Build,
    Count,
    Place,
    Server,
    Worker,
    wait_shared,
    wait_until,
)

pytestmark = pytest.mark.integration
PARTITIONS = 4
#: Keys of a partition's table.
KEYS = [b"%d" % number for number in range(12_000)]
#: A byte behind the header of the first record batch.
IN_FIRST_RECORD = 66
STANDING_BY = FAST.model_copy(update={"standbys": 1})


@pytest.fixture
async def place(kafka: Server) -> AsyncIterator[Place]:
    """Topics and a changelog of one test."""
    log = KafkaLog(f"kafka://{kafka.bootstrap}", SETTINGS)
    await log.start()
    place = Place(kafka, log)
    await place.create(PARTITIONS)
    await log.create_topics([TopicSpec(changelog(place), PARTITIONS, compacted=True)])
    yield place
    await log.close()


def changelog(place: Place) -> str:
    return f"{place.group}-count-changelog"


def counting(place: Place) -> Build:
    return lambda app: app.add([Count(place.topic, place.output)])


async def append_everywhere(place: Place, values: Sequence[bytes]) -> None:
    for partition in range(PARTITIONS):
        await place.append(partition, *values)


@contextmanager
def child(place: Place, *options: str) -> Iterator[subprocess.Popen[str]]:
    """A worker in a process of its own; killed with -9 at the end, if not before."""
    command = [sys.executable, "-m", counting_worker.__name__, place.url, place.group, place.topic, place.output]
    process = subprocess.Popen(
        [sys.executable, die_with_parent.__file__, str(os.getpid()), *command, *options],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


async def test_warm_take_over(place: Place, kafka: Server) -> None:
    """The successor of a worker that was killed reads the tail of the changelog only, and counts on exactly."""
    metrics = Metrics()

    def copied() -> bool:
        owners = {target.partition for target in survivor.partitions}
        return len(owners) == PARTITIONS // 2 and all(
            metrics.value("headrace_standby_entries", topic=changelog(place), partition=partition) == len(KEYS)
            for partition in set(range(PARTITIONS)) - owners
        )

    def read() -> float:
        return metrics.value("headrace_restore_records_total", topic=changelog(place))

    with child(place, "1") as killed:
        await append_everywhere(place, KEYS)
        await place.wait_done()
        [killed_member] = await members(kafka.bootstrap, place.group)
        make_log = partial(KafkaLog, metrics=metrics)
        async with place.worker(counting(place), runtime=STANDING_BY, make_log=make_log) as survivor:
            await wait_until(copied, "no copies are kept")
            before = read()
            await append_everywhere(place, KEYS[:5])
            await place.wait_done()
            killed.kill()
            await end_session(kafka.bootstrap, place.group, killed_member)
            await wait_shared([survivor], PARTITIONS)
            tail = read() - before
            await append_everywhere(place, KEYS[:5])
            await place.wait_done()

    assert before == PARTITIONS // 2 * len(KEYS)
    assert tail <= PARTITIONS // 2 * 5
    counts = [b"%s=%d" % (key, time) for keys, time in ((KEYS, 1), (KEYS[:5], 2), (KEYS[:5], 3)) for key in keys]
    assert await place.values() == dict.fromkeys(range(PARTITIONS), counts)


async def test_each_copy_is_with_another_worker(place: Place) -> None:
    """Three workers: nobody stands by for himself, each partition has one copy; with two it is the same."""

    def shared_out(workers: Sequence[Any]) -> bool:
        copies: list[TopicPartition] = []
        for worker in workers:
            mine = {*worker.app.assignor.standbys}
            assert not mine & worker.partitions
            copies += mine
        return sorted(copies) == [place.target(partition) for partition in range(PARTITIONS)]

    async with AsyncExitStack() as stack:
        workers = [
            await stack.enter_async_context(place.worker(counting(place), runtime=STANDING_BY)) for _ in range(3)
        ]
        await wait_shared(workers, PARTITIONS)
        assert shared_out(workers)
        await append_everywhere(place, KEYS[:3])
        await place.wait_done()
        await workers.pop().stop()
        await wait_shared(workers, PARTITIONS)
        assert shared_out(workers)
        await append_everywhere(place, KEYS[:3])
        await place.wait_done()

    counts = [b"%s=%d" % (key, time) for time in (1, 2) for key in KEYS[:3]]
    assert await place.values() == dict.fromkeys(range(PARTITIONS), counts)


async def test_killed_during_a_restore(place: Place) -> None:
    """Whoever comes next restores from the beginning: nothing of half a table has any effect."""
    async with place.worker(counting(place)) as worker:
        await wait_shared([worker], PARTITIONS)
        await append_everywhere(place, KEYS)
        await place.wait_done()
    await append_everywhere(place, KEYS[:5])

    with child(place, "0", "half") as killed:
        assert killed.stdout is not None
        assert await asyncio.to_thread(killed.stdout.readline) == "half\n"
        killed.kill()
        async with place.worker(counting(place)) as worker:
            await wait_shared([worker], PARTITIONS)
            await place.wait_done()

    counts = [*(b"%s=1" % key for key in KEYS), *(b"%s=2" % key for key in KEYS[:5])]
    assert await place.values() == dict.fromkeys(range(PARTITIONS), counts)


class _OneSlowRestore(KafkaLog):
    """Restores the last partition only when it may."""

    def __init__(self, *args: Any, go_on: asyncio.Event) -> None:
        super().__init__(*args)
        self._go_on = go_on

    async def restore(self, target: TopicPartition) -> AsyncIterator[Sequence[tuple[bytes, bytes]]]:
        if target.partition == PARTITIONS - 1:
            await self._go_on.wait()
        async for entries in super().restore(target):
            yield entries


async def test_partitions_that_are_ready_do_not_wait(place: Place) -> None:
    """While one table takes long, the partitions whose tables are restored work, and are committed."""
    async with place.worker(counting(place)) as worker:
        await wait_shared([worker], PARTITIONS)
        await append_everywhere(place, KEYS[:3])
        await place.wait_done()
    await append_everywhere(place, KEYS[:3])
    positions = await place.log.positions(place.group, place.topic)
    slow = place.target(PARTITIONS - 1)

    async def others_done() -> bool:
        ends, committed = await place.log.end_offsets(place.topic), await place.log.positions(place.group, place.topic)
        return all(committed[target] == end for target, end in ends.items() if target != slow)

    go_on = asyncio.Event()
    async with place.worker(counting(place), make_log=partial(_OneSlowRestore, go_on=go_on)):
        await wait_until(others_done, "the other partitions wait")
        stuck = (await place.log.positions(place.group, place.topic))[slow]
        go_on.set()
        await place.wait_done()

    assert stuck == positions[slow]
    counts = [b"%s=%d" % (key, time) for time in (1, 2) for key in KEYS[:3]]
    assert await place.values() == dict.fromkeys(range(PARTITIONS), counts)


async def test_refused_commit_while_others_are_restored(place: Place) -> None:
    """A partition that works already starts over with those that do not, and everything is counted once."""
    same_name = KafkaLog(place.url, SETTINGS.model_copy(update={"instance": "fenced"}))
    await same_name.start()
    await append_everywhere(place, KEYS[:3])
    slow = place.target(PARTITIONS - 1)

    async def others_done() -> bool:
        ends, committed = await place.log.end_offsets(place.topic), await place.log.positions(place.group, place.topic)
        return all(committed[target] == end for target, end in ends.items() if target != slow)

    go_on = asyncio.Event()
    make_log = partial(_OneSlowRestore, go_on=go_on)
    async with place.worker(counting(place), make_log=make_log, instance="fenced") as worker:
        await wait_until(others_done, "the other partitions wait")
        note = Append(TopicPartition(place.output, 0), Records([None], [b"fenced"], [1]))
        await same_name.commit(Transaction([note], group=place.group))
        await append_everywhere(place, KEYS[:3])
        await wait_until(others_done, "the other partitions do not start over")
        go_on.set()
        await place.wait_done()

        assert worker.consumer.rebalances == 1
    await same_name.close()
    counts = [b"%s=%d" % (key, time) for time in (1, 2) for key in KEYS[:3]]
    expected = {partition: list(counts) for partition in range(PARTITIONS)}
    expected[0].insert(3, b"fenced")
    assert await place.values() == expected


# -- what happened to the changelog


async def why_stopped(worker: Worker, target: TopicPartition) -> str:
    """Why this partition, and no other, does not go on."""
    await wait_shared([worker], PARTITIONS)
    [(stopped, why)] = worker.app.stopped_partitions.items()
    assert stopped == target
    return why


async def test_changelog_that_lost_records_stops_its_partition(place: Place, kafka: Server) -> None:
    """The others go on; when the topic was reset it does too, and what is deleted later is noticed again."""
    target = TopicPartition(changelog(place), 0)
    async with place.worker(counting(place)) as worker:
        await wait_shared([worker], PARTITIONS)
        await append_everywhere(place, KEYS[:3])
        await place.wait_done()
    await allow_deletion(kafka.bootstrap, target.topic)
    await delete_records(kafka.bootstrap, target, 2)
    await append_everywhere(place, KEYS[:3])

    async with place.worker(counting(place)) as worker:
        why = await why_stopped(worker, place.target(0))
    assert "has lost its records before offset 2" in why
    assert f"`headrace topics reset {place.topic} --group {place.group}` starts the tables over" in why

    reset = await plan_reset(place.log, place.group, place.topic, "latest", ["count"])
    await carry_out(place.log, reset)
    await append_everywhere(place, KEYS[:1])
    async with place.worker(counting(place)) as worker:
        await wait_shared([worker], PARTITIONS)
        await place.wait_done()
    assert (await place.values())[0] == [*(b"%s=1" % key for key in KEYS[:3]), b"0=1"]

    await delete_records(kafka.bootstrap, target, 3)
    async with place.worker(counting(place)) as worker:
        assert "before offset 3" in await why_stopped(worker, place.target(0))


async def test_changelog_that_is_damaged_on_disk_stops_its_partition(place: Place, kafka: Server) -> None:
    """A record batch whose checksum is wrong, as Kafka serves it: no hang, and no worker ends."""
    if not isinstance(kafka, Cluster):
        pytest.skip("this Kafka's disk is not ours")
    async with place.worker(counting(place)) as worker:
        await wait_shared([worker], PARTITIONS)
        await append_everywhere(place, KEYS[:3])
        await place.wait_done()
    [segment] = kafka.folder.glob(f"**/{changelog(place)}-0/*.log")
    content = segment.read_bytes()
    with segment.open("r+b") as file:  # in place: the broker has it open
        file.seek(IN_FIRST_RECORD)
        file.write(bytes([content[IN_FIRST_RECORD] ^ 0xFF]))

    async with place.worker(counting(place)) as worker:
        why = await why_stopped(worker, place.target(0))

    assert f"{changelog(place)}/0 is damaged from offset 0 on" in why
    assert f"Delete topic {changelog(place)}, then `headrace topics reset {place.topic}" in why
