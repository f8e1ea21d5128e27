"""Reading a partition goes on whatever becomes of it, fetches ahead within bounds, and says what it cannot help."""

import asyncio
import os

import pytest
from structlog.testing import capture_logs

from headrace.engine.clock import SystemClock
from headrace.engine.errors import LogError, TopicChanged
from headrace.engine.kafka.fetcher import BUFFER_BYTES
from headrace.engine.kafka.log import KafkaLog
from headrace.engine.kafka.reader import KafkaReader
from headrace.engine.kafka.settings import KafkaSettings
from headrace.engine.log import Append, Fetched, TopicPartition, TopicSpec, Transaction
from headrace.engine.log_range import reading
from headrace.engine.records import Records
from tests.conftest import KafkaServer
from tests.contract.log_access import PATIENCE, Names, append, fetch, numbers, read_all
from tests.engine.kafka.admin import delete_records, delete_topic, make_anew, make_topic

pytestmark = pytest.mark.integration


async def test_dropped_records_are_counted_and_passed(kafka: KafkaServer, log: KafkaLog, names: Names) -> None:
    """When retention drops what was not read yet, that is logged with its count, and reading goes on behind it."""
    await append(log, names.p0, *numbers(10))
    first = await read_first(log, names.p0)
    await append(log, names.p0, *numbers(10, 10))
    await delete_records(kafka.bootstrap, names.p0, 16)

    with capture_logs() as logged:
        async with reading(log) as reader:
            # The step over the gap may come by itself, or with what is behind it.
            pieces = [await fetch(reader, names.p0, first)]
            if pieces[0].next_offset == 16:
                pieces.append(await fetch(reader, names.p0, 16))

    found = Fetched.joined(pieces)
    assert (found.base_offset, found.offset(0), found.records.values) == (first, 16, numbers(5, 15))
    lost = [entry for entry in logged if entry["event"] == "records_lost"]
    assert [(entry["count"], entry["topic"]) for entry in lost] == [(16 - first, names.events)]


async def read_first(log: KafkaLog, target: TopicPartition) -> int:
    """Read one record; where the next one is."""
    async with reading(log) as reader:
        return (await fetch(reader, target, 0, 1)).next_offset


async def test_beginning_where_nothing_is_kept_is_no_loss(kafka: KafkaServer, log: KafkaLog, names: Names) -> None:
    """Who has never read begins with the oldest record kept; nothing is reported lost."""
    await append(log, names.p0, *numbers(10))
    await delete_records(kafka.bootstrap, names.p0, 4)

    with capture_logs() as logged:
        found = await read_all(log, names.p0)

    assert found == numbers(6, 4)
    assert logged == []


async def test_dropped_below_a_running_reader(kafka: KafkaServer, log: KafkaLog, names: Names) -> None:
    """A reader whose place is dropped between two reads goes on with the oldest record kept."""
    await append(log, names.p0, *numbers(3))
    end = (await log.end_offsets(names.events))[names.p0]
    async with reading(log) as reader:
        await fetch(reader, names.p0, 0)
        assert not await reader.wait({names.p0: end}, 0.1)
        await append(log, names.p0, *numbers(3, 3))

        found = await fetch(reader, names.p0, end)
        await delete_records(kafka.bootstrap, names.p0, found.next_offset)
        await append(log, names.p0, b"last")

        assert found.records.values == numbers(3, 3)
        assert (await fetch(reader, names.p0, found.next_offset)).records.values == [b"last"]


@pytest.mark.parametrize("new_records", [0, 500], ids=["shorter than before", "longer than before"])
async def test_topic_made_anew_stops_its_reader(
    kafka: KafkaServer, log: KafkaLog, names: Names, new_records: int
) -> None:
    """A topic that was deleted and made again is not read on in silence: the error names the command that helps."""
    await append(log, names.p0, *numbers(100))
    await append(log, names.o0, b"other")
    async with reading(log) as reader:
        position = 0
        while position < (await log.end_offsets(names.events))[names.p0]:
            position = (await fetch(reader, names.p0, position)).next_offset
        await make_anew(kafka.bootstrap, names.events, 2)
        if new_records:
            await append(log, names.p0, *numbers(new_records))

        with pytest.raises(TopicChanged, match=f"headrace topics reset {names.events}"):
            await fetch(reader, names.p0, position)

        with pytest.raises(TopicChanged):
            await reader.read(names.p0, position, 10)
        assert (await fetch(reader, names.o0, 0)).records.values == [b"other"]
        if new_records:
            assert (await fetch(reader, names.p0, 0)).records.values[:3] == numbers(3)


