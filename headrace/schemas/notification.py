"""Notifications: what agents decide, what is to be sent, and what became of it.

`notifications.requests`: that something may concern somebody; key recipient. `notifications.outbox`: what is to be
sent; key recipient, value a `Notification`. `notifications.v1`: CloudEvents 1.0 in JSON, key recipient, data a
`NotificationState`: decisions (queued, held, dropped) and deliveries (sent, delivered, failed, unknown, dead).
`notifications.state.v1`: the newest `NotificationState` of each notification, compacted: the delivery log.
"""

import uuid
from typing import Literal

from pydantic import BaseModel, ConfigDict

from headrace.schemas.alert import Alert
from headrace.schemas.rule import Channel as PersonalChannel
from headrace.schemas.rule import Severity

SOURCE = "/headrace/notify"
PREFIX = "io.headrace.notification."
#: Alerts that one digest carries whole: the gravest, and of these the first, which tell most of where it began. Of the
#: others it has the counts.
MOST_ALERTS = 20

#: alert: it triggered; escalation: nobody has acknowledged it; digest: what was held, or came at once.
Kind = Literal["alert", "acknowledged", "resolved", "escalation", "digest"]
#: Of people: email, push, sms. The others are integrations, and webhooks of rules.
Channel = Literal["email", "push", "sms", "webhook", "pagerduty", "alertmanager", "apprise"]
#: held: to be told later, in a digest; dropped: not to be told, `reasons` say why; queued: in the outbox;
#: sending: an attempt has begun; unknown: a crash came before its end, it is being found out, or repeated with the same
#: dedup key; failed: an attempt failed, another one follows; dead: no other one follows.
Status = Literal["queued", "held", "dropped", "sending", "sent", "delivered", "failed", "unknown", "dead"]
#: Why a decision is as it is. The first ones speak for telling, the others against it, or for later.
Code = Literal[
    "subscribed", "on-call", "integration", "rule-webhook", "severity", "floor", "override", "told-before",
    "quiet-hours-over", "cap-over",
    "user-inactive", "other-organisation", "not-subscribed", "matrix", "rule-channels", "preference",
    "subscription-channels", "no-contact", "suppressed", "quiet-hours", "cap", "already-told", "not-told-before",
    "ended", "expired",
]  # fmt: skip

_NAMESPACE = uuid.uuid5(uuid.NAMESPACE_URL, "io.headrace.notification")


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Reason(_Model):
    """One step of a decision.

    Args:
        code: for programs.
        text: for people: what was looked at, and what that led to.
    """

    code: Code
    text: str


class Place(_Model):
    """What the registries say of an alert's device and metric, for what is sent.

    Args:
        location: where the device stands, for people.
        unit: of the metric; None if it has none, or nothing is compared.
        label: of the metric, for people.
        tags: of the device.
    """

    location: str | None = None
    unit: str | None = None
    label: str | None = None
    tags: tuple[str, ...] = ()


class Subject(_Model):
    """An alert with what is around it.

    Args:
        alert: as it was then.
        place: where it is, and what its metric is.
    """

    alert: Alert
    place: Place = Place()


class Request(_Model):
    """That something may concern somebody: what `notifications.requests` carries.

    Args:
        recipient: `user:ID`, `integration:NAME`, or `webhook:ADDRESS`.
        kind: what happened.
        subject: to which alert.
        at: append time of what caused it, ms since 1970 UTC.
        step: of the escalation, from 1; 0 for none.
        team: for which the recipient is on call, of an escalation.
        again: how often telling them of the alert began anew: after a snooze, or as a reminder.
        channels: to which what the recipient subscribed to narrows it; None for all.
        reasons: why them.
        messageId: of the reading that caused the alert, if one did.
    """

    recipient: str
    kind: Kind
    subject: Subject
    at: int
    step: int = 0
    team: str | None = None
    again: int = 0
    channels: tuple[PersonalChannel, ...] | None = None
    reasons: tuple[Reason, ...] = ()
    messageId: str | None = None


