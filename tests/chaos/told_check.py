"""People who are told of the alerts of `AlertLoad`, and what must be in the outbox at the end."""

import asyncio
from collections import Counter, defaultdict
from typing import Any

import orjson

from headrace.agents.notifying.settings import NotifySettings
from headrace.cli.agents import GROUP
from headrace.engine.clock import SystemClock
from headrace.engine.ledger import lag
from headrace.engine.log import Log
from headrace.schemas import topics
from headrace.schemas.alert import PREFIX, Alert
from headrace.schemas.user import User
from headrace.tables.users import UserRegistry
from tests.agents.notifying.histories import MINUTE
from tests.agents.notifying.oracle import Oracle
from tests.chaos.alert_load import DRAIN_TIMEOUT
from tests.connectors.notifications.outbox import all_records

#: By mail and SMS at once; by push one message in two seconds, so that most of it is digests.
NOTIFY = """
[notify]
tell = ["triggered", "acknowledged", "resolved"]
caps = { email = [], sms = [], push = ["1/2s"] }
"""
#: As the oracle knows it, which is not asked about push.
_PLAIN = NotifySettings.model_validate(
    {"tell": ["triggered", "acknowledged", "resolved"], "caps": {"email": [], "sms": [], "push": []}}
)
#: Devices of whose alerts Ada is told: half, so that her digests hold less than what is only counted.
ADAS = frozenset(f"device-{number}" for number in range(30))
_CONTACTS = {"phone": "+4930123456", "deviceTokens": ["token-1"]}
_PREFERENCES: dict[str, dict[str, Any]] = {
    "ada": {"subscribedDevices": sorted(ADAS)},
    "bob": {"subscribedDevices": [f"device-{number}" for number in range(9)], "notifications": {"push": False}},
    "cem": {"subscriptions": [{"severities": ["critical"], "channels": ["sms", "push"]}]},
    "dan": {"subscribedDevices": ["device-0"], "severities": {"warning": []}, "notifications": {"push": False}},
}
PEOPLE = {
    name: User.model_validate({"userId": name, "email": f"{name}@example.org", **_CONTACTS, "preferences": preferences})
    for name, preferences in _PREFERENCES.items()
}
clock = SystemClock()


async def register(log: Log) -> None:
    """Put the people into the registry, before the first alert."""
    await UserRegistry(log, clock).change(PEOPLE)


async def check_told(log: Log) -> dict[str, int]:
    """Wait until all was decided; mail and SMS are the oracle's, push tells how every alert is, and nothing came twice.

    Raises:
        AssertionError: it is not so.
    """
    async with asyncio.timeout(DRAIN_TIMEOUT):
        for topic in (topics.ALERTS, topics.NOTIFICATION_REQUESTS):
            while await lag(log, GROUP, topic):
                await clock.sleep(0.2)
    events = await _alert_events(log)
    #: When the alerts of which people are told by push changed last, ms.
    changed = {
        (name, alert.alertId): at_ms
        for at_ms, _, alert in events
        for name in ("ada", "cem")
        if (alert.deviceId in ADAS if name == "ada" else alert.severity == "critical")
    }
    await _wait_pushed(log, changed)
    # What is in the outbox is in an event too, and the other way round: both are of one transaction.
    sent = await _documents(log, topics.OUTBOX)
    queued = await _queued(log)
    more = await _documents(log, topics.OUTBOX)
    ids, told = Counter(each["notificationId"] for each in sent), Counter(each["notificationId"] for each in queued)
    assert max(told.values()) == 1
    assert ids <= told <= Counter(each["notificationId"] for each in more)
    changes = Counter(alert.alertId for _, _, alert in events)
    pushed = _pushed(queued)
    assert set(pushed) == set(changed)
    assert all(len(times) <= changes[alert_id] for (_, alert_id), times in pushed.items())
    found = [
        (each["userId"], each["channel"], each["kind"], each["dedupKey"], each["subjects"][0]["alert"]["revision"])
        for each in sent
        if each["channel"] != "push"
    ]
    assert sorted(found) == sorted(_expected(events))
    return {
        "alerts": len({alert.alertId for _, _, alert in events}),
        "sent": len(sent),
        "digests": sum(each["kind"] == "digest" for each in sent),
    }


async def _wait_pushed(log: Log, changed: dict[tuple[str, str], int]) -> None:
    """Wait until nothing is held any more."""
    deadline = clock.monotonic() + DRAIN_TIMEOUT
    while True:
        pushed = _pushed(await _queued(log))
        missing = {key: at_ms for key, at_ms in changed.items() if max(pushed.get(key, [0])) < at_ms}
        if not missing:
            return
        assert clock.monotonic() < deadline, f"{len(missing)} were not told by push: {list(missing.items())[:5]}"
        await clock.sleep(1.0)


def _expected(events: list[tuple[int, str, Alert]]) -> list[tuple[str, str, str, str, int]]:
    """By mail and SMS: without caps and quiet hours nothing depends on when it happened."""
    oracle = Oracle(_PLAIN, PEOPLE)
    rows = [(number * MINUTE, change, alert) for number, (_, change, alert) in enumerate(events)]
    return [
        (user, channel, kind, alert_id, revision)
        for _, user, channel, kind, ((alert_id, revision),) in oracle.run(rows, 0, len(rows) * MINUTE)
        if channel != "push"
    ]


async def _alert_events(log: Log) -> list[tuple[int, str, Alert]]:
    """Changes of alerts with their append time, in order for each device."""
    events = [(record.timestamp, orjson.loads(record.value or b"")) for record in await all_records(log, topics.ALERTS)]
    return [
        (at_ms, each["type"].removeprefix(PREFIX), Alert.model_validate(each["data"]))
        for at_ms, each in events
        if not each["type"].endswith("refused")
    ]


async def _documents(log: Log, topic: str) -> list[dict[str, Any]]:
    """What is in a topic."""
    return [orjson.loads(record.value or b"") for record in await all_records(log, topic)]


async def _queued(log: Log) -> list[dict[str, Any]]:
    """What `notifications.v1` says was sent; of it no event comes twice."""
    events = await _documents(log, topics.NOTIFICATIONS)
    assert max(Counter(each["id"] for each in events).values(), default=1) == 1
    return [each["data"] for each in events if each["data"]["status"] == "queued"]


def _pushed(queued: list[dict[str, Any]]) -> dict[tuple[str, str], list[int]]:
    """User and alert, when they were told of it by push, one by one or in a digest, ms."""
    found: dict[tuple[str, str], list[int]] = defaultdict(list)
    for each in queued:
        if each["channel"] == "push":
            for alert_id in each.get("alertIds", [each["alertId"]]):
                found[each["userId"], alert_id].append(each["decidedAt"])
    return found
