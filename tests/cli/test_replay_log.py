"""`headrace replay --from TIME --agent NAME`, on data folders that a real pipeline made."""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Iterable
from math import inf
from pathlib import Path
from typing import Any

import asyncpg
import orjson
import pytest

from headrace.cli.agents import GROUP
from headrace.cli.moments import iso_ms
from headrace.cli.pipeline import Pipeline
from headrace.cli.settings import DetectSettings, RollupSettings, Settings
from headrace.engine.agent_replay import REPLAYS
from headrace.engine.clock import ManualClock
from headrace.engine.embedded.log import EmbeddedLog
from headrace.engine.log import Append, TopicPartition, TopicSpec, Transaction
from headrace.engine.testkit import readings_log
from headrace.schemas import topics
from headrace.tables.device_types import load_device_types
from headrace.tables.rules import load_rules
from tests.cli.conftest import Done, Headrace

START = 1_750_003_200_000  # on the hour
MINUTE = 60_000
MIDDLE = START + 60 * MINUTE
CONFIG = """
[rollup]
windows = [60, 600]
[detect]
detectors = ["ensemble", "three-sigma"]
parameters = { ensemble = { warm_up = 50 } }
pane = 60
warm_up = 10
"""
SETTINGS = Settings(
    rollup=RollupSettings(windows=(60, 600)),
    detect=DetectSettings(
        detectors=("ensemble", "three-sigma"), parameters={"ensemble": {"warm_up": 50}}, pane=60, warm_up=10
    ),
)
TABLES = {
    "rollups": "SELECT device_id, window_seconds, start, revision, measures::text FROM rollups ORDER BY 1, 2, 3",
    "anomalies": "SELECT device_id, metric, time, detector, document::text FROM anomalies ORDER BY 1, 2, 3, 4",
    "alerts": "SELECT alert_id, status, document::text FROM alerts ORDER BY 1",
}

#: The `headrace` command, which presses Ctrl-C when it has committed for the first time, after a few records.
INTERRUPTED = """
import os, signal
from headrace.cli.main import main
from headrace.engine import agent_replay
agent_replay.COMMIT_RECORDS = 100
commit, pressed = agent_replay.AgentReplay._commit, []
async def commit_and_press(self, target, sends, progress):
    await commit(self, target, sends, progress)
    if not pressed:
        pressed.append(True)
        os.kill(os.getpid(), signal.SIGINT)
agent_replay.AgentReplay._commit = commit_and_press
main()
"""


def document(done: Done) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(done.stdout)
    return found


async def run_pipeline(folder: Path, settings: Settings, minutes: Iterable[int] = ()) -> dict[str, list[Any]]:
    """Take in a message of six devices for each minute, work through everything; what is stored."""

    async def feed(stop: asyncio.Event) -> None:
        for minute in minutes:
            time = START + minute * MINUTE
            clock.follow(time)
            # Hot for a quarter of an hour, which is an anomaly at first.
            temperature = 70 if minute in range(80, 95) else 21 + minute % 3 / 10
            payload = orjson.dumps({"timestamp": time, "temp": temperature, "humidity": 40})
            devices = [b"device-%d" % number for number in range(6)]
            await pipeline.intake.append(
                devices, [payload] * 6, device_type="environmental", profile="test", sources=b"test"
            )

    clock = ManualClock(START)
    async with Pipeline(folder, settings, load_device_types(), load_rules(settings.alert.rules), clock) as pipeline:
        await pipeline.run(feed, asyncio.Event())
        connection = await asyncpg.connect(**pipeline.database)
        stored = {name: [tuple(row) for row in await connection.fetch(query)] for name, query in TABLES.items()}
        await connection.close()
    return stored


async def look(folder: Path) -> tuple[dict[TopicPartition, int], dict[TopicPartition, int], int]:
    """Positions of the agents in the readings, where those end, and how many rollups there are."""
    log = EmbeddedLog(folder)
    rollups = sum((await log.end_offsets(topics.ROLLUPS)).values())
    found = await log.positions(GROUP, topics.READINGS), await log.end_offsets(topics.READINGS), rollups
    await log.close()
    return found


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """The settings of the worker, as a file."""
    path = tmp_path / "headrace.toml"
    path.write_text(CONFIG)
    return path


