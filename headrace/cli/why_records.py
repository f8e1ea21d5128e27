"""What the log has about an alert and a recipient: events of the alert, decisions, deliveries, and who they were."""

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

import msgspec
import orjson
from pydantic import ValidationError

from headrace.agents.notifying.audience import Audience
from headrace.agents.notifying.integrations import Integration
from headrace.agents.notifying.places import Places
from headrace.agents.notifying.subscriptions import Match
from headrace.cli.alert_states import alert_named, read_states
from headrace.connectors.notifications.state_log import read_states as read_deliveries
from headrace.engine.clock import SystemClock
from headrace.engine.errors import ConfigError
from headrace.engine.intake import MINUTE_MS
from headrace.engine.log import Fetched, Log, TopicPartition
from headrace.engine.log_range import first_offsets, read_range, reading
from headrace.engine.log_time import is_virtual, log_now_ms
from headrace.engine.partitioner import Partitioner
from headrace.engine.replicas import Replica, read_replicas
from headrace.schemas import topics
from headrace.schemas.alert import PREFIX, Alert
from headrace.schemas.device_type import DeviceType
from headrace.schemas.notification import NotificationEvent, NotificationState, Reason, Subject
from headrace.schemas.text import near
from headrace.schemas.user import User
from headrace.tables.replicated import Replicated
from headrace.tables.users import user_table

#: By how much an event time may be later than the append time of its record, with some to spare, ms.
AHEAD_MS = 10 * MINUTE_MS


class _Event(msgspec.Struct):
    type: str
    data: msgspec.Raw


_read_event = msgspec.json.Decoder(_Event).decode


@dataclass(frozen=True, slots=True)
class Happened:
    """A change of the alert.

    Args:
        at_ms: append time, ms since 1970 UTC.
        change: triggered, acknowledged, ...
        alert: as it was then.
    """

    at_ms: int
    change: str
    alert: Alert


@dataclass(frozen=True, slots=True)
class Noted:
    """A decision about the person, or a delivery to them.

    Args:
        at_ms: when, ms since 1970 UTC.
        state: the notification as it was then.
    """

    at_ms: int
    state: NotificationState


@dataclass(frozen=True, slots=True)
class Found:
    """All of it.

    Args:
        alert: as it is now, or was last.
        events: its changes, oldest first; those that the log still has.
        notes: about the recipient and this alert, in log order.
        digests: decisions that a digest goes to the recipient, whatever is in it.
        last: of the delivery log, what the events do not have any more.
        system: of an integration or a webhook whether the alert is for it, by the settings that there are now; None: a
            person.
        user: the person when the alert triggered, as far as that is known; None: there was nobody of this id.
        user_now: the same now.
        subject: the alert with its place, when it triggered.
        now_ms: as append times have it.
    """

    alert: Alert
    events: Sequence[Happened]
    notes: Sequence[Noted]
    digests: Sequence[Noted]
    last: Sequence[NotificationState]
    system: Match | None
    user: User | None
    user_now: User | None
    subject: Subject
    now_ms: int


@dataclass(frozen=True, slots=True)
class _Registries:
    replicas: Sequence[Replica]


async def find(
    log: Log,
    alert_text: str,
    recipient: str,
    device_types: Mapping[str, DeviceType],
    integrations: Sequence[Integration],
) -> Found:
    """Look for everything.

    Args:
        alert_text: id of the alert, or the beginning of one.
        recipient: `user:ID`, `integration:NAME` or `webhook:URL`.
        integrations: that there are.
    Raises:
        ConfigError: there is no such alert, or there are several; no such recipient is known, or was told of anything.
    """
    clock = SystemClock()
    alert = await _alert(log, alert_text)
    events = await _events(log, alert)
    users, places = user_table(), Places(device_types)
    await read_replicas(log, _Registries((users, places.table)), clock)
    began_ms = events[0].at_ms if events else alert.triggeredAt
    notes, digests = await _notes(log, alert.alertId, recipient, began_ms)
    known = {each.state.notificationId for each in notes}
    seen = {each.state.notificationId for each in notes if each.state.contact is not None}
    last = [
        state
        for state in await _deliveries(log, recipient)
        if (state.notificationId in known or alert.alertId in (state.alertId, *state.alertIds))
        and state.notificationId not in seen
    ]
    now_ms = await log_now_ms(log, clock)
    subject = Subject(alert=events[0].alert if events else alert, place=places.of(alert, began_ms))
    kind, _, user_id = recipient.partition(":")
    if kind != "user":
        system = _system(subject.alert, recipient, integrations, known=bool(notes or last))
        return Found(alert, events, notes, digests, last, system, None, None, subject, now_ms)
    user, user_now = users.get(user_id, began_ms), users.get(user_id, 1 << 62)
    if user is None and user_now is None and not notes and not last:
        raise ConfigError(_nobody(user_id, users))
    if user is not None and not notes and not last and (user.created_at or 0) > began_ms:
        # The table knows no further back than a day; when somebody was added is real time, which a demo's is not.
        user = user if await is_virtual(log) else None
    return Found(alert, events, notes, digests, last, None, user, user_now, subject, now_ms)


