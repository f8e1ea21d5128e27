"""Fetching that stands still is noticed and made anew."""

from collections.abc import AsyncIterator
from uuid import uuid4

import pytest

from headrace.engine.clock import SystemClock
from headrace.engine.kafka.fetcher import Fetcher
from headrace.engine.kafka.log import KafkaLog
from headrace.engine.kafka.reader import KafkaReader
from headrace.engine.kafka.settings import KafkaSettings
from headrace.engine.log import Append, TopicPartition, TopicSpec, Transaction
from headrace.engine.records import Records
from tests.conftest import KafkaServer

pytestmark = pytest.mark.integration


@pytest.fixture
async def log(kafka: KafkaServer) -> AsyncIterator[KafkaLog]:
    """A log whose watchdog is quick."""
    log = KafkaLog(f"kafka://{kafka.bootstrap}", KafkaSettings(stall_timeout=1.0))
    await log.start()
    yield log
    await log.close()


async def read_one(reader: KafkaReader, target: TopicPartition, offset: int) -> tuple[bytes | None, int]:
    """The value at `offset` or after it, and where to read on."""
    while True:
        fetched = await reader.read(target, offset, 10)
        if fetched is None:
            assert await reader.wait({target: offset}, 30), "nothing arrived"
            continue
        offset = fetched.next_offset
        if len(fetched.records):
            return fetched.records.values[0], offset


async def die(fetcher: Fetcher) -> None:
    """Stand still for good, as an error that nobody foresaw would make it."""
    fetcher._closed = True
    for task in fetcher._tasks:
        task.cancel()


async def test_dead_fetcher_is_replaced(log: KafkaLog) -> None:
    """A reader whose fetching has died reads on by itself, from where it was."""
    target = TopicPartition(f"watchdog-{uuid4()}", 0)
    await log.create_topics([TopicSpec(target.topic, 1)])
    reader = log.reader()
    assert isinstance(reader, KafkaReader)
    await log.commit(Transaction([Append(target, Records([b"k"], [b"first"], [1]))]))
    _, offset = await read_one(reader, target, 0)
    assert reader._fetcher is not None
    await reader._thread.run(die(reader._fetcher))

    await log.commit(Transaction([Append(target, Records([b"k"], [b"second"], [1]))]))
    value, _ = await read_one(reader, target, offset)

    assert value == b"second"
    assert reader.rebuilds == 1


async def test_idle_partition_is_no_stall(log: KafkaLog) -> None:
    """Without lag there is nothing to rebuild, however long nothing comes."""
    target = TopicPartition(f"watchdog-{uuid4()}", 0)
    await log.create_topics([TopicSpec(target.topic, 1)])
    reader = log.reader()
    assert isinstance(reader, KafkaReader)
    await log.commit(Transaction([Append(target, Records([b"k"], [b"first"], [1]))]))
    _, offset = await read_one(reader, target, 0)

    await reader.wait({target: offset + 1}, 0.1)
    await SystemClock().sleep(2.0)

    assert reader.rebuilds == 0
