"""`headrace alerts`: beside a running worker, on its data folder and on Kafka."""

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import orjson
import pytest
from local_kafka.cluster import Cluster

from headrace.cli.logs import topic_specs
from headrace.cli.opened_log import opened_log
from headrace.cli.settings import LogSettings, Settings
from headrace.engine.clock import SystemClock
from headrace.engine.intake import Intake
from headrace.engine.log import Append, TopicPartition, Transaction
from headrace.engine.records import Records
from headrace.schemas import topics
from headrace.schemas.alert import Alert
from tests.cli.conftest import Done, Headrace

RULES = """
[[rule]]
rule_id = "hot"
name = "Hot"
severity = "critical"
cooldown_period = 0
condition = { metric = "temperature", operator = ">", threshold = 40 }

[[rule]]
rule_id = "humid"
name = "Humid"
severity = "info"
cooldown_period = 0
condition = { metric = "humidity", operator = ">", threshold = 90 }
"""
ALERT = Alert(
    alertId="1dbf6549", revision=1, ruleId="hot", ruleName="Hot", deviceId="a", deviceType="environmental",
    severity="critical", status="triggered", condition="temperature > 40", metric="temperature", triggeredAt=1,
    groupKey="hot:a",
)  # fmt: skip
#: Seconds that anything may take.
PATIENCE = 120.0
#: Commands that a worker answers.
ANSWERED = ("ack", "comment", "resolve", "snooze")


class World:
    """A log with a worker on it, or without.

    Args:
        headrace: runs a command.
        options: that name the log.
        settings, data: likewise.
    """

    def __init__(self, headrace: Headrace, options: tuple[object, ...], settings: Settings, data: Path | None) -> None:
        self._headrace = headrace
        self._options = options
        self._settings = settings
        self._data = data

    def run(self, *arguments: object, code: int = 0) -> Done:
        """`headrace alerts ...`, on this log; a command waits for its answer as long as it takes."""
        patient = ("--timeout", PATIENCE) if arguments[0] in ANSWERED and "--timeout" not in arguments else ()
        return self._headrace("alerts", *arguments, *patient, *self._options, code=code)

    def lines(self, *arguments: object, code: int = 0) -> list[dict[str, Any]]:
        """What it says with --json."""
        return [json.loads(line) for line in self.run(*arguments, "--json", code=code).stdout.splitlines()]

    def measure(self, device: str, **values: float) -> None:
        """A message of a device, now."""

        async def send() -> None:
            async with opened_log(self._settings, self._data, make=True) as opened:
                clock = SystemClock()
                await opened.log.create_topics(topic_specs(self._settings))
                payload = orjson.dumps({"timestamp": clock.now_ms(), **values})
                await Intake(opened.log, clock).append(
                    [device.encode()], [payload], device_type="environmental", profile="test"
                )

        asyncio.run(send())

    def write(self, topic: str, *values: dict[str, Any]) -> None:
        """Records that somebody else has written."""

        async def append() -> None:
            async with opened_log(self._settings, self._data) as opened:
                records = Records([b"k"] * len(values), [orjson.dumps(each) for each in values], [1] * len(values))
                await opened.log.commit(Transaction([Append(TopicPartition(topic, 0), records)]))

        asyncio.run(append())

    def alert_of(self, device: str, *more: object, suppressed: bool | None = None) -> dict[str, Any]:
        """Its newest alert, once there is one as wanted; for what is to be suppressed, time must go on."""
        clock = SystemClock()
        deadline = clock.monotonic() + PATIENCE
        while clock.monotonic() < deadline:
            found = self.lines("list", "--device", device, *(more or ("--status", "all")))
            if found and suppressed in (None, "suppressed" in found[0]):
                return found[0]
            if suppressed is not None:
                self.measure("other", temp=20)
                self.measure(device, temp=50)
            asyncio.run(clock.sleep(0.05))
        raise AssertionError(f"no alert of {device}")


@contextmanager
def worker(folder: Path, config: Path, *options: object) -> Iterator[None]:
    """A worker that is at work."""
    command = [sys.executable, "-m", "headrace.cli.main", "worker", "--config", str(config), *map(str, options)]
    with (folder / "worker").open("w") as output, subprocess.Popen(command, stderr=output) as process:
        try:
            yield
        finally:
            process.terminate()
            process.wait(PATIENCE)


