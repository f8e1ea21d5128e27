"""A replicated table of a topic that the broker has compacted."""

import asyncio

import pytest

from headrace.engine.clock import SystemClock
from headrace.engine.health import Health
from headrace.engine.kafka.log import KafkaLog
from headrace.engine.kafka.settings import KafkaSettings
from headrace.engine.log import Changes, TopicPartition, Transaction
from headrace.engine.metrics import Metrics
from headrace.engine.records import Records
from headrace.engine.replicas import Replicas
from headrace.tables.replicated import Replicated
from tests.conftest import KafkaServer
from tests.contract.change_promises import ordered_topic
from tests.contract.log_access import PATIENCE, offsets_of
from tests.engine.kafka.admin import begin_segments_often, config

pytestmark = pytest.mark.integration
T0 = 1_700_000_000_000


class Reads:
    """An operator, as far as it reads a table."""

    def __init__(self, topic: str) -> None:
        self.names = Replicated(topic, bytes.decode)
        self.replicas = (self.names,)


async def read_now(log: KafkaLog, topic: str) -> Replicated[str]:
    """A new table, as current as a batch would find it."""
    operator = Reads(topic)
    replicas = Replicas(log, SystemClock(), Metrics(), Health(SystemClock()))
    gate = replicas.add(operator)
    assert gate is not None
    async with replicas, asyncio.timeout(PATIENCE):
        await gate.wait_current(Records([b"k"], [b"v"], [SystemClock().now_ms()]))
    return operator.names


async def test_a_compacted_topic_gives_the_newest_values(odd_kafka: KafkaServer) -> None:
    """Where the cleaner took out what was replaced, and deleted keys, the rest is found, with its times."""
    log = KafkaLog(f"kafka://{odd_kafka.bootstrap}", KafkaSettings())
    await log.start()
    target: TopicPartition = await ordered_topic(log)
    await begin_segments_often(odd_kafka.bootstrap, target.topic)

    async with asyncio.timeout(PATIENCE):
        for number in range(1000):
            entries: dict[bytes, bytes | None] = {b"a": b"n%d" % number, b"k%d" % number: b"x"}
            entries |= {b"k%d" % (number - 1): None} if number else {}
            await log.commit(Transaction(changes=[Changes(target, entries, T0 + number)]))
            names = await read_now(log, target.topic)
            assert dict(names.items(T0 + number)) == {"a": f"n{number}", f"k{number}": "x"}
            if number > 3 and len(await offsets_of(log, target)) < 2 * number:
                break
            await asyncio.sleep(0.2)
    await log.close()


async def test_history_survives_the_cleaner(odd_kafka: KafkaServer) -> None:
    """Changes that are younger than the topic's retention are not compacted, however eager the cleaner is."""
    log = KafkaLog(f"kafka://{odd_kafka.bootstrap}", KafkaSettings())
    await log.start()
    kept, compacted = await ordered_topic(log), await ordered_topic(log)
    assert "3600000" in await config(odd_kafka.bootstrap, kept.topic, "min.compaction.lag.ms")
    await begin_segments_often(odd_kafka.bootstrap, kept.topic, min_compaction_lag_ms="3600000")
    await begin_segments_often(odd_kafka.bootstrap, compacted.topic)

    async with asyncio.timeout(PATIENCE):
        for number in range(1000):
            changes = [Changes(target, {b"a": b"n%d" % number}) for target in (kept, compacted)]
            await log.commit(Transaction(changes=changes))
            if number > 3 and len(await offsets_of(log, compacted)) < number // 2:
                break
            await asyncio.sleep(0.2)

    assert len(await offsets_of(log, kept)) == number + 1
    await log.close()
