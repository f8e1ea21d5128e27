"""Alerts that are told that people were told of them."""

from typing import Any

import orjson

from headrace.agents.alerting.alerts import Alerts
from headrace.engine.records import Records
from headrace.engine.testkit import Driven, fetched, readings_log, run_batch
from headrace.schemas import topics
from headrace.schemas.alert import Alert, AlertEvent
from tests.agents.alerting.living import T0, rule

HOT = rule("hot", {"metric": "temperature", "operator": ">", "threshold": 40})


def events(driven: Driven) -> list[AlertEvent]:
    return [AlertEvent.model_validate_json(record.value or b"") for record in driven.sent.get(topics.ALERTS, [])]


def triggered() -> tuple[Alerts, Driven, Alert]:
    agent, driven = Alerts([HOT]), Driven({}, [])
    run_batch(agent, fetched(readings_log([("a", "env", T0, {"temperature": 50.0})], T0), topics.READINGS), driven)
    alert = events(driven)[0].data
    assert isinstance(alert, Alert)
    return agent, driven, alert


def notified(alert_id: str, channels: list[str], at: int) -> dict[str, Any]:
    return {
        "command": "notified", "commandId": f"n-{at}", "alertId": alert_id, "deviceId": "a", "userId": "headrace",
        "channels": channels, "at": at,
    }  # fmt: skip


def command(agent: Alerts, driven: Driven, *commands: dict[str, Any]) -> None:
    records = Records([b"a"] * len(commands), [orjson.dumps(each) for each in commands], [T0 + 5] * len(commands))
    run_batch(agent, fetched(records, topics.ALERT_COMMANDS), driven)


def test_an_alert_knows_by_which_channels_people_were_told_and_when() -> None:
    """Channels add up, the newest time stays, and each is an `updated` event that tells nobody anything."""
    agent, driven, alert = triggered()

    command(agent, driven, notified(alert.alertId, ["push", "email"], T0 + 9), notified(alert.alertId, ["sms"], T0 + 3))

    _, first, second = events(driven)
    assert first.type == second.type == "io.headrace.alert.updated"
    assert isinstance(first.data, Alert)
    assert isinstance(second.data, Alert)
    assert (first.data.notificationsSent, first.data.lastNotifiedAt) == (("email", "push"), T0 + 9)
    assert (second.data.notificationsSent, second.data.lastNotifiedAt) == (("email", "push", "sms"), T0 + 9)
    assert second.data.notificationChannels == second.data.notificationsSent
    assert (second.data.revision, second.data.status) == (3, "triggered")


def test_what_an_alert_knows_already_is_no_event() -> None:
    """A second time changes nothing."""
    agent, driven, alert = triggered()

    command(agent, driven, *[notified(alert.alertId, ["email"], T0 + 9)] * 2)

    assert len(events(driven)) == 2


def test_an_alert_that_is_gone_is_told_nothing() -> None:
    """Nobody gets an answer: nobody has asked."""
    agent, driven, _ = triggered()

    command(agent, driven, notified("another", ["email"], T0 + 9))

    assert len(events(driven)) == 1
    assert driven.dead_letters == []
