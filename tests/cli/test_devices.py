"""`headrace devices`: import, list, show, set and remove, on a data folder and beside what runs on it."""

import asyncio
import json
from collections import Counter
from pathlib import Path
from typing import Any

import asyncpg
import orjson
import pytest

from headrace.cli.pipeline import Pipeline
from headrace.cli.settings import Settings
from headrace.engine.clock import ManualClock
from headrace.engine.embedded.log import EmbeddedLog
from headrace.schemas import topics
from headrace.schemas.device import Device
from headrace.tables.device_types import load_device_types
from headrace.tables.devices import DeviceRegistry
from headrace.tables.rules import load_rules
from tests.cli.conftest import Headrace

NOW = 1_750_000_000_000
FLEET = "id,type,organisation,name,gateway,tags\nd1,environmental,acme,Roof 1,gw-1,roof\nd2,tilt,acme,Mast 2,gw-1,\n"


@pytest.fixture
def fleet(tmp_path: Path) -> Path:
    """A file of two devices."""
    path = tmp_path / "fleet.csv"
    path.write_text(FLEET)
    return path


def listed(headrace: Headrace, data: Path, *options: str) -> list[dict[str, Any]]:
    lines = headrace("devices", "list", "--data", data, "--json", *options).stdout.splitlines()
    return [json.loads(line) for line in lines]


def test_what_is_imported_can_be_listed_and_shown(headrace: Headrace, fleet: Path, tmp_path: Path) -> None:
    """Into a folder that the import makes; the same file again changes nothing, and says so."""
    data = tmp_path / "data"
    counts = {"left_out": [], "dry_run": False}

    first = json.loads(headrace("devices", "import", fleet, "--data", data, "--json").stdout)
    fleet.write_text(FLEET.replace("Mast 2", "Mast 3") + "d3,,,Spare,,\n")
    second = json.loads(headrace("devices", "import", fleet, "--data", data, "--json").stdout)

    assert first == {"added": 2, "changed": 0, "unchanged": 0, **counts}
    assert second == {"added": 1, "changed": 1, "unchanged": 1, **counts}
    assert [(each["deviceId"], each["name"]) for each in listed(headrace, data)] == [
        ("d1", "Roof 1"), ("d2", "Mast 3"), ("d3", "Spare"),
    ]  # fmt: skip
    assert b"Roof 1" in headrace("devices", "show", "d1", "--data", data).stdout


@pytest.mark.parametrize(
    ("options", "ids"),
    [
        (("--type", "tilt"), ["d2"]),
        (("--organisation", "acme", "--gateway", "gw-1"), ["d1", "d2"]),
        (("--tag", "roof", "--status", "active"), ["d1"]),
        (("--status", "retired"), []),
        (("--limit", "1"), ["d1"]),
    ],
)
def test_options_choose(
    headrace: Headrace, fleet: Path, tmp_path: Path, options: tuple[str, ...], ids: list[str]
) -> None:
    """All of them together."""
    headrace("devices", "import", fleet, "--data", tmp_path / "data")

    assert [each["deviceId"] for each in listed(headrace, tmp_path / "data", *options)] == ids


def test_every_mistake_is_told_and_nothing_imported(headrace: Headrace, fleet: Path, tmp_path: Path) -> None:
    """Each with its line; with --skip-bad the rest is imported."""
    bad = "d1,,,Again,,\nd4,nosuch,,Fourth,,\nd5,,,x,,\nd6\n"
    fleet.write_text(FLEET + bad)
    data = tmp_path / "data"

    refused = headrace("devices", "import", fleet, "--data", data, code=2).stderr
    assert not data.exists()
    done = json.loads(headrace("devices", "import", fleet, "--data", data, "--skip-bad", "--json").stdout)

    for part in (
        "line 4: device 'd1' is on line 2",
        "line 5: deviceType: there is no 'nosuch'",
        "line 6: name",
        "line 7",
    ):
        assert part in refused
        assert any(part in mistake for mistake in done["left_out"])
    assert "environmental" in refused
    assert (done["added"], len(done["left_out"])) == (2, 4)


