"""Topics of a Kafka cluster: making, extending and listing them, on the I/O thread."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import aiokafka.errors as kafka_errors
from aiokafka.admin.config_resource import ConfigResourceType
from aiokafka.protocol.admin import CreatePartitionsRequest, CreateTopicsRequest, DescribeConfigsRequest

from headrace.engine.clock import SystemClock
from headrace.engine.errors import LogError
from headrace.engine.kafka.client import PASSING, UNAUTHORIZED, Client, ask, passes
from headrace.engine.kafka.settings import KafkaSettings
from headrace.engine.log import TopicPartition, TopicSpec

TOPIC_EXISTS, INVALID_PARTITIONS, NOT_CONTROLLER = 36, 37, 41
#: Unless told otherwise, as on most clusters: three copies of which two must be written.
COPIES = 3
RETRY_PAUSE = 0.05
#: Longest time stamp: the clock of a replay or a simulation may run ahead of the broker's.
NEVER_MS = 2**63 - 1
#: Segments that a partition is kept in at least, as only whole ones are deleted, and bytes of each at most.
SEGMENTS, LARGEST_SEGMENT = 4, 1 << 30
#: Bytes of a segment where the latest per key is kept: the segment in use is not compacted, and is restored whole.
COMPACTED_SEGMENT = 32 << 20
#: Kafka's own default of how long a deleted key is remembered for those who read slowly.
DELETED_KEPT_MS = 86_400_000
#: Bytes that the indices of a segment may take. Brokers make them as large as that at first, with Kafka's 10 MiB for
#: hundreds of partitions at a cost.
INDEX = 4 << 20

_clock = SystemClock()


async def create_topics(client: Client, specs: Sequence[TopicSpec], settings: KafkaSettings) -> None:
    """Make the topics that do not exist yet, and wait until they have leaders.

    Raises:
        LogError: Kafka refuses.
    """
    # Kafka makes nothing at all of a request that names a topic twice.
    missing = {spec.name: spec for spec in specs if not client.cluster.partitions_for_topic(spec.name)}.values()
    if not missing:
        return
    copies = settings.replication_factor or min(COPIES, await _brokers(client))
    request = CreateTopicsRequest(
        [(spec.name, spec.partitions, copies, [], _config(spec, copies, settings)) for spec in missing],
        client._request_timeout_ms,
        False,
    )
    response = await _ask_controller(client, request, lambda found: (code for _, code, *_ in found.topic_errors))
    for name, code, *message in response.topic_errors:
        if code in UNAUTHORIZED:
            raise LogError(f"Kafka does not let this user make topic {name}; grant CREATE, or make it yourself")
        if code not in (0, TOPIC_EXISTS):
            raise LogError(f"Kafka does not make topic {name}: {message[0] if message else code}")
    await _wait_for_leaders(client, {spec.name: 1 for spec in missing})


async def extend_topic(client: Client, name: str, partitions: int) -> None:
    """Add partitions to a topic, up to `partitions`, and wait until they have leaders.

    Raises:
        LogError: Kafka refuses.
    """
    request = CreatePartitionsRequest([(name, (partitions, None))], client._request_timeout_ms, False)
    response = await _ask_controller(client, request, lambda found: (code for _, code, *_ in found.topic_errors))
    for _, code, *message in response.topic_errors:
        if code:
            raise LogError(f"Kafka does not add partitions to {name}: {message[0] if message else code}")
    await _wait_for_leaders(client, {name: partitions})


async def list_topics(client: Client) -> list[TopicSpec]:
    """Every topic but Kafka's own."""
    cluster = await client.fetch_all_metadata()
    names = sorted(name for name in cluster.topics() if not name.startswith("__"))
    if not names:
        return []
    wanted = [(ConfigResourceType.TOPIC, name, ["cleanup.policy"]) for name in names]
    response = await _ask_controller(client, DescribeConfigsRequest(wanted, False), lambda _: ())
    compacted = {
        name
        for _, _, _, name, entries in response.resources
        for key, value, *_ in entries
        if key == "cleanup.policy" and "compact" in value
    }
    return [TopicSpec(name, len(cluster.partitions_for_topic(name) or ()), name in compacted) for name in names]


async def _ask_controller(client: Client, request: Any, codes: Callable[[Any], Iterable[int]]) -> Any:
    """The controller's response; tries until there is one that does not say "not now"."""
    while True:
        try:
            controller = client.cluster.controller
            node = client.get_random_node() if controller is None else controller.nodeId
            response = await ask(client, node, request)
            if not PASSING.union({NOT_CONTROLLER}).intersection(codes(response)):
                return response
        except kafka_errors.KafkaError as error:
            if not passes(error):
                raise LogError(f"Kafka does not do this: {error}") from error
        client.force_metadata_update()
        await _clock.sleep(RETRY_PAUSE)


async def _brokers(client: Client) -> int:
    """How many there are; waits while there are none, as when a cluster has given up all and they come back."""
    while not client.cluster.brokers():
        await client.force_metadata_update()
        await _clock.sleep(RETRY_PAUSE)
    return len(client.cluster.brokers())


async def _wait_for_leaders(client: Client, topics: dict[str, int]) -> None:
    """Wait until each topic has so many partitions at least, and all it has can be written."""
    while True:
        await client.force_metadata_update()
        numbers = {name: client.cluster.partitions_for_topic(name) or set() for name in topics}
        if all(len(numbers[name]) >= least for name, least in topics.items()) and all(
            client.cluster.leader_for_partition(TopicPartition(name, number)) not in (None, -1)
            for name in topics
            for number in numbers[name]
        ):
            return
        await _clock.sleep(RETRY_PAUSE)


def _config(spec: TopicSpec, copies: int, settings: KafkaSettings) -> list[tuple[str, str]]:
    largest = settings.max_message_bytes
    config: dict[str, str | int] = {
        "max.message.bytes": largest,
        "message.timestamp.after.max.ms": NEVER_MS,
        "min.insync.replicas": max(1, copies - 1),
        # By the time of records: old data between Kafka's markers, which are of now, would begin a segment every time.
        "segment.ms": NEVER_MS,
        "segment.index.bytes": INDEX,
    }
    if spec.compacted:
        config |= {
            "cleanup.policy": "compact",
            "segment.bytes": max(largest, COMPACTED_SEGMENT),
        }
        if spec.retention is not None:
            kept_ms = round(spec.retention * 1000)
            config |= {"min.compaction.lag.ms": kept_ms, "delete.retention.ms": max(kept_ms, DELETED_KEPT_MS)}
    else:
        config |= {
            "retention.bytes": settings.retention_bytes,
            "retention.ms": -1 if spec.retention is None else round(spec.retention * 1000),
            "segment.bytes": max(largest, min(LARGEST_SEGMENT, settings.retention_bytes // SEGMENTS)),
        }
    return [(key, str(value)) for key, value in config.items()]
