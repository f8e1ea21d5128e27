"""Topics of a Kafka cluster: making, extending and listing them, on the I/O thread."""

from collections.abc import Callable, Sequence

import aiokafka.errors as kafka_errors
from aiokafka.admin import AIOKafkaAdminClient, NewPartitions, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.client import AIOKafkaClient

from headrace.engine.clock import SystemClock
from headrace.engine.errors import LogError
from headrace.engine.kafka.settings import KafkaSettings
from headrace.engine.log import TopicPartition, TopicSpec

TOPIC_EXISTS = 36
FORBIDDEN = frozenset({29, 31})
#: Unless told otherwise, as on most clusters: three copies of which two must be written.
COPIES = 3
RETRY_PAUSE = 0.05
#: Longest time stamp: the clock of a replay or a simulation may run ahead of the broker's.
NEVER_MS = 2**63 - 1

_clock = SystemClock()

#: Makes an admin client that is not connected yet.
MakeAdmin = Callable[[], AIOKafkaAdminClient]


async def create_topics(
    make_admin: MakeAdmin, client: AIOKafkaClient, specs: Sequence[TopicSpec], settings: KafkaSettings
) -> None:
    """Make the topics that do not exist yet, and wait until they have leaders.

    Raises:
        LogError: Kafka refuses.
    """
    missing = [spec for spec in specs if not client.cluster.partitions_for_topic(spec.name)]
    if missing:
        copies = settings.replication_factor or min(COPIES, len(client.cluster.brokers()))
        await _with_admin(make_admin, [_new_topic(spec, copies, settings) for spec in missing])
    await wait_for_leaders(client, missing)


async def wait_for_leaders(client: AIOKafkaClient, specs: Sequence[TopicSpec]) -> None:
    """Wait until every partition can be written."""
    for spec in specs:
        for number in range(spec.partitions):
            while client.cluster.leader_for_partition(TopicPartition(spec.name, number)) in (None, -1):
                await client.force_metadata_update()
                await _clock.sleep(RETRY_PAUSE)


async def _with_admin(make_admin: MakeAdmin, topics: Sequence[NewTopic]) -> None:
    admin = make_admin()
    try:
        await admin.start()
        response = await admin.create_topics(topics)
    except kafka_errors.KafkaError as error:
        raise LogError(f"Kafka does not make topics: {error!r}") from error
    finally:
        await admin.close()
    for name, code, *message in response.topic_errors:
        if code in FORBIDDEN:
            raise LogError(f"Kafka does not let this user make topic {name}; grant CREATE, or make it yourself")
        if code not in (0, TOPIC_EXISTS):
            raise LogError(f"Kafka does not make topic {name}: {message[0] if message else code}")


def _new_topic(spec: TopicSpec, copies: int, settings: KafkaSettings) -> NewTopic:
    config = {
        "max.message.bytes": str(settings.max_message_bytes),
        "message.timestamp.after.max.ms": str(NEVER_MS),
        "min.insync.replicas": str(max(1, copies - 1) if copies > 1 else 1),
    }
    if spec.compacted:
        config["cleanup.policy"] = "compact"
    else:
        config["retention.bytes"] = str(settings.retention_bytes)
        config["retention.ms"] = "-1" if spec.retention is None else str(round(spec.retention * 1000))
    return NewTopic(spec.name, spec.partitions, copies, topic_configs=config)


async def extend_topic(make_admin: MakeAdmin, name: str, partitions: int) -> None:
    """Add partitions to a topic, up to `partitions`."""
    admin = make_admin()
    try:
        await admin.start()
        await admin.create_partitions({name: NewPartitions(partitions)})
    except kafka_errors.KafkaError as error:
        raise LogError(f"Kafka does not add partitions to {name}: {error!r}") from error
    finally:
        await admin.close()


async def list_topics(make_admin: MakeAdmin, client: AIOKafkaClient) -> list[TopicSpec]:
    """Every topic but Kafka's own."""
    cluster = await client.fetch_all_metadata()
    names = sorted(name for name in cluster.topics() if not name.startswith("__"))
    if not names:
        return []
    admin = make_admin()
    try:
        await admin.start()
        found = await admin.describe_configs(
            [ConfigResource(ConfigResourceType.TOPIC, name, configs={"cleanup.policy": ""}) for name in names]
        )
    finally:
        await admin.close()
    compacted = {
        resource[3]
        for response in found
        for resource in response.resources
        for entry in resource[4]
        if entry[0] == "cleanup.policy" and "compact" in entry[1]
    }
    return [TopicSpec(name, len(cluster.partitions_for_topic(name) or ()), name in compacted) for name in names]
