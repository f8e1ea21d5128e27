"""A data folder in which both agents have decided on a history of alerts, and what they decided was delivered."""

from collections.abc import Iterable, Mapping
from math import inf
from pathlib import Path

from headrace.connectors.notifications.channel import Message, Sent
from headrace.engine.clock import SteppedClock
from headrace.engine.embedded.log import EmbeddedLog
from headrace.engine.log import Append, Changes, Log, TopicPartition, TopicSpec, Transaction
from headrace.engine.partitioner import Partitioner
from headrace.engine.records import Record, Records
from headrace.schemas import topics
from headrace.schemas.notification import Notification
from headrace.schemas.user import User, encode_user
from headrace.tables.replicated import replicated_topic
from tests.agents.notifying.histories import AlertLog, World, outbox
from tests.connectors.notifications.outbox import Answer, Receiver, deliverer, delivering, make_topics, put, settle

PARTITIONS = 2


async def write(folder: Path, world: World, people: Iterable[User], alerts: AlertLog, end_ms: int) -> None:
    """Fill a folder with all of it, up to a moment; what is decided is not delivered yet."""
    log = EmbeddedLog(folder, retention=inf)
    await log.create_topics(
        [
            *(TopicSpec(name, PARTITIONS) for name in (topics.ALERTS, topics.NOTIFICATIONS)),
            replicated_topic(topics.USERS),
        ]
    )
    await log.create_topics([TopicSpec(topics.ALERT_STATES, PARTITIONS, compacted=True)])
    await make_topics(log, PARTITIONS)
    await log.commit(Transaction([_users(people)]))
    driven = world.run(alerts.records(), end_ms)
    await append(log, topics.ALERTS, alerts.records())
    await append(log, topics.NOTIFICATIONS, driven.sent.get(topics.NOTIFICATIONS, []))
    states = {
        alert.alertId.encode(): alert.model_dump_json(exclude_none=True).encode() for alert in alerts.newest.values()
    }
    await log.commit(Transaction(changes=[Changes(TopicPartition(topics.ALERT_STATES, 0), states)]))
    await log.close()


async def write_events(folder: Path, alerts: AlertLog) -> None:
    """Append events on which nothing is decided."""
    log = EmbeddedLog(folder, retention=inf)
    await log.topics()
    await append(log, topics.ALERTS, alerts.records())
    await log.close()


async def deliver(
    folder: Path, world: World, alerts: AlertLog, end_ms: int, errors: Mapping[str, Exception] | None = None
) -> None:
    """Deliver what was decided until then, each a second after its decision.

    Args:
        errors: per channel what its first attempt meets; the others give an id.
    """
    log = EmbeddedLog(folder, retention=inf)
    await log.topics()
    waiting = dict(errors or {})
    for document in outbox(world.run(alerts.records(), end_ms)):
        told = Notification.model_validate(document)
        await put(log, told)
        receiver = Receiver(told.channel, _answer(waiting))
        clock = SteppedClock(told.decidedAt + 1_000)
        async with delivering(deliverer(log, receiver, clock=clock)) as delivery:
            await settle(delivery)
    await log.close()


async def append(log: Log, topic: str, records: Records | Iterable[Record]) -> None:
    """Append records to the partitions of their keys."""
    rows = list(records)
    partitioner = Partitioner(log.partitions(topic))
    split: dict[int, list[Record]] = {}
    for each in rows:
        split.setdefault(partitioner.partition(each.key or b""), []).append(each)
    appends = [
        Append(
            TopicPartition(topic, number),
            Records([each.key for each in mine], [each.value for each in mine], [each.timestamp for each in mine]),
        )
        for number, mine in split.items()
    ]
    await log.commit(Transaction(appends))


def _users(people: Iterable[User]) -> Append:
    found = list(people)
    keys: list[bytes | None] = [each.user_id.encode() for each in found]
    values: list[bytes | None] = [encode_user(each) for each in found]
    return Append(TopicPartition(topics.USERS, 0), Records(keys, values, [1] * len(found)))


def _answer(errors: dict[str, Exception]) -> Answer:
    def answer(message: Message) -> Sent:
        told = message.notification
        if told.channel in errors:
            raise errors.pop(told.channel)
        return Sent(f"{told.channel}-{told.subjects[0].alert.deviceId}")

    return answer
