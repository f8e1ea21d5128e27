"""What is known of edge nodes is kept on Kafka as it is in a folder."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import orjson
import pytest
from local_kafka.cluster import Cluster

from headrace.connectors.sparkplug.intake import SparkplugIntake
from headrace.connectors.sparkplug.settings import SparkplugSettings
from headrace.connectors.topic_profile import TopicProfile
from headrace.engine.clock import ManualClock, SystemClock
from headrace.engine.errors import LogInUse
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


async def said(cluster: Cluster, metric: str) -> list[int]:
    """What a metric was read to be."""
    log = KafkaLog(f"kafka://{cluster.bootstrap}", KafkaSettings(), SystemClock(), role="test")
    await log.start()
    try:
        found = [orjson.loads(each) for each in await read_all(log)]
    finally:
        await log.close()
    return sorted(each[metric] for each in found if metric in each)


@pytest.fixture(scope="module")
def cluster(kafka_tools: None) -> Iterator[Cluster]:
    """A Kafka of the module's own."""
    with Cluster() as found:
        yield found


async def test_a_process_goes_on_where_the_last_one_was(cluster: Cluster) -> None:
    """Sequence, aliases, what waits and what came lately: nothing is read twice, and the gap is counted once."""
    clock, node = ManualClock(NOW), EdgeNode(metrics={"motor": {"rpm": (1, "Int32")}})
    node.connect()
    births = node.births(NOW, {("motor", "rpm"): 1})
    first = [node.data("motor", NOW + number, {"rpm": number}) for number in range(2, 300)]
    node.data("motor", NOW + 300, {"rpm": 300})
    behind = node.data("motor", NOW + 301, {"rpm": 301})
    async with process(cluster, clock) as intake:
        await take(intake, births)
        await take(intake, [*first, behind])
    async with process(cluster, clock) as intake:
        await take(intake, [*first, behind])
        clock.advance(3_000)
        await intake.pass_time()
        found = intake.statistics()
    read = await said(cluster, "rpm")

    assert read == [1, *range(2, 300), 301]
    assert (found.gaps, found.missing, found.repeats, found.waiting) == (1, 1, 299, 0)


async def test_a_second_process_ends_the_first(cluster: Cluster) -> None:
    """What comes to both is in the log once; the first is told who has taken its place."""
    clock, node = ManualClock(NOW), EdgeNode(name="well", metrics={"pump": {"flow": (1, "Int32")}})
    node.connect()
    births = node.births(NOW, {("pump", "flow"): 1})
    both = node.data("pump", NOW + 2, {"flow": 2})
    async with process(cluster, clock) as first, process(cluster, clock) as second:
        await take(first, births)
        await second.start()
        with pytest.raises(LogInUse, match=r"sparkplug: process \d+ on .* has taken this over"):
            await take(first, [both])
        await take(second, [both])
        await take(second, [node.data("pump", NOW + 3, {"flow": 3})])

    assert await said(cluster, "flow") == [1, 2, 3]
