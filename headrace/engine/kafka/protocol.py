"""Requests of the Kafka protocol that aiokafka does not have in the version we need.

Source: the message definitions of Apache Kafka 3.7, `TxnOffsetCommitRequest.json`, `OffsetFetchRequest.json` and
`DescribeTransactionsRequest.json`.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from aiokafka.protocol.api import Request, RequestStruct, Response
from aiokafka.protocol.group import HeartbeatResponse_v1
from aiokafka.protocol.types import (
    Boolean,
    CompactArray,
    CompactString,
    Int16,
    Int32,
    Int64,
    Schema,
    String,
    TaggedFields,
)

from headrace.engine.log import Member, TopicPartition

#: What aiokafka writes for a tagged section without tags.
NO_TAGS: dict[int, bytes] = {}


class TxnOffsetCommitResponse_v3(Response):  # type: ignore[misc]
    """Error code per partition."""

    API_KEY = 28
    API_VERSION = 3
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        (
            "errors",
            CompactArray(
                ("topic", CompactString("utf-8")),
                (
                    "partition_errors",
                    CompactArray(("partition", Int32), ("error_code", Int16), ("tags", TaggedFields)),
                ),
                ("tags", TaggedFields),
            ),
        ),
        ("tags", TaggedFields),
    )


class TxnOffsetCommitStruct_v3(RequestStruct):  # type: ignore[misc]
    """Positions of a group in a transaction, with the member that read them: the first version that is fenced."""

    API_KEY = 28
    API_VERSION = 3
    FLEXIBLE_VERSION = True
    RESPONSE_TYPE = TxnOffsetCommitResponse_v3
    SCHEMA = Schema(
        ("transactional_id", CompactString("utf-8")),
        ("group_id", CompactString("utf-8")),
        ("producer_id", Int64),
        ("producer_epoch", Int16),
        ("generation_id", Int32),
        ("member_id", CompactString("utf-8")),
        ("group_instance_id", CompactString("utf-8")),
        (
            "topics",
            CompactArray(
                ("topic", CompactString("utf-8")),
                (
                    "partitions",
                    CompactArray(
                        ("partition", Int32),
                        ("offset", Int64),
                        ("leader_epoch", Int32),
                        ("metadata", CompactString("utf-8")),
                        ("tags", TaggedFields),
                    ),
                ),
                ("tags", TaggedFields),
            ),
        ),
        ("tags", TaggedFields),
    )


class FencedOffsetCommit(Request[TxnOffsetCommitStruct_v3]):  # type: ignore[misc]
    """`TxnOffsetCommit` that says who commits.

    Args:
        positions: by partition, the offset after the last finished record.
    """

    API_KEY = 28

    def __init__(
        self,
        transactional_id: str,
        group: str,
        producer_id: int,
        producer_epoch: int,
        member: Member,
        positions: Mapping[TopicPartition, int],
    ) -> None:
        self._head = (transactional_id, group, producer_id, producer_epoch)
        self._member = member
        self._positions = positions

    def build(self, request_struct_class: type[TxnOffsetCommitStruct_v3]) -> TxnOffsetCommitStruct_v3:
        topics = [
            (topic, [(partition, offset, -1, "", NO_TAGS) for partition, offset in partitions], NO_TAGS)
            for topic, partitions in by_topic(self._positions).items()
        ]
        member = self._member
        return request_struct_class(*self._head, member.generation, member.id, member.instance, topics, NO_TAGS)


class OffsetFetchResponse_v7(Response):  # type: ignore[misc]
    """Committed offset per partition, -1 where there is none."""

    API_KEY = 9
    API_VERSION = 7
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        (
            "topics",
            CompactArray(
                ("topic", CompactString("utf-8")),
                (
                    "partitions",
                    CompactArray(
                        ("partition", Int32),
                        ("offset", Int64),
                        ("leader_epoch", Int32),
                        ("metadata", CompactString("utf-8")),
                        ("error_code", Int16),
                        ("tags", TaggedFields),
                    ),
                ),
                ("tags", TaggedFields),
            ),
        ),
        ("error_code", Int16),
        ("tags", TaggedFields),
    )


class OffsetFetchStruct_v7(RequestStruct):  # type: ignore[misc]
    """Committed offsets of a group; with `require_stable` an open transaction's answer is an error, not the past."""

    API_KEY = 9
    API_VERSION = 7
    FLEXIBLE_VERSION = True
    RESPONSE_TYPE = OffsetFetchResponse_v7
    SCHEMA = Schema(
        ("group_id", CompactString("utf-8")),
        (
            "topics",
            CompactArray(
                ("topic", CompactString("utf-8")), ("partitions", CompactArray(Int32)), ("tags", TaggedFields)
            ),
        ),
        ("require_stable", Boolean),
        ("tags", TaggedFields),
    )


