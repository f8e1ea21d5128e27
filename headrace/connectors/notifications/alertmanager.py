"""Alertmanager by its API v2, and what speaks it: the alerts go through the routing and silences that are there."""

from base64 import b64encode
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import orjson

from headrace.connectors.notifications.channel import Message, Refused, Sent
from headrace.connectors.notifications.http_client import HttpClient
from headrace.connectors.notifications.integration_settings import AlertmanagerIntegration
from headrace.connectors.notifications.views import one_line
from headrace.engine.clock import Clock
from headrace.schemas.notification import Subject

_REMEDIES = {
    401: "correct user and password, or token, of the integration",
    403: "correct user and password, or token, of the integration",
}


class AlertmanagerChannel:
    """Posts the alerts of each notification to the integration that its contact names.

    Effectively once: Alertmanager knows an alert by its labels, and they are the same in all that is sent of one.

    Args:
        integrations: by name.
        clock: see `HttpClient`.
    """

    name = "alertmanager"
    idempotent = True
    at_once = 4

    def __init__(self, integrations: Mapping[str, AlertmanagerIntegration], clock: Clock) -> None:
        self._integrations = integrations
        self._client = HttpClient(clock, connections=self.at_once * 2)

    async def send(self, message: Message) -> Sent:
        """Post them; see `Channel.send`."""
        integration = self._integrations.get(message.contact)
        if integration is None:
            raise Refused(
                f"there is no integration {message.contact!r} of kind alertmanager in [channels.integrations]"
            )
        body = orjson.dumps([_alert(each, message, integration) for each in message.notification.subjects])
        url = f"{integration.url.rstrip('/')}/api/v2/alerts"
        headers = {"Content-Type": "application/json", "User-Agent": "headrace", **_authorization(integration)}
        answer = await self._client.post(url, body, headers, integration.timeout)
        self._client.judge(answer, "Alertmanager", _REMEDIES)
        return Sent(None)

    async def close(self) -> None:
        """Let go of connections."""
        await self._client.close()


def _alert(subject: Subject, message: Message, integration: AlertmanagerIntegration) -> dict[str, Any]:
    alert, content = subject.alert, message.content
    # Only what never changes while an alert is open: with another label it would be another alert there.
    labels = {
        "alertname": alert.ruleName,
        "rule_id": alert.ruleId,
        "severity": alert.severity,
        "device_id": alert.deviceId,
        "device_type": alert.deviceType,
        "device": alert.deviceName,
        "gateway_id": alert.gatewayId,
        "organization_id": alert.organizationId,
    }
    annotations = {
        "summary": content.title,
        "description": content.text,
        "condition": alert.condition,
        "value": None if alert.actualValue is None else f"{alert.actualValue:g}",
        "location": subject.place.location,
        "alert_id": alert.alertId,
        "acknowledged_by": (alert.acknowledgedBy.name or alert.acknowledgedBy.userId) if alert.acknowledgedBy else None,
    }
    # Without an end it would be over after resolve_timeout, five minutes, unless it came again and again.
    over = alert.status == "resolved" and alert.resolvedAt is not None
    end = alert.resolvedAt if over and alert.resolvedAt is not None else _kept_until(message, integration)
    made = {
        "labels": {name: one_line(value) for name, value in labels.items() if value} | dict(integration.labels),
        "annotations": {name: value for name, value in annotations.items() if value},
        "startsAt": _moment(min(alert.triggeredAt, end)),
        "endsAt": _moment(end),
    }
    return made | ({"generatorURL": content.link} if content.link is not None else {})


def _kept_until(message: Message, integration: AlertmanagerIntegration) -> int:
    return message.notification.decidedAt + round(integration.keep * 1000)


def _moment(time_ms: int) -> str:
    return datetime.fromtimestamp(time_ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _authorization(integration: AlertmanagerIntegration) -> dict[str, str]:
    if integration.token is not None:
        return {"Authorization": f"Bearer {integration.token.get_secret_value()}"}
    if integration.user is not None and integration.password is not None:
        pair = f"{integration.user}:{integration.password.get_secret_value()}"
        return {"Authorization": f"Basic {b64encode(pair.encode()).decode()}"}
    return {}