def test_a_dry_run_writes_nothing(headrace: Headrace, fleet: Path, tmp_path: Path) -> None:
    """But says what would be."""
    data = tmp_path / "data"
    headrace("devices", "import", fleet, "--data", data)
    fleet.write_text(FLEET.replace("Mast 2", "Mast 3"))

    done = json.loads(headrace("devices", "import", fleet, "--data", data, "--dry-run", "--json").stdout)

    assert (done["changed"], done["dry_run"]) == (1, True)
    assert listed(headrace, data)[1]["name"] == "Mast 2"


def test_a_device_is_changed_added_and_removed(headrace: Headrace, fleet: Path, tmp_path: Path) -> None:
    """Field by field; an empty one goes away, what is wrong changes nothing."""
    data = ("--data", tmp_path / "data")
    headrace("devices", "import", fleet, *data)

    headrace("devices", "set", "d1", "status=maintenance", "lat=48.1", "tags=a,b", "gateway=", *data)
    headrace("devices", "set", "d9", "name=Ninth", "--add", *data)
    headrace("devices", "remove", "d2", *data)
    wrong = headrace("devices", "set", "d1", "name=x", "type=tlit", *data, code=2).stderr
    nobody = headrace("devices", "set", "d8", "name=Eighth", *data, code=2).stderr

    assert listed(headrace, tmp_path / "data") == [
        {"deviceId": "d1", "deviceType": "environmental", "organizationId": "acme", "name": "Roof 1",
         "location": {"lat": 48.1}, "status": "maintenance", "tags": ["a", "b"]},
        {"deviceId": "d9", "name": "Ninth", "status": "active"},
    ]  # fmt: skip
    assert "name: " in wrong
    assert "--add" in nobody
    headrace("devices", "show", "d2", *data, code=2)
    headrace("devices", "set", "d1", "deviceId=d7", *data, code=2)
    headrace("devices", "set", "d1", "status", *data, code=2)


@pytest.mark.integration
async def test_a_running_pipeline_takes_changes_and_its_ledger_balances_by_type(tmp_path: Path) -> None:
    """Written by another log; duplicates, dead letters and rows count under the type that was accepted."""
    types, clock = load_device_types(), ManualClock(NOW)
    good = orjson.dumps({"timestamp": NOW, "temperature": 21})
    async with Pipeline(tmp_path, Settings(), types, load_rules(), clock) as pipeline:
        other = EmbeddedLog(tmp_path)
        registry = DeviceRegistry(other, ManualClock(NOW))

        async def feed(stop: asyncio.Event) -> None:
            devices = {f"d{number}": {"name": f"Device {number}", "type": "environmental"} for number in range(4)}
            devices["d3"]["status"] = "retired"
            await registry.change({name: _device(name, **fields) for name, fields in devices.items()})
            for device_type, ids in ("tilt", [b"d0", b"d0", b"d1", b"d3"]), ("environmental", [b"d2", b"e"]):
                await pipeline.intake.append(ids, [good] * len(ids), device_type=device_type, profile="test")

        await pipeline.run(feed, asyncio.Event())

        accepted = _by_type(await pipeline.log.tallies(topics.RAW))
        became = _by_type(await pipeline.log.tallies(topics.DEAD_LETTERS))
        for tally, outcomes in pipeline.agents.ingest.counters.totals().items():
            became[tally.device_type] += sum(outcomes.values())
        connection = await asyncpg.connect(**pipeline.database)
        for row in await connection.fetch("SELECT device_type, count FROM ledger"):
            became[row["device_type"]] += row["count"]
        stored = await connection.fetchval("SELECT count(*) FROM readings_environmental")
        await connection.close()
        ledger = await pipeline.ledger()
        await other.close()
    assert accepted == {"tilt": 4, "environmental": 2}
    assert became == accepted
    assert stored == 4
    assert ledger == (6, 4, 1, 0, 1, 0)


def _device(device_id: str, **fields: Any) -> Device:
    return Device(id=device_id, **fields)


def _by_type(tallies: Any) -> Counter[str]:
    found: Counter[str] = Counter()
    for tally, count in tallies.items():
        found[tally.device_type] += count
    return found
