"""Requests to a group's coordinator: stable positions, and heartbeats under an instance name."""

from collections.abc import Sequence

from aiokafka.protocol.api import Request, RequestStruct, Response
from aiokafka.protocol.group import HeartbeatResponse_v1
from aiokafka.protocol.types import Boolean, Int16, Int32, Int64, Schema, String

from headrace.engine.kafka.protocol import NO_TAGS, TAGS, TEXT, numbers_by_topic, topics_of
from headrace.engine.log import TopicPartition


class OffsetFetchResponse_v7(Response):  # type: ignore[misc]
    """Committed offset per partition, -1 where there is none."""

    API_KEY = 9
    API_VERSION = 7
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        topics_of(("offset", Int64), ("leader_epoch", Int32), ("metadata", TEXT), ("error_code", Int16)),
        ("error_code", Int16),
        TAGS,
    )


class OffsetFetchStruct_v7(RequestStruct):  # type: ignore[misc]
    """Committed offsets of a group; with `require_stable` an open transaction's answer is an error, not the past."""

    API_KEY = 9
    API_VERSION = 7
    FLEXIBLE_VERSION = True
    RESPONSE_TYPE = OffsetFetchResponse_v7
    SCHEMA = Schema(("group_id", TEXT), topics_of(), ("require_stable", Boolean), TAGS)


class StableOffsetFetch(Request[OffsetFetchStruct_v7]):  # type: ignore[misc]
    """`OffsetFetch` that waits for open transactions of whoever had the partitions before."""

    API_KEY = 9

    def __init__(self, group: str, targets: Sequence[TopicPartition]) -> None:
        self._group = group
        self._targets = targets

    def build(self, request_struct_class: type[OffsetFetchStruct_v7]) -> OffsetFetchStruct_v7:
        topics = [(topic, numbers, NO_TAGS) for topic, numbers in numbers_by_topic(self._targets).items()]
        return request_struct_class(self._group, topics, True, NO_TAGS)


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