def settings_file(folder: Path, text: str = "") -> Path:
    (folder / "rules.toml").write_text(RULES)
    path = folder / "headrace.toml"
    path.write_text(f'{text}[alert]\nrules = "{folder / "rules.toml"}"\n')
    return path


@pytest.fixture
def world(headrace: Headrace, tmp_path: Path) -> Iterator[World]:
    """A data folder with a worker on it."""
    config, data = settings_file(tmp_path), tmp_path / "data"
    made = World(headrace, ("--data", data), Settings(), data)
    made.measure("first", temp=20)
    with worker(tmp_path, config, "--data", data):
        yield made


@pytest.fixture
def folder(headrace: Headrace, tmp_path: Path) -> World:
    """A data folder where nothing runs."""
    made = World(headrace, ("--data", tmp_path / "data"), Settings(), tmp_path / "data")
    made.measure("first", temp=20)
    return made


def life(world: World) -> None:
    """An alert is triggered, acknowledged, commented on, resolved and commented on again; each is answered."""
    world.measure("a", temp=50)
    alert = world.alert_of("a")
    short = alert["alertId"][:8]

    refused = world.run("resolve", short, "--resolution", "done", code=1)
    (acknowledged,) = world.lines("ack", short, "--comment", "on my way", "--user", "ada", "--user-name", "Ada")
    again = world.run("ack", short, "--user", "bob", code=1)
    said = ("--resolution", "fan replaced", "--prevention", "filter", "--user", "bob")
    (resolved,) = world.lines("resolve", short, *said)
    world.run("comment", short, "--text", "bill is in the post", "--user", "eve")

    assert "refused: acknowledge it first" in refused.stderr
    assert "refused: Ada has acknowledged it already" in again.stderr
    assert acknowledged["data"]["acknowledgedBy"] == {"userId": "ada", "name": "Ada"}
    assert resolved["type"] == "io.headrace.alert.resolved"
    (shown,) = world.lines("show", short)
    assert (shown["status"], shown["revision"], shown["resolved"]["resolution"]) == ("resolved", 4, "fan replaced")
    assert [each["comment"] for each in shown["comments"]] == ["on my way", "bill is in the post"]
    text = world.run("show", short).stdout.decode()
    for told in ("Hot (hot)", "50 / 40", "by Ada", "by bob", "fan replaced", "filter", "in the post", "evidence"):
        assert told in text


def test_an_alert_is_worked_on(world: World) -> None:
    """On the data folder, beside the worker."""
    life(world)


@pytest.mark.integration
def test_an_alert_is_worked_on_over_kafka(kafka_tools: None, headrace: Headrace, tmp_path: Path) -> None:
    """Commands go to the worker that has the device, and its answers come back."""
    with Cluster() as cluster:
        url = f"kafka://{cluster.bootstrap}"
        config = settings_file(tmp_path, f'[log]\nurl = "{url}"\npartitions = 2\n')
        made = World(headrace, ("--config", config), Settings(log=LogSettings(url=url, partitions=2)), None)
        with worker(tmp_path, config):
            life(made)
            watched = made.lines("watch", "--from", "1h", "--count", "3", "--device", "a")

    assert [each["type"].rpartition(".")[2] for each in watched] == ["triggered", "refused", "acknowledged"]


def test_silences_and_snoozes(world: World) -> None:
    """An open alert is suppressed a second after the silence was made, and told of again when it is taken away."""
    for device in ("a", "b"):
        world.measure(device, temp=50)
        world.alert_of(device)

    of_a = ("--rule", "hot", "--device", "a", "--for", "2h", "--comment", "works", "--user", "ada")
    (silence,) = world.lines("silence", *of_a)
    silenced = world.alert_of("a", suppressed=True)
    listed = world.lines("silences")
    (snoozed,) = world.lines("snooze", world.alert_of("b")["alertId"], "--for", "1h")
    world.run("unsilence", silence["id"])
    told = world.alert_of("a", suppressed=False)

    assert silenced["suppressed"]["text"] == "silenced by ada: works"
    assert [(each["id"], each["state"]) for each in listed] == [(silence["id"], "active")]
    assert snoozed["data"]["suppressed"]["by"] == "snooze"
    assert [each["deviceId"] for each in world.lines("list", "--suppressed")] == ["b"]
    assert told["revision"] == 3
    assert world.lines("silences") == []


