"""Notifications as there may be: what templates are tried on at start, and what `--example` shows."""

from collections.abc import Iterator
from typing import get_args

from headrace.connectors.notifications.languages import languages
from headrace.schemas.alert import Alert, Person, Resolution
from headrace.schemas.notification import (
    Kind,
    Notification,
    Place,
    Reader,
    Reason,
    RuleCount,
    Subject,
    notification_id,
)

#: 2025-11-15 10:05:00 UTC.
_AT = 1_763_201_100_000


def example(kind: Kind, reader: Reader | None = None) -> Notification:
    """A notification of that kind, of an office that has become too warm."""
    alert = Alert(
        alertId="alert-123",
        revision={"alert": 1, "escalation": 1, "digest": 1, "acknowledged": 2, "resolved": 3}[kind],
        ruleId="high-temperature",
        ruleName="High temperature",
        organizationId="org-1",
        deviceId="sensor-123",
        deviceName="Temp Sensor #123",
        deviceType="environmental",
        gatewayId="gateway-1",
        severity="warning",
        status={"acknowledged": "acknowledged", "resolved": "resolved"}.get(kind, "triggered"),
        condition="temperature > 30",
        metric="temperature",
        actualValue=32.5,
        threshold=30.0,
        triggeredAt=_AT,
        groupKey="gateway-1/high-temperature",
    )
    person = Person(userId="user-456", name="Ada Lovelace")
    if kind in ("acknowledged", "resolved"):
        alert = alert.model_copy(update={"acknowledgedAt": _AT + 240_000, "acknowledgedBy": person})
    if kind == "resolved":
        ended = {"resolvedAt": _AT + 1_500_000, "resolvedValue": 27.25, "resolved": Resolution(by="condition")}
        alert = alert.model_copy(update=ended)
    place = Place(location="Office 301, Building A", unit="degC", label="Temperature", tags=("office",))
    digest = kind == "digest"
    counts = (
        RuleCount(
            ruleId="high-temperature", ruleName="High temperature", severity="warning", alerts=14, open=9, devices=7
        ),
    )
    return Notification(
        notificationId=notification_id(alert.alertId, "user:user-456", "email", kind),
        dedupKey=alert.alertId,
        recipient="user:user-456",
        userId="user-456",
        channel="email",
        contacts=("ada@example.com",),
        kind=kind,
        severity="warning",
        subjects=(Subject(alert=alert, place=place),),
        counts=counts if digest else (),
        since=_AT - 7_200_000 if digest else None,
        reader=reader or Reader(name="Ada Lovelace"),
        step=2 if kind == "escalation" else 0,
        team="operators" if kind == "escalation" else None,
        reasons=(Reason(code="subscribed", text="subscribed to sensor-123"),),
        decidedAt=_AT + 2_000,
    )


def examples() -> Iterator[Notification]:
    """One of each kind in each language, and one of each without all that may be missing."""
    for kind in get_args(Kind):
        for language in sorted(languages()):
            whole = example(kind, Reader(name="Ada Lovelace", language=language))
            yield whole
            yield _bare(whole)


def _bare(notification: Notification) -> Notification:
    alert = notification.subjects[0].alert.model_copy(
        update={"deviceName": None, "organizationId": None, "gatewayId": None, "condition": "silent for 300 s"}
        | {"metric": "silence", "actualValue": None, "threshold": None, "acknowledgedAt": None, "acknowledgedBy": None}
        | {"resolvedValue": None}
    )
    left_out = {
        "subjects": (Subject(alert=alert),),
        "counts": (),
        "since": None,
        "team": None,
        "step": 0,
        "reasons": (),
    }
    return notification.model_copy(update=left_out | {"reader": Reader(language=notification.reader.language)})
