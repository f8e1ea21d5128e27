"""Offsets: of partitions, and of consumer groups. All on the I/O thread."""

from collections.abc import Iterable, Mapping

import aiokafka.errors as kafka_errors
from aiokafka.client import ConnectionGroup, CoordinationType
from aiokafka.protocol.offset import OffsetRequest

from headrace.engine.clock import SystemClock
from headrace.engine.errors import LogError
from headrace.engine.kafka.client import PASSING, UNAUTHORIZED, Client, ask, by_leader, passes
from headrace.engine.kafka.protocol import by_topic
from headrace.engine.kafka.protocol_groups import StableOffsetFetch
from headrace.engine.log import TopicPartition

#: Instead of a time: the end, and the oldest record kept.
LATEST, EARLIEST = -1, -2
READ_UNCOMMITTED, READ_COMMITTED = 0, 1
RETRY_PAUSE = 0.1
#: A transaction ends within milliseconds, unless its owner died.
STABLE_PAUSE = 0.01
#: Looks at the end of partitions with a transaction open; counted, as a cluster that stands still answers late too.
SETTLE_LOOKS = 100
#: Answer for a group while a transaction that commits its positions is open.
UNSTABLE = 88

_clock = SystemClock()


async def list_offsets(
    client: Client, targets: Iterable[TopicPartition], time_ms: int, isolation: int = READ_COMMITTED
) -> dict[TopicPartition, int]:
    """Per partition the offset of the first record at `time_ms` or later, or -1; or `LATEST`, or `EARLIEST`.

    Tries until the leaders answer.

    Args:
        isolation: whether `LATEST` is what a reader of committed records can reach, or what was written.
    Raises:
        LogError: this user may not ask.
    """
    found: dict[TopicPartition, int] = {}
    left = set(targets)
    while left:
        for node, wanted in by_leader(client, left).items():
            found |= await _list_at(client, node, dict.fromkeys(wanted, time_ms), isolation)
        left -= found.keys()
        if left:
            client.find(target.topic for target in left)
            await _clock.sleep(RETRY_PAUSE)
    return found


async def settled_ends(client: Client, targets: Iterable[TopicPartition]) -> dict[TopicPartition, int]:
    """Per partition the end of what was committed, everything whose commit has returned included.

    A commit is answered before its markers are written; they come in milliseconds. A transaction that nobody ends holds
    this up for `SETTLE_LOOKS` at most, which take a second or a little longer.
    """
    written = await list_offsets(client, targets, LATEST, READ_UNCOMMITTED)
    ends = await list_offsets(client, written, LATEST)
    for _ in range(SETTLE_LOOKS):
        if all(ends[target] >= end for target, end in written.items()):
            break
        await _clock.sleep(STABLE_PAUSE)
        ends = await list_offsets(client, written, LATEST)
    return ends


async def _list_at(
    client: Client, node: int, wanted: Mapping[TopicPartition, int], isolation: int
) -> dict[TopicPartition, int]:
    request = OffsetRequest(-1, isolation, list(by_topic(wanted).items()))
    try:
        response = await ask(client, node, request)
    except kafka_errors.KafkaError as error:
        if not passes(error):
            raise LogError(f"Kafka does not say where partitions begin and end: {error}") from error
        return {}
    found = {}
    for topic, partitions in response.topics:
        for number, code, _, offset, *_ in partitions:
            if code in UNAUTHORIZED:
                raise LogError(f"Kafka does not let this user see topic {topic}; grant DESCRIBE on it")
            if code == 0:
                found[TopicPartition(topic, number)] = offset
    return found


async def group_positions(client: Client, group: str, targets: Iterable[TopicPartition]) -> dict[TopicPartition, int]:
    """Committed positions, 0 where there is none. Waits for open transactions of whoever had the partitions before.

    Raises:
        LogError: the group may not be read.
    """
    request = StableOffsetFetch(group, list(targets))
    while True:
        try:
            node = await client.coordinator_lookup(CoordinationType.GROUP, group)
            response = await ask(client, node, request, ConnectionGroup.COORDINATION)
        except kafka_errors.KafkaError as error:
            if not passes(error):
                raise LogError(f"Kafka does not say where group {group} stands: {error}") from error
            client.force_metadata_update()
            await _clock.sleep(RETRY_PAUSE)
            continue
        codes = ({response.error_code} | {row[4] for _, rows, _ in response.topics for row in rows}) - {0}
        if not codes:
            return {
                TopicPartition(topic, number): max(offset, 0)
                for topic, rows, _ in response.topics
                for number, offset, *_ in rows
            }
        for code in codes - PASSING - {UNSTABLE}:
            raise LogError(f"Kafka does not say where group {group} stands: {kafka_errors.for_code(code).__name__}")
        await _clock.sleep(STABLE_PAUSE if codes == {UNSTABLE} else RETRY_PAUSE)
