"""`headrace topics` as a user meets it."""

import asyncio
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import asyncpg
import orjson
import pytest

from headrace.cli.pipeline import Pipeline
from headrace.cli.settings import Settings
from headrace.engine.clock import ManualClock
from headrace.engine.embedded.lock import WorkerLock
from headrace.engine.embedded.log import EmbeddedLog
from headrace.engine.ledger import Ledger
from headrace.engine.log import Append, Changes, TopicPartition, TopicSpec, Transaction
from headrace.engine.records import Records
from headrace.schemas import topics
from headrace.tables.device_types import load_device_types
from headrace.tables.rules import load_rules
from tests.cli.conftest import Done, Headrace

START = 1_750_003_200_000
MINUTE = 60_000
WINDOWS = "headrace-rollup.windows-changelog"


def document(done: Done) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(done.stdout)
    return found


async def make_log(folder: Path) -> None:
    """A log of somebody else's making: the agents have read part of the readings, a group of its own part of `mine`."""
    log = EmbeddedLog(folder)
    plain = [TopicSpec(name, 2) for name in (topics.RAW, topics.READINGS, "mine")]
    compacted = [TopicSpec(name, 2, compacted=True) for name in (WINDOWS, "own-doors-changelog")]
    await log.create_topics([*plain, *compacted])
    for name in (topics.RAW, topics.READINGS, "mine"):
        for partition, count in enumerate((10, 20)):
            stamps = [START + 1000 * number for number in range(count)]
            records = Records([b"k"] * count, [b"v"] * count, stamps)
            await log.commit(Transaction([Append(TopicPartition(name, partition), records)]))
    await log.commit(Transaction(group="headrace", positions={TopicPartition(topics.READINGS, 1): 5}))
    await log.commit(Transaction(group="own", positions={TopicPartition("mine", 0): 10}))
    changes = [Changes(TopicPartition(name, 1), {b"a": b"1", b"b": b"2"}) for name in (WINDOWS, "own-doors-changelog")]
    await log.commit(Transaction(changes=changes))
    await log.close()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A data folder with that log."""
    asyncio.run(make_log(tmp_path / "data"))
    return tmp_path / "data"


# -- show


def test_a_line_per_topic(headrace: Headrace, folder: Path) -> None:
    """Partitions, records, lag of agents and sink."""
    rows = headrace("topics", "--data", folder).stdout.decode().splitlines()

    cells = {row.split()[0]: row.split()[1:] for row in rows[1:]}
    assert cells[topics.READINGS] == ["2", "30", "25", "30"]
    assert cells[topics.RAW] == ["2", "30", "30"]
    assert cells[WINDOWS] == ["2", "yes"]


def test_the_same_as_json(headrace: Headrace, folder: Path) -> None:
    """With every group that reads a topic."""
    by_name = {each["topic"]: each for each in document(headrace("topics", "--data", folder, "--json"))["topics"]}

    assert by_name[topics.READINGS]["groups"]["headrace"] == {"lag": 25, "owners": []}
    assert by_name[WINDOWS]["compacted"]
    assert by_name[WINDOWS]["records"] is None


def test_one_topic_by_partition(headrace: Headrace, folder: Path) -> None:
    """Where it begins and ends, and how far each group is."""
    rows = headrace("topics", topics.READINGS, "--data", folder).stdout.decode().splitlines()
    assert rows[3].split() == ["1", "0", "20", "headrace", "5", "15"]

    found = document(headrace("topics", topics.READINGS, "--data", folder, "--json"))["by_partition"]
    assert found[1] == {
        "partition": 1,
        "start": 0,
        "end": 20,
        "groups": {
            "headrace": {"position": 5, "lag": 15, "owner": None},
            "timescale": {"position": 0, "lag": 20, "owner": None},
        },
    }


def test_a_compacted_topic_has_keys(headrace: Headrace, folder: Path) -> None:
    """Instead of offsets, which say little there."""
    assert document(headrace("topics", WINDOWS, "--data", folder, "--json"))["by_partition"] == [
        {"partition": 0, "keys": 0},
        {"partition": 1, "keys": 2},
    ]


def test_a_group_that_nobody_knows(headrace: Headrace, folder: Path) -> None:
    """Is shown where it has a position."""
    found = document(headrace("topics", "--group", "own", "--data", folder, "--json"))["topics"]

    assert {each["topic"]: each["groups"] for each in found if each["groups"]} == {
        "mine": {"own": {"lag": 20, "owners": []}}
    }


def test_the_worker_of_the_folder_owns_everything(headrace: Headrace, folder: Path) -> None:
    """While it runs; its process is named. Looking does not disturb it."""
    lock = WorkerLock(folder)
    lock.acquire()

    found = document(headrace("topics", topics.RAW, "--data", folder, "--json"))
    lock.release()

    assert found["groups"]["headrace"]["owners"] == [f"process {os.getpid()}"]


def test_the_newest_records_of_a_topic(headrace: Headrace, folder: Path) -> None:
    """Over all partitions by append time, the newest last; of a topic with fewer all of them."""
    lines = headrace("topics", "tail", "mine", "--limit", "12", "--data", folder, "--json").stdout.splitlines()
    rows = [json.loads(line) for line in lines]
    shown = headrace("topics", "tail", "mine", "--limit", "50", "--data", folder).stdout.splitlines()

    assert [(row["partition"], row["offset"]) for row in rows] == [
        (0, 9),
        (1, 9),
        *((1, each) for each in range(10, 20)),
    ]
    assert (rows[-1]["key"], rows[-1]["value"]) == ("k", "v")
    assert len(shown) == 1 + 30
    assert "is compacted" in headrace("topics", "tail", WINDOWS, "--data", folder, code=2).stderr


def test_topics_of_agents_of_one_s_own(headrace: Headrace, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Their lag is shown, and they can be reset, with their tables; a topic that is not there yet does not matter."""
    source = "class A:\n    name = {0!r}; topic = {1!r}; tables = ()\n    def process(self, batch): pass\n"
    own = folder.parent / "headrace_agents"
    own.mkdir()
    (own / "a.py").write_text(source.format("a", "mine"))
    (own / "b.py").write_text(source.format("b", "not.there"))
    monkeypatch.chdir(folder.parent)

    lag = document(headrace("topics", "mine", "--data", folder, "--json"))["groups"]["headrace"]["lag"]
    headrace("topics", "--data", folder)
    moves = document(headrace("topics", "reset", "mine", "--to", "latest", "--data", folder, "--yes", "--json"))

    assert lag == 30
    assert [each["after"] for each in moves["positions"]] == [10, 20]


