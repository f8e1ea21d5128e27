"""`headrace users preview` on logs on which the agents have decided."""

import asyncio
import json
from math import inf
from pathlib import Path
from typing import Any

import orjson
import pytest

from headrace.agents.notifying.settings import NotifySettings
from headrace.cli.alert_history import alert_history, oldest_event_ms
from headrace.engine.embedded.log import EmbeddedLog
from headrace.engine.log import Append, TopicPartition, Transaction
from headrace.engine.records import Records
from headrace.schemas import topics
from tests.agents.notifying.histories import MINUTE, AlertLog, World
from tests.agents.notifying.people import at, user
from tests.cli.conftest import Headrace
from tests.cli.decided_log import write, write_events
from tests.connectors.notifications.outbox import all_records

ADA = user("ada", name="Ada", device_tokens=[], timezone="Europe/Berlin",
           preferences={"quiet_hours": {"start": "22:00", "end": "07:00"}, "subscribed_devices": ["*"]})  # fmt: skip
BOB = user("bob", preferences={"subscriptions": [{"severities": ["critical"]}]})
SPAN = ("--since", "2025-11-10", "--until", "2025-11-17")
END = at("2025-11-17T00:00")


class Week:
    """A log with some nights of alerts, and the command on it."""

    def __init__(self, folder: Path, headrace: Headrace) -> None:
        self.data = folder / "data"
        self._headrace = headrace
        alerts = AlertLog({"damp": "info", "hot": "warning", "fire": "critical"})
        for day in (11, 12, 15):
            for number in range(4):
                alerts.trigger("hot", f"d-{number}", at(f"2025-11-{day}T22:30") + number * MINUTE)
                alerts.resolve("hot", f"d-{number}", at(f"2025-11-{day}T23:30") + number * MINUTE)
            alerts.trigger("fire", "d-1", at(f"2025-11-{day}T23:00"))
            alerts.acknowledge("fire", "d-1", at(f"2025-11-{day}T23:20"))
            alerts.resolve("fire", "d-1", at(f"2025-11-{day}T23:59"))
            alerts.trigger("damp", "d-2", at(f"2025-11-{day}T12:00"), by="silence")
        alerts.events.sort(key=lambda each: each[0])
        world = World(NotifySettings(), [(0, each.user_id, each) for each in (ADA, BOB)])
        asyncio.run(write(self.data, world, (ADA, BOB), alerts, END))

    def preview(self, user_id: str = "ada", *options: object, span: tuple[str, ...] = SPAN) -> dict[str, Any]:
        done = self._headrace("users", "preview", user_id, *span, *options, "--json", "--data", self.data)
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    def text(self, *options: object, code: int = 0, user_id: str = "ada") -> str:
        done = self._headrace("users", "preview", user_id, *SPAN, *options, "--data", self.data, code=code)
        return done.stdout.decode() if code == 0 else done.stderr

    def recorded(self, user_id: str) -> list[tuple[Any, ...]]:
        """What the agents decided, as the log has it."""

        async def read() -> list[tuple[Any, ...]]:
            log = EmbeddedLog(self.data, retention=inf)
            await log.topics()
            found = await all_records(log, topics.NOTIFICATIONS)
            await log.close()
            states = [
                orjson.loads(each.value or b"")["data"] for each in found if each.key == f"user:{user_id}".encode()
            ]
            return [(each["notificationId"], each["status"], each.get("channel"), each["reasons"]) for each in states]

        return asyncio.run(read())


@pytest.fixture
def week(tmp_path: Path, headrace: Headrace) -> Week:
    return Week(tmp_path, headrace)


def decided(found: dict[str, Any]) -> list[tuple[Any, ...]]:
    return [(each["notificationId"], each["status"], each.get("channel"), each["reasons"]) for each in found["decided"]]


@pytest.mark.parametrize("user_id", ["ada", "bob"])
def test_with_the_settings_that_hold_it_is_what_the_log_has(week: Week, user_id: str) -> None:
    """Every decision that was made, with its reasons."""
    found = week.preview(user_id, "--limit", 0)

    assert sorted(map(str, decided(found))) == sorted(map(str, week.recorded(user_id)))
    assert found["complete"] is True
    assert found["alerts"] == 18
    assert found["subscribed"] == (18 if user_id == "ada" else 3)


def test_it_says_in_the_reader_s_time_what_comes_when(week: Week) -> None:
    """Messages, what is held until when, what is not sent and why, and totals."""
    text = week.text()

    lines = text.splitlines()
    assert lines[0] == ("ada (Ada), from 2025-11-10 01:00:00 CET to 2025-11-17 01:00:00 CET, times of Europe/Berlin")
    for line in (
        "11 23:30:00 CET  email  held      Hot on d-0                 quiet hours until 2025-11-12 07:00:00 CET",
        "12 00:00:00 CET  sms    sent      Fire on d-1                critical alerts come through quiet hours",
        "12 07:00:00 CET  email  sent      digest: Hot 4              quiet hours are over",
        "12 13:00:00 CET         not sent  Damp on d-2                silence s-1 has it",
    ):
        assert f"2025-11-{line}" in lines
    assert lines[-5:] == [
        "18 alerts triggered; ada is subscribed to 18 of them",
        "email: 9 messages; of these 3 digests; alerts held: 12 quiet-hours; not sent: 3 matrix",
        "push: 0 messages; not sent: 15 no-contact",
        "sms: 3 messages; not sent: 6 matrix",
        "on no channel: 3 suppressed",
    ]


