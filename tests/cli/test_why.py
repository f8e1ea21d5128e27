"""`headrace why` on logs that the agents and the delivery wrote."""

import asyncio
import json
import tomllib
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from headrace.agents.notifying.settings import NotifySettings
from headrace.cli.agents import integrations_of
from headrace.cli.opened_log import load_settings
from headrace.cli.running import Mistakes
from headrace.cli.settings import Settings
from headrace.cli.why_lines import state_text
from headrace.connectors.notifications.channel import Refused, SendLater
from headrace.schemas.notification import NotificationState
from headrace.schemas.rule import Actions
from tests.agents.notifying.histories import AlertLog, World
from tests.agents.notifying.people import at, user
from tests.cli.conftest import Headrace
from tests.cli.decided_log import deliver, write, write_events

CONFIG = """
[[notify.escalations]]
name = "nights"
[[notify.escalations.steps]]
after = "10m"
team = "plant"
[[notify.escalations.steps]]
after = "20m"
users = ["bob"]
channels = ["sms"]
"""
INTEGRATIONS = """
[channels.integrations.board]
kind = "webhook"
url = "https://board.example.com/hook"
[channels.integrations.pager]
kind = "pagerduty"
routing_key = "0123456789abcdef0123456789abcdef"
severities = ["critical"]
organization_ids = ["acme"]
"""
NIGHTS = {"start": "22:00", "end": "07:00"}
ADA = user("ada", name="Ada", device_tokens=[], timezone="Europe/Berlin",
           preferences={"quiet_hours": NIGHTS, "subscribed_devices": ["*"]})  # fmt: skip
BOB = user("bob", device_tokens=[], on_call=[
    {"team": "plant", "start": "2025-01-01T00:00:00", "hours": 24, "rrule": "FREQ=DAILY"}
])  # fmt: skip
CY = user("cy", preferences={"subscribed_devices": ["d-9"], "subscriptions": [{"severities": ["critical"]}]})
EVE = user("eve", organization_id="acme", preferences={"subscribed_devices": ["*"]})
PEOPLE = (ADA, BOB, CY, EVE)
NOON = at("2025-11-16T12:00")


class Night:
    """A log, and the commands on it.

    Args:
        alerts: what happened.
    """

    def __init__(self, folder: Path, headrace: Headrace, alerts: AlertLog, integrations: str = "") -> None:
        self._data = folder / "data"
        self._config = folder / "headrace.toml"
        self._config.write_text(CONFIG + integrations)
        self._headrace = headrace
        self._alerts = alerts
        settings = NotifySettings.model_validate(tomllib.loads(CONFIG)["notify"])
        systems = integrations_of(load_settings(Mistakes(), self._config, None) or Settings())
        self.world = World(settings, [(0, each.user_id, each) for each in PEOPLE], systems)
        asyncio.run(write(self._data, self.world, PEOPLE, alerts, NOON))

    def deliver(self, **errors: Exception) -> None:
        asyncio.run(deliver(self._data, self.world, self._alerts, NOON, errors))

    def why(self, alert_id: str, user_id: str, *, code: int = 0) -> str:
        done = self._headrace("why", alert_id, user_id, "--data", self._data, "--config", self._config, code=code)
        return done.stdout.decode() if code == 0 else done.stderr

    def document(self, alert_id: str, user_id: str) -> dict[str, Any]:
        options = ("--data", self._data, "--config", self._config, "--json")
        found: dict[str, Any] = json.loads(self._headrace("why", alert_id, user_id, *options).stdout)
        return found


def history() -> AlertLog:
    return AlertLog({"damp": "info", "hot": "warning", "fire": "critical"})


def blocks(text: str) -> list[list[str]]:
    """Lines with a time, each with the reasons below it."""
    found: list[list[str]] = []
    for line in text.splitlines():
        if line.startswith("2025"):
            found.append([line])
        elif line.startswith("    "):
            found[-1].append(line.strip())
    return found


