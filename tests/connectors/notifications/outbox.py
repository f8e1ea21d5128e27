"""An outbox to deliver from, a receiver that keeps what it gets, and what the log says became of it."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from random import Random
from typing import Any

import orjson

from headrace.connectors.notifications.channel import Content, Message, Sent
from headrace.connectors.notifications.delivery import Delivery
from headrace.connectors.notifications.delivery_settings import DeliverySettings
from headrace.engine.clock import Clock, SteppedClock
from headrace.engine.log import Append, Log, TopicPartition, TopicSpec, Transaction
from headrace.engine.log_range import read_range, reading
from headrace.engine.partitioner import Partitioner
from headrace.engine.records import Record, Records
from headrace.schemas import topics
from headrace.schemas.alert import Alert
from headrace.schemas.notification import Kind, Notification, Subject, notification_id

#: When the tests begin, ms.
NOW = 1_763_200_800_000


def alert(name: str, **more: Any) -> Alert:
    """An alert with this id."""
    fields = {
        "alertId": name, "revision": 1, "ruleId": "hot", "ruleName": "Hot", "deviceId": f"d-{name}",
        "deviceType": "sensor", "severity": "warning", "status": "triggered", "condition": "temperature > 30",
        "metric": "temperature", "triggeredAt": NOW, "groupKey": name,
    }  # fmt: skip
    return Alert(**{**fields, **more})


def notification(
    name: str, user: str = "ann", channel: Any = "email", kind: Kind = "alert", *contacts: str, **more: Any
) -> Notification:
    """What is to be told of an alert with this id."""
    recipient = f"user:{user}"
    fields = {
        "notificationId": notification_id(name, recipient, channel, kind), "dedupKey": name, "recipient": recipient,
        "userId": user, "channel": channel, "contacts": contacts or (f"{user}@example.org",), "kind": kind,
        "severity": "warning", "subjects": (Subject(alert=alert(name)),), "decidedAt": NOW, "messageId": f"m-{name}",
    }  # fmt: skip
    return Notification(**{**fields, **more})


def plain(told: Notification) -> Content:
    """The words of the tests."""
    title = f"{told.kind} {told.subjects[0].alert.alertId}"
    return Content(title, f"{title}.", f"<html><body>{title}</body></html>", title)


#: What a receiver does with a message; raises what `Channel.send` may.
Answer = Callable[[Message], Any]


class Receiver:
    """A channel that hands over to the test."""

    idempotent = True

    def __init__(self, name: str = "email", answer: Answer | None = None, at_once: int = 10) -> None:
        self.name = name
        self.at_once = at_once
        self.answer = answer
        self.got: list[Message] = []

    async def send(self, message: Message) -> Sent:
        """Keep it, unless the answer raises."""
        found = self.answer(message) if self.answer is not None else None
        if asyncio.iscoroutine(found):
            found = await found
        self.got.append(message)
        return found if isinstance(found, Sent) else Sent(f"p-{len(self.got)}")

    async def close(self) -> None:
        """Nothing is open."""

    def titles(self) -> list[str]:
        """Of what it got, in order."""
        return [message.content.title for message in self.got]


async def make_topics(log: Log, partitions: int = 2) -> None:
    """The topics that delivery needs."""
    await log.create_topics([*Delivery.topic_specs(partitions), TopicSpec(topics.ALERT_COMMANDS, partitions)])


async def put(log: Log, *notifications: Notification | bytes) -> None:
    """Put them into the outbox as the agent does."""
    partitioner = Partitioner(log.partitions(topics.OUTBOX))
    appends = []
    for each in notifications:
        key = b"broken" if isinstance(each, bytes) else each.recipient.encode()
        value = each if isinstance(each, bytes) else each.model_dump_json(exclude_none=True).encode()
        target = TopicPartition(topics.OUTBOX, partitioner.partition(key))
        appends.append(Append(target, Records([key], [value], [NOW])))
    await log.commit(Transaction(appends))


def deliverer(log: Log, *channels: Any, clock: Clock | None = None, **settings: Any) -> Delivery:
    """A delivery over these channels, on a clock that stands still but for waits."""
    return Delivery(
        log, {each.name: each for each in channels}, plain, clock or SteppedClock(NOW), DeliverySettings(**settings),
        random=Random(7),
    )  # fmt: skip


@asynccontextmanager
async def delivering(delivery: Delivery) -> AsyncIterator[Delivery]:
    """Run it meanwhile."""
    stop = asyncio.Event()
    running = asyncio.create_task(delivery.run(stop))
    try:
        yield delivery
    finally:
        stop.set()
        await running


async def passes(condition: Callable[[], bool], running: asyncio.Task[None] | None = None) -> None:
    """Wait until it holds; every turn of the loop is a look."""
    async with asyncio.timeout(60):
        while not condition():
            if running is not None and running.done():
                running.result()
            await asyncio.sleep(0.001)


async def all_records(log: Log, topic: str) -> list[Record]:
    """What is in a topic, partition by partition."""
    found: list[Record] = []
    async with reading(log) as reader:
        for target, end in sorted((await log.end_offsets(topic)).items()):
            async for fetched in read_range(reader, target, 0, end):
                found += fetched.records
    return found


async def told(log: Log) -> list[tuple[str, int]]:
    """Status and attempt of every event, in order per recipient."""
    events = [orjson.loads(record.value or b"") for record in await all_records(log, topics.NOTIFICATIONS)]
    return [(each["data"]["status"], each["data"]["attempts"]) for each in events]


async def pending(log: Log) -> list[bytes]:
    """Keys of rows that are not finished."""
    found: list[bytes] = []
    for number in range(log.partitions(topics.NOTIFICATIONS_PENDING)):
        async for chunk in log.restore(TopicPartition(topics.NOTIFICATIONS_PENDING, number)):
            found += [key for key, _ in chunk]
    return found


async def states(log: Log) -> dict[str, Any]:
    """The delivery log by key."""
    found: dict[str, Any] = {}
    for number in range(log.partitions(topics.NOTIFICATION_STATES)):
        async for chunk in log.restore(TopicPartition(topics.NOTIFICATION_STATES, number)):
            found |= {key.decode(): orjson.loads(value) for key, value in chunk}
    return found


async def settle(delivery: Delivery) -> None:
    """Wait until nothing waits any more."""
    await passes(lambda: delivery.statistics().taken > 0 and delivery.statistics().waiting == 0)
