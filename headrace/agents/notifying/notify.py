"""The agent that finds whom an alert may concern: subscribers, integrations, webhooks, and people on call."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec
import pydantic

from headrace.agents.notifying.audience import Audience
from headrace.agents.notifying.escalation import due, people, reminder, step_of, steps_of
from headrace.agents.notifying.integrations import Integration
from headrace.agents.notifying.open_alerts import AlertKey, OpenAlert, OverAlert, is_old, open_table, over_table
from headrace.agents.notifying.places import Places
from headrace.agents.notifying.requests import encode_request, encode_subject
from headrace.agents.notifying.settings import NotifySettings
from headrace.agents.notifying.timers import Agenda
from headrace.engine.batch import Batch
from headrace.engine.errors import BadRecord
from headrace.engine.operator import State
from headrace.engine.records import Records
from headrace.engine.replicas import Replica
from headrace.schemas import topics
from headrace.schemas.alert import PREFIX, Alert
from headrace.schemas.device_type import DeviceType
from headrace.schemas.notification import Kind, Reason, Subject
from headrace.schemas.user import User
from headrace.tables.draft import Draft
from headrace.tables.replicated import Replicated

#: Seconds of append time for which alerts that are over are known, as alerting keeps them.
KEEP_OVER = 30 * 86_400.0
#: How often time moves on while nothing comes, seconds: a step is at most so late.
IDLE_TIMEOUT = 1.0
#: Changes of alerts that somebody may be told of, or that stop or start telling.
_CHANGES = frozenset({"triggered", "acknowledged", "resolved", "suppressed", "unsuppressed", "snoozed"})
#: Changes of which nobody is told, but what is told later is to know of them.
_MORE = frozenset({"commented", "updated"})
#: In an event whose rule has webhooks; no text holds it: quotes in texts are escaped.
_HAS_WEBHOOKS = b'"webhooks":["'


class _Event(msgspec.Struct):
    type: str
    data: msgspec.Raw


_read_event = msgspec.json.Decoder(_Event).decode


class Notify:
    """Emit a request for everybody whom a change of an alert may concern; see docs/decisions/0026-notifications.md.

    triggered and unsuppressed concern subscribers, integrations and the webhooks of the rule; acknowledged and resolved
    those to whom a request went before, and nobody else. What is suppressed concerns subscribers, so that they can see
    why they were not told; they are once it is not suppressed any more, if the alert is open. While nobody acknowledges
    it, the steps of its escalation follow, as of their time: `Request.at` is the moment of the step.

    Events that came before, and those of alerts that were followed by others, are passed over. The same records give
    the same requests, for any batch boundaries and restarts. O(users) per change, a few µs each; without users,
    integrations and open alerts the event is not read at all, unless its rule has webhooks.

    Args:
        settings: of escalations.
        users: people, as of append times.
        device_types: by name, for the units of metrics.
        integrations: with different names.
        keep_over: seconds of append time for which an alert that is over is known.
    """

    name = "notify"
    topic = topics.ALERTS
    idle_timeout: float | None = IDLE_TIMEOUT

    def __init__(
        self,
        settings: NotifySettings,
        users: Replicated[User],
        device_types: Mapping[str, DeviceType],
        integrations: Sequence[Integration] = (),
        *,
        keep_over: float = KEEP_OVER,
    ) -> None:
        self._settings = settings
        self._audience = Audience(users, integrations)
        self.places = Places(device_types)
        self.replicas: Sequence[Replica] = (users, self.places.table)
        self._open = open_table()
        self._over = over_table()
        self.tables: tuple[State, ...] = (self._open, self._over)
        self._keep_over_ms = round(keep_over * 1000)

    def is_waiting(self, partition: int) -> bool:
        """See `headrace.engine.operator.Idling`."""
        return bool(self._open.moments(partition))

    def process(self, batch: Batch) -> None:
        """Stage the requests that the batch leads to."""
        if batch.idle is None and not self._audience.anybody and self._open.is_empty(batch.partition):
            rows = [row for row, value in enumerate(batch.records.values) if _HAS_WEBHOOKS in (value or b"")]
            if not rows:
                return
        else:
            rows = list(range(len(batch)))
        work = _Work(
            batch,
            self._open.draft(batch),
            self._over.draft(batch),
            Agenda(self._open, batch.partition),
            Agenda(self._over, batch.partition),
        )
        message_ids = batch.records.header(topics.MESSAGE_ID)
        for row in rows:
            self._pass_time(work, batch.records.timestamps[row])
            message_id = message_ids[row]
            self._take(work, row, None if message_id is None else message_id.decode(errors="replace"))
        if batch.idle is not None:
            self._pass_time(work, batch.idle.now_ms)
        work.finish()

    def _pass_time(self, work: "_Work", now_ms: int) -> None:
        """Forget what is over for long, and carry out the steps and reminders that are due."""
        while (over := work.overs.pop(now_ms)) is not None:
            known = work.over.get(over[1], 0)
            if known is not None and known.forget_at == over[0]:
                work.over.delete(over[1], 0)
        while (moment := work.steps.pop(now_ms)) is not None:
            due_ms, key = moment
            alert = work.open.get(key, 0)
            if alert is not None and alert.due == due_ms:
                self._carry_out(work, key, alert, due_ms)

    def _take(self, work: "_Work", row: int, message_id: str | None) -> None:
        """One event."""
        value, at_ms = work.batch.records.values[row], work.batch.records.timestamps[row]
        try:
            event = _read_event(value or b"")
            change = event.type.removeprefix(PREFIX)
            if change not in _CHANGES and change not in _MORE:
                return
            alert = Alert.model_validate_json(bytes(event.data), extra="ignore")
        except (msgspec.MsgspecError, pydantic.ValidationError) as error:
            raise BadRecord(row, f"no event of an alert: {error}") from error
        key = AlertKey(alert.ruleId, alert.deviceType, alert.deviceId)
        known: OpenAlert | OverAlert | None = work.open.get(key, 0) or work.over.get(key, 0)
        if known is not None and is_old(alert, known):
            return
        if change in _MORE:
            if isinstance(known, OpenAlert) and known.alert_id == alert.alertId and known.due is not None:
                newer = msgspec.structs.replace(known, revision=alert.revision, alert=bytes(event.data).decode())
                work.open.put(key, newer, 0)
            return
        if not isinstance(known, OpenAlert) or known.alert_id != alert.alertId:
            known = OpenAlert(alert.alertId, alert.triggeredAt, 0)
        subject = Subject(alert=alert, place=self.places.of(alert, at_ms))
        told = _Told(alert, subject, encode_subject(bytes(event.data), subject), at_ms, known.message_id or message_id)
        after = self._after(work, change, told, known)
        if alert.status == "resolved":
            work.open.delete(key, 0)
            forget_at = at_ms + self._keep_over_ms
            work.set_over(key, OverAlert(alert.alertId, alert.triggeredAt, alert.revision, forget_at))
        else:
            work.over.delete(key, 0)
            keeps = bytes(event.data).decode() if after.due is not None else ""
            work.set_open(key, msgspec.structs.replace(after, alert=keeps))

    def _after(self, work: "_Work", change: str, told: "_Told", known: OpenAlert) -> OpenAlert:
        """Emit what a change leads to; what is remembered of the alert then."""
        alert, at_ms = told.alert, told.at_ms
        now = _suppression(alert)
        after = msgspec.structs.replace(known, revision=alert.revision, suppressed=now, message_id=told.message_id)
        if change == "acknowledged":
            self._tell_told(work, "acknowledged", told, known)
            after = msgspec.structs.replace(after, since=None, acknowledged_at=at_ms)
        elif change == "resolved":
            self._tell_told(work, "resolved", told, known)
            return after
        elif now:
            if not known.suppressed:
                self._withhold(work, told, known)
            after = msgspec.structs.replace(after, since=None)
        else:
            if known.suppressed == "snooze":
                after = msgspec.structs.replace(after, again=known.again + 1)
            if alert.status == "triggered":
                after = msgspec.structs.replace(after, since=at_ms)
            after = msgspec.structs.replace(after, told=self._tell(work, told, after))
        return msgspec.structs.replace(after, due=self._due(alert, after))

    def _tell(self, work: "_Work", told: "_Told", after: OpenAlert) -> tuple[str, ...]:
        """Tell everybody whom the alert concerns; everybody who was told of it so far.

        People who were told before are asked for again: what they were not told on one channel they may be on another.
        """
        names = dict.fromkeys(after.told)
        for user, match in self._audience.subscribers(told.subject, told.at_ms):
            recipient = f"user:{user.user_id}"
            work.request(recipient, "alert", told, match.reasons, again=after.again, channels=match.channels)
            names[recipient] = None
        for recipient, tell, reason in self._audience.systems(told.alert):
            if recipient not in names:
                if "alert" in tell:
                    work.request(recipient, "alert", told, [reason])
                names[recipient] = None
        return tuple(names)

    def _withhold(self, work: "_Work", told: "_Told", known: OpenAlert) -> None:
        """Tell people's side that nobody is to be told now."""
        names = {each: () for each in known.told if each.startswith("user:")} if known.told else {
            f"user:{user.user_id}": match.reasons
            for user, match in self._audience.subscribers(told.subject, told.at_ms)
        }  # fmt: skip
        for recipient, reasons in names.items():
            work.request(recipient, "alert", told, reasons, again=known.again)

    def _tell_told(self, work: "_Work", kind: Kind, told: "_Told", known: OpenAlert) -> None:
        """Tell those who were told of the alert before."""
        tells = self._audience.tells
        for recipient in known.told:
            if recipient.startswith("user:") or kind in tells(recipient):
                work.request(recipient, kind, told, [_TOLD_BEFORE], again=known.again)

    def _due(self, alert: Alert, known: OpenAlert) -> int | None:
        """When the next step or reminder comes, ms."""
        if known.suppressed:
            return None
        if known.acknowledged_at is not None:
            return reminder(self._settings, known.acknowledged_at, known.reminded)
        policy = steps_of(alert, self._settings)
        if known.since is None or policy is None:
            return None
        # A step that was carried out before the alert was suppressed does not come again: the wait begins anew.
        following = due(policy, known.since, known.step)
        return None if following is None else following.at_ms

    def _carry_out(self, work: "_Work", key: AlertKey, known: OpenAlert, at_ms: int) -> None:
        """A step or reminder whose time has come."""
        alert = Alert.model_validate_json(known.alert, extra="ignore")
        subject = Subject(alert=alert, place=self.places.of(alert, at_ms))
        told = _Told(alert, subject, encode_subject(known.alert.encode(), subject), at_ms, known.message_id)
        if known.acknowledged_at is not None:
            after = msgspec.structs.replace(known, again=known.again + 1, reminded=known.reminded + 1)
            for recipient in known.told:
                if recipient.startswith("user:"):
                    work.request(recipient, "alert", told, [_STILL_OPEN], again=after.again)
        else:
            number = known.step + 1
            after = msgspec.structs.replace(known, step=number)
            policy = steps_of(alert, self._settings)
            if policy is not None and due(policy, at_ms, known.step) is not None:
                step = step_of(policy, number)
                names = dict.fromkeys(known.told)
                for user, match in people(step, self._audience.users(at_ms), subject, at_ms):
                    recipient = f"user:{user.user_id}"
                    work.request(
                        recipient, "escalation", told, match.reasons, step=number, team=step.team, again=known.again,
                        channels=match.channels,
                    )  # fmt: skip
                    if match.fits:
                        names[recipient] = None
                after = msgspec.structs.replace(after, told=tuple(names))
        following = self._due(alert, after)
        work.set_open(key, msgspec.structs.replace(after, due=following, alert=known.alert if following else ""))


