"""PagerDuty by its Events API v2: an alert is one incident there, from trigger through acknowledgement to its end."""

import hashlib
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import orjson

from headrace.connectors.notifications.channel import Message, Refused, Sent
from headrace.connectors.notifications.http_client import HttpClient
from headrace.connectors.notifications.integration_settings import PagerDutyIntegration
from headrace.connectors.notifications.views import one_line
from headrace.engine.clock import Clock
from headrace.schemas.alert import Alert

#: Of PagerDuty: characters of a dedup key and a summary, bytes of an event (524,288, some of them to spare).
LONGEST_KEY = 255
LONGEST_SUMMARY = 1024
MOST_BYTES = 500_000
_ACTIONS = {"acknowledged": "acknowledge", "resolved": "resolve"}
#: Of an alert what an incident does not need: it has a page of its own for that.
_LEFT_OUT = {"evidence", "comments", "relatedAlerts", "actions", "flaps", "revision", "notificationsSent"}


class PagerDutyChannel:
    """Sends one event per notification to the integration that its contact names.

    Effectively once: PagerDuty keeps one incident per `dedup_key`, and shows a repeat as one more event of it.

    Args:
        integrations: by name.
        clock: see `HttpClient`.
    """

    name = "pagerduty"
    idempotent = True
    at_once = 4

    def __init__(self, integrations: Mapping[str, PagerDutyIntegration], clock: Clock) -> None:
        self._integrations = integrations
        self._client = HttpClient(clock, connections=self.at_once * 2)

    async def send(self, message: Message) -> Sent:
        """Enqueue the event; see `Channel.send`."""
        integration = self._integrations.get(message.contact)
        if integration is None:
            raise Refused(f"there is no integration {message.contact!r} of kind pagerduty in [channels.integrations]")
        body = encode_event(message, integration.routing_key.get_secret_value())
        url = f"{integration.url.rstrip('/')}/v2/enqueue"
        headers = {"Content-Type": "application/json", "User-Agent": "headrace"}
        answer = await self._client.post(url, body, headers, integration.timeout)
        self._client.judge(answer, "PagerDuty")
        said = answer.json()
        key = said.get("dedup_key") if isinstance(said, dict) else None
        return Sent(str(key)[:LONGEST_KEY] if key else None)

    async def close(self) -> None:
        """Let go of connections."""
        await self._client.close()


def encode_event(message: Message, routing_key: str) -> bytes:
    """The body of the request."""
    event = _event(message) | {"routing_key": routing_key}
    body = orjson.dumps(event)
    if len(body) > MOST_BYTES:
        event["payload"].pop("custom_details")
        body = orjson.dumps(event)
    return body


def _event(message: Message) -> dict[str, Any]:
    notification, content = message.notification, message.content
    key = notification.dedupKey
    event: dict[str, Any] = {
        "event_action": _ACTIONS.get(notification.kind, "trigger"),
        # What is too long for PagerDuty is still the same for all events of one alert.
        "dedup_key": key if len(key) <= LONGEST_KEY else hashlib.sha256(key.encode()).hexdigest(),
    }
    subject = notification.subjects[0]
    alert = subject.alert
    payload = {
        "summary": content.title[:LONGEST_SUMMARY],
        "source": one_line(alert.deviceName or alert.deviceId) or "headrace",
        "severity": notification.severity,
        "timestamp": datetime.fromtimestamp(alert.triggeredAt / 1000, UTC).isoformat(timespec="milliseconds"),
        "component": one_line(alert.metric),
        "class": one_line(alert.ruleId),
        "custom_details": {"text": content.text, **_details(alert, subject.place.location)},
    }
    group = alert.gatewayId or alert.organizationId
    if group is not None:
        payload["group"] = one_line(group)
    event |= {"payload": payload, "client": "headrace"}
    if content.link is not None:
        event |= {"client_url": content.link, "links": [{"href": content.link, "text": content.title}]}
    return event


def _details(alert: Alert, location: str | None) -> dict[str, Any]:
    details = alert.model_dump(mode="json", exclude=_LEFT_OUT, exclude_none=True)
    return details | ({"location": location} if location is not None else {})
