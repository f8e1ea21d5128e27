"""The source commits its positions on Kafka as it does in a folder, and only one process at a time does."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import orjson
import pytest
from local_kafka.cluster import Cluster

from headrace.engine.clock import SystemClock
from headrace.engine.errors import LogInUse
from headrace.engine.intake import Intake
from headrace.engine.kafka.log import KafkaLog
from headrace.engine.kafka.settings import KafkaSettings
from tests.chaos.bridge_world import read_all
from tests.connectors.kinesis.aws import Stream, client
from tests.connectors.kinesis.reading import PATIENCE, Reading, merge, put, sharded_moto, split
from tests.contract.source_contract import Message, by_device, made, until

pytestmark = pytest.mark.integration

DEVICES = 11
#: Reads and appends.
SMALL: dict[str, Any] = {"max_records": 30, "max_batch": 17}


@asynccontextmanager
async def opened(cluster: Cluster) -> AsyncIterator[KafkaLog]:
    """The log of one process."""
    log = KafkaLog(f"kafka://{cluster.bootstrap}", KafkaSettings(), SystemClock(), role="test")
    await log.start()
    try:
        await log.create_topics(Intake.topic_specs(4))
        yield log
    finally:
        await log.close()


async def arrived(log: KafkaLog, count: int) -> list[tuple[str, bytes]]:
    """The messages in the log, once there are so many different ones."""
    async with asyncio.timeout(PATIENCE):
        while len(set(found := await read_all(log))) < count:
            await asyncio.sleep(0.05)
    return [(f"d{orjson.loads(each)['seq'] % DEVICES}", each) for each in found]


async def wait_appended(reading: Reading, count: int) -> None:
    """Until a source has appended so many messages, at least."""
    await until(lambda: reading.source.statistics().appended >= count)


async def take_over(kinesis: Any, url: str, older: KafkaLog, newer: KafkaLog, messages: Sequence[Message]) -> None:
    """A source is at work when another one begins; raises what the first one ends with."""
    async with Reading(url, Intake(older, SystemClock()), **SMALL) as pushed:
        await put(kinesis, messages[:80])
        await wait_appended(pushed, 20)
        async with Reading(url, Intake(newer, SystemClock()), **SMALL) as reading:
            await until(lambda: not reading.health.unready())  # what comes from now on, both want to take
            await put(kinesis, messages[80:])
            await asyncio.wait([pushed.task])


async def test_every_message_once_through_crashes_and_take_overs(kafka_tools: None) -> None:
    """Also while shards are split and merged, and from processes that commit late, or when another one has begun."""
    messages = made(500, DEVICES)
    with Cluster() as cluster, sharded_moto() as url:
        async with client(url) as kinesis, AsyncExitStack() as stack:
            await Stream(kinesis, "fleet").make()

            async def process() -> KafkaLog:
                return await stack.enter_async_context(opened(cluster))  # until the end: a crash closes nothing

            for kill, reshard in enumerate((split, merge, split, merge)):
                some = messages[80 * kill : 80 * kill + 80]
                await put(kinesis, some[:40])
                await reshard(kinesis)
                await put(kinesis, some[40:])
                async with Reading(url, Intake(await process(), SystemClock()), **SMALL) as reading:
                    await wait_appended(reading, 50)
                    await reading.kill()
            older, newer = await process(), await process()
            with pytest.raises(LogInUse, match=r"stream/fleet: process .* has taken this over"):
                await take_over(kinesis, url, older, newer, messages[320:])
            async with Reading(url, Intake(newer, SystemClock())):
                await arrived(newer, len(messages))
            found = await arrived(newer, len(messages))

    assert by_device(found) == by_device(messages)
