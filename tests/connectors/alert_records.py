"""Alert events and states as the agent sends them, for those who read them."""

from collections.abc import Sequence

import orjson

from headrace.engine.log import Append, Changes, Log, TopicPartition, TopicSpec, Transaction
from headrace.engine.records import Records
from headrace.schemas import topics
from headrace.schemas.alert import Alert, AlertEvent
from headrace.schemas.public_topics import BY_NAME
from headrace.schemas.topic_schemas import examples

PARTITIONS = 2
SPECS = [
    TopicSpec(topics.ALERTS, PARTITIONS),
    TopicSpec(topics.ALERT_STATES, PARTITIONS, compacted=True, retention=86_400),
]
TRIGGERED = AlertEvent.model_validate(examples(BY_NAME[topics.ALERTS])[0]["value"])
assert isinstance(TRIGGERED.data, Alert)
ALERT: Alert = TRIGGERED.data


def event(number: int) -> AlertEvent:
    """One of many, told apart by their ids."""
    alert_id = f"alert-{number}"
    return TRIGGERED.model_copy(update={"id": f"{alert_id}/1", "data": ALERT.model_copy(update={"alertId": alert_id})})


def document(found: AlertEvent | Alert) -> bytes:
    """As the topic has it."""
    return found.model_dump_json(exclude_none=True).encode()


async def send(log: Log, partition: int, *values: bytes) -> None:
    """Append to `alerts.v1`."""
    records = Records([b"d%d" % partition] * len(values), list(values), [0] * len(values))
    await log.commit(Transaction([Append(TopicPartition(topics.ALERTS, partition), records)]))


async def send_events(log: Log, numbers: Sequence[int]) -> None:
    """Append events, even ones to partition 0."""
    for partition in range(PARTITIONS):
        mine = [document(event(number)) for number in numbers if number % PARTITIONS == partition]
        if mine:
            await send(log, partition, *mine)


async def set_state(log: Log, alert_id: str, status: str | None) -> None:
    """Set an alert in `alerts.state.v1`, or delete it."""
    value = (
        None
        if status is None
        else orjson.dumps({**orjson.loads(document(ALERT)), "alertId": alert_id, "status": status})
    )
    target = TopicPartition(topics.ALERT_STATES, len(alert_id) % PARTITIONS)
    await log.commit(Transaction(changes=[Changes(target, {alert_id.encode(): value})]))
