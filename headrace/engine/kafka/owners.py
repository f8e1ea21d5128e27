"""Who in a consumer group has which partition."""

import aiokafka.errors as kafka_errors
from aiokafka.client import ConnectionGroup, CoordinationType
from aiokafka.coordinator.protocol import ConsumerProtocolMemberAssignment
from aiokafka.protocol.admin import DescribeGroupsRequest

from headrace.engine.clock import SystemClock
from headrace.engine.errors import LogError
from headrace.engine.kafka.client import PASSING, Client, ask, passes
from headrace.engine.log import TopicPartition

#: On a new cluster the first question makes the topic of the groups, which takes a second.
RETRY_PAUSE = 0.1

_clock = SystemClock()


async def group_owners(client: Client, group: str) -> dict[TopicPartition, str]:
    """By partition, client id and host of its owner; empty while nobody works or the group is being shared out.

    Tries until the group's coordinator answers.

    Raises:
        LogError: the group may not be looked at.
    """
    owners: dict[TopicPartition, str] = {}
    for _, client_id, host, _, assignment, *_ in await _members(client, group):
        if assignment:
            name = f"{client_id} ({host.lstrip('/')})"
            for topic, numbers in ConsumerProtocolMemberAssignment.decode(assignment).assignment:
                owners |= {TopicPartition(topic, number): name for number in numbers}
    return owners


async def _members(client: Client, group: str) -> list[tuple[str, str, str, bytes, bytes]]:
    while True:
        try:
            node = await client.coordinator_lookup(CoordinationType.GROUP, group)
            response = await ask(client, node, DescribeGroupsRequest([group]), ConnectionGroup.COORDINATION)
        except kafka_errors.KafkaError as error:
            if not passes(error):
                raise LogError(f"Kafka does not show group {group}: {error}") from error
        else:
            code, *_, members = response.groups[0][:6]
            if code == 0:
                return list(members)
            if code not in PASSING:
                raise LogError(f"Kafka does not show group {group}: {kafka_errors.for_code(code).__name__}")
        await _clock.sleep(RETRY_PAUSE)
