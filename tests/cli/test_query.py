"""`headrace query` as a user meets it."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from headrace.cli.pipeline import Pipeline
from headrace.cli.settings import Settings
from headrace.engine.clock import ManualClock
from headrace.tables.device_types import load_device_types
from headrace.tables.rules import load_rules
from tests.cli.conftest import Done, Headrace

START = 1_750_003_200_000
MINUTE = 60_000


async def run_pipeline(folder: Path) -> None:
    """Three hours of one sensor through the whole path, with a conflict, a duplicate and a fever."""
    clock = ManualClock(START)
    async with Pipeline(folder, Settings(), load_device_types(), load_rules(), clock) as pipeline:
        times = [START + MINUTE * number for number in range(180)]
        payloads = [
            json.dumps({"timestamp": time, "temperature": 85.0 if number > 175 else 20 + number % 7 / 10}).encode()
            for number, time in enumerate(times)
        ]
        payloads += [payloads[170], json.dumps({"timestamp": times[171], "temperature": 1.0}).encode()]
        stamps = [*times, times[-1], times[-1]]
        clock.follow(stamps[-1])

        async def feed(stop: asyncio.Event) -> None:
            await pipeline.intake.append(
                [b"one"] * len(payloads), payloads, device_type="environmental", profile="test", sources=b"test",
                timestamps=stamps,
            )  # fmt: skip

        await pipeline.run(feed, asyncio.Event())


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder as a worker leaves it."""
    found = tmp_path_factory.mktemp("query") / "data"
    asyncio.run(run_pipeline(found))
    return found


def document(done: Done) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_every_question_has_an_answer(headrace: Headrace, folder: Path) -> None:
    """As JSON, with where it comes from and how complete it is."""

    def ask(*arguments: str) -> dict[str, Any]:
        return document(headrace("query", *arguments, "--data", folder, "--json"))

    newest = ask("latest", "one", "--metric", "temperature")
    assert [(each["time_ms"], each["value"]) for each in newest["values"]] == [(START + 179 * MINUTE, 85.0)]
    assert newest["about"]["completeness"]["as_of_ms"] == START + 180 * MINUTE

    hours = ask("history", "one", "--start", "-3h", "--aggregation", "1h", "--metric", "temperature")
    assert hours["times"] == [START + 60 * MINUTE * hour for hour in range(3)]
    assert hours["metrics"]["temperature"]["count"] == [60, 60, 60]
    assert {each["source"] for each in hours["about"]["sources"]} == {"rollups", "readings"}

    raw = ask("history", "one", "--start", "-3h", "--aggregation", "raw", "--metric", "temperature", "--limit", "100")
    rest = ask("history", "one", "--start", "-3h", "--aggregation", "raw", "--metric", "temperature",
               "--cursor", raw["cursor"])  # fmt: skip
    assert len(raw["times"]) + len(rest["times"]) == 180
    gap = ask("history", "one", "--start", "-4h", "--end", "-3h", "--metric", "temperature")
    assert gap["metrics"]["temperature"]["avg"] == [None] * 4

    assert ask("bins", "environmental", "temperature", "--width", "3h")["bins"]["max"] == [85.0, pytest.approx(20.6)]
    assert {each["value"] for each in ask("sigma", "environmental", "temperature")["values"]} == {85.0}
    assert ask("state")["devices"][0]["metrics"]["temperature"] == 85.0
    assert ask("conflicts", "--device", "one")["records"][0]["document"]["measures"] == {"temperature": 1.0}
    assert ask("alerts")["records"][0]["document"]["data"]["ruleId"] == "overheating"
    assert ask("anomalies")["about"]["resolution"] == "record"
    ledger = ask("ledger", "--by", "all")
    assert ledger["totals"]["stored"] == 180
    assert ledger["ledger"] == {
        "accepted": 182, "stored": 180, "duplicate": 1, "conflict": 1, "dead_lettered": 0, "in_flight": 0,
        "balanced": True,
    }  # fmt: skip


def test_tables(headrace: Headrace, folder: Path) -> None:
    """A line per row on standard output; what is to know of the answer on standard error."""
    done = headrace("query", "history", "one", "--start", "-30m", "--metric", "temperature", "--data", folder)
    rows = done.stdout.decode().splitlines()
    assert rows[1].split() == ["2025-06-15T18:30:00.000Z", "20.3", "20", "20.6", "15"]
    assert "15m of rollups 2025-06-15T18:30:00.000Z" in done.stderr

    for command in (
        ["latest", "--type", "environmental"], ["bins", "environmental", "temperature"], ["state"], ["conflicts"],
        ["sigma", "environmental", "temperature"], ["alerts"], ["anomalies"], ["ledger"],
        ["history", "one", "--aggregation", "raw", "--limit", "0"],
    ):  # fmt: skip
        assert headrace("query", *command, "--data", folder).stdout


def test_mistakes(headrace: Headrace, folder: Path, tmp_path: Path) -> None:
    """Exit with 2, and say what to do."""
    wrong = {
        "did you mean 'temperature'": ("latest", "one", "--metric", "temprature", "--data", folder),
        "nothing is stored of a device 'two'": ("history", "two", "--data", folder),
        "limited to 90 days": ("history", "one", "--start", "-91d", "--aggregation", "raw", "--data", folder),
        "neither an ISO 8601 time": ("history", "one", "--start", "soon", "--data", folder),
        "not before --end": ("bins", "environmental", "co2", "--end", "-3d", "--data", folder),
        "there is no time zone 'Mars/X'": ("history", "one", "--zone", "Mars/X", "--data", folder),
        "no duration": ("bins", "environmental", "co2", "--width", "x", "--data", folder),
        "holds no database": ("state", "--data", tmp_path),
        "--data is missing": ("state",),
    }
    for says, arguments in wrong.items():
        assert says in headrace("query", *arguments, code=2).stderr
