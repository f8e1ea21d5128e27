"""The delivery log as commands show it: rows that were chosen, events of one, and dead letters."""

from collections.abc import Iterable
from dataclasses import dataclass

import orjson

from headrace.connectors.notifications.dead_letters import NUMBER
from headrace.connectors.notifications.row import row_key
from headrace.connectors.notifications.state_changes import StoredState
from headrace.connectors.notifications.state_log import read_states
from headrace.engine.errors import ConfigError
from headrace.engine.log import Log, TopicPartition
from headrace.engine.log_range import first_offsets, read_range, reading
from headrace.engine.records import Record
from headrace.schemas import topics
from headrace.schemas.contacts import masked_recipient
from headrace.schemas.notification import NotificationEvent, NotificationState


@dataclass(frozen=True, slots=True)
class Chosen:
    """Which rows are meant; what is None chooses nothing.

    Args:
        status, channel, user, alert, device: of the row; an alert by the beginning of its id.
        since_ms: decided then or later, ms since 1970 UTC.
    """

    status: str | None = None
    channel: str | None = None
    user: str | None = None
    alert: str | None = None
    device: str | None = None
    since_ms: int | None = None

    def has(self, state: NotificationState) -> bool:
        """Whether a row is meant."""
        alerts = (state.alertId, *state.alertIds)
        return (
            self.status in (None, state.status)
            and self.channel in (None, state.channel)
            and self.user in (None, state.userId, state.recipient, masked_recipient(state.recipient))
            and (self.alert is None or any(each.startswith(self.alert) for each in alerts))
            and self.device in (None, state.deviceId)
            and (self.since_ms is None or state.decidedAt >= self.since_ms)
        )


async def known_states(log: Log) -> dict[bytes, StoredState] | None:
    """The delivery log by key; None if there is none."""
    if topics.NOTIFICATION_STATES not in {spec.name for spec in await log.topics()}:
        return None
    partitions = range(log.partitions(topics.NOTIFICATION_STATES))
    return {key: StoredState(partition, key, state) async for partition, key, state in read_states(log, partitions)}


def row_named(text: str, known: Iterable[StoredState]) -> StoredState:
    """The row with this key, or the only one whose key begins so; the first contact's if all are of one notification.

    Raises:
        ConfigError: there is none, or more than one.
    """
    found = sorted((each for each in known if each.key.decode().startswith(text)), key=lambda each: each.key)
    whole = [each for each in found if each.key.decode() == text]
    if whole:
        return whole[0]
    ids = {each.state.notificationId for each in found}
    if text and len(ids) == 1:
        return found[0]
    if not found or not text:
        raise ConfigError(f"there is no notification {text!r}; headrace notifications list shows those there are")
    raise ConfigError(f"{text!r} is the beginning of {len(ids):,} notifications; write more of it")


async def events_of(log: Log, row: StoredState) -> list[NotificationEvent]:
    """What has happened to a row, as far as the log still has it."""
    found: list[NotificationEvent] = []
    for record in await _records(log, topics.NOTIFICATIONS, row.state.recipient.encode()):
        document = orjson.loads(record.value or b"{}")
        if document.get("data", {}).get("notificationId") == row.state.notificationId:
            event = NotificationEvent.model_validate(document, extra="ignore")
            if event.data.contact in (None, row.state.contact):
                found.append(event)
    return found


async def dead_letter_of(log: Log, row: StoredState) -> Record | None:
    """The newest dead letter of a row."""
    newest = None
    for record in await _records(log, topics.NOTIFICATION_DEAD_LETTERS, row.state.recipient.encode()):
        try:
            name = orjson.loads(record.value or b"").get("notificationId", "")
            number = int(record.headers.get(NUMBER, b"0"))
        except (orjson.JSONDecodeError, AttributeError, ValueError):
            continue
        if row_key(name, number) == row.key:
            newest = record
    return newest


async def _records(log: Log, topic: str, key: bytes) -> list[Record]:
    """Those with a key, oldest first."""
    found: list[Record] = []
    starts = await first_offsets(log, topic)
    async with reading(log) as reader:
        for number in range(log.partitions(topic)):
            target = TopicPartition(topic, number)
            end = (await log.end_offsets(topic))[target]
            async for fetched in read_range(reader, target, starts[target], end):
                found += [record for record in fetched.records if record.key == key]
    return found
