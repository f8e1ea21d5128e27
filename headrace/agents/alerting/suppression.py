"""Why nobody is to be told of an alert: what silences, maintenance and causes say in it."""

import msgspec

from headrace.schemas.alert import Alert, Suppression
from headrace.schemas.silence import Silence


class Cause(msgspec.Struct, frozen=True):
    """An open alert that explains those of the devices behind its device, as the topic of causes has it.

    Args:
        alertId, ruleName: of the alert.
        deviceId: the gateway that it is about.
        triggeredAt: when that triggered, ms since 1970 UTC.
    """

    alertId: str
    ruleName: str
    deviceId: str
    triggeredAt: int


def matches(silence: Silence, alert: Alert) -> bool:
    """Whether a silence is for an alert."""
    gateways = silence.gateway_ids
    return (
        (not silence.rule_ids or alert.ruleId in silence.rule_ids)
        and (not silence.device_ids or alert.deviceId in silence.device_ids)
        and (not silence.device_types or alert.deviceType in silence.device_types)
        and (not gateways or alert.gatewayId in gateways or alert.deviceId in gateways)
        and (not silence.organization_ids or alert.organizationId in silence.organization_ids)
        and (not silence.severities or alert.severity in silence.severities)
    )


def silenced(silence: Silence) -> Suppression:
    """What an alert says that a silence matches."""
    return Suppression(
        by="silence",
        id=silence.id,
        text=f"silenced by {silence.created_by}: {silence.comment}",
        until=silence.ends_at,
    )


def snoozed(alert: Alert, until: int) -> Suppression:
    """What an alert says that somebody has snoozed."""
    return Suppression(by="snooze", id=alert.alertId, text="snoozed", until=until)


def maintained(alert: Alert, device_id: str) -> Suppression:
    """What an alert says whose device, or a gateway of it, is being worked on."""
    whose = device_id if device_id == alert.deviceId else f"its gateway {device_id}"
    return Suppression(by="maintenance", id=device_id, text=f"{whose} is in maintenance")


def explained(cause: Cause) -> Suppression:
    """What an alert says that another one explains."""
    return Suppression(
        by="inhibition", id=cause.alertId, text=f"explained by {cause.ruleName} of its gateway {cause.deviceId}"
    )
