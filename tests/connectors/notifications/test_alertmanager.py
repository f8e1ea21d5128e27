"""Alertmanager: bodies are what its API v2 says, and labels stay the same from begin to end."""

import json
from datetime import datetime
from typing import Any

import jsonschema
import pytest
from aiohttp import web

from headrace.connectors.notifications.alertmanager import AlertmanagerChannel
from headrace.connectors.notifications.channel import Refused, SendLater
from headrace.connectors.notifications.integration_settings import AlertmanagerIntegration
from headrace.engine.clock import SteppedClock
from tests.connectors.notifications.messages import message
from tests.connectors.notifications.receivers import HttpReceiver, Received

_MOMENT = {"type": "string", "pattern": r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$"}
#: `postableAlerts` of Alertmanager's API v2; label names as Prometheus has them, no value empty.
SCHEMA = {
    "type": "array",
    "minItems": 1,
    "items": {
        "type": "object",
        "required": ["labels"],
        "additionalProperties": False,
        "properties": {
            "labels": {
                "type": "object",
                "minProperties": 1,
                "propertyNames": {"pattern": "^[a-zA-Z_][a-zA-Z0-9_]*$"},
                "additionalProperties": {"type": "string", "minLength": 1},
            },
            "annotations": {"type": "object", "additionalProperties": {"type": "string"}},
            "startsAt": _MOMENT,
            "endsAt": _MOMENT,
            "generatorURL": {"type": "string", "pattern": "^https?://"},
        },
    },
}


async def post_alerts(received: Received) -> web.StreamResponse:
    """What Alertmanager answers."""
    alerts = json.loads(received.body)
    wrong = [each.message for each in jsonschema.Draft202012Validator(SCHEMA).iter_errors(alerts)]
    wrong += [f"{each} ends before it starts" for each in alerts if each["endsAt"] < each["startsAt"]]
    if received.path != "/prefix/api/v2/alerts" or wrong:
        return web.json_response(wrong, status=400)
    return web.Response(status=200)


def opened(url: str, **changed: Any) -> AlertmanagerChannel:
    """A channel with one integration, `am`; close it."""
    integration = AlertmanagerIntegration(kind="alertmanager", url=f"{url}/prefix/", **changed)
    return AlertmanagerChannel({"am": integration}, SteppedClock())


async def sent(*messages: Any, **changed: Any) -> list[Any]:
    """What Alertmanager got."""
    async with HttpReceiver(post_alerts).running() as receiver:
        channel = opened(receiver.url, **changed)
        for each in messages:
            await channel.send(each)
        await channel.close()
    return [json.loads(each.body) for each in receiver.received]


async def test_end_has_the_labels_of_the_begin() -> None:
    """Else it would be another alert there; the end is when it was over."""
    (begin,), (end,) = await sent(message("am"), message("am", "resolved"), labels={"team": "iot"})

    assert begin["labels"] == end["labels"]
    assert begin["labels"]["alertname"] == "High temperature"
    assert begin["labels"]["team"] == "iot"
    assert begin["startsAt"] == end["startsAt"] == "2025-11-15T10:05:00.000Z"
    assert end["endsAt"] == "2025-11-15T10:30:00.000Z"
    assert begin["generatorURL"] == "https://iot.example.com/alerts/alert-123"


async def test_open_alert_stays_until_it_is_over() -> None:
    """Alertmanager would end it after five minutes without a word; `keep` says when it may."""
    ((begin,),) = await sent(message("am"), keep=3600)

    lasts = datetime.fromisoformat(begin["endsAt"]) - datetime.fromisoformat(begin["startsAt"])
    assert lasts.total_seconds() == 3602


async def test_digest_is_all_its_alerts() -> None:
    """One request."""
    digest = message("am", "digest")
    subject = digest.notification.subjects[0]
    second = subject.model_copy(update={"alert": subject.alert.model_copy(update={"deviceId": "sensor-124"})})
    both = digest.notification.model_copy(update={"subjects": (subject, second)})

    (alerts,) = await sent(digest._replace(notification=both))

    assert [each["labels"]["device_id"] for each in alerts] == ["sensor-123", "sensor-124"]


@pytest.mark.parametrize(
    ("settings", "header"),
    [
        ({"user": "am", "password": "geheim"}, "Basic YW06Z2VoZWlt"),
        ({"token": "abc"}, "Bearer abc"),
        ({}, None),
    ],
)
async def test_credentials_go_along(settings: dict[str, str], header: str | None) -> None:
    """Where there are some."""
    async with HttpReceiver(post_alerts).running() as receiver:
        channel = opened(receiver.url, **settings)
        await channel.send(message("am"))
        await channel.close()

    assert receiver.received[0].headers.get("Authorization") == header


async def test_what_a_person_must_mend_is_tried_again() -> None:
    """Wrong credentials cost no alert; what Alertmanager finds wrong does."""
    async with HttpReceiver(401, 400).running() as receiver:
        channel = opened(receiver.url)
        with pytest.raises(SendLater, match="correct user and password"):
            await channel.send(message("am"))
        with pytest.raises(Refused, match="400"):
            await channel.send(message("am"))
        with pytest.raises(Refused, match="no integration"):
            await channel.send(message("other"))
        await channel.close()
