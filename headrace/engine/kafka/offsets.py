"""Offsets: of partitions, and of consumer groups. All on the I/O thread."""

from collections.abc import Iterable, Mapping

import aiokafka.errors as kafka_errors
from aiokafka.client import AIOKafkaClient, ConnectionGroup, CoordinationType
from aiokafka.protocol.offset import OffsetRequest

from headrace.engine.clock import SystemClock
from headrace.engine.kafka.protocol import StableOffsetFetch, by_topic
from headrace.engine.log import TopicPartition

#: Instead of a time: the end, and the oldest record kept.
LATEST, EARLIEST = -1, -2
READ_UNCOMMITTED, READ_COMMITTED = 0, 1
RETRY_PAUSE = 0.1
#: Error codes of a group's coordinator that pass: loading, moved, a transaction still open.
PASSING = frozenset({14, 15, 16, 88})

_clock = SystemClock()


async def list_offsets(
    client: AIOKafkaClient, targets: Iterable[TopicPartition], time_ms: int, isolation: int = READ_COMMITTED
) -> dict[TopicPartition, int]:
    """Per partition the offset of the first record at `time_ms` or later, -1 where there is none.

    Tries until the leaders answer.

    Args:
        time_ms: ms since 1970 UTC, or `LATEST` or `EARLIEST`.
        isolation: whether `LATEST` is what a reader of committed records can reach, or what was written.
    """
    found: dict[TopicPartition, int] = {}
    left = set(targets)
    while left:
        by_node: dict[int, dict[TopicPartition, int]] = {}
        for target in left:
            node = client.cluster.leader_for_partition(target)
            if node is not None and node != -1:
                by_node.setdefault(node, {})[target] = time_ms
        for node, wanted in by_node.items():
            found |= await _list_at(client, node, wanted, isolation)
        left -= found.keys()
        if left:
            client.force_metadata_update()
            await _clock.sleep(RETRY_PAUSE)
    return found


async def _list_at(
    client: AIOKafkaClient, node: int, wanted: Mapping[TopicPartition, int], isolation: int
) -> dict[TopicPartition, int]:
    request = OffsetRequest(-1, isolation, list(by_topic(wanted).items()))
    try:
        response = await client.send(node, request)
    except kafka_errors.KafkaError:
        return {}
    return {
        TopicPartition(topic, number): rest[1]
        for topic, partitions in response.topics
        for number, code, *rest in partitions
        if code == 0
    }


async def group_positions(
    client: AIOKafkaClient, group: str, targets: Iterable[TopicPartition]
) -> dict[TopicPartition, int]:
    """Committed positions, 0 where there is none. Waits for open transactions of whoever had the partitions before.

    Raises:
        KafkaError: the group may not be read.
    """
    request = StableOffsetFetch(group, list(targets))
    while True:
        try:
            node = await client.coordinator_lookup(CoordinationType.GROUP, group)
            response = await client.send(node, request, group=ConnectionGroup.COORDINATION)
        except (
            kafka_errors.CoordinatorNotAvailableError,
            kafka_errors.NodeNotReadyError,
            kafka_errors.RequestTimedOutError,
            kafka_errors.KafkaConnectionError,
        ):
            client.force_metadata_update()
            await _clock.sleep(RETRY_PAUSE)
            continue
        codes = {response.error_code} | {row[4] for _, rows, _ in response.topics for row in rows}
        if codes & PASSING:
            await _clock.sleep(RETRY_PAUSE)
            continue
        for code in codes - {0}:
            raise kafka_errors.for_code(code)(group)
        return {
            TopicPartition(topic, number): max(offset, 0)
            for topic, rows, _ in response.topics
            for number, offset, *_ in rows
        }