async def test_topic_made_anew_while_its_reader_looked_for_it(kafka: KafkaServer, log: KafkaLog, names: Names) -> None:
    """A reader that finds the new topic only when it is longer than the old one reads nothing of it."""
    await append(log, names.p0, *numbers(10))
    async with reading(log) as reader:
        assert isinstance(reader, KafkaReader)
        position = 0
        while position < (await log.end_offsets(names.events))[names.p0]:
            position = (await fetch(reader, names.p0, position)).next_offset
        search = HeldSearch(reader)
        await delete_topic(kafka.bootstrap, names.events)
        await search.is_begun()
        await make_topic(kafka.bootstrap, names.events, 2)
        await append(log, names.p0, *numbers(500))
        await log.end_offsets(names.events)
        search.go_on()

        with pytest.raises(TopicChanged):
            await fetch(reader, names.p0, position)


class HeldSearch:
    """Holds up a reader's search for leaders."""

    def __init__(self, reader: KafkaReader) -> None:
        assert reader._fetcher is not None
        self._search = reader._fetcher._find_leaders
        self._begun = self._going_on = False
        reader._fetcher._find_leaders = self._look  # type: ignore[method-assign]

    async def _look(self) -> None:
        self._begun = True
        while not self._going_on:
            await asyncio.sleep(0.01)
        await self._search()

    async def is_begun(self) -> None:
        async with asyncio.timeout(PATIENCE):
            while not self._begun:
                await asyncio.sleep(0.01)

    def go_on(self) -> None:
        self._going_on = True


async def test_slow_reader_of_a_large_backlog_buffers_little(log: KafkaLog) -> None:
    """What is fetched ahead stays within the bound, over all partitions; all of it comes when it is read."""
    topic = Names.new().events
    await log.create_topics([TopicSpec(topic, 24)])
    targets = [TopicPartition(topic, number) for number in range(24)]
    sent: list[bytes | None] = [os.urandom(1 << 19) for _ in range(6)]
    for start in range(0, 24, 8):
        await log.commit(
            Transaction([Append(target, Records([None] * 6, sent, [1] * 6)) for target in targets[start : start + 8]])
        )
    reader = log.reader()
    assert isinstance(reader, KafkaReader)
    places = dict.fromkeys(targets, 0)
    await reader.wait(places, PATIENCE)
    buffered = await settled_size(reader)

    found: dict[TopicPartition, list[bytes | None]] = {target: [] for target in targets}
    most = buffered
    while any(len(values) < 6 for values in found.values()):
        for target, values in found.items():
            if len(values) < 6:
                fetched = await fetch(reader, target, places[target], 1)
                values.extend(fetched.records.values)
                places[target] = fetched.next_offset
        most = max(most, size(reader))

    assert buffered <= most <= BUFFER_BYTES * 1.1 < sum(map(len, filter(None, sent))) * 24
    assert all(values == sent for values in found.values())
    await reader.close()


def size(reader: KafkaReader) -> int:
    """Bytes that a reader holds."""
    return sum(len(stretch.payload) for buffer in reader._buffers.values() for stretch in buffer.stretches)


async def settled_size(reader: KafkaReader) -> int:
    """Bytes that a reader holds once it fetches no more: more than half of the bound, however long the broker takes."""
    before = -1
    async with asyncio.timeout(PATIENCE):
        while (now := size(reader)) != before or now <= BUFFER_BYTES / 2:
            before = now
            await SystemClock().sleep(0.5)
    return now


