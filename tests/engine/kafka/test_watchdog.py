"""Fetching that stands still is noticed and made anew."""

import asyncio
from collections.abc import AsyncIterator
from uuid import uuid4

import pytest

from headrace.engine.clock import SystemClock
from headrace.engine.kafka.fetcher import Deliver, Fetcher
from headrace.engine.kafka.log import KafkaLog
from headrace.engine.kafka.reader import KafkaReader
from headrace.engine.kafka.settings import KafkaSettings
from headrace.engine.kafka.watchdog import Watchdog
from headrace.engine.log import Append, TopicPartition, TopicSpec, Transaction
from headrace.engine.records import Records
from tests.conftest import KafkaServer
from tests.contract.log_access import PATIENCE

pytestmark = pytest.mark.integration
STALL_TIMEOUT = 1000.0


class Hand(SystemClock):
    """Stands still until it is moved, so that no slow machine is taken for a stall; nobody sleeps long."""

    def __init__(self) -> None:
        self.now = 0.0
        self.sleeps = 0

    def monotonic(self) -> float:
        return self.now

    async def sleep(self, delay: float) -> None:
        self.sleeps += 1
        await asyncio.sleep(min(delay, 0.01))


class Watched(KafkaLog):
    """A log whose readers, and who watches them, go by clocks of the test."""

    def __init__(self, bootstrap: str) -> None:
        super().__init__(f"kafka://{bootstrap}", KafkaSettings(stall_timeout=STALL_TIMEOUT))
        #: Of what is fetched, and of who looks at it: that one sleeps between two looks, and for nothing else.
        self.hand, self.looks = Hand(), Hand()

    def reader(self) -> KafkaReader:
        async def make(deliver: Deliver) -> Fetcher:
            return Fetcher(await self._new_client(), self.hand, deliver)

        watchdog = Watchdog(self._known, self.hand, STALL_TIMEOUT, PATIENCE)
        reader = KafkaReader(self._thread, make, watchdog, self.looks, self._metrics, self._readers.remove)
        self._readers.append(reader)
        return reader


@pytest.fixture
async def log(kafka: KafkaServer) -> AsyncIterator[Watched]:
    """A log on the Kafka that all share."""
    log = Watched(kafka.bootstrap)
    await log.start()
    yield log
    await log.close()


async def read_one(reader: KafkaReader, target: TopicPartition, offset: int) -> tuple[bytes | None, int]:
    """The value at `offset` or after it, and where to read on."""
    while True:
        fetched = await reader.read(target, offset, 10)
        if fetched is None:
            assert await reader.wait({target: offset}, PATIENCE), "nothing arrived"
            continue
        offset = fetched.next_offset
        if len(fetched.records):
            return fetched.records.values[0], offset


async def die(fetcher: Fetcher) -> None:
    """Stand still for good, as an error that nobody foresaw would make it."""
    fetcher._closed = True
    for task in fetcher._tasks:
        task.cancel()


async def test_dead_fetcher_is_replaced(log: Watched) -> None:
    """A reader whose fetching has died reads on by itself, from where it was."""
    target = TopicPartition(f"watchdog-{uuid4()}", 0)
    await log.create_topics([TopicSpec(target.topic, 1)])
    reader = log.reader()
    await log.commit(Transaction([Append(target, Records([b"k"], [b"first"], [1]))]))
    _, offset = await read_one(reader, target, 0)
    assert reader._fetcher is not None
    await reader._thread.run(die(reader._fetcher))

    await log.commit(Transaction([Append(target, Records([b"k"], [b"second"], [1]))]))
    log.hand.now += STALL_TIMEOUT
    value, _ = await read_one(reader, target, offset)

    assert value == b"second"
    assert reader.rebuilds == 1


async def test_idle_partition_is_no_stall(log: Watched) -> None:
    """Without lag there is nothing to rebuild, however long nothing comes."""
    target = TopicPartition(f"watchdog-{uuid4()}", 0)
    await log.create_topics([TopicSpec(target.topic, 1)])
    reader = log.reader()
    await log.commit(Transaction([Append(target, Records([b"k"], [b"first"], [1]))]))
    _, offset = await read_one(reader, target, 0)

    end = (await log.end_offsets(target.topic))[target]
    while offset < end:
        assert await reader.wait({target: offset}, PATIENCE)
        fetched = await reader.read(target, offset, 10)
        assert fetched is not None
        offset = fetched.next_offset

    assert await reader.read(target, end, 10) is None
    log.hand.now += 10 * STALL_TIMEOUT
    looks = log.looks.sleeps
    while log.looks.sleeps < looks + 3:
        await asyncio.sleep(0.01)

    assert reader.rebuilds == 0