def test_quiet_hours_are_told_with_the_clock_there(tmp_path: Path, headrace: Headrace) -> None:
    """Held until the end of the night, in which digest it came, and why by no other channel; times are the person's."""
    alerts = history()
    alert = alerts.trigger("hot", "d-1", at("2025-11-15T22:30"))
    alerts.resolve("hot", "d-1", at("2025-11-16T05:00"))
    night = Night(tmp_path, headrace, alerts)
    night.deliver()

    text = night.why(alert.alertId[:8], "ada")

    assert text.startswith(f"Hot on d-1, warning, resolved: {alert.alertId}\nfor ada (Ada), times of Europe/Berlin\n")
    assert blocks(text) == [
        ["2025-11-15 23:30:00 CET  alert triggered: temperature > 40, value 45; warning"],
        ["2025-11-15 23:30:00 CET  concerns ada", "subscribed: subscribed to every device"],
        ["2025-11-15 23:30:00 CET  sms: not sent", "matrix: warning alerts go by email, push"],
        [
            "2025-11-15 23:30:00 CET  email: held until 2025-11-16 07:00:00 CET",
            "severity: warning alerts go by email, push",
            "quiet-hours: quiet hours until 2025-11-16 07:00:00 CET",
            "quiet-hours: it was 23:30 there (Europe/Berlin); quiet hours are 22:00 to 07:00",
        ],
        [
            "2025-11-15 23:30:00 CET  push: not sent",
            "severity: warning alerts go by email, push",
            "no-contact: has no device token",
        ],
        ["2025-11-16 06:00:00 CET  alert resolved"],
        [
            "2025-11-16 06:00:00 CET  email, that it is resolved: held until 2025-11-16 07:00:00 CET",
            "told-before: was told when it triggered",
            "cap: is held already: the digest tells how it is then",
        ],
        [
            "2025-11-16 07:00:00 CET  email, digest of 1 alert: to be sent",
            "quiet-hours-over: quiet hours are over",
            "quiet-hours: it was 07:00 there (Europe/Berlin); quiet hours are 22:00 to 07:00",
        ],
        ["2025-11-16 07:00:01 CET  email, digest of 1 alert: sent to a…@example.com, the provider's id is email-d-1"],
    ]
    assert text.splitlines()[-3:] == [
        "sms: not sent (warning alerts go by email, push)",
        "email, digest of 1 alert: sent to a…@example.com, the provider's id is email-d-1",
        "push: not sent (has no device token)",
    ]


def test_a_large_digest_has_all_its_alerts_to_the_end(tmp_path: Path, headrace: Headrace) -> None:
    """Also of those that it only counts: how many there are is the same when it is decided and when it is sent."""
    alerts = history()
    night_long = [alerts.trigger("hot", f"d-{number}", at("2025-11-15T22:30")) for number in range(25)]
    night = Night(tmp_path, headrace, alerts)
    night.deliver()

    for alert in (night_long[0], night_long[-1]):
        lines = [line for line in night.why(alert.alertId, "ada").splitlines() if "email, digest of" in line]

        assert [line.partition("digest of ")[2].partition(" to")[0] for line in lines] == [
            "25 alerts:",
            "25 alerts: sent",
            "25 alerts: sent",
        ]


def test_critical_alerts_say_what_overrides_what(tmp_path: Path, headrace: Headrace) -> None:
    """Through quiet hours, the first attempt failed, the second came through; who acknowledged it ends the story."""
    alerts = history()
    alert = alerts.trigger("fire", "d-2", at("2025-11-15T23:00"))
    alerts.acknowledge("fire", "d-2", at("2025-11-15T23:05"))
    night = Night(tmp_path, headrace, alerts)
    night.deliver(email=SendLater("451 busy", after=1.0), sms=Refused("no such number"))

    found = night.document(alert.alertId, "ada")
    text = night.why(alert.alertId, "ada")

    mails = [line for line in found["story"] if line.get("channel") == "email" and line.get("kind") == "alert"]
    assert [line["status"] for line in mails] == ["queued", "sending", "failed", "sending", "sent"]
    assert [each["code"] for each in mails[0]["reasons"]] == ["subscribed", "severity", "override", "quiet-hours"]
    assert (mails[-1]["attempts"], mails[-1]["providerId"]) == (2, "email-d-2")
    assert {channel: line.get("status") for channel, line in found["outcome"].items()} == {
        "email": "sent", "push": "dropped", "sms": "dead",
    }  # fmt: skip
    assert found["told"] is True
    assert "email: failed to a…@example.com: 451 busy; another one follows" in text
    assert "sms: given up to +49…567, 1 attempt: no such number" in text
    assert "being sent" not in text
    assert "escalation" not in text


