"""Tells a topic from another one of the same name."""

from collections.abc import Iterable
from io import BytesIO
from typing import Any

import aiokafka.errors as kafka_errors
from aiokafka.protocol.abstract import AbstractType
from aiokafka.protocol.api import Request, RequestStruct, Response
from aiokafka.protocol.types import Boolean, CompactArray, CompactString, Int16, Int32, Schema, TaggedFields

from headrace.engine.kafka.client import Client, ask
from headrace.engine.kafka.protocol import NO_TAGS

NO_ID = bytes(16)


class Uuid(AbstractType[bytes]):  # type: ignore[misc]
    """Sixteen bytes."""

    @classmethod
    def encode(cls, value: bytes) -> bytes:
        return value

    @classmethod
    def decode(cls, data: BytesIO) -> bytes:
        return data.read(len(NO_ID))


class MetadataResponse_v12(Response):  # type: ignore[misc]
    """Brokers, and topics with their ids. Source: `MetadataResponse.json` of Apache Kafka 3.7."""

    API_KEY = 3
    API_VERSION = 12
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        (
            "brokers",
            CompactArray(
                ("node_id", Int32),
                ("host", CompactString("utf-8")),
                ("port", Int32),
                ("rack", CompactString("utf-8")),
                ("tags", TaggedFields),
            ),
        ),
        ("cluster_id", CompactString("utf-8")),
        ("controller_id", Int32),
        (
            "topics",
            CompactArray(
                ("error_code", Int16),
                ("name", CompactString("utf-8")),
                ("topic_id", Uuid),
                ("is_internal", Boolean),
                (
                    "partitions",
                    CompactArray(
                        ("error_code", Int16),
                        ("partition", Int32),
                        ("leader", Int32),
                        ("leader_epoch", Int32),
                        ("replicas", CompactArray(Int32)),
                        ("isr", CompactArray(Int32)),
                        ("offline_replicas", CompactArray(Int32)),
                        ("tags", TaggedFields),
                    ),
                ),
                ("authorized_operations", Int32),
                ("tags", TaggedFields),
            ),
        ),
        ("tags", TaggedFields),
    )


class MetadataStruct_v12(RequestStruct):  # type: ignore[misc]
    """Topics by name."""

    API_KEY = 3
    API_VERSION = 12
    FLEXIBLE_VERSION = True
    RESPONSE_TYPE = MetadataResponse_v12
    SCHEMA = Schema(
        (
            "topics",
            CompactArray(("topic_id", Uuid), ("name", CompactString("utf-8")), ("tags", TaggedFields)),
        ),
        ("allow_auto_topic_creation", Boolean),
        ("include_topic_authorized_operations", Boolean),
        ("tags", TaggedFields),
    )


class TopicIdRequest(Request[MetadataStruct_v12]):  # type: ignore[misc]
    """`Metadata` in the version that has the ids of topics; aiokafka's own has not."""

    API_KEY = 3

    def __init__(self, names: Iterable[str]) -> None:
        self._names = names

    def build(self, request_struct_class: type[MetadataStruct_v12]) -> MetadataStruct_v12:
        topics = [(NO_ID, name, NO_TAGS) for name in self._names]
        return request_struct_class(topics, False, False, NO_TAGS)


class TopicIds:
    """Remembers the ids of topics as they were when it was asked first."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._ids: dict[str, bytes] = {}

    def known(self, topic: str) -> bool:
        return topic in self._ids

    async def changed(self, topics: Iterable[str]) -> set[str]:
        """Those of `topics` that are not the ones of before; what is not there now, or not known yet, is none of them.

        From then on the new ones count. Nothing is known while no broker answers.
        """
        changed = set()
        for _, name, new, *_ in await self._ask(topics):
            if new not in (NO_ID, self._ids.get(name, new)):
                changed.add(name)
            if new != NO_ID:
                self._ids[name] = new
        return changed

    async def _ask(self, topics: Iterable[str]) -> list[Any]:
        node = self._client.get_random_node()
        if node is None:
            return []
        try:
            response = await ask(self._client, node, TopicIdRequest(topics))
        except kafka_errors.KafkaError:
            return []
        return [topic for topic in response.topics if topic[0] == 0]