def test_lists_choose_page_and_count(world: World) -> None:
    """Options that choose go together; facets count what they choose; pages follow each other."""
    for device, values in (("a", {"temp": 50, "humidity": 95}), ("b", {"temp": 50}), ("c", {"humidity": 99})):
        world.measure(device, **values)
        world.alert_of(device)
    world.measure("b", temp=20)
    world.alert_of("b", "--status", "resolved")

    def chosen(*options: object) -> list[tuple[str, str]]:
        return sorted((each["deviceId"], each["ruleId"]) for each in world.lines("list", *options))

    assert chosen() == [("a", "hot"), ("a", "humid"), ("c", "humid")]
    assert chosen("--rule", "humid", "--device", "a") == [("a", "humid")]
    assert chosen("--severity", "critical", "--status", "all") == [("a", "hot"), ("b", "hot")]
    assert chosen("--status", "acknowledged") == chosen("--suppressed") == chosen("--to", "1h") == []
    pages = [chosen("--limit", 2, "--offset", offset) for offset in (0, 2, 4)]
    assert sorted(each for page in pages for each in page) == chosen()
    (counts,) = world.lines("list", "--facets", "--status", "all")
    assert counts == {
        "total": 4,
        "severity": {"critical": 2, "info": 2},
        "status": {"triggered": 3, "resolved": 1},
        "rule": {"hot": 2, "humid": 2},
        "suppressed": {},
    }
    assert "3 of 3" not in world.run("list").stderr
    assert "--offset 1 goes on" in world.run("list", "--limit", 1).stderr


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("show", "abc"), "there is no alert 'abc'"),
        (("ack", "abc", "xyz"), "there is no alert 'xyz'"),
        (("snooze", "abc"), "say how long: --for 2h"),
        (("snooze", "abc", "--for", "2"), "--for: '2' is not a duration"),
        (("silence", "--for", "2h", "--comment", "x"), "say which alerts: by rule, device"),
        (("silence", "--rule", "hot", "--for", "0s", "--comment", "x"), "a silence ends after it starts"),
        (("silence", "--rule", "hot", "--comment", "x"), "say how long: --for 2h"),
        (("unsilence", "s"), "there is no silence 's'"),
        (("list", "--from", "yesterday"), "--from: 'yesterday' is neither"),
        (("watch", "--from", "yesterday"), "--from: 'yesterday' is neither"),
    ],
)
def test_mistakes_say_what_to_do(folder: World, arguments: tuple[str, ...], told: str) -> None:
    """With exit code 2, and nothing is sent."""
    assert told in folder.run(*arguments, code=2).stderr


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("comment", "--text", ""), "--text: must not be empty"),
        (("ack", "--comment", "x" * 4001), "--comment: must have at most 4,000 characters"),
        (("resolve", "--resolution", "a\x1b[2J"), "--resolution: must not hold control characters"),
        (("ack", "--user-name", ""), "--user-name: must not be empty"),
    ],
)
def test_mistakes_in_a_command_name_the_option(folder: World, arguments: tuple[str, ...], told: str) -> None:
    """In plain words, and not the field that it fills."""
    folder.write(topics.ALERT_STATES, ALERT.model_dump(exclude_none=True))

    assert told in folder.run(*arguments, ALERT.alertId, code=2).stderr


def test_nobody_answers_in_time(world: World) -> None:
    """The command says so, and that it is not lost."""
    world.measure("a", temp=50)
    alert = world.alert_of("a")

    nobody = world.run("ack", alert["alertId"], "--timeout", "0.000001", code=1)
    later = world.alert_of("a", "--status", "acknowledged")

    assert "They are in the log" in nobody.stderr
    assert later["alertId"] == alert["alertId"]


def test_watch_shows_what_others_write(world: World) -> None:
    """One line per event, in the order of the log, whatever else is in the topic."""
    world.measure("a", temp=50)
    alert = world.alert_of("a")
    world.write(topics.ALERTS, {"type": "x", "data": [1]}, {"data": 5})
    world.run("ack", alert["alertId"], "--user", "ada")

    found = world.run("watch", "--from", "1h", "--count", "2", "--device", "a").stdout.decode().splitlines()

    assert [line.split()[1] for line in found] == ["triggered", "acknowledged"]
    assert "temperature > 40" in found[0]