def test_a_person_whom_nothing_matches_hears_why(tmp_path: Path, headrace: Headrace) -> None:
    """No subscription, none that fits, another organisation: nothing is recorded of them, the rules say it."""
    alerts = history()
    alert = alerts.trigger("hot", "d-1", at("2025-11-15T10:00"))
    night = Night(tmp_path, headrace, alerts)

    found = {name: night.document(alert.alertId, name) for name in ("bob", "cy", "eve")}

    reasons = {name: each["story"][1]["reasons"][0]["text"] for name, each in found.items()}
    assert reasons == {
        "bob": "has no subscriptions",
        "cy": "device d-1 is not among the 1 subscribed ones; subscription 1: not for warning alerts",
        "eve": "belongs to organisation acme, and the alert is about a device of no organisation",
    }
    for each in found.values():
        assert (each["told"], each["outcome"], each["story"][1]["recorded"]) == (False, {}, False)
    assert night.why(alert.alertId, "cy").endswith("\ncy was sent nothing of it\n")


def test_steps_of_an_escalation_are_told_to_those_whom_they_pass_by(tmp_path: Path, headrace: Headrace) -> None:
    """Who is on call is told by the first step; of the others it says whom the step told, and channels it lacks."""
    alerts = history()
    alert = alerts.trigger("fire", "d-2", at("2025-11-15T12:00"))
    alerts.acknowledge("fire", "d-2", at("2025-11-15T13:00"))
    night = Night(tmp_path, headrace, alerts)

    bob, ada = blocks(night.why(alert.alertId, "bob")), blocks(night.why(alert.alertId, "ada"))

    steps = {line[0].split("  ")[1]: line[1:] for line in bob if "step" in line[0]}
    assert steps == {
        "email, step 1 of the escalation: to be sent": [
            "on-call: on call for plant", "severity: critical alerts go by email, push, sms"],
        "push, step 1 of the escalation: not sent": [
            "on-call: on call for plant", "severity: critical alerts go by email, push, sms",
            "no-contact: has no device token"],
        "sms, step 1 of the escalation: to be sent": [
            "on-call: on call for plant", "severity: critical alerts go by email, push, sms"],
        "sms, step 2 of the escalation: to be sent": [
            "on-call: named by the escalation's step", "severity: the step goes by sms"],
        "email, step 2 of the escalation: not sent": ["matrix: the step goes by sms"],
        "push, step 2 of the escalation: not sent": ["matrix: the step goes by sms"],
    }  # fmt: skip
    assert [line for line in ada if "step" in line[0]] == [
        ["2025-11-15 13:10:00 CET  step 1 of the escalation, team plant: told others", "on-call: is not in team plant"],
        ["2025-11-15 13:30:00 CET  step 2 of the escalation, user bob: told others", "not-subscribed: is none of bob"],
    ]


def test_a_suppressed_alert_says_by_what(tmp_path: Path, headrace: Headrace) -> None:
    """A silence is in the way, and the steps wait."""
    alerts = history()
    alert = alerts.trigger("fire", "d-2", at("2025-11-15T12:00"), by="silence")
    night = Night(tmp_path, headrace, alerts)

    lines = blocks(night.why(alert.alertId, "ada"))

    assert [line[0].split("  ")[1] for line in lines] == [
        "alert triggered: temperature > 40, value 45; critical", "concerns ada", "all channels: not sent",
    ]  # fmt: skip
    assert lines[0][1] == "suppressed: silence s-1 has it"
    assert "step" not in night.why(alert.alertId, "bob")


