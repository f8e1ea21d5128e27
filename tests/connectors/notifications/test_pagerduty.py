"""PagerDuty: bodies are what its schema says, and one alert is one incident."""

import json
from typing import Any

import jsonschema
import pytest
from aiohttp import web

from headrace.connectors.notifications.channel import Refused, SendLater
from headrace.connectors.notifications.integration_settings import PagerDutyIntegration
from headrace.connectors.notifications.pagerduty import MOST_BYTES, PagerDutyChannel
from headrace.engine.clock import SteppedClock
from headrace.schemas.notification import Kind
from tests.connectors.notifications.messages import message
from tests.connectors.notifications.receivers import HttpReceiver, Received

KEY = "0123456789abcdef0123456789abcdef"
_URL = {"type": "string", "pattern": "^https?://"}
#: Events API v2 as PagerDuty documents it, with its limits, and nothing beside.
SCHEMA = {
    "type": "object",
    "required": ["routing_key", "event_action", "dedup_key", "payload"],
    "additionalProperties": False,
    "properties": {
        "routing_key": {"type": "string", "minLength": 32, "maxLength": 32},
        "event_action": {"enum": ["trigger", "acknowledge", "resolve"]},
        "dedup_key": {"type": "string", "minLength": 1, "maxLength": 255},
        "client": {"type": "string"},
        "client_url": _URL,
        "links": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["href"],
                "additionalProperties": False,
                "properties": {"href": _URL, "text": {"type": "string"}},
            },
        },
        "payload": {
            "type": "object",
            "required": ["summary", "severity", "source"],
            "additionalProperties": False,
            "properties": {
                "summary": {"type": "string", "minLength": 1, "maxLength": 1024},
                "timestamp": {"type": "string", "pattern": r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\+00:00$"},
                "severity": {"enum": ["critical", "warning", "error", "info"]},
                "source": {"type": "string", "minLength": 1},
                "component": {"type": "string"},
                "group": {"type": "string"},
                "class": {"type": "string"},
                "custom_details": {"type": "object"},
            },
        },
    },
}


async def enqueue(received: Received) -> web.StreamResponse:
    """What PagerDuty answers: 202 with the key, or 400 with what is wrong."""
    errors = []
    if received.path != "/v2/enqueue" or len(received.body) > 512 * 1024:
        errors.append("wrong path, or too large")
    event = json.loads(received.body)
    errors += [each.message for each in jsonschema.Draft202012Validator(SCHEMA).iter_errors(event)]
    if errors:
        body = {"status": "invalid event", "message": "Event object is invalid", "errors": errors}
        return web.json_response(body, status=400)
    answer = {"status": "success", "message": "Event processed", "dedup_key": event["dedup_key"]}
    return web.json_response(answer, status=202)


def opened(url: str) -> PagerDutyChannel:
    """A channel with one integration, `ops`; close it."""
    integration = PagerDutyIntegration(kind="pagerduty", routing_key=KEY, url=url)
    return PagerDutyChannel({"ops": integration}, SteppedClock())


async def sent(*messages: Any) -> list[dict[str, Any]]:
    """What PagerDuty got."""
    async with HttpReceiver(enqueue).running() as receiver:
        channel = opened(receiver.url)
        for each in messages:
            assert (await channel.send(each)).provider_id
        await channel.close()
    return [json.loads(each.body) for each in receiver.received]


async def test_alert_is_one_incident_from_begin_to_end() -> None:
    """Trigger, acknowledge and resolve under one key; an escalation is one more trigger."""
    kinds: tuple[Kind, ...] = ("alert", "escalation", "acknowledged", "resolved")

    events = await sent(*(message("ops", kind) for kind in kinds))

    assert [each["event_action"] for each in events] == ["trigger", "trigger", "acknowledge", "resolve"]
    assert {each["dedup_key"] for each in events} == {"alert-123"}
    assert events[0]["payload"]["severity"] == "warning"
    assert events[0]["payload"]["source"] == "Temp Sensor #123"
    assert events[0]["payload"]["summary"] == "[WARNING] High temperature at Office 301"
    assert events[0]["payload"]["custom_details"]["actualValue"] == 32.5
    assert events[0]["client_url"] == "https://iot.example.com/alerts/alert-123"


async def test_key_that_is_too_long_is_still_one_key() -> None:
    """A digest of it, the same for trigger and end, and another one for another alert."""
    long, other = "a" * 300, "a" * 299 + "b"

    first, end, another = await sent(
        message("ops", dedupKey=long), message("ops", "resolved", dedupKey=long), message("ops", dedupKey=other)
    )

    assert first["dedup_key"] == end["dedup_key"] != another["dedup_key"]


async def test_event_that_is_too_large_goes_without_details() -> None:
    """PagerDuty takes 512 KB."""
    large = message("ops")
    subject = large.notification.subjects[0]
    alert = subject.alert.model_copy(update={"metadata": {"note": "x" * MOST_BYTES}})
    subjects = (subject.model_copy(update={"alert": alert}),)

    (event,) = await sent(large._replace(notification=large.notification.model_copy(update={"subjects": subjects})))

    assert "custom_details" not in event["payload"]


async def test_event_that_pagerduty_finds_wrong_is_refused() -> None:
    """With its own words; a busy PagerDuty is for later."""
    async with HttpReceiver((400, {}), 429).running() as receiver:
        channel = opened(receiver.url)
        with pytest.raises(Refused, match="PagerDuty answered 400"):
            await channel.send(message("ops"))
        with pytest.raises(SendLater, match="429"):
            await channel.send(message("ops"))
        with pytest.raises(Refused, match="no integration 'dev'"):
            await channel.send(message("dev"))
        await channel.close()
    assert all(KEY.encode() in each.body for each in receiver.received)