class Reader(_Model):
    """For whom something is written.

    Args:
        name: how people call them.
        language: BCP 47.
        timezone: IANA name.
        units: in what numbers are shown.
    """

    name: str | None = None
    language: str = "en"
    timezone: str = "UTC"
    units: Literal["metric", "imperial"] = "metric"


class RuleCount(_Model):
    """Of a digest: how many alerts of one rule.

    Args:
        ruleId, ruleName, severity: of the rule.
        alerts: how many, count.
        open: how many of them are not over, count.
        devices: of how many devices, count.
    """

    ruleId: str
    ruleName: str
    severity: Severity
    alerts: int
    open: int
    devices: int


class Notification(_Model):
    """One message to one recipient on one channel; the same decision always has the same id.

    Args:
        notificationId: see `notification_id`.
        dedupKey: the same for all that is sent of one alert: receivers that know keys show one incident.
        recipient: as in `Request`.
        userId: of a person.
        channel: how.
        contacts: where: addresses, phone numbers, tokens as `platform:token`, an URL, the name of an integration.
        kind: what it is about.
        severity: of the gravest alert.
        subjects: the alerts; of a digest at most `MOST_ALERTS`.
        counts: of a digest, per rule, the gravest first.
        since: of a digest, when the first of it was held, ms since 1970 UTC.
        reader: for whom.
        step, team: of the escalation.
        reasons: why it is sent.
        decidedAt: append time of the decision, ms since 1970 UTC.
        messageId: of the reading that caused the alert.
    """

    notificationId: str
    dedupKey: str
    recipient: str
    userId: str | None = None
    channel: Channel
    contacts: tuple[str, ...]
    kind: Kind
    severity: Severity
    subjects: tuple[Subject, ...]
    counts: tuple[RuleCount, ...] = ()
    since: int | None = None
    reader: Reader = Reader()
    step: int = 0
    team: str | None = None
    reasons: tuple[Reason, ...] = ()
    decidedAt: int
    messageId: str | None = None


class NotificationState(_Model):
    """One notification as it is now; also a decision that led to none.

    Args:
        notificationId: of it.
        alertId: of its alert; of a digest the first.
        alertIds: of all its alerts, if there are more.
        ruleId, deviceId: of the alert; of a digest the first's.
        recipient, userId, channel, kind, step: as in `Notification`; channel None: no channel was reached.
        status: see `Status`.
        reasons: why.
        until: held until when, ms since 1970 UTC.
        contact: the contact that is meant, where one of several is.
        attempts: begun, count.
        providerId: what the receiver calls it.
        error: of the last attempt that failed, for people.
        decidedAt, sentAt, deliveredAt: ms since 1970 UTC.
    """

    notificationId: str
    alertId: str
    alertIds: tuple[str, ...] = ()
    ruleId: str
    deviceId: str
    recipient: str
    userId: str | None = None
    channel: Channel | None = None
    kind: Kind
    step: int = 0
    status: Status
    reasons: tuple[Reason, ...] = ()
    until: int | None = None
    contact: str | None = None
    attempts: int = 0
    providerId: str | None = None
    error: str | None = None
    decidedAt: int
    sentAt: int | None = None
    deliveredAt: int | None = None


class NotificationEvent(_Model):
    """What happened to a notification, CloudEvents 1.0.

    Args:
        specversion, datacontenttype: as the standard has them.
        id: notification id, status and attempt: the same for a repeat.
        source: always `/headrace/notify`.
        type: `io.headrace.notification.` and the status.
        subject: the recipient.
        time: when, RFC 3339.
        data: the notification as it is then.
    """

    specversion: Literal["1.0"] = "1.0"
    id: str
    source: Literal["/headrace/notify"] = "/headrace/notify"
    type: str
    subject: str
    time: str
    datacontenttype: Literal["application/json"] = "application/json"
    data: NotificationState


def notification_id(cause: str, recipient: str, channel: str | None, kind: Kind, step: int = 0) -> str:
    """The id of what is decided of a cause: the alert's id, or that of a digest's first alert and its begin."""
    return str(uuid.uuid5(_NAMESPACE, "\0".join((cause, recipient, channel or "", kind, str(step)))))