def test_a_topic_that_is_not_there(headrace: Headrace, folder: Path) -> None:
    """Is a mistake, and those that are there are listed."""
    assert "there are" in headrace("topics", "nosuch", "--data", folder, code=2).stderr
    assert "--data is missing" in headrace("topics", code=2).stderr


# -- reset


def test_a_dry_run_changes_nothing(headrace: Headrace, folder: Path) -> None:
    """It says what would happen to positions and tables."""
    options = ("topics", "reset", topics.READINGS, "--to", "earliest", "--data", folder, "--dry-run")

    assert f"{WINDOWS} is emptied" in (text := headrace(*options).stdout.decode())
    assert "5 again" in text
    done = document(headrace(*options, "--json"))
    assert done["dry_run"]
    assert done["positions"][1] == {"topic": topics.READINGS, "partition": 1, "before": 5, "after": 0}
    assert asyncio.run(state(folder)) == (5, 2)


async def state(folder: Path) -> tuple[int, int]:
    """Position of the agents in partition 1 of the readings, and entries of the windows there."""
    log = EmbeddedLog(folder)
    await log.topics()
    positions = await log.positions("headrace", topics.READINGS)
    count = sum([len(entries) async for entries in log.restore(TopicPartition(WINDOWS, 1))])
    await log.close()
    return positions[TopicPartition(topics.READINGS, 1)], count


@pytest.mark.parametrize(
    ("to", "position"), [("current", 5), ("earliest", 0), ("latest", 20), ("2025-06-15T16:00:07Z", 7)]
)
def test_positions_and_tables(headrace: Headrace, folder: Path, to: str, position: int) -> None:
    """Are both set, in one step."""
    done = document(headrace("topics", "reset", topics.READINGS, "--to", to, "--data", folder, "--yes", "--json"))

    assert done["entries_deleted"] == 2
    assert asyncio.run(state(folder)) == (position, 0)


