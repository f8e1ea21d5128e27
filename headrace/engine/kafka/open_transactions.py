"""Where a producer has a transaction open, as the partitions themselves know. On the I/O thread."""

from collections.abc import Iterable, Iterator, Set

import aiokafka.errors as kafka_errors

from headrace.engine.clock import SystemClock
from headrace.engine.kafka.client import PASSING, UNAUTHORIZED, Client, Rejected, ask, by_leader, passes
from headrace.engine.kafka.protocol_transactions import DescribeProducers
from headrace.engine.log import TopicPartition

#: Looks while partitions have no leader, and the pause between two, seconds.
OPEN_LOOKS, RETRY_PAUSE = 50, 0.1

_clock = SystemClock()


async def open_partitions(
    client: Client, producer_id: int, among: Set[TopicPartition] | None = None
) -> frozenset[TopicPartition]:
    """The partitions with records of this producer whose transaction has not ended there.

    Topics that this user may not read are left out. Looks for some seconds while partitions have no leader.

    Args:
        among: where to look, and what counts if no leader answers, too, unless it is deleted; left out, everywhere.
    Raises:
        KafkaError: no broker answers, or one refuses to.
    """
    if not await client.find(target.topic for target in among or ()):
        raise kafka_errors.KafkaConnectionError("no broker says which topics there are")
    left = set(_all_partitions(client) if among is None else among)
    found: set[TopicPartition] = set()
    for _ in range(OPEN_LOOKS):
        for node, wanted in by_leader(client, left).items():
            producers = await _open_at(client, node, wanted)
            left -= producers.keys()
            found |= {target for target, ids in producers.items() if producer_id in ids}
        if not left:
            break
        client.find(target.topic for target in left)
        await _clock.sleep(RETRY_PAUSE)
    if among is not None:
        found |= {target for target in left if client.cluster.leader_for_partition(target) is not None}
    return frozenset(found)


def _all_partitions(client: Client) -> Iterator[TopicPartition]:
    for topic in client.cluster.topics(exclude_internal_topics=True):
        for number in client.cluster.partitions_for_topic(topic) or ():
            yield TopicPartition(topic, number)


async def _open_at(client: Client, node: int, wanted: Iterable[TopicPartition]) -> dict[TopicPartition, Set[int]]:
    """Ids of the producers with an open transaction, of the partitions that this broker knows about."""
    try:
        response = await ask(client, node, DescribeProducers(wanted))
    except kafka_errors.KafkaError as error:
        if not passes(error):
            raise
        return {}
    found: dict[TopicPartition, Set[int]] = {}
    for topic, partitions, _ in response.topics:
        for number, code, _, producers, _ in partitions:
            if code == 0 or code in UNAUTHORIZED:
                found[TopicPartition(topic, number)] = {each for each, *_, start, _ in producers if start >= 0}
            elif code not in PASSING:
                raise Rejected(code, f"look for open transactions in {topic}/{number}")
    return found
