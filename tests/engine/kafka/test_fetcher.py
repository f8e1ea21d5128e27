"""Fetching shares out its requests among partitions."""

import asyncio
import os
from collections import Counter
from typing import Any

import pytest
from aiokafka.client import ConnectionGroup
from aiokafka.protocol.fetch import FetchRequest

from headrace.engine.clock import SystemClock
from headrace.engine.kafka.client import Client
from headrace.engine.kafka.fetcher import Arrival, Fetcher
from headrace.engine.kafka.log import KafkaLog
from headrace.engine.log import Append, TopicPartition, Transaction
from headrace.engine.records import Records
from tests.conftest import KafkaServer
from tests.contract.log_access import PATIENCE, Names

pytestmark = pytest.mark.integration


class Noted(Client):
    """A client that notes which partitions it was asked to fetch."""

    def __init__(self, bootstrap: str) -> None:
        super().__init__(bootstrap_servers=bootstrap)
        self.asked: Counter[TopicPartition] = Counter()

    async def send(self, node_id: int, request: Any, *, group: object = ConnectionGroup.DEFAULT) -> Any:
        if isinstance(request, FetchRequest):
            self.asked.update(TopicPartition(topic, part[0]) for topic, parts in request.topics for part in parts)
        return await super().send(node_id, request, group=group)


class Impatient:
    """A reader that takes everything at once, and notes how often a partition was asked for before it came."""

    def __init__(self, client: Noted) -> None:
        self.turns: dict[TopicPartition, int] = {}
        self.fetcher = Fetcher(client, SystemClock(), self.deliver)
        self._client = client
        self._arrived = asyncio.Event()

    def deliver(self, arrivals: list[Arrival]) -> None:
        for arrival in arrivals:
            assert arrival.error is None
            self.turns.setdefault(arrival.target, self._client.asked[arrival.target])
            self.fetcher.release(arrival.target, arrival.seek, sum(len(each.payload) for each in arrival.stretches))
        self._arrived.set()

    async def wait_for(self, target: TopicPartition) -> None:
        async with asyncio.timeout(PATIENCE):
            while target not in self.turns:
                self._arrived.clear()
                await self._arrived.wait()


async def test_large_batch_comes_though_another_partition_always_has_something(
    kafka: KafkaServer, log: KafkaLog, names: Names
) -> None:
    """A batch larger than the share of its partition is not put off until a backlog before it is read."""
    backlog = Records([None] * 40, [os.urandom(1 << 19) for _ in range(40)], [1] * 40)
    large = Records([None], [os.urandom(3 << 20)], [1])
    await log.commit(Transaction([Append(names.p0, backlog), Append(names.p1, large)]))
    client = Noted(kafka.bootstrap)
    await client.bootstrap()
    reader = Impatient(client)
    reader.fetcher.seek(names.p0, 0, 1)
    reader.fetcher.seek(names.p1, 0, 2)

    await reader.wait_for(names.p1)
    await reader.fetcher.close()

    # The first time it may be asked for behind the other. How much of that one comes meanwhile is the machine's affair.
    assert reader.turns[names.p1] <= 2
