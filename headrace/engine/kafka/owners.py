"""Who in a consumer group has which partition."""

from typing import Any

import aiokafka.errors as kafka_errors
from aiokafka.coordinator.protocol import ConsumerProtocolMemberAssignment

from headrace.engine.clock import SystemClock
from headrace.engine.kafka.topics import MakeAdmin
from headrace.engine.log import TopicPartition

RETRY_PAUSE = 0.2

_clock = SystemClock()


async def group_owners(make_admin: MakeAdmin, group: str) -> dict[TopicPartition, str]:
    """By partition, client id and host of its owner; empty while nobody works or the group is being shared out.

    Tries until the group's coordinator answers.
    """
    owners: dict[TopicPartition, str] = {}
    for response in await _describe(make_admin, group):
        for described in response.groups:
            for _, client, host, _, assignment, *_ in described[5]:
                if not assignment:
                    continue
                decoded = ConsumerProtocolMemberAssignment.decode(assignment)
                for topic, numbers in decoded.assignment:
                    owners |= {TopicPartition(topic, number): f"{client} ({host.lstrip('/')})" for number in numbers}
    return owners


async def _describe(make_admin: MakeAdmin, group: str) -> list[Any]:
    while True:
        admin = make_admin()
        try:
            await admin.start()
            responses: list[Any] = await admin.describe_consumer_groups([group])
            codes = {described[0] for response in responses for described in response.groups}
            if not any(kafka_errors.for_code(code).retriable for code in codes):
                return responses
        except kafka_errors.KafkaError as error:
            # On a new cluster the first question makes the topic of the groups, which takes a second.
            if not error.retriable:
                raise
        finally:
            await admin.close()
        await _clock.sleep(RETRY_PAUSE)
