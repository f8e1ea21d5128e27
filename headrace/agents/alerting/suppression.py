"""Why nobody is to be told of an alert: silences, maintenance, and alerts of gateways that explain it."""

from typing import Any

import orjson

from headrace.agents.alerting.known_devices import KnownDevice
from headrace.schemas import topics
from headrace.schemas.alert import Alert, Suppression
from headrace.schemas.silence import Silence
from headrace.tables.replicated import Replicated


def silence_table() -> Replicated[Silence]:
    """The topic of silences as a table."""
    return Replicated(topics.SILENCES, Silence.model_validate_json)


def cause_table() -> Replicated[dict[str, Any]]:
    """Open alerts that explain others, of all workers, as a table."""
    return Replicated(topics.ALERT_CAUSES, orjson.loads)


def matches(silence: Silence, alert: Alert) -> bool:
    """Whether a silence is for an alert."""
    wanted = (
        (silence.rule_ids, alert.ruleId),
        (silence.device_ids, alert.deviceId),
        (silence.device_types, alert.deviceType),
        (silence.gateway_ids, alert.gatewayId),
        (silence.organization_ids, alert.organizationId),
        (silence.severities, alert.severity),
    )
    return all(not values or value in values for values, value in wanted)


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


def in_maintenance(alert: Alert, device: KnownDevice, gateway: KnownDevice | None) -> Suppression | None:
    """What an alert says whose device, or its gateway, is being worked on."""
    if device.status == "maintenance":
        return Suppression(by="maintenance", id=alert.deviceId, text=f"{alert.deviceId} is in maintenance")
    if gateway is not None and gateway.status == "maintenance":
        assert alert.gatewayId is not None
        return Suppression(
            by="maintenance", id=alert.gatewayId, text=f"its gateway {alert.gatewayId} is in maintenance"
        )
    return None


def explained(alert: Alert, cause: dict[str, Any]) -> Suppression:
    """What an alert says that another one explains."""
    return Suppression(
        by="inhibition", id=cause["alertId"], text=f"explained by {cause['ruleName']} of its gateway {alert.gatewayId}"
    )
