"""Decisions as they are sent: to the outbox, and as events of `notifications.v1`."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Protocol

import orjson

from headrace.engine.batch import Batch
from headrace.engine.records import Records
from headrace.schemas import topics
from headrace.schemas.alert import EVENT_CONTENT
from headrace.schemas.notification import PREFIX, SOURCE, Code, Kind, RuleCount, Status, Subject
from headrace.schemas.user import User


def rfc3339(time_ms: int) -> str:
    """`2025-11-15T10:00:00.000Z`."""
    return datetime.fromtimestamp(time_ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


class Because(Protocol):
    """A reason, however it came."""

    @property
    def code(self) -> Code: ...

    @property
    def text(self) -> str: ...


def reasons_json(reasons: Sequence[Because]) -> list[dict[str, str]]:
    """As JSON has them."""
    return [{"code": each.code, "text": each.text} for each in reasons]


def about(recipient: str, kind: Kind, step: int, subject: Subject) -> dict[str, Any]:
    """What the state of a notification says of one alert and its recipient."""
    alert = subject.alert
    return {
        "alertId": alert.alertId,
        "ruleId": alert.ruleId,
        "deviceId": alert.deviceId,
        "recipient": recipient,
        "kind": kind,
        "step": step,
    }


@dataclass(slots=True)
class _Rows:
    keys: list[bytes | None] = field(default_factory=list)
    values: list[bytes | None] = field(default_factory=list)
    stamps: list[int] = field(default_factory=list)
    message_ids: list[bytes | None] = field(default_factory=list)

    def add(self, recipient: str, value: bytes, at_ms: int, message_id: str | None) -> None:
        self.keys.append(recipient.encode())
        self.values.append(value)
        self.stamps.append(at_ms)
        self.message_ids.append(None if message_id is None else message_id.encode())

    def records(self, **headers: bytes) -> Records:
        column = {topics.MESSAGE_ID: self.message_ids}
        return Records(self.keys, self.values, self.stamps, {**headers, **column})


class Decisions:
    """What a batch decides, in order."""

    def __init__(self) -> None:
        self._outbox = _Rows()
        self._events = _Rows()

    def say(
        self,
        status: Status,
        notification_id: str,
        about: dict[str, Any],
        reasons: Sequence[Because],
        at_ms: int,
        *,
        channel: str | None,
        mark: object,
        message_id: str | None = None,
        **more: Any,
    ) -> None:
        """An event.

        Args:
            about: see the function of that name.
            mark: makes the event's id unique where a notification comes to this status more than once.
            more: other fields of the state; None is left out.
        """
        recipient = about["recipient"]
        state = {
            "notificationId": notification_id,
            **about,
            "channel": channel,
            "status": status,
            "reasons": reasons_json(reasons),
            "decidedAt": at_ms,
            "userId": recipient.removeprefix("user:") if recipient.startswith("user:") else None,
            **more,
        }
        event = {
            "specversion": "1.0",
            "id": f"{notification_id}/{status}/{mark}",
            "source": SOURCE,
            "type": PREFIX + status,
            "subject": recipient,
            "time": rfc3339(at_ms),
            "datacontenttype": "application/json",
            "data": {name: value for name, value in state.items() if value is not None},
        }
        self._events.add(recipient, orjson.dumps(event), at_ms, message_id)

    def send(
        self,
        notification_id: str,
        about: dict[str, Any],
        reasons: Sequence[Because],
        at_ms: int,
        *,
        channel: str,
        contacts: Sequence[str],
        severity: str,
        subjects: Sequence[bytes],
        dedup_key: str,
        user: User | None = None,
        counts: Sequence[RuleCount] = (),
        since: int | None = None,
        team: str | None = None,
        message_id: str | None = None,
        alert_ids: Sequence[str] = (),
    ) -> None:
        """A notification in the outbox, and the event that says so."""
        recipient = about["recipient"]
        document = {
            "notificationId": notification_id,
            "dedupKey": dedup_key,
            "recipient": recipient,
            "userId": user.user_id if user else None,
            "channel": channel,
            "contacts": contacts,
            "kind": about["kind"],
            "severity": severity,
            "subjects": [orjson.Fragment(each) for each in subjects],
            "counts": [each.model_dump() for each in counts],
            "since": since,
            "reader": _reader(user),
            "step": about["step"],
            "team": team,
            "reasons": reasons_json(reasons),
            "decidedAt": at_ms,
            "messageId": message_id,
        }
        value = orjson.dumps({name: each for name, each in document.items() if each is not None})
        self._outbox.add(recipient, value, at_ms, message_id)
        self.say(
            "queued", notification_id, about, reasons, at_ms, channel=channel, mark=0, message_id=message_id,
            alertIds=list(alert_ids) if len(alert_ids) > 1 else None,
        )  # fmt: skip

    def stage(self, batch: Batch) -> None:
        """Send all of it when the batch is finished."""
        batch.send_records(topics.OUTBOX, self._outbox.records(), partition=batch.partition)
        events = self._events.records(**{topics.CONTENT_TYPE: EVENT_CONTENT})
        batch.send_records(topics.NOTIFICATIONS, events, partition=batch.partition)


def _reader(user: User | None) -> dict[str, str]:
    if user is None:
        return {}
    reader = {"language": user.language, "timezone": user.timezone, "units": user.units}
    return reader if user.name is None else {"name": user.name, **reader}