_TOLD_BEFORE = Reason(code="told-before", text="was told when it triggered")
_STILL_OPEN = Reason(code="told-before", text="was told of it; it was acknowledged, and is still open")


def _suppression(alert: Alert) -> str:
    if alert.suppressed is None:
        return ""
    return "snooze" if alert.suppressed.by == "snooze" else "yes"


@dataclass(slots=True)
class _Told:
    """An alert to tell of: as it is, with what is around it, and as JSON."""

    alert: Alert
    subject: Subject
    encoded: bytes
    at_ms: int
    message_id: str | None


@dataclass(slots=True)
class _Work:
    """A batch, and the tables as it changes them."""

    batch: Batch
    open: Draft[AlertKey, OpenAlert]
    over: Draft[AlertKey, OverAlert]
    steps: Agenda[AlertKey, OpenAlert]
    overs: Agenda[AlertKey, OverAlert]
    keys: list[bytes | None] = field(default_factory=list)
    values: list[bytes | None] = field(default_factory=list)
    stamps: list[int] = field(default_factory=list)
    message_ids: list[bytes | None] = field(default_factory=list)

    def set_open(self, key: AlertKey, known: OpenAlert) -> None:
        self.open.put(key, known, 0)
        self.steps.add(key, known)

    def set_over(self, key: AlertKey, known: OverAlert) -> None:
        self.over.put(key, known, 0)
        self.overs.add(key, known)

    def request(self, recipient: str, kind: Kind, told: _Told, reasons: Sequence[Reason], **more: Any) -> None:
        """Stage one request."""
        value = encode_request(recipient, kind, told.at_ms, told.encoded, reasons, message_id=told.message_id, **more)
        self.keys.append(recipient.encode())
        self.values.append(value)
        self.stamps.append(told.at_ms)
        self.message_ids.append(None if told.message_id is None else told.message_id.encode())

    def finish(self) -> None:
        """Stage what was found."""
        headers = {topics.MESSAGE_ID: self.message_ids}
        self.batch.send_records(
            topics.NOTIFICATION_REQUESTS,
            Records(self.keys, self.values, self.stamps, headers),  # type: ignore[arg-type]
        )
        self.batch.on_finish(self.steps.apply)
        self.batch.on_finish(self.overs.apply)
