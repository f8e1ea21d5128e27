"""Alerts: the CloudEvents of `alerts.v1`, and what `alerts.state.v1` holds of each alert.

`alerts.v1`: one CloudEvents 1.0 event in JSON (structured mode, as the header `content-type` says) per change of an
alert; record key the device id, the header `message-id` names the reading that caused it, if one did. `alerts.state.v1`
is compacted: record key the alert id, value `Alert` as it is now; without a value once a newer alert of the same rule
and device has taken its place, or when it has been over for 30 days.
"""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from headrace.schemas.rule import Actions, Severity

SOURCE = "/headrace/alert"
#: By which a reader knows structured mode (CloudEvents 1.0.2, Kafka protocol binding, 3.3).
EVENT_CONTENT = b"application/cloudevents+json; charset=UTF-8"
#: What happened to the alert. updated: anything that changes neither its status nor whether it is suppressed.
Change = Literal[
    "triggered", "acknowledged", "resolved", "commented", "snoozed", "suppressed", "unsuppressed", "updated", "refused"
]
PREFIX = "io.headrace.alert."
#: In `Alert.metadata`: id of the alert that explains this one now; that this one explains those behind its device.
EXPLAINED_BY = "explainedBy"
EXPLAINS = "explains"
Status = Literal["triggered", "acknowledged", "resolved"]

#: Readings kept as evidence per alert: the first one and the newest others.
MOST_EVIDENCE = 20
#: Comments, and related alerts, kept per alert: the newest.
MOST_COMMENTS = 100
MOST_RELATED = 20


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Sample(_Model):
    """One reading of what the rule looks at.

    Args:
        time: its event time, ms since 1970 UTC.
        value: what the condition compared, in the metric's unit.
        values: of an expression, the metrics it was made of.
    """

    time: int
    value: float
    values: dict[str, float] | None = None


class Person(_Model):
    """Who did something.

    Args:
        userId: user id.
        name: how people call them, if that is known.
    """

    userId: str
    name: str | None = None


class Comment(_Model):
    """What somebody wrote.

    Args:
        userId: user id of who.
        name: how people call them, if that is known.
        comment: what.
        timestamp: when, ms since 1970 UTC.
    """

    userId: str
    name: str | None = None
    comment: str
    timestamp: int


class Resolution(_Model):
    """How an alert ended.

    Args:
        by: condition: the clear condition was met; person; no-data: readings stopped, and the rule says that this ends
            it; rule: the rule was deleted, switched off, or no longer covers the device.
        person: who, if a person did it.
        resolution, preventionNotes: what they said.
    """

    by: Literal["condition", "person", "no-data", "rule"]
    person: Person | None = None
    resolution: str | None = None
    preventionNotes: str | None = None


class Suppression(_Model):
    """Why nobody is to be told of an alert now.

    Args:
        by: silence: a silence matches it; snooze: somebody asked to be told later; maintenance: its device, or its
            gateway, is being worked on; inhibition: an open alert of its gateway explains it.
        id: of the silence, of the device in maintenance, or of the alert that explains it.
        text: that in a sentence.
        until: when it ends by itself, ms since 1970 UTC; None if that is not known.
    """

    by: Literal["silence", "snooze", "maintenance", "inhibition"]
    id: str
    text: str
    until: int | None = None


class Related(_Model):
    """Another alert that may have to do with this one: of the same device, or behind the same gateway.

    Args:
        alertId, ruleName, deviceId, deviceName: of the other one.
        triggeredAt: when that triggered, ms since 1970 UTC.
    """

    alertId: str
    ruleName: str
    deviceId: str
    deviceName: str | None = None
    triggeredAt: int


class Flaps(_Model):
    """How often the alert of a rule and device has come and gone.

    Args:
        triggers: times that it has triggered lately, count.
        flapping: whether that is so often that it stays open until its condition has been clear for a while.
    """

    triggers: int = 1
    flapping: bool = False


