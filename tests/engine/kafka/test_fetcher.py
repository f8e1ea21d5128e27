"""Fetching shares out its requests among partitions."""

import asyncio
import os

import pytest

from headrace.engine.clock import SystemClock
from headrace.engine.kafka.fetcher import Arrival, Fetcher
from headrace.engine.kafka.log import KafkaLog
from headrace.engine.log import Append, TopicPartition, Transaction
from headrace.engine.records import Records
from tests.conftest import KafkaServer
from tests.contract.log_access import PATIENCE, Names
from tests.engine.kafka.held_log import connected

pytestmark = pytest.mark.integration


class Impatient:
    """A reader that takes everything at once, and notes which partition it came from."""

    def __init__(self) -> None:
        self.order: list[TopicPartition] = []
        self.fetcher: Fetcher | None = None
        self._arrived = asyncio.Event()

    def deliver(self, arrivals: list[Arrival]) -> None:
        assert self.fetcher is not None
        for arrival in arrivals:
            assert arrival.error is None
            self.order.append(arrival.target)
            self.fetcher.release(arrival.target, arrival.seek, sum(len(each.payload) for each in arrival.stretches))
        self._arrived.set()

    async def wait_for(self, target: TopicPartition) -> None:
        async with asyncio.timeout(PATIENCE):
            while target not in self.order:
                self._arrived.clear()
                await self._arrived.wait()


async def test_large_batch_comes_though_another_partition_always_has_something(
    kafka: KafkaServer, log: KafkaLog, names: Names
) -> None:
    """A batch larger than the share of its partition is not put off until a backlog before it is read."""
    backlog = Records([None] * 40, [os.urandom(1 << 19) for _ in range(40)], [1] * 40)
    large = Records([None], [os.urandom(3 << 20)], [1])
    await log.commit(Transaction([Append(names.p0, backlog), Append(names.p1, large)]))
    reader = Impatient()
    async with connected(kafka.bootstrap) as client:
        fetcher = reader.fetcher = Fetcher(client, SystemClock(), reader.deliver)
        fetcher.seek(names.p0, 0, 1)
        fetcher.seek(names.p1, 0, 2)

        await reader.wait_for(names.p1)
        await fetcher.close()

    assert len(reader.order) < 10
