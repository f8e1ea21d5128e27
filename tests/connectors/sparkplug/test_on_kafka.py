"""What is known of edge nodes is kept on Kafka as it is in a folder."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import orjson
import pytest
from local_kafka.cluster import Cluster

from headrace.connectors.sparkplug.intake import SparkplugIntake
from headrace.connectors.sparkplug.settings import SparkplugSettings
from headrace.connectors.topic_profile import TopicProfile
from headrace.engine.clock import ManualClock, SystemClock
from headrace.engine.intake import Intake
from headrace.engine.kafka.log import KafkaLog
from headrace.engine.kafka.settings import KafkaSettings
from headrace.engine.log import TopicSpec
from headrace.schemas import topics
from tests.chaos.bridge_world import read_all
from tests.connectors.sparkplug.edge_node import EdgeNode

pytestmark = pytest.mark.integration

PROFILE = TopicProfile(name="plant", topic="spBv1.0/#", device_type="machine", format="sparkplug")
NOW = 1_750_000_000_000
Sent = list[tuple[str, bytes]]


@asynccontextmanager
async def process(cluster: Cluster, clock: ManualClock) -> AsyncIterator[SparkplugIntake]:
    """An intake with a connection of its own; what it had in memory is gone afterwards."""
    log = KafkaLog(f"kafka://{cluster.bootstrap}", KafkaSettings(), SystemClock(), role="test")
    await log.start()
    try:
        await log.create_topics([*Intake.topic_specs(2), *SparkplugIntake.topic_specs(), TopicSpec(topics.PRESENCE, 2)])
        yield SparkplugIntake(SparkplugSettings(), PROFILE, Intake(log, clock), log, clock)
    finally:
        await log.close()


async def take(intake: SparkplugIntake, sent: Sent) -> None:
    """Append these at once."""
    await intake.append([topic.encode() for topic, _ in sent], [raw for _, raw in sent])


async def rpm(cluster: Cluster) -> list[int]:
    """What the motor was read to say."""
    log = KafkaLog(f"kafka://{cluster.bootstrap}", KafkaSettings(), SystemClock(), role="test")
    await log.start()
    try:
        found = [orjson.loads(each) for each in await read_all(log)]
    finally:
        await log.close()
    return sorted(each["rpm"] for each in found if "rpm" in each)


async def test_a_process_goes_on_where_the_last_one_was(kafka_tools: None) -> None:
    """Sequence, aliases, what waits and what came lately: nothing is read twice, and the gap is counted once."""
    clock, node = ManualClock(NOW), EdgeNode(metrics={"motor": {"rpm": (1, "Int32")}})
    node.connect()
    births = node.births(NOW, {("motor", "rpm"): 1})
    first = [node.data("motor", NOW + number, {"rpm": number}) for number in range(2, 300)]
    node.data("motor", NOW + 300, {"rpm": 300})
    behind = node.data("motor", NOW + 301, {"rpm": 301})
    with Cluster() as cluster:
        async with process(cluster, clock) as intake:
            await take(intake, births)
            await take(intake, [*first, behind])
        async with process(cluster, clock) as intake:
            await take(intake, [*first, behind])
            clock.advance(3_000)
            await intake.pass_time()
            found = intake.statistics()
        read = await rpm(cluster)

    assert read == [1, *range(2, 300), 301]
    assert (found.gaps, found.missing, found.repeats, found.waiting) == (1, 1, 299, 0)
