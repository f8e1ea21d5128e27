"""Who in a consumer group has which partition."""

from aiokafka.coordinator.protocol import ConsumerProtocolMemberAssignment

from headrace.engine.kafka.topics import MakeAdmin
from headrace.engine.log import TopicPartition


async def group_owners(make_admin: MakeAdmin, group: str) -> dict[TopicPartition, str]:
    """By partition, client id and host of its owner; empty while nobody works or the group is being shared out."""
    admin = make_admin()
    try:
        await admin.start()
        responses = await admin.describe_consumer_groups([group])
    finally:
        await admin.close()
    owners: dict[TopicPartition, str] = {}
    for response in responses:
        for described in response.groups:
            for _, client, host, _, assignment, *_ in described[5]:
                if not assignment:
                    continue
                decoded = ConsumerProtocolMemberAssignment.decode(assignment)
                for topic, numbers in decoded.assignment:
                    owners |= {TopicPartition(topic, number): f"{client} ({host.lstrip('/')})" for number in numbers}
    return owners
