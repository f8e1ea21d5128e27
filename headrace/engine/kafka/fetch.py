"""Fetch requests, and what they bring."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import aiokafka.errors as kafka_errors
from aiokafka.client import ConnectionGroup
from aiokafka.protocol.fetch import FetchRequest

from headrace.engine.clock import Clock
from headrace.engine.kafka.client import PASSING, Client, Rejected, ask, passes
from headrace.engine.kafka.decoding import Stretch, stretches
from headrace.engine.kafka.offsets import list_offsets
from headrace.engine.log import TopicPartition

READ_COMMITTED = 1
#: Instead of an offset: there is none.
NONE = -1
OFFSET_OUT_OF_RANGE = 1
#: Of `read_on`: bytes that one request brings, about, and how long a broker waits for the first.
FETCH_BYTES, WAIT_MS = 4 << 20, 100
RETRY_PAUSE = 0.1


class Part(NamedTuple):
    """What a response says of one partition.

    Args:
        code: of an error, or 0.
        aborted: (producer id, first offset) of transactions in there that were aborted.
        body: record batches, the last one possibly cut off.
    """

    code: int
    aborted: Sequence[tuple[int, int]]
    body: bytes


async def fetch(
    client: Client,
    node: int,
    offsets: Mapping[TopicPartition, int],
    partition_bytes: int,
    wait_ms: int,
    *,
    most_bytes: int,
    group: object = ConnectionGroup.DEFAULT,
) -> dict[TopicPartition, Part]:
    """Ask a broker for committed records of partitions that it leads, from these offsets on.

    The first partition that has records brings a batch however large; so change the order from time to time.

    Args:
        partition_bytes, most_bytes: what the response brings per partition and in all, about.
        wait_ms: for which the broker waits until it has something.
    Raises:
        KafkaError: there was no response.
    """
    topics: dict[str, list[tuple[int, int, int]]] = {}
    for (topic, number), offset in offsets.items():
        topics.setdefault(topic, []).append((number, offset, partition_bytes))
    request = FetchRequest(wait_ms, 1, most_bytes, READ_COMMITTED, list(topics.items()))
    response = await ask(client, node, request, group)
    # Counted from the end: version 5 added something in front of it, version 11 behind it.
    behind_aborted = -2 if response.API_VERSION < 11 else -3
    return {
        TopicPartition(topic, number): Part(code, rest[behind_aborted] or (), rest[-1] or b"")
        for topic, partitions in response.topics
        for number, code, *rest in partitions
    }


async def read_on(client: Client, target: TopicPartition, offset: int, clock: Clock) -> list[Stretch]:
    """What comes in a partition from `offset` on; nothing if it took too long, or the leader is elsewhere now.

    Raises:
        Rejected: the partition has no such offset, or is not for this user.
        KafkaError: the records are damaged.
    """
    node = client.cluster.leader_for_partition(target)
    if node is not None and node != -1:
        try:
            parts = await fetch(client, node, {target: offset}, FETCH_BYTES, WAIT_MS, most_bytes=FETCH_BYTES)
        except kafka_errors.KafkaError as error:
            if not passes(error):
                raise
        else:
            part = parts[target]
            if not part.code:
                return stretches(target, offset, part.body, part.aborted)
            if part.code not in PASSING:
                raise Rejected(part.code, f"read {target.topic}/{target.partition} from {offset} on")
    client.force_metadata_update()
    await clock.sleep(RETRY_PAUSE)
    return []


async def offsets_at(
    client: Client, ends: Mapping[TopicPartition, int], time_ms: int, clock: Clock
) -> dict[TopicPartition, int]:
    """Per partition the offset of the first record at `time_ms` or later; its end where there is none.

    The cluster takes transaction markers for records, and their time is its own: where the records have others, as in a
    replay of old data, what lies behind its answer is looked through.
    """
    found = await list_offsets(client, ends, time_ms)
    for target, offset in found.items():
        if offset == NONE:
            found[target] = ends[target]
        elif time_ms > 0:
            found[target] = await _first_at(client, target, offset, ends[target], time_ms, clock)
    return found


async def _first_at(client: Client, target: TopicPartition, offset: int, end: int, time_ms: int, clock: Clock) -> int:
    while offset < end:
        for stretch in await read_on(client, target, offset, clock):
            if stretch.header is not None and stretch.header.max_timestamp >= time_ms:
                fetched = stretch.decode()
                for index, stamp in enumerate(fetched.records.timestamps):
                    if stamp >= time_ms:
                        return fetched.offset(index)
            offset = stretch.next_offset
    return end


async def is_committed(client: Client, target: TopicPartition, offset: int, clock: Clock) -> bool:
    """Whether the record that was written at `offset` was committed; waits until its transaction has ended."""
    while not (found := await read_on(client, target, offset, clock)):
        pass
    fetched = found[0].decode()
    return len(fetched.records) > 0 and fetched.offset(0) == offset
