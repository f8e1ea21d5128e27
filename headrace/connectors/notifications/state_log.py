"""The delivery log: reads it, and lets go of what is long over."""

from collections.abc import AsyncIterator, Iterable

import orjson
from pydantic import ValidationError

from headrace.engine.log import Changes, Log, TopicPartition, Transaction
from headrace.schemas import topics
from headrace.schemas.notification import NotificationState

#: Keys that are deleted in one transaction.
MOST_DELETED = 5_000
#: From here nothing more happens to a row.
OVER = frozenset({"sent", "delivered", "dead", "dropped", "held"})


async def read_states(log: Log, partitions: Iterable[int]) -> AsyncIterator[tuple[int, bytes, NotificationState]]:
    """Every row: partition, key, state. What cannot be read is left out."""
    for partition in partitions:
        async for chunk in log.restore(TopicPartition(topics.NOTIFICATION_STATES, partition)):
            for key, value in chunk:
                try:
                    yield partition, key, NotificationState.model_validate_json(value, extra="ignore")
                except ValidationError:
                    continue


async def forget_old_states(log: Log, targets: Iterable[TopicPartition], before_ms: int) -> int:
    """Delete rows that were decided before `before_ms` and are over; how many. Databases keep theirs.

    Args:
        targets: partitions of the outbox: those of the log have the same numbers.
    """
    count = 0
    for target in targets:
        states = TopicPartition(topics.NOTIFICATION_STATES, target.partition)
        keys: list[bytes] = []
        async for chunk in log.restore(states):
            for key, value in chunk:
                found = orjson.loads(value)
                if found.get("status") in OVER and found.get("decidedAt", before_ms) < before_ms:
                    keys.append(key)
        for start in range(0, len(keys), MOST_DELETED):
            part = dict.fromkeys(keys[start : start + MOST_DELETED])
            await log.commit(Transaction(changes=[Changes(states, part)]))
            count += len(part)
    return count
