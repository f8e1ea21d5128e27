"""Requests about transactions: positions that are fenced, and what is open."""

from collections.abc import Iterable, Mapping

from aiokafka.protocol.api import Request, RequestStruct, Response
from aiokafka.protocol.types import CompactArray, Int16, Int32, Int64, Schema

from headrace.engine.kafka.protocol import NO_TAGS, TAGS, TEXT, by_topic, numbers_by_topic, topics_of
from headrace.engine.log import Member, TopicPartition


class TxnOffsetCommitResponse_v3(Response):  # type: ignore[misc]
    """Error code per partition."""

    API_KEY = 28
    API_VERSION = 3
    SCHEMA = Schema(("throttle_time_ms", Int32), topics_of(("error_code", Int16), name="errors"), TAGS)


class TxnOffsetCommitStruct_v3(RequestStruct):  # type: ignore[misc]
    """Positions of a group in a transaction, with the member that read them: the first version that is fenced."""

    API_KEY = 28
    API_VERSION = 3
    FLEXIBLE_VERSION = True
    RESPONSE_TYPE = TxnOffsetCommitResponse_v3
    SCHEMA = Schema(
        ("transactional_id", TEXT),
        ("group_id", TEXT),
        ("producer_id", Int64),
        ("producer_epoch", Int16),
        ("generation_id", Int32),
        ("member_id", TEXT),
        ("group_instance_id", TEXT),
        topics_of(("offset", Int64), ("leader_epoch", Int32), ("metadata", TEXT)),
        TAGS,
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
                ("transactional_id", TEXT),
                ("state", TEXT),
                ("timeout_ms", Int32),
                ("started_at_ms", Int64),
                ("producer_id", Int64),
                ("producer_epoch", Int16),
                topics_of(),
                TAGS,
            ),
        ),
        TAGS,
    )


class DescribeTransactionsStruct_v0(RequestStruct):  # type: ignore[misc]
    """Asks how the last transactions under some names stand."""

    API_KEY = 65
    API_VERSION = 0
    FLEXIBLE_VERSION = True
    RESPONSE_TYPE = DescribeTransactionsResponse_v0
    SCHEMA = Schema(("transactional_ids", CompactArray(TEXT)), TAGS)


class DescribeTransaction(Request[DescribeTransactionsStruct_v0]):  # type: ignore[misc]
    """`DescribeTransactions` for one name."""

    API_KEY = 65

    def __init__(self, transactional_id: str) -> None:
        self._name = transactional_id

    def build(self, request_struct_class: type[DescribeTransactionsStruct_v0]) -> DescribeTransactionsStruct_v0:
        return request_struct_class([self._name], NO_TAGS)


class DescribeProducersResponse_v0(Response):  # type: ignore[misc]
    """Producers that a partition remembers; start is the offset where a transaction began that has not ended, or -1."""

    API_KEY = 61
    API_VERSION = 0
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        topics_of(
            ("error_code", Int16),
            ("error_message", TEXT),
            (
                "producers",
                CompactArray(
                    ("producer_id", Int64),
                    ("producer_epoch", Int32),
                    ("last_sequence", Int32),
                    ("last_timestamp", Int64),
                    ("coordinator_epoch", Int32),
                    ("start", Int64),
                    TAGS,
                ),
            ),
        ),
        TAGS,
    )


class DescribeProducersStruct_v0(RequestStruct):  # type: ignore[misc]
    """Asks the leader of partitions who writes to them."""

    API_KEY = 61
    API_VERSION = 0
    FLEXIBLE_VERSION = True
    RESPONSE_TYPE = DescribeProducersResponse_v0
    SCHEMA = Schema(topics_of(), TAGS)


class DescribeProducers(Request[DescribeProducersStruct_v0]):  # type: ignore[misc]
    """`DescribeProducers`, for the leader of these partitions."""

    API_KEY = 61

    def __init__(self, targets: Iterable[TopicPartition]) -> None:
        self._targets = targets

    def build(self, request_struct_class: type[DescribeProducersStruct_v0]) -> DescribeProducersStruct_v0:
        topics = [(topic, numbers, NO_TAGS) for topic, numbers in numbers_by_topic(self._targets).items()]
        return request_struct_class(topics, NO_TAGS)