class StableOffsetFetch(Request[OffsetFetchStruct_v7]):  # type: ignore[misc]
    """`OffsetFetch` that waits for open transactions of whoever had the partitions before."""

    API_KEY = 9

    def __init__(self, group: str, targets: Sequence[TopicPartition]) -> None:
        self._group = group
        self._targets = targets

    def build(self, request_struct_class: type[OffsetFetchStruct_v7]) -> OffsetFetchStruct_v7:
        topics: dict[str, list[int]] = {}
        for topic, partition in self._targets:
            topics.setdefault(topic, []).append(partition)
        return request_struct_class(
            self._group, [(topic, numbers, NO_TAGS) for topic, numbers in topics.items()], True, NO_TAGS
        )


class HeartbeatStruct_v3(RequestStruct):  # type: ignore[misc]
    """Heartbeat with an instance name: the first version that says that another member has it."""

    API_KEY = 12
    API_VERSION = 3
    RESPONSE_TYPE = HeartbeatResponse_v1
    SCHEMA = Schema(
        ("group_id", String("utf-8")),
        ("generation_id", Int32),
        ("member_id", String("utf-8")),
        ("group_instance_id", String("utf-8")),
    )


class InstanceHeartbeat(Request[HeartbeatStruct_v3]):  # type: ignore[misc]
    """`Heartbeat` of a member that has an instance name."""

    API_KEY = 12

    def __init__(self, group: str, generation: int, member: str, instance: str) -> None:
        self._fields = (group, generation, member, instance)

    def build(self, request_struct_class: type[HeartbeatStruct_v3]) -> HeartbeatStruct_v3:
        return request_struct_class(*self._fields)


class DescribeTransactionsResponse_v0(Response):  # type: ignore[misc]
    """State of the last transaction under each name, as text."""

    API_KEY = 65
    API_VERSION = 0
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        (
            "transactions",
            CompactArray(
                ("error_code", Int16),
                ("transactional_id", CompactString("utf-8")),
                ("state", CompactString("utf-8")),
                ("timeout_ms", Int32),
                ("started_at_ms", Int64),
                ("producer_id", Int64),
                ("producer_epoch", Int16),
                (
                    "topics",
                    CompactArray(
                        ("topic", CompactString("utf-8")), ("partitions", CompactArray(Int32)), ("tags", TaggedFields)
                    ),
                ),
                ("tags", TaggedFields),
            ),
        ),
        ("tags", TaggedFields),
    )


class DescribeTransactionsStruct_v0(RequestStruct):  # type: ignore[misc]
    """Asks how the last transactions under some names stand."""

    API_KEY = 65
    API_VERSION = 0
    FLEXIBLE_VERSION = True
    RESPONSE_TYPE = DescribeTransactionsResponse_v0
    SCHEMA = Schema(("transactional_ids", CompactArray(CompactString("utf-8"))), ("tags", TaggedFields))


class DescribeTransaction(Request[DescribeTransactionsStruct_v0]):  # type: ignore[misc]
    """`DescribeTransactions` for one name."""

    API_KEY = 65

    def __init__(self, transactional_id: str) -> None:
        self._name = transactional_id

    def build(self, request_struct_class: type[DescribeTransactionsStruct_v0]) -> DescribeTransactionsStruct_v0:
        return request_struct_class([self._name], NO_TAGS)


def by_topic(values: Mapping[TopicPartition, Any]) -> dict[str, list[tuple[int, Any]]]:
    """Values per partition as the protocol groups them: by topic, then partition."""
    topics: dict[str, list[tuple[int, Any]]] = {}
    for (topic, partition), value in sorted(values.items()):
        topics.setdefault(topic, []).append((partition, value))
    return topics