async def known(reader: KafkaReader, topic: str) -> None:
    """Until a reader knows where a topic is."""
    assert reader._fetcher is not None
    await reader._fetcher._client.add_topic(topic)


async def held_request(reader: KafkaReader) -> "asyncio.Task[None]":
    """The request that a broker holds, as it has nothing for it: the only one once nobody has just sought anything."""

    async def only_one() -> "asyncio.Task[None] | None":
        assert reader._fetcher is not None
        found = [task for task in reader._fetcher._tasks if task.get_name() == "fetch"]
        to_come = any(cursor.eager and not cursor.busy for cursor in reader._fetcher._cursors.values())
        return found[0] if len(found) == 1 and not to_come else None

    while (task := await reader._thread.run(only_one())) is None:
        await asyncio.sleep(0.01)
    return task


async def test_sought_partition_does_not_wait_for_idle_ones(
    kafka: KafkaServer, names: Names, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While a broker holds a request for partitions that have nothing, another one is asked for beside it."""
    monkeypatch.setattr("headrace.engine.kafka.fetcher.PATIENT_WAIT_MS", round(PATIENCE * 1000))
    log = KafkaLog(f"kafka://{kafka.bootstrap}", KafkaSettings(request_timeout=2 * PATIENCE))
    await log.start()
    await append(log, names.o0, *numbers(3))
    await log.end_offsets(names.other)  # readers see it now
    async with reading(log) as reader:
        assert isinstance(reader, KafkaReader)
        assert not await reader.wait({}, 0)
        # Where a topic is it would ask behind what the broker holds.
        for topic in (names.events, names.other):
            await reader._thread.run(known(reader, topic))
        assert not await reader.wait({names.p0: 0, names.p1: 0}, 0)
        held = await held_request(reader)
        for number in range(3):
            found = await fetch(reader, names.o0, number)

            assert found.records.values == numbers(3)[number:]
            assert not held.done()
    await log.close()


async def test_closed_reader_ends_its_waiters(log: KafkaLog, names: Names) -> None:
    """Closing a reader ends who waits on it, with an error; reading on is one, too."""
    reader = log.reader()
    assert not await reader.wait({names.p0: 0}, 0)
    waiting = asyncio.create_task(reader.wait({names.p0: 0}, PATIENCE))
    await asyncio.sleep(0)

    await reader.close()

    with pytest.raises(LogError):
        await waiting
    with pytest.raises(LogError):
        await reader.read(names.p0, 0, 1)


async def test_closing_a_reader_while_it_opens(log: KafkaLog, names: Names) -> None:
    """A reader that is closed before it has connected leaves nothing behind; who waits for it gets an error."""
    reader = log.reader()
    assert isinstance(reader, KafkaReader)
    read = asyncio.create_task(reader.read(names.p0, 0, 1))
    await asyncio.sleep(0)

    await reader.close()

    with pytest.raises(LogError):
        await read
    assert reader._fetcher is None
    assert reader not in log._readers


async def test_forgotten_partitions_are_not_fetched(log: KafkaLog, names: Names) -> None:
    """What another worker reads now is fetched no more, until it is asked for again."""
    await append(log, names.p0, *numbers(5))
    async with reading(log) as reader:
        assert isinstance(reader, KafkaReader)
        await fetch(reader, names.p0, 0, 2)
        await fetch(reader, names.p0, 2, 1)
        reader.forget([names.p0, names.p1])
        await log.end_offsets(names.events)
        assert reader._fetcher is not None
        assert reader._fetcher.positions() == {}

        assert (await fetch(reader, names.p0, 3)).records.values == numbers(2, 3)


async def test_reading_before_the_topic_exists(log: KafkaLog) -> None:
    """A partition of a topic that is made later is read when it is there."""
    target = TopicPartition(Names.new().events, 0)
    async with reading(log) as reader:
        assert not await reader.wait({target: 0}, 0.2)
        await log.create_topics([TopicSpec(target.topic, 1)])
        await append(log, target, b"first")

        assert (await fetch(reader, target, 0)).records.values == [b"first"]