def _system(alert: Alert, recipient: str, integrations: Sequence[Integration], *, known: bool) -> Match:
    """Whether an alert is for an integration or a webhook.

    Args:
        known: whether anything was decided about it.
    Raises:
        ConfigError: there is no such integration, and nothing was decided about it either.
    """
    for each, _, reason in Audience(user_table(), integrations).systems(alert):
        if each == recipient:
            return Match(True, (reason,))
    kind, _, name = recipient.partition(":")
    if kind == "webhook":
        text = f"the rule {alert.ruleName} does not name this webhook"
        return Match(False, (Reason(code="rule-webhook", text=text),))
    names = [each.name for each in integrations]
    if name in names:
        (mine,) = (each for each in integrations if each.name == name)
        takes = f"{', '.join(mine.severities) or 'all'} alerts"
        whose = f" of {', '.join(mine.organization_ids)}" if mine.organization_ids else ""
        return Match(False, (Reason(code="integration", text=f"integration {name} takes {takes}{whose}"),))
    if not known:
        there = f"there are {', '.join(names)}" if names else "[channels.integrations] has none"
        raise ConfigError(f"there is no integration {name!r}; {there}{near(name, names)}")
    return Match(False, (Reason(code="no-contact", text=f"there is no integration {name} any more"),))


async def _alert(log: Log, text: str) -> Alert:
    """The alert of this id, whether it is the newest of its rule and device or the log only has its events."""
    known = await read_states(log)
    matching = {name: each for name, each in known.items() if text and name.startswith(text)}
    if not matching and text:
        async for part in _records(log, topics.ALERTS):
            for value in part.records.values:
                if text.encode() in (value or b"") and (found := _event(value)) is not None:
                    alert = found[1]
                    if alert.alertId.startswith(text):
                        matching[alert.alertId] = alert
    try:
        return alert_named(text, matching)
    except ConfigError:
        if matching:
            raise
        raise ConfigError(
            f"there is no alert {text!r}, and the log has no events of one; headrace alerts list --status all shows "
            "alerts and their ids"
        ) from None


async def _events(log: Log, alert: Alert) -> list[Happened]:
    found = []
    wanted, key = alert.alertId.encode(), alert.deviceId.encode()
    async for part in _records(log, topics.ALERTS, key, alert.triggeredAt - AHEAD_MS):
        for value, at_ms in zip(part.records.values, part.records.timestamps, strict=True):
            if wanted in (value or b"") and (event := _event(value)) is not None and event[1].alertId == alert.alertId:
                found.append(Happened(at_ms, *event))
    return found


def _event(value: bytes | None) -> tuple[str, Alert] | None:
    """What happened, and the alert after it; None for what is no event of an alert."""
    try:
        event = _read_event(value or b"")
        return event.type.removeprefix(PREFIX), Alert.model_validate_json(bytes(event.data), extra="ignore")
    except (msgspec.MsgspecError, ValidationError):
        return None


async def _notes(log: Log, alert_id: str, told: str, began_ms: int) -> tuple[list[Noted], list[Noted]]:
    """What was said of this alert to a recipient, and all digests."""
    notes: list[Noted] = []
    digests: list[Noted] = []
    #: Of its notifications all alert ids: delivery names those of a digest that it shows.
    ids: dict[str, tuple[str, ...]] = {}
    recipient = told.encode()
    async for part in _records(log, topics.NOTIFICATIONS, recipient, began_ms - AHEAD_MS):
        for key, value in zip(part.records.keys, part.records.values, strict=True):
            if key != recipient:
                continue
            try:
                event = NotificationEvent.model_validate(orjson.loads(value or b""), extra="ignore")
                at_ms = round(datetime.fromisoformat(event.time).timestamp() * 1000)
            except ValueError:
                continue
            state = event.data
            if len(whole := ids.get(state.notificationId, ())) > len(state.alertIds):
                state = state.model_copy(update={"alertIds": whole})
            noted = Noted(at_ms, state)
            if alert_id in (state.alertId, *state.alertIds):
                ids[state.notificationId] = state.alertIds
                notes.append(noted)
            elif state.notificationId in ids:
                notes.append(noted)
            if state.kind == "digest" and state.status == "queued":
                digests.append(noted)
    return notes, digests


async def _deliveries(log: Log, recipient: str) -> list[NotificationState]:
    if topics.NOTIFICATION_STATES not in {spec.name for spec in await log.topics()}:
        return []
    partition = Partitioner(log.partitions(topics.NOTIFICATION_STATES)).partition(recipient.encode())
    return [state async for _, _, state in read_deliveries(log, [partition]) if state.recipient == recipient]


async def _records(log: Log, topic: str, key: bytes | None = None, since_ms: int = 0) -> AsyncIterator[Fetched]:
    """What a topic has since then: of the partition of a key, or of all."""
    if topic not in {spec.name for spec in await log.topics()}:
        return
    starts, ends = await first_offsets(log, topic), await log.end_offsets(topic)
    if since_ms > 0:
        starts = await log.offsets_at(topic, since_ms)
    numbers = range(log.partitions(topic)) if key is None else [Partitioner(log.partitions(topic)).partition(key)]
    async with reading(log) as reader:
        for target in (TopicPartition(topic, number) for number in numbers):
            async for part in read_range(reader, target, starts[target], ends[target]):
                yield part


def _nobody(user_id: str, users: Replicated[User]) -> str:
    known = users.keys()
    return f"there is no user {user_id!r}{near(user_id, known)}; headrace users list shows those there are"
