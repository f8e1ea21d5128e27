"""What an administrator does to topics, and the cleaner of a broker."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiokafka.admin import AIOKafkaAdminClient, NewTopic, RecordsToDelete
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.client import ConnectionGroup, CoordinationType
from aiokafka.protocol.admin import CreateAclsRequest
from aiokafka.protocol.group import LeaveGroupRequest
from aiokafka.structs import TopicPartition as KafkaPartition

from headrace.engine.kafka import owners
from headrace.engine.kafka.client import ask
from headrace.engine.kafka.offsets import EARLIEST, list_offsets
from headrace.engine.log import TopicPartition
from tests.contract.log_access import PATIENCE
from tests.engine.kafka.held_log import connected


@asynccontextmanager
async def admin(bootstrap: str) -> AsyncIterator[AIOKafkaAdminClient]:
    client = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await client.start()
    try:
        yield client
    finally:
        await client.close()


async def allow_deletion(bootstrap: str, topic: str) -> None:
    """Let records of a compacted topic be deleted, as somebody may who is short of disk."""
    await _configure(bootstrap, topic, {"cleanup.policy": "compact,delete"})


async def begin_segments_often(bootstrap: str, topic: str, **configs: str) -> None:
    """Begin a new segment of a compacted topic twice a second: only those before it are compacted.

    Other settings are written with underscores for dots.
    """
    others = {name.replace("_", "."): value for name, value in configs.items()}
    await _configure(bootstrap, topic, {"cleanup.policy": "compact", "segment.ms": "500", **others})


async def _configure(bootstrap: str, topic: str, configs: dict[str, str]) -> None:
    """Set these, and everything else back to what the brokers have."""
    async with admin(bootstrap) as client:
        await client.alter_configs([ConfigResource(ConfigResourceType.TOPIC, topic, configs=configs)])


async def config(bootstrap: str, topic: str, name: str) -> str:
    """The value of a topic's setting."""
    async with admin(bootstrap) as client:
        wanted = ConfigResource(ConfigResourceType.TOPIC, topic, configs={name: ""})
        (response,) = await client.describe_configs([wanted])
        return str(next(value for key, value, *_ in response.resources[0][4] if key == name))


async def delete_records(bootstrap: str, target: TopicPartition, before: int) -> None:
    """Drop the records before an offset, as retention does; returns when they are gone."""
    async with admin(bootstrap) as client:
        await client._client.add_topic(target.topic)
        await client.delete_records({KafkaPartition(*target): RecordsToDelete(before_offset=before)})
    async with connected(bootstrap) as client, asyncio.timeout(PATIENCE):
        while (await list_offsets(client, [target], EARLIEST))[target] < before:
            await asyncio.sleep(0.02)


async def make_anew(bootstrap: str, topic: str, partitions: int) -> None:
    """Delete a topic and make it again, empty; returns when it can be written."""
    await delete_topic(bootstrap, topic)
    await make_topic(bootstrap, topic, partitions)


async def delete_topic(bootstrap: str, topic: str) -> None:
    """Delete a topic; returns when it is gone."""
    async with admin(bootstrap) as client, asyncio.timeout(PATIENCE):
        await client.delete_topics([topic])
        while topic in await client.list_topics():
            await asyncio.sleep(0.02)


async def make_topic(bootstrap: str, topic: str, partitions: int) -> None:
    """Make a topic; returns when it can be written."""
    async with admin(bootstrap) as client, asyncio.timeout(PATIENCE):
        while True:
            response = await client.create_topics([NewTopic(topic, partitions, 1)])
            if not any(code for _, code, *_ in response.topic_errors):
                break
            await asyncio.sleep(0.02)
    targets = [TopicPartition(topic, number) for number in range(partitions)]
    async with connected(bootstrap) as client, asyncio.timeout(PATIENCE):
        while any(client.cluster.leader_for_partition(target) in (None, -1) for target in targets):
            await asyncio.sleep(0.02)
            await client.force_metadata_update()


async def members(bootstrap: str, group: str) -> list[str]:
    """Ids of who is in a group."""
    async with connected(bootstrap) as client:
        return [member[0] for member in await owners._members(client, group)]


async def end_session(bootstrap: str, group: str, member: str) -> None:
    """Take a member out of its group, as the group itself does when it has not heard from it for the session."""
    async with connected(bootstrap) as client:
        node = await client.coordinator_lookup(CoordinationType.GROUP, group)
        response = await ask(client, node, LeaveGroupRequest(group, member), ConnectionGroup.COORDINATION)
    assert response.error_code == 0


async def allow_a_look_only(bootstrap: str, topic: str) -> None:
    """Let everybody see that a topic is there, and nothing else."""
    topic_type, literal, describe, allow = 2, 3, 8, 3
    request = CreateAclsRequest(topic_type, topic, literal, "User:*", "*", describe, allow)
    async with admin(bootstrap) as client:
        response = await client._send_request(request)
    assert [code for code, _ in response.creation_responses] == [0]