def test_one_of_a_storm_is_in_a_digest(tmp_path: Path, headrace: Headrace) -> None:
    """Held by the cap together with many others, named or only counted by the digest that follows."""
    alerts = history()
    ids = [alerts.trigger("damp", f"d-{number}", at("2025-11-15T12:00") + number).alertId for number in range(60)]
    night = Night(tmp_path, headrace, alerts)

    first, early, late = (blocks(night.why(ids[place], "ada")) for place in (0, 5, 58))

    assert first[-1][0].endswith("email: to be sent")
    for lines in (early, late):
        assert lines[-1][0] == "2025-11-15 13:01:00 CET  email, digest of 59 alerts: to be sent"
    assert early[-2] == [
        "2025-11-15 13:00:00 CET  email: held until 2025-11-15 13:01:00 CET",
        "severity: info alerts go by email",
        "cap: email has at most 1/1m; the next one may go at 2025-11-15 13:01:00 CET",
    ]
    assert late[-2][1:] == ["cap: one of many that are held for one digest"]


def test_what_no_worker_has_decided_is_said_so(tmp_path: Path, headrace: Headrace) -> None:
    """An alert after the end of what the agents did: what would be decided, and that it is not recorded."""
    alerts = history()
    alert = alerts.trigger("hot", "d-1", at("2025-11-15T22:30"))
    night = Night(tmp_path, headrace, alerts)
    later = history()
    late = later.trigger("hot", "d-3", NOON + 60_000)
    asyncio.run(write_events(tmp_path / "data", later))

    text = night.why(late.alertId, "ada")

    assert "email: to be sent, but no decision is in the log" in text
    assert night.document(alert.alertId, "ada")["outcome"]["email"]["status"] == "queued"


def test_an_alert_that_another_one_followed_is_found(tmp_path: Path, headrace: Headrace) -> None:
    """Its state is gone, its events are not; the beginning of its id is enough."""
    alerts = history()
    first = alerts.trigger("hot", "d-1", at("2025-11-15T10:00"))
    alerts.resolve("hot", "d-1", at("2025-11-15T10:30"))
    alerts.trigger("hot", "d-1", at("2025-11-15T11:00"))
    night = Night(tmp_path, headrace, alerts)

    found = night.document(first.alertId[:13], "ada")

    assert found["alert"]["alertId"] == first.alertId
    assert [line["what"] for line in found["story"] if "channel" not in line] == [
        "alert triggered: temperature > 40, value 45; warning", "concerns ada", "alert resolved",
    ]  # fmt: skip


def test_people_who_came_later_or_went_are_told_so(tmp_path: Path, headrace: Headrace) -> None:
    """Who was added after the alert; who was deleted since, whose decisions are still there."""
    alerts = history()
    alert = alerts.trigger("fire", "d-1", at("2025-11-15T10:00"))
    night = Night(tmp_path, headrace, alerts)
    (tmp_path / "new.ndjson").write_text('{"id": "new", "email": "new@example.com", "devices": ["*"]}')
    headrace("users", "import", tmp_path / "new.ndjson", "--data", tmp_path / "data")
    headrace("users", "delete", "ada", "--data", tmp_path / "data")

    new, ada = night.document(alert.alertId, "new"), night.document(alert.alertId, "ada")

    assert new["story"][1]["what"] == "new was no user yet"
    assert new["outcome"] == {}
    assert ada["outcome"]["email"]["status"] == "queued"


def test_what_was_decided_counts_and_not_what_would_be_now(tmp_path: Path, headrace: Headrace) -> None:
    """Somebody who has unsubscribed long since was told all the same, and the story does not deny it."""
    alerts = history()
    alert = alerts.trigger("fire", "d-1", at("2025-11-15T10:00"))
    night = Night(tmp_path, headrace, alerts)
    # The copy of the registry goes back a day before its newest change: of these two it knows the later one only.
    for devices in ("d-7", "d-8"):
        headrace("users", "set", "ada", f"subscribedDevices={devices}", "--data", tmp_path / "data")

    found = night.document(alert.alertId, "ada")

    assert "does not concern ada" not in [line["what"] for line in found["story"]]
    assert found["outcome"]["email"]["reasons"][0]["code"] == "subscribed"