@pytest.mark.integration
def test_replayed_the_database_stays_as_it_is(headrace: Headrace, tmp_path: Path, config: Path) -> None:
    """Every agent sends again what it sent; the sink knows all of it. The live agents' positions do not move."""
    data = tmp_path / "data"
    before = asyncio.run(run_pipeline(data, SETTINGS, range(120)))
    assert all(before.values())
    options = ("--from", iso_ms(MIDDLE), "--data", data, "--config", config, "--json")

    sent = {name: document(headrace("replay", "--agent", name, *options)) for name in ("rollup", "detect")}
    positions, ends, rollups = asyncio.run(look(data))
    after = asyncio.run(run_pipeline(data, SETTINGS))

    assert sent["rollup"]["sent"][topics.ROLLUPS] > 6 * 50
    assert sent["detect"]["sent"][topics.ANOMALIES] > 0
    assert all(each["finished"] and not each["failed"] for each in sent.values())
    assert rollups == len(before["rollups"]) + sent["rollup"]["sent"][topics.ROLLUPS]
    assert positions == ends
    assert after == before


@pytest.mark.integration
def test_a_repaired_agent_makes_good_what_was_missing(headrace: Headrace, tmp_path: Path) -> None:
    """A window that was missing: there for the past too, from the time given on."""
    data, config = tmp_path / "data", tmp_path / "headrace.toml"
    wrong = Settings(rollup=RollupSettings(windows=(600,)))
    before = asyncio.run(run_pipeline(data, wrong, range(120)))
    config.write_text("[rollup]\nwindows = [60, 600]\n")

    headrace("replay", "--agent", "rollup", "--from", iso_ms(MIDDLE), "--data", data, "--config", config)
    after = asyncio.run(run_pipeline(data, wrong))

    added = [row for row in after["rollups"] if row not in before["rollups"]]
    assert [row for row in before["rollups"] if row not in after["rollups"]] == []
    assert {row[1] for row in added} == {60.0}
    # A window is sent when it closes: with the first reading behind it.
    assert min(row[2] for row in added).timestamp() * 1000 == MIDDLE - MINUTE


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A data folder with readings that the agents have worked through, without a database."""
    rows = [("cellar", "environmental", START + minute * MINUTE, {"temperature": 20.0}) for minute in range(600)]

    async def make() -> None:
        log = EmbeddedLog(tmp_path / "data")
        names = (topics.READINGS, topics.ROLLUPS, topics.LATE, topics.DEAD_LETTERS)
        await log.create_topics([TopicSpec(name, 1) for name in names])
        records = readings_log(rows)
        records.timestamps[:] = [time for _, _, time, _ in rows]
        target = TopicPartition(topics.READINGS, 0)
        await log.commit(Transaction([Append(target, records)], group=GROUP, positions={target: len(rows)}))
        await log.close()

    asyncio.run(make())
    return tmp_path / "data"


def rollups_in(folder: Path) -> list[bytes | None]:
    async def read() -> list[bytes | None]:
        log = EmbeddedLog(folder)
        await log.topics()
        fetched = await log.read(TopicPartition(topics.ROLLUPS, 0), 0, 100_000)
        await log.close()
        return fetched.records.values if fetched else []

    return asyncio.run(read())


def test_dry_run_writes_nothing(headrace: Headrace, folder: Path) -> None:
    """It says what would be read."""
    done = document(
        headrace("replay", "--agent", "rollup", "--from", iso_ms(MIDDLE), "--data", folder, "--dry-run", "--json")
    )

    assert done["partitions"] == [{"partition": 0, "warm_up": 0, "first": 60, "end": 600}]
    assert rollups_in(folder) == []
    table = headrace("replay", "--agent", "rollup", "--from", iso_ms(MIDDLE), "--data", folder, "--dry-run").stdout
    assert table.decode().splitlines()[1].split() == ["telemetry.readings/0", "0", "60", "600", "600"]


def test_warm_up_makes_the_first_windows_whole(headrace: Headrace, folder: Path) -> None:
    """Without one the hour that TIME is in would have half of its readings."""
    half = ("replay", "--agent", "rollup", "--from", iso_ms(MIDDLE + 30 * MINUTE), "--data", folder, "--json")

    headrace(*half)
    whole = rollups_in(folder)
    headrace(*half, "--warm-up", "0s")
    partial = rollups_in(folder)[len(whole) :]

    def first_hour(values: list[bytes | None]) -> int:
        found = [orjson.loads(value or b"") for value in values]
        hours = [each for each in found if each["window_seconds"] == 3600]
        count: int = hours[0]["measures"]["temperature"]["count"]
        return count

    assert (first_hour(whole), first_hour(partial)) == (60, 30)


def test_interrupted_it_goes_on_and_sends_nothing_twice(headrace: Headrace, folder: Path) -> None:
    """Ctrl-C half-way, just behind a commit, then the same command."""
    options = ["replay", "--agent", "rollup", "--from", iso_ms(START), "--data", str(folder)]
    slowly = {**os.environ, "HEADRACE_RUNTIME__MAX_BATCH_RECORDS": "1"}
    # The embedded log reads whole rows: one row each makes batches of one.
    command = [sys.executable, "-c", INTERRUPTED, *options]
    asyncio.run(in_single_rows(folder, 3_000))
    stopped = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False, env=slowly)
    assert stopped.returncode == 0, stopped.stderr
    assert "stopped; to go on: headrace replay --agent rollup" in stopped.stdout
    assert asyncio.run(notes(folder))
    sent = len(rollups_in(folder))

    done = document(headrace(*options, "--json"))

    assert done["finished"]
    values = rollups_in(folder)
    assert len(values) == len(set(values)) == sent + done["sent"][topics.ROLLUPS]
    assert 0 < sent < len(values)
    assert not asyncio.run(notes(folder))


async def in_single_rows(folder: Path, count: int) -> None:
    """Append readings, each in an append of its own."""
    log = EmbeddedLog(folder, retention=inf)
    await log.topics()
    target = TopicPartition(topics.READINGS, 0)
    first = (await log.end_offsets(topics.READINGS))[target]
    times = [START + (first + number) * MINUTE for number in range(count)]
    records = readings_log(("cellar", "environmental", time, {"temperature": 20.0}) for time in times)
    records.timestamps[:] = times
    await asyncio.gather(
        *(log.commit(Transaction([Append(target, records.slice(row, row + 1))])) for row in range(count))
    )
    await log.commit(Transaction(group=GROUP, positions={target: first + count}))
    await log.close()


async def notes(folder: Path) -> int:
    """How many partitions of replays are under way."""
    log = EmbeddedLog(folder)
    found = {spec.name for spec in await log.topics()}
    count = 0
    if REPLAYS in found:
        count = sum([len(entries) async for entries in log.restore(TopicPartition(REPLAYS, 0))])
    await log.close()
    return count


def test_too_little_before_is_refused(headrace: Headrace, folder: Path) -> None:
    """Where retention dropped what a window needs, a partial one would replace the whole one in the database."""

    async def drop_first_hour() -> None:
        log = EmbeddedLog(folder, retention=1)
        await log.topics()
        target = TopicPartition(topics.READINGS, 0)
        await in_single_rows(folder, 60)
        await log.apply_retention()
        assert (await log.offsets_at(topics.READINGS, 0))[target] == 659
        await in_single_rows(folder, 120)
        await log.close()

    asyncio.run(drop_first_hour())
    options = ("replay", "--agent", "rollup", "--data", folder, "--json", "--from")
    oldest = START + 659 * MINUTE

    refused = headrace(*options, iso_ms(oldest), code=2)
    assert f"Give --from {iso_ms(oldest + 60 * MINUTE)} or later" in refused.stderr
    assert document(headrace(*options, iso_ms(oldest + 60 * MINUTE)))["finished"]
    assert document(headrace(*options, iso_ms(oldest), "--warm-up", "10m"))["finished"]


def test_nothing_to_do_is_said(headrace: Headrace, folder: Path) -> None:
    """A time behind everything that the agents have done."""
    options = ("replay", "--agent", "rollup", "--from", iso_ms(START + 10_000 * MINUTE), "--data", folder)

    assert b"nothing to do" in headrace(*options).stdout
    assert document(headrace(*options, "--json"))["finished"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ([], ["name a PATH"]),
        (["--from", "soon", "--agent", "me"], ["'soon'", "no agent 'me'; there are rollup, detect", "--data"]),
        (["--agent", "ingest"], ["--from is missing", "headrace dlq replay"]),
        (["--from", "1d", "--speed", "2", "--via", "log"], ["--speed, --via: only for a PATH", "--agent is missing"]),
        (["--from", "1d", "--agent", "rollup", "--to", "2d", "--warm-up", "x"], ["'x' is not a duration"]),
        (["--from", "1d", "--agent", "rollup", "--to", "2d"], ["is not before --to"]),
        (["--from", "2d", "--agent", "alert"], ["headrace rules backtest"]),
        ([__file__, "--agent", "rollup", "--dry-run"], ["--agent, --dry-run: only without a PATH"]),
    ],
    ids=lambda value: " ".join(value)[:40],
)
def test_every_mistake_at_once(headrace: Headrace, options: list[str], said: list[str]) -> None:
    """Whatever is wrong about options, settings and folder is said together."""
    done = headrace("replay", *options, code=2)

    for part in said:
        assert part in done.stderr
