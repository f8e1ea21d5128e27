"""`headrace rules`: on a data folder, and beside what runs on it."""

import asyncio
import json
from pathlib import Path
from typing import Any

import asyncpg
import orjson
import pytest

from headrace.cli.pipeline import Pipeline
from headrace.cli.settings import Settings
from headrace.engine.clock import ManualClock
from headrace.engine.log_range import first_offsets, read_range, reading
from headrace.schemas import topics
from headrace.schemas.alert import Alert, AlertEvent
from headrace.tables.device_types import load_device_types
from tests.cli.conftest import Headrace

NOW = 1_750_000_000_000
MINUTE = 60_000
HOT = ("--metric", "temperature", "--operator", ">", "--threshold", "40", "--duration", "5m", "--severity", "critical")
RULES = """
[[rule]]
rule_id = "humid"
name = "Humid \\"and\\" hot"
device_ids = ["a", "b \\u007f"]
condition = { expression = "temperature > 30 and humidity > 80", out_of = { n = 3, m = 5 } }
flapping = false

[[rule]]
rule_id = "gone"
name = "Gone"
condition = { silent_for = "learned" }
severity = "info"
schedule = { type = "custom", timezone = "Europe/Berlin", stretches = [{ start = "22:00", end = "06:00" }] }
actions = { webhooks = ["https://example.com/alerts"] }
"""


@pytest.fixture
def data(tmp_path: Path) -> tuple[str, Path]:
    """`--data` and a folder that is not there yet."""
    return "--data", tmp_path / "data"


def listed(headrace: Headrace, *options: object) -> dict[str, dict[str, Any]]:
    lines = headrace("rules", "list", "--json", *options).stdout.splitlines()
    return {each["ruleId"]: each for each in map(json.loads, lines)}


