"""What to do when a partition cannot be fetched from where it stands."""

import structlog

from headrace.engine.clock import Clock
from headrace.engine.errors import LogError, TopicChanged
from headrace.engine.kafka.client import UNAUTHORIZED, Client
from headrace.engine.kafka.fetch import OFFSET_OUT_OF_RANGE
from headrace.engine.kafka.offsets import EARLIEST, LATEST, READ_UNCOMMITTED, list_offsets
from headrace.engine.kafka.topic_ids import TopicIds
from headrace.engine.log import TopicPartition

RETRY_PAUSE = 0.1

log = structlog.get_logger(__name__)


async def repaired(
    client: Client, ids: TopicIds, clock: Clock, target: TopicPartition, position: int, code: int
) -> int:
    """Where fetching goes on, after an error with this code; waits a little before it does.

    Raises:
        TopicChanged: the topic is another one now.
        LogError: this user may not read it.
    """
    if code in UNAUTHORIZED:
        raise LogError(f"Kafka does not let this user read topic {target.topic}; grant READ on it")
    # The leader moved, or is on its way: look again.
    client.force_metadata_update()
    await clock.sleep(RETRY_PAUSE)
    if await ids.changed([target.topic]):
        raise made_anew(target.topic)
    return await _in_range(client, target, position) if code == OFFSET_OUT_OF_RANGE else position


def made_anew(topic: str) -> TopicChanged:
    """The error that tells what to do."""
    return TopicChanged(
        f"topic {topic} was deleted and made anew, what was read of it is gone; "
        f"`headrace topics reset {topic}` starts it over"
    )


async def _in_range(client: Client, target: TopicPartition, position: int) -> int:
    first = (await list_offsets(client, [target], EARLIEST))[target]
    end = (await list_offsets(client, [target], LATEST, READ_UNCOMMITTED))[target]
    if position > end:
        raise made_anew(target.topic)
    if 0 < position < first:  # at 0 nothing was read yet: that is where a new group begins
        log.error(
            "records_lost",
            topic=target.topic,
            partition=target.partition,
            count=first - position,
            reason="retention dropped records that were not read yet",
        )
    return max(position, first)