class Alert(_Model):
    """One alert as it is now. Times are ms since 1970 UTC, and event time where a reading caused it.

    Args:
        alertId: the same in all events of one alert; made of rule, device and trigger time, so a repeat has it too.
        revision: 1 at the trigger, 1 more with each event.
        ruleId, ruleName: the rule that triggered it.
        deviceId: the device that it is about.
        deviceName, organizationId, gatewayId: as the device registry had them at the trigger, if it did.
        deviceType: name of its device type.
        severity: of the rule.
        status: triggered: open, and nobody has looked after it; acknowledged: open, and somebody does; resolved: over.
        condition: the rule's condition, for a person.
        metric: what the condition looks at; the expression, "silence", "connection" or "anomaly" for other conditions.
        actualValue, threshold: at the trigger, and what it was compared with; None where nothing is compared.
        triggeredAt: when it began.
        acknowledgedAt, acknowledgedBy: when and by whom it was acknowledged.
        resolvedAt, resolved: when and how it ended.
        resolvedValue: value that ended it.
        cooldownSuppressed: times that the condition was met again before the cooldown let this alert trigger, count.
        flaps: how often it has come and gone.
        suppressed: why nobody is to be told of it now, or was not when it ended; None if people are to be told.
        groupKey: alerts with the same one belong together: the gateway, or the device if it has none, and the rule.
        comments: the newest, oldest first.
        relatedAlerts: those that were open when this one triggered.
        notificationsSent, notificationChannels: channels by which somebody was told of it, sorted; two names of one
            thing.
        lastNotifiedAt: when the last such message was sent.
        actions: whom the rule wants told.
        evidence: samples that made the alert, from the first on which the condition held to the trigger; of many, the
            first and the newest.
        metadata: `explainedBy`: id of the open alert of a gateway that explains this one; `explains`: true where this
            one explains those of the devices behind its device; what an anomaly or a disconnect said, by name.
    """

    alertId: str
    revision: int
    ruleId: str
    ruleName: str
    organizationId: str | None = None
    deviceId: str
    deviceName: str | None = None
    deviceType: str
    gatewayId: str | None = None
    severity: Severity
    status: Status
    condition: str
    metric: str
    actualValue: float | None = None
    threshold: float | None = None
    triggeredAt: int
    acknowledgedAt: int | None = None
    acknowledgedBy: Person | None = None
    resolvedAt: int | None = None
    resolvedValue: float | None = None
    resolved: Resolution | None = None
    cooldownSuppressed: int = 0
    flaps: Flaps = Flaps()
    suppressed: Suppression | None = None
    groupKey: str
    comments: tuple[Comment, ...] = ()
    relatedAlerts: tuple[Related, ...] = ()
    notificationsSent: tuple[str, ...] = ()
    notificationChannels: tuple[str, ...] = ()
    lastNotifiedAt: int | None = None
    actions: Actions = Actions()
    evidence: tuple[Sample, ...] = ()
    metadata: dict[str, Any] = {}


class Refusal(_Model):
    """A command that was not carried out, as data of a `refused` event.

    Args:
        commandId: of the command.
        command: what it wanted: acknowledge, resolve, comment, snooze.
        alertId, deviceId: as the command had them.
        reason: for a person, with what to do.
    """

    commandId: str
    command: str
    alertId: str | None
    deviceId: str
    reason: str


class AlertEvent(_Model):
    """A CloudEvent about one alert.

    Args:
        specversion: of CloudEvents.
        id: unique: alert id and revision; of a refusal the command's id and `refused`. Read again, an event
            has the id that it had.
        source: always `/headrace/alert`.
        type: what happened. triggered: the rule's condition was met; acknowledged, resolved, commented, snoozed: as
            it says, `resolved` by a person or by itself; suppressed: from now on nobody is to be told of it;
            unsuppressed: they are again; updated: something else changed, neither status nor suppression; refused: a
            command was not carried out.
        subject: the device id.
        time: RFC 3339; event time of the reading that caused it, or append time of the command.
        datacontenttype: of `data`.
        commandid: of the command that caused it, if one did.
        data: the alert after the change; of a `refused` event the refusal.
    """

    specversion: Literal["1.0"] = "1.0"
    id: str
    source: str = SOURCE
    type: Literal[
        "io.headrace.alert.triggered",
        "io.headrace.alert.acknowledged",
        "io.headrace.alert.resolved",
        "io.headrace.alert.commented",
        "io.headrace.alert.snoozed",
        "io.headrace.alert.suppressed",
        "io.headrace.alert.unsuppressed",
        "io.headrace.alert.updated",
        "io.headrace.alert.refused",
    ]
    subject: str
    time: str
    datacontenttype: Literal["application/json"] = "application/json"
    commandid: str | None = None
    data: Alert | Refusal
