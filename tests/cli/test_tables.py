"""`headrace tables` as a user meets it, on what the agents really wrote."""

import asyncio
import json
from pathlib import Path
from typing import Any

import orjson
import pytest

from headrace.cli.agents import GROUP, build_agents
from headrace.cli.logs import topic_specs
from headrace.cli.settings import Settings
from headrace.engine.app import App
from headrace.engine.clock import ManualClock
from headrace.engine.embedded.log import EmbeddedLog
from headrace.engine.intake import Intake
from headrace.engine.ledger import lag
from headrace.engine.log import Changes, TopicPartition, Transaction
from headrace.engine.partitioner import Partitioner
from headrace.schemas import topics
from headrace.tables.device_types import load_device_types
from headrace.tables.rules import load_rules
from tests.cli.conftest import Done, Headrace
from tests.engine.test_app import FAST, run_until

START = 1_750_003_200_000
SECOND = 1_000
#: Partition of a device, of two.
HALL = Partitioner(2).partition(b"hall")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder whose worker has read six messages of two devices, one of them twice."""
    folder = tmp_path_factory.mktemp("tables") / "data"
    asyncio.run(work(folder))
    return folder


async def work(folder: Path) -> None:
    settings = Settings.model_validate({"log": {"partitions": 2}, "rollup": {"windows": [60]}})
    log, clock = EmbeddedLog(folder), ManualClock(START)
    app = App(GROUP, log, clock=clock, runtime=FAST)
    app.add(build_agents(settings, load_device_types(), load_rules()))
    await app.create_topics(topic_specs(settings), partitions=2)
    messages = [(device, second, 20 + second / 10) for device in ("hall", "roof") for second in (0, 10, 70)]
    devices, seconds, degrees = zip(*messages, messages[0], strict=True)
    payloads = [
        orjson.dumps({"timestamp": START + SECOND * second, "temp": degree})
        for second, degree in zip(seconds, degrees, strict=True)
    ]
    await Intake(log, clock).append(
        [device.encode() for device in devices], payloads, device_type="environmental", profile="test"
    )

    async def done() -> bool:
        return not await lag(log, GROUP, topics.RAW) and not await lag(log, GROUP, topics.READINGS)

    await run_until(app, done)
    await log.close()


def rows(done: Done) -> list[dict[str, Any]]:
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_a_line_per_table(headrace: Headrace, folder: Path) -> None:
    """Who writes it, and how many entries it has."""
    found = json.loads(headrace("tables", "--data", folder, "--json").stdout)["tables"]
    shown = headrace("tables", "--data", folder).stdout.decode().splitlines()

    assert {each["table"]: (each["agent"], each["entries"]) for each in found}["alert.clocks"] == ("alert", 2)
    assert [line.split()[0] for line in shown] == ["table", *(each["table"] for each in found)]


def test_windows_of_one_device(headrace: Headrace, folder: Path) -> None:
    """Open and closed, with aggregates; standard error says where they are."""
    done = headrace("tables", "show", "rollup.windows", "--device", "hall", "--data", folder, "--json")

    closed, running = rows(done)
    temperature = {"count": 2.0, "sum": 41.0, "min": 20.0, "max": 21.0, "first": 20.0, "last": 21.0}
    assert closed["measures"]["temperature"] == temperature
    assert (closed["start"], closed["end"], closed["open"]) == (START, START + 60 * SECOND, False)
    assert (running["start"], running["open"], running["clock"]) == (START + 60 * SECOND, True, START + 70 * SECOND)
    assert closed["partition"] == HALL
    assert f"hall is in partition {HALL} of {topics.READINGS}, owner: none" in done.stderr


def test_what_ingest_remembers(headrace: Headrace, folder: Path) -> None:
    """Each accepted reading, and the count of repeats."""
    seen = rows(headrace("tables", "show", "seen", "--device", "roof", "--data", folder, "--json"))
    outcomes = rows(headrace("tables", "show", "outcomes", "--data", folder, "--json"))

    assert [(each["time"] - START) // SECOND for each in seen] == [0, 10, 70]
    assert seen[0]["measures"] == {"temperature": 20.0}
    assert [each["duplicate"] for each in outcomes] == [1]


def test_detectors_and_clocks(headrace: Headrace, folder: Path) -> None:
    """What detectors learned, of every series; times as people write them."""
    usual = rows(headrace("tables", "show", "detect.usual", "--device", "roof", "--data", folder, "--json"))
    clocks = headrace("tables", "alert.clocks", "--device", "roof", "--data", folder).stdout.decode()

    assert usual[0]["measures"]["temperature"]["count"] == 3
    assert usual[0]["measures"]["temperature"]["value"] == 27
    assert "2025-06-15T16:01:10.000Z" in clocks


def test_limit_is_said(headrace: Headrace, folder: Path) -> None:
    """Nobody takes a part for the whole."""
    done = headrace("tables", "show", "seen", "--limit", "2", "--data", folder)

    assert len(done.stdout.splitlines()) == 3
    assert "the first 2; --limit 0 shows all" in done.stderr


def test_mistakes(headrace: Headrace, folder: Path, tmp_path: Path) -> None:
    """Each says what there is; all of them at once."""
    assert (
        "there are seen, outcomes, sequences, rollup.windows"
        in headrace("tables", "show", "x", "--data", folder, code=2).stderr
    )
    said = headrace("tables", "--device", "roof", code=2).stderr
    assert "--data is missing" in said
    assert "name a table" in said
    said = headrace("tables", "x", code=2).stderr
    assert "--data is missing" in said
    assert "there is no table x" in said
    asyncio.run(EmbeddedLog(tmp_path).close())
    assert "no worker has run on this log" in headrace("tables", "show", "seen", "--data", tmp_path, code=2).stderr


def test_a_damaged_entry(headrace: Headrace, tmp_path: Path) -> None:
    """Is an error that says what to do."""

    async def damage() -> None:
        await work(tmp_path)
        log = EmbeddedLog(tmp_path)
        await log.topics()
        torn = Changes(TopicPartition("headrace-alert.clocks-changelog", 0), {b"torn": b"1"})
        await log.commit(Transaction(changes=[torn]))
        await log.close()

    asyncio.run(damage())

    done = headrace("tables", "show", "alert.clocks", "--data", tmp_path, code=1)
    assert "headrace-alert.clocks-changelog/0 holds an entry that cannot be read" in done.stderr