def test_other_settings_change_what_comes(week: Week, tmp_path: Path) -> None:
    """Without quiet hours nothing is held; with fewer channels less is sent; the user stays as they are."""
    file = tmp_path / "mine.toml"
    file.write_text('quietHours = { enabled = false }\nnotifications.sms = false\nphone = "+4930123456"\n')
    (tmp_path / "none.json").write_text('{"quietHours": null, "subscribedDevices": ["d-2"]}')

    awake, none = week.preview("ada", "--settings", file), week.preview("ada", "--settings", tmp_path / "none.json")

    assert awake["totals"]["email"]["held"] == {}
    assert awake["totals"]["sms"] == {"messages": 0, "digests": 0, "held": {}, "notSent": {"preference": 3}}
    assert (none["subscribed"], none["totals"]["email"]["held"]) == (6, {})
    assert none["notSubscribed"] == [
        {"code": "not-subscribed", "alerts": 12, "example": "device d-0 is not among the 1 subscribed ones"}
    ]
    assert sorted(map(str, decided(week.preview("ada", "--limit", 0)))) == sorted(map(str, week.recorded("ada")))


def test_only_the_range_counts_and_what_was_before_is_known(week: Week) -> None:
    """A digest of what was held before the range comes in it; the caps and those who were told are as they were."""
    whole, part = (
        week.preview("ada", "--limit", 0),
        week.preview("ada", span=("--since", "2025-11-12T00:00", *SPAN[2:])),
    )

    since = [each for each in whole["decided"] if each["time"] >= "2025-11-12T00:00"]
    assert part["decided"] == since
    assert any(each["kind"] == "digest" for each in since)


def test_other_rules_of_the_installation_can_be_tried(week: Week, tmp_path: Path) -> None:
    """--config with another [notify]."""
    config = tmp_path / "other.toml"
    config.write_text('[notify]\ntell = ["triggered"]\n[notify.matrix]\ninfo = ["email"]\nwarning = ["sms"]\n')

    found = week.preview("ada", "--config", config)

    assert found["totals"]["sms"]["held"] == {"quiet-hours": 12}
    assert found["totals"]["email"]["messages"] == 3


def test_what_is_no_event_is_passed_over(week: Week) -> None:
    """Somebody else has written into the topic: the agents make a dead letter of it, and so does the preview."""
    before = week.preview("ada")

    async def spoil() -> None:
        log = EmbeddedLog(week.data, retention=inf)
        await log.topics()
        junk = Records(
            [b"d-0"] * 3, [b"{", b'{"type": "io.headrace.alert.triggered", "data": {}}', None], [END - 1] * 3
        )
        await log.commit(Transaction([Append(TopicPartition(topics.ALERTS, number), junk) for number in range(2)]))
        await log.close()

    asyncio.run(spoil())

    assert week.preview("ada") == before


def test_history_comes_by_time_over_all_partitions(week: Week) -> None:
    """Each event once; no stretch has what a later one should have, and it is known how far it is."""

    async def read() -> tuple[list[Any], int | None]:
        log = EmbeddedLog(week.data, retention=inf)
        await log.topics()
        found = [stretch async for stretch in alert_history(log)]
        oldest = await oldest_event_ms(log)
        await log.close()
        return found, oldest

    more = AlertLog({"hot": "warning"})
    for number in range(300):
        more.trigger("hot", f"n-{number}", END + number)
    asyncio.run(write_events(week.data, more))
    stretches, oldest = asyncio.run(read())

    assert oldest is None
    assert len(stretches) > 1
    stamps = [sorted(stamp for part in each.parts for stamp in part.records.timestamps) for each in stretches]
    assert sum(map(len, stamps)) == 336
    assert [stamp for each in stamps for stamp in each] == sorted(stamp for each in stamps for stamp in each)
    assert all(each[-1] <= stretch.until_ms for each, stretch in zip(stamps, stretches, strict=True) if each)
    assert stretches[-1].done == 1.0


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("a.toml", "quietHours = 5\n", "--settings: preferences.quietHours"),
        ("a.toml", 'quietHour.start = "22:00"\n', "did you mean 'quietHours'?"),
        ("a.toml", "quietHours = \n", "not TOML"),
        ("a.json", "[]", "write fields of a user"),
        ("a.json", "phone = 5", "not JSON; name a file of TOML .toml"),
        ("a.json", '{"userId": "bob"}', "these are settings of bob, and the preview is for ada"),
        ("a.json", '{"phone": "0170"}', "phone: must be a plus"),
    ],
)
def test_mistakes_in_the_settings_are_told(week: Week, tmp_path: Path, name: str, text: str, said: str) -> None:
    """What is wrong, and what to write."""
    (tmp_path / name).write_text(text)

    assert said in week.text("--settings", tmp_path / name, code=2)


def test_other_mistakes_say_what_to_do(week: Week, headrace: Headrace) -> None:
    """Nobody of that name; a range that is empty."""
    assert "did you mean 'ada'?" in week.text(user_id="adaa", code=2)
    empty = ("users", "preview", "ada", "--since", "2025-11-17", "--until", "2025-11-16", "--data", week.data)
    assert "the range is empty" in headrace(*empty, code=2).stderr