def test_a_digest_that_only_counts_an_alert_says_so(tmp_path: Path, headrace: Headrace) -> None:
    """Of a thousand alerts a list knows each, of more how many there are."""
    alerts = history()
    ids = [alerts.trigger("damp", f"d-{number}", at("2025-11-15T12:00") + number).alertId for number in range(1_060)]
    night = Night(tmp_path, headrace, alerts)

    text = night.why(ids[-1], "ada")

    assert "email, to be sent" not in text
    assert "2025-11-15 13:01:00 CET  email: digest of 1,000 alerts to be sent; it counts this alert" in text


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        (
            {"status": "unknown", "attempts": 1},
            "email: a crash came before it was known whether it went to a…@example.com",
        ),
        ({"status": "sending", "attempts": 2}, "email: being sent to a…@example.com, attempt 2"),
        ({"status": "delivered", "providerId": "p-1"}, "email: delivered to a…@example.com, the provider's id is p-1"),
        ({"status": "dead", "attempts": 3, "error": "550 no"}, "email: given up to a…@example.com, 3 attempts: 550 no"),
        (
            {"status": "sent", "kind": "escalation", "step": 2},
            "email, step 2 of the escalation: sent to a…@example.com",
        ),
    ],
    ids=lambda each: each["status"] if isinstance(each, dict) else "",
)
def test_every_state_of_a_delivery_has_words(fields: dict[str, Any], said: str) -> None:
    """Where it went, which attempt it was, what the server said."""
    state = {"notificationId": "n", "alertId": "a", "ruleId": "r", "deviceId": "d", "recipient": "user:ada",
             "channel": "email", "contact": "a@example.com", "decidedAt": NOON, "kind": "alert"}  # fmt: skip

    assert state_text(NotificationState.model_validate({**state, **fields}), ZoneInfo("UTC")).startswith(said)


def test_systems_hear_why_too(tmp_path: Path, headrace: Headrace) -> None:
    """What one integration was sent and why another was not; a webhook that the rule names, and another one."""
    alerts, url = history(), "https://hooks.example.com/s3cret"
    alert = alerts.trigger("hot", "d-1", at("2025-11-15T10:00"), actions=Actions(webhooks=(url,)))
    night = Night(tmp_path, headrace, alerts, integrations=INTEGRATIONS)
    night.deliver(webhook=Refused("no such call"))

    board, pager = night.why(alert.alertId, "integration:board"), night.why(alert.alertId, "integration:pager")
    hook = night.document(alert.alertId, f"webhook:{url}")
    other = night.document(alert.alertId, "webhook:https://hooks.example.com/other")

    assert blocks(board)[1:3] == [
        ["2025-11-15 10:00:00 UTC  is for it", "integration: integration board takes warning alerts"],
        ["2025-11-15 10:00:00 UTC  webhook: to be sent"],
    ]
    assert blocks(pager)[1] == [
        "2025-11-15 10:00:00 UTC  is not for it", "integration: integration pager takes critical alerts of acme"
    ]  # fmt: skip
    assert "integration:pager was sent nothing of it" in pager
    assert (hook["told"], hook["userId"], hook["recipient"]) == (True, None, "webhook:https://hooks.example.com/…")
    assert hook["story"][1]["reasons"][0]["text"] == "the rule Hot names this webhook"
    assert other["story"][1]["reasons"][0]["text"] == "the rule Hot does not name this webhook"
    assert "s3cret" not in json.dumps(hook)
    wrong = night.why(alert.alertId, "integration:bord", code=2)
    assert "there is no integration 'bord'; there are board, pager; did you mean 'board'?" in wrong


def test_mistakes_say_what_to_do(tmp_path: Path, headrace: Headrace) -> None:
    """No such alert, more than one, nobody of that name, no log."""
    alerts = history()
    alert = alerts.trigger("hot", "d-1", at("2025-11-15T10:00"))
    for number in range(20):
        alerts.trigger("damp", f"d-{number}", at("2025-11-15T10:00"))
    night = Night(tmp_path, headrace, alerts)
    twice = next(each for each in "0123456789abcdef" if sum(a.alertId[0] == each for a in alerts.newest.values()) > 1)

    assert "there is no alert 'zz'" in night.why("zz", "ada", code=2)
    assert "write more of it" in night.why(twice, "ada", code=2)
    assert "there is no user 'adda'; did you mean 'ada'?" in night.why(alert.alertId, "adda", code=2)
    assert "there is no folder" in headrace("why", "a", "ada", "--data", tmp_path / "none", code=2).stderr