def test_not_while_a_worker_runs(headrace: Headrace, folder: Path) -> None:
    """Its tables in memory would not know."""
    lock = WorkerLock(folder)
    lock.acquire()

    done = headrace("topics", "reset", topics.READINGS, "--data", folder, "--yes", code=1)
    lock.release()

    assert f"process {os.getpid()}" in done.stderr
    assert asyncio.run(state(folder)) == (5, 2)


def test_a_group_of_ones_own_names_its_tables(headrace: Headrace, folder: Path) -> None:
    """Nobody else knows which of them belong to the topic."""
    options = ("topics", "reset", "mine", "--group", "own", "--to", "earliest", "--data", folder, "--yes", "--json")

    assert "tables doors: name those" in headrace(*options, code=2).stderr
    assert "has no table windows" in headrace(*options, "--table", "windows", code=2).stderr
    assert document(headrace(*options, "--table", "doors"))["entries_deleted"] == 2


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ([topics.RAW, "--to", "latest"], ["--yes", "--data", "only current"]),
        ([topics.DEAD_LETTERS, "--table", "x", "--yes"], ["does not read it", "are known"]),
        ([topics.READINGS, "--group", "timescale", "--to", "then", "--yes"], ["in its database", "'then'"]),
    ],
    ids=lambda value: " ".join(value)[:40],
)
def test_every_mistake_at_once(headrace: Headrace, options: list[str], said: list[str]) -> None:
    """Whatever is wrong about options and folder is said together."""
    done = headrace("topics", "reset", *options, code=2)

    for part in said:
        assert part in done.stderr


def test_what_is_not_there_is_said(headrace: Headrace, folder: Path) -> None:
    """A topic that does not exist, and one that has no positions."""
    options = ("--group", "own", "--data", folder, "--yes")

    assert "no topic nosuch" in headrace("topics", "reset", "nosuch", *options, code=2).stderr
    assert "is compacted" in headrace("topics", "reset", WINDOWS, *options, code=2).stderr


# -- through the real pipeline


async def run_pipeline(folder: Path, minutes: Iterable[int] = ()) -> tuple[Ledger, list[Any]]:
    """Take in a message of six devices for each minute, work through everything; the ledger and the rollups."""

    async def feed(stop: asyncio.Event) -> None:
        for minute in minutes:
            time = START + minute * MINUTE
            clock.follow(time)
            payload = orjson.dumps({"timestamp": time, "temp": 20 + minute % 7})
            devices = [b"device-%d" % number for number in range(6)]
            await pipeline.intake.append(
                devices, [payload] * 6, device_type="environmental", profile="test", sources=b"test"
            )

    clock = ManualClock(START)
    async with Pipeline(folder, Settings(), load_device_types(), load_rules(), clock) as pipeline:
        await pipeline.run(feed, asyncio.Event())
        connection = await asyncpg.connect(**pipeline.database)
        rows = await connection.fetch(
            "SELECT device_id, window_seconds, start, revision, measures::text FROM rollups ORDER BY 1, 2, 3"
        )
        await connection.close()
        return await pipeline.ledger(), [tuple(row) for row in rows]


@pytest.mark.integration
def test_tables_are_built_anew_from_the_log(headrace: Headrace, tmp_path: Path) -> None:
    """Started over in the middle of an hour, the agents go on as if nothing had been; so does the ledger."""
    whole, ours = tmp_path / "whole", tmp_path / "ours"
    undisturbed = asyncio.run(run_pipeline(whole, range(150)))
    asyncio.run(run_pipeline(ours, range(90)))

    for topic, to in ((topics.READINGS, "earliest"), (topics.RAW, "current")):
        done = document(headrace("topics", "reset", topic, "--to", to, "--data", ours, "--yes", "--json"))
        assert done["entries_deleted"] > 0
    repaired = asyncio.run(run_pipeline(ours, range(90, 150)))

    assert repaired == undisturbed
    assert repaired[0] == Ledger(accepted=900, stored=900, duplicate=0, conflict=0, dead_lettered=0, in_flight=0)
