"""What a webhook carries: CloudEvents 1.0 in JSON, one per notification, with the alerts whole."""

from datetime import UTC, datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict

from headrace.connectors.notifications.channel import Content
from headrace.schemas.notification import Kind, Notification, Reason, RuleCount, Subject
from headrace.schemas.rule import Severity

PREFIX = "io.headrace.notification."
#: Of the request (CloudEvents 1.0.2, HTTP protocol binding, structured mode).
CONTENT_TYPE = "application/cloudevents+json; charset=UTF-8"


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class WebhookData(_Model):
    """A notification for a program.

    Args:
        notificationId: the same in a repeat.
        dedupKey: the same for all that is sent of one alert.
        kind, severity, subjects, counts, since, step, team, reasons: as in `Notification`.
        title, text: the same for people.
        link: where more is to be seen.
        decidedAt: ms since 1970 UTC.
    """

    notificationId: str
    dedupKey: str
    kind: Kind
    severity: Severity
    title: str
    text: str
    link: str | None = None
    subjects: tuple[Subject, ...]
    counts: tuple[RuleCount, ...] = ()
    since: int | None = None
    step: int = 0
    team: str | None = None
    reasons: tuple[Reason, ...] = ()
    decidedAt: int


class WebhookEvent(_Model):
    """A CloudEvent.

    Args:
        specversion, datacontenttype: as the standard has them.
        id: the notification's.
        source: always `/headrace/notify`.
        type: `io.headrace.notification.` and the kind.
        subject: device id; of a digest the recipient.
        time: when it was decided, RFC 3339.
        data: see there.
    """

    specversion: Literal["1.0"] = "1.0"
    id: str
    source: Literal["/headrace/notify"] = "/headrace/notify"
    type: str
    subject: str
    time: str
    datacontenttype: Literal["application/json"] = "application/json"
    data: WebhookData


def webhook_event(notification: Notification, content: Content) -> bytes:
    """The body of the request: the same bytes for the same notification and content."""
    shared = {name: getattr(notification, name) for name in WebhookData.model_fields if hasattr(notification, name)}
    event = WebhookEvent(
        id=notification.notificationId,
        type=f"{PREFIX}{notification.kind}",
        subject=notification.subjects[0].alert.deviceId if notification.kind != "digest" else notification.recipient,
        time=datetime.fromtimestamp(notification.decidedAt / 1000, UTC).isoformat(timespec="milliseconds"),
        data=WebhookData(**shared, title=content.title, text=content.text, link=content.link),
    )
    return event.model_dump_json(exclude_none=True).encode()
