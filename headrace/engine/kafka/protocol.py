"""What the requests have in common that aiokafka does not have in the version we need.

Source of every schema: the message definitions of Apache Kafka 3.7 (`TxnOffsetCommitRequest.json` and so on).
"""

from collections.abc import Iterable, Mapping
from typing import Any

from aiokafka.protocol.types import CompactArray, CompactString, Int32, TaggedFields

from headrace.engine.log import TopicPartition

TEXT = CompactString("utf-8")
#: The last field of every structure.
TAGS = ("tags", TaggedFields)
#: What aiokafka writes for it when there are none.
NO_TAGS: dict[int, bytes] = {}

#: A field of a schema: name and type.
Field = tuple[str, Any]


def topics_of(*fields: Field, name: str = "topics") -> Field:
    """Topics with their partitions: of each its number and `fields`; the number alone if there are none."""
    partitions = CompactArray(("partition", Int32), *fields, TAGS) if fields else CompactArray(Int32)
    return name, CompactArray(("topic", TEXT), ("partitions", partitions), TAGS)


def by_topic(values: Mapping[TopicPartition, Any]) -> dict[str, list[tuple[int, Any]]]:
    """Values per partition as the protocol groups them: by topic, then partition."""
    topics: dict[str, list[tuple[int, Any]]] = {}
    for (topic, partition), value in sorted(values.items()):
        topics.setdefault(topic, []).append((partition, value))
    return topics


def numbers_by_topic(targets: Iterable[TopicPartition]) -> dict[str, list[int]]:
    """Partitions as the protocol groups them."""
    return {topic: [number for number, _ in rows] for topic, rows in by_topic(dict.fromkeys(targets)).items()}