def test_a_rule_is_made_and_changed_from_options(headrace: Headrace, data: tuple[str, Path]) -> None:
    """Options change what they name; a condition of another kind takes the place of the old one."""
    made = json.loads(headrace("rules", "set", "hot", *HOT, "--user", "ada", "--json", *data).stdout)
    headrace("rules", "set", "hot", "--threshold", "45", "--notify", "email", "--user", "bob", *data)
    changed = listed(headrace, *data)["hot"]
    headrace("rules", "set", "hot", "--device", "a", "--organisation", "acme", "--webhook", "http://a", *data)
    headrace("rules", "set", "hot", "--device", "", "--organisation", "", "--webhook", "", *data)
    assert listed(headrace, *data)["hot"].keys() == changed.keys()
    headrace("rules", "set", "hot", "--silent-for", "90s", *data)
    other = listed(headrace, *data)["hot"]
    text = headrace("rules", "show", "hot", *data).stdout.decode()

    (rule,) = made["rules"]
    assert made["added"] == ["hot"]
    assert (rule["createdBy"], rule["createdAt"]) == ("ada", rule["updatedAt"])
    assert changed["condition"] == {"metric": "temperature", "operator": ">", "threshold": 45, "duration": 300}
    assert (changed["severity"], changed["actions"]) == ("critical", {"notifications": ["email"]})
    assert (changed["createdBy"], changed["createdAt"], changed["source"]) == ("ada", rule["createdAt"], "topic")
    assert changed["updatedAt"] > rule["updatedAt"]
    assert other["condition"] == {"silentFor": 90}
    assert "silent for 90 s" in text


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("set", "hot", *HOT[:4]), "condition.threshold: is missing"),
        (("set", "hot", *HOT, "--metric", "temprature"), "did you mean 'temperature'?"),
        (("set", "hot", *HOT, "--type", "enviromental"), "did you mean 'environmental'?"),
        (("set", "hot", *HOT, "--clear", "50"), "with > it is at most the threshold"),
        (("set", "hot", *HOT, "--duration", "5 minutes"), "--duration: '5 minutes' is not a duration"),
        (("set", "hot", *HOT, "--out-of", "3"), "--out-of: '3' is not N/M, as in 3/5"),
        (("set", "an", "--anomaly-score", "3", "--detector", "stcuk"), "did you mean 'stuck'?"),
        (("set", "hot"), "hot: no such file; for a rule of this id name what to set"),
        (("set", "two.toml"), "two.toml holds 2 rules; headrace rules import takes many"),
        (("import", "empty.toml"), "empty.toml holds no rules: write [[rule]] tables, or JSON"),
        (("import", "bad.toml"), "bad.toml: rule 2: severity: must be one of info, warning, critical, not 'bad'"),
        (("show", "overheatin"), "there is no rule 'overheatin'; did you mean 'overheating'?"),
        (("enable", "overheatin", "zzz"), "there is no rule 'zzz'; headrace rules list --all shows those there are"),
        (("delete", "overheating", "--purge"), "rule 'overheating' is in the configuration alone"),
    ],
)
def test_mistakes_change_nothing_and_say_what_to_do(
    headrace: Headrace,
    data: tuple[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[str, ...],
    told: str,
) -> None:
    """With exit code 2."""
    monkeypatch.chdir(tmp_path)
    Path("empty.toml").write_text("")
    Path("two.toml").write_text(RULES)
    Path("bad.toml").write_text(RULES.replace('"info"', '"bad"'))
    headrace("rules", "set", "first", *HOT, *data)
    before = listed(headrace, "--all", *data)

    assert told in headrace("rules", *arguments, *data, code=2).stderr
    assert listed(headrace, "--all", *data) == before


@pytest.mark.parametrize("form", ["toml", "json"])
def test_what_is_exported_imports_to_the_same(headrace: Headrace, tmp_path: Path, form: str) -> None:
    """Into another folder with all fields; into its own nothing changes. The file does as `[alert] rules` too."""
    source, other = ("--data", tmp_path / "one"), ("--data", tmp_path / "two")
    file, exported = tmp_path / "rules.toml", tmp_path / f"exported.{form}"
    file.write_text(RULES)
    headrace("rules", "import", file, "--user", "ada", *source)

    exported.write_bytes(headrace("rules", "export", "--format", form, *source).stdout)
    again = json.loads(headrace("rules", "import", exported, "--json", *source).stdout)
    dry = json.loads(headrace("rules", "import", exported, "--dry-run", "--json", *source).stdout)
    headrace("rules", "import", exported, *other)

    assert again["unchanged"] == dry["unchanged"] == ["overheating", "stale-air", "gone", "humid"]
    assert (again["appliesFrom"], dry["dryRun"]) == (None, True)
    one, two = ({name: _undated(each) for name, each in listed(headrace, *which).items()} for which in (source, other))
    assert one == two
    assert one["humid"]["flapping"] is None
    assert (one["gone"]["createdBy"], one["gone"]["schedule"]["timezone"]) == ("ada", "Europe/Berlin")
    assert json.loads(headrace("rules", "check", exported, "--json").stdout) == {"right": 4, "mistakes": []}


def _undated(rule: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in rule.items() if name != "updatedAt"}


def test_rules_are_switched_and_deleted_and_come_back(headrace: Headrace, data: tuple[str, Path]) -> None:
    """Those of the configuration, too, by a rule of the topic in their place; purged, the file's applies again."""
    headrace("rules", "set", "hot", *HOT, *data)
    headrace("rules", "disable", "hot", "overheating", *data)
    disabled = listed(headrace, "--status", "inactive", *data)
    headrace("rules", "delete", "hot", "overheating", *data)
    left, deleted = listed(headrace, *data), listed(headrace, "--all", *data)
    headrace("rules", "enable", "hot", *data)
    headrace("rules", "delete", "overheating", "--purge", *data)
    back = listed(headrace, *data)

    assert list(disabled) == ["overheating", "hot"]
    assert list(left) == ["stale-air"]
    assert {name: each["status"] for name, each in deleted.items()} == {
        "overheating": "deleted", "stale-air": "active", "hot": "deleted",
    }  # fmt: skip
    assert deleted["overheating"]["source"] == "topic, in the place of shipped"
    assert {name: (each["status"], each["source"]) for name, each in back.items()} == {
        "overheating": ("active", "shipped"), "stale-air": ("active", "shipped"), "hot": ("active", "topic"),
    }  # fmt: skip


def test_rules_are_checked(headrace: Headrace, data: tuple[str, Path], tmp_path: Path) -> None:
    """Files, or what is there: a device type may have changed since a rule was saved."""
    types = tmp_path / "types"
    types.mkdir()
    (types / "boiler.toml").write_text('name = "boiler"\n[fields.pressure]\nunit = "bar"\n')
    config = tmp_path / "headrace.toml"
    config.write_text(f'device_types = "{types}"\n')
    headrace("rules", "set", "burst", "--metric", "pressure", "--operator", ">", "--threshold", "9", "--type", "boiler",
             "--config", config, *data)  # fmt: skip
    (types / "boiler.toml").write_text('name = "boiler"\n[fields.press]\nunit = "bar"\n')

    done = json.loads(headrace("rules", "check", "--config", config, "--json", *data, code=2).stdout)

    assert done["right"] == 2
    assert done["mistakes"] == [
        "rule burst: condition.metric: boiler has no metric pressure; did you mean 'press'?; it has press"
    ]
    headrace("rules", "disable", "burst", "--config", config, *data)
    headrace("rules", "enable", "burst", "--config", config, *data, code=2)


def test_doubts_are_told_and_limits_kept(headrace: Headrace, data: tuple[str, Path], tmp_path: Path) -> None:
    """A device that nobody registered is probably misspelt; a rule that is too large for a record is refused."""
    fleet = tmp_path / "fleet.csv"
    fleet.write_text("id,name\nhall-1,Hall 1\n")
    headrace("devices", "import", fleet, *data)
    large = tmp_path / "large.json"
    ids = [f"{number:0256}" for number in range(10_000)]
    condition = {"metric": "temperature", "operator": ">", "threshold": 40}
    large.write_bytes(orjson.dumps({"ruleId": "large", "name": "x", "deviceIds": ids, "condition": condition}))

    told = headrace("rules", "set", "hot", *HOT, "--device", "hal-1", *data).stderr
    notes = json.loads(headrace("rules", "set", "hot", "--severity", "info", "--json", *data).stdout)["notes"]
    refused = headrace("rules", "set", large, *data, code=2).stderr

    assert notes == ["rule hot: device_ids: 'hal-1' is not in the registry; did you mean 'hall-1'?"]
    assert f"note: {notes[0]}" in told
    assert "rule large is 2,5" in refused
    assert "name fewer device_ids" in refused


@pytest.mark.integration
async def test_a_running_pipeline_takes_changes(headrace: Headrace, tmp_path: Path) -> None:
    """Set, changed and deleted by commands beside it: each from where it says on, in alerts and in the database."""
    clock = ManualClock(NOW)
    async with Pipeline(tmp_path, Settings(), load_device_types(), (), clock) as pipeline:

        async def rules(*arguments: object) -> None:
            await asyncio.to_thread(headrace, "rules", *arguments, "--data", tmp_path)
            clock.advance(3 * MINUTE)

        async def send(**temperatures: float) -> None:
            payloads = [
                orjson.dumps({"timestamp": clock.now_ms(), "temperature": each}) for each in temperatures.values()
            ]
            ids = [name.encode() for name in temperatures]
            await pipeline.intake.append(ids, payloads, device_type="environmental", profile="test")

        async def feed(stop: asyncio.Event) -> None:
            await rules("set", "hot", "--metric", "temperature", "--operator", ">", "--threshold", "40")
            await send(d0=50, d1=20)
            await rules("set", "hot", "--threshold", "60")
            await send(d1=50, d2=70)
            await rules("delete", "hot")
            await send(d0=50, d1=80, d2=80, d3=80)

        await pipeline.run(feed, asyncio.Event())
        events = [AlertEvent.model_validate_json(value) for value in await _values(pipeline, topics.ALERTS)]
        connection = await asyncpg.connect(**pipeline.database)
        stored = await connection.fetch("SELECT rule_id, status, document->'condition'->>'threshold' FROM alert_rules")
        await connection.close()

    alerts = [each.data for each in events if isinstance(each.data, Alert)]
    assert sorted((each.deviceId, each.status, each.resolved and each.resolved.by) for each in alerts) == [
        ("d0", "resolved", "rule"),
        ("d0", "triggered", None),
        ("d2", "resolved", "rule"),
        ("d2", "triggered", None),
    ]
    assert [tuple(row) for row in stored] == [("hot", "deleted", "60.0")]


async def _values(pipeline: Pipeline, topic: str) -> list[bytes]:
    found: list[bytes] = []
    async with reading(pipeline.log) as reader:
        starts = await first_offsets(pipeline.log, topic)
        for target, end in (await pipeline.log.end_offsets(topic)).items():
            async for fetched in read_range(reader, target, starts[target], end):
                found += [value for value in fetched.records.values if value]
    return found


def test_of_many_notes_the_first_are_shown(headrace: Headrace, data: tuple[str, Path], tmp_path: Path) -> None:
    """What else is doubtful is counted: it would bury what was changed."""
    fleet, many = tmp_path / "fleet.csv", tmp_path / "many.json"
    fleet.write_text("id,name\nhall-1,Hall 1\n")
    headrace("devices", "import", fleet, *data)
    condition = {"metric": "temperature", "operator": ">", "threshold": 40}
    rules = [{"ruleId": f"r{n}", "name": "x", "deviceIds": [f"d{n}"], "condition": condition} for n in range(30)]
    many.write_bytes(orjson.dumps(rules))

    told = headrace("rules", "import", many, *data).stderr

    assert told.count("note: ") == 20
    assert "10 more notes" in told
