"""`headrace users`: import, export, list, show, set, delete, who is on call and who is next."""

import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest

from headrace.engine.clock import SystemClock
from headrace.engine.embedded.log import EmbeddedLog
from headrace.engine.log_range import read_range, reading
from headrace.schemas import topics
from headrace.schemas.user import ChannelSwitches, DeviceToken, Preferences, QuietHours, Shift, Subscription, User
from headrace.tables.users import UserRegistry, user_table
from tests.agents.notifying.people import at, user
from tests.cli.conftest import Headrace, in_process

GUIDE = Path(__file__).parents[2] / "docs" / "guides" / "users.md"
USERS = """
[[user]]
id = "ada"
name = "Ada"
email = "ada@example.com"
organisation = "acme"
timezone = "Europe/Berlin"
devices = ["*"]
quietHours = { start = "22:00", end = "07:00" }
[[user.onCall]]
team = "plant"
start = 2026-01-12T08:00:00
hours = 168
rrule = "FREQ=WEEKLY;INTERVAL=2"

[[user]]
id = "bob"
phone = "+491701234567"
organisation = "acme"
role = "org_admin"
"""
CONFIG = """
[[notify.escalations]]
name = "nights"
severities = ["warning", "critical"]
repeat = 1
[[notify.escalations.steps]]
after = "5m"
team = "plant"
[[notify.escalations.steps]]
after = "10m"
users = ["bob"]
channels = ["sms"]
"""


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A data folder with two users."""
    (tmp_path / "users.toml").write_text(USERS)
    in_process("users", "import", tmp_path / "users.toml", "--data", tmp_path / "data")
    return tmp_path / "data"


def listed(headrace: Headrace, data: Path, *options: str) -> list[dict[str, Any]]:
    lines = headrace("users", "list", "--data", data, "--json", "--contacts", *options).stdout.splitlines()
    return [json.loads(line) for line in lines]


def test_what_is_imported_can_be_listed_and_shown(headrace: Headrace, data: Path) -> None:
    """All of it, or some; nothing is shown of nobody."""
    assert [each["userId"] for each in listed(headrace, data)] == ["ada", "bob"]
    assert [each["userId"] for each in listed(headrace, data, "--role", "org_admin")] == ["bob"]
    assert [each["userId"] for each in listed(headrace, data, "--team", "plant", "--organisation", "acme")] == ["ada"]
    assert [each["userId"] for each in listed(headrace, data, "--limit", "1")] == ["ada"]
    assert b"preferences.quietHours.end" in headrace("users", "show", "ada", "--data", data).stdout
    assert "did you mean 'ada'" in headrace("users", "show", "adaa", "--data", data, code=2).stderr


def test_contacts_are_listed_in_part(headrace: Headrace, data: Path) -> None:
    """Unless somebody asks; what they have is to be seen."""
    headrace("users", "set", "ada", "tokens=fcm-token-123", "--data", data)
    table = headrace("users", "list", "--data", data).stdout.decode()
    lines = headrace("users", "list", "--data", data, "--json").stdout
    ada, bob = map(json.loads, lines.splitlines())

    assert "a…@example.com" in table
    assert (ada["email"], bob["phone"], ada["deviceTokens"]) == ("a…@example.com", "+49…567", [{"token": "fcm…123"}])
    for said in (table.encode(), lines):
        assert b"ada@" not in said
        assert b"+491701234567" not in said
    assert b"ada@example.com" in headrace("users", "list", "--data", data, "--contacts").stdout


def test_an_export_can_be_imported(headrace: Headrace, data: Path, tmp_path: Path) -> None:
    """Where it came from it changes nothing; elsewhere it makes the same users. Nobody else may read it."""
    file = tmp_path / "all.ndjson"
    headrace("users", "export", file, "--data", data)

    again = json.loads(headrace("users", "import", file, "--data", data, "--json").stdout)
    other = json.loads(headrace("users", "import", file, "--data", tmp_path / "other", "--json").stdout)

    assert (again["unchanged"], other["added"]) == (2, 2)
    assert file.stat().st_mode & 0o77 == 0
    stamps = {"updatedAt"}
    here, there = (
        [{name: value for name, value in each.items() if name not in stamps} for each in listed(headrace, folder)]
        for folder in (data, tmp_path / "other")
    )
    assert here == there
    assert headrace("users", "export", "--data", data).stdout == file.read_bytes()


def test_every_mistake_is_told_and_nothing_imported(headrace: Headrace, tmp_path: Path) -> None:
    """Each with its line; with --skip-bad the rest is imported, with --dry-run nothing."""
    file, data = tmp_path / "users.toml", tmp_path / "data"
    twice = '[[user]]\nid = "ada"\n'
    file.write_text(USERS + '[[user]]\nid = "eve"\nphone = "0170"\nrule = "x"\n' + twice)

    refused = headrace("users", "import", file, "--data", data, code=2).stderr
    assert not data.exists()
    done = json.loads(headrace("users", "import", file, "--data", data, "--skip-bad", "--json").stdout)
    file.write_text(USERS.replace('"Ada"', '"Ada L."'))
    dry = json.loads(headrace("users", "import", file, "--data", data, "--dry-run", "--json").stdout)

    for part in ("line 21: phone: must be", "line 21: rule: is not known", "line 25: user 'ada' is on line 2 already"):
        assert part in refused
    assert "--skip-bad imports the other 2 users" in refused
    assert (done["added"], len(done["left_out"])) == (2, 3)
    assert (dry["changed"], dry["unchanged"]) == (1, 1)
    assert listed(headrace, data)[0]["name"] == "Ada"


def test_a_user_is_changed_added_and_deleted(headrace: Headrace, data: Path) -> None:
    """Field by field; an empty one goes away, what is wrong changes nothing."""
    there = ("--data", data)
    changes = ("notifications.sms=false", "quiet_hours.end=09:00", "devices=d-1,d-2", "name=", "quietHours.override=")

    headrace("users", "set", "ada", *changes, 'subscriptions=[{"tags": ["roof"]}]', *there)
    headrace("users", "set", "eve", "email=eve@example.com", "--add", *there)
    headrace("users", "delete", "bob", *there)
    wrong = headrace("users", "set", "ada", "phone=1", "fone=2", *there, code=2).stderr
    headrace("users", "set", "ada", "userId=zoe", *there, code=2)
    headrace("users", "set", "ada", "active", *there, code=2)
    headrace("users", "set", "ada", "active=true", "--add", *there, code=2)
    nobody = headrace("users", "set", "zoe", "active=true", *there, code=2).stderr
    headrace("users", "delete", "bob", *there, code=2)

    ada, eve = listed(headrace, data)
    assert ada["preferences"] == {
        "notifications": {"sms": False},
        "quietHours": {"end": "09:00"},
        "subscribedDevices": ["d-1", "d-2"],
        "subscriptions": [{"tags": ["roof"]}],
    }
    assert "name" not in ada
    assert eve["email"] == "eve@example.com"
    assert ada["updatedAt"] > ada["createdAt"]
    assert "phone: must be" in wrong
    assert "did you mean 'phone'" in wrong
    assert "--add" in nobody


def test_who_is_on_call_is_told_until_when(headrace: Headrace, data: Path) -> None:
    """By the wall clock that is asked for; a week later nobody is; another team is none."""
    there = ("--data", data)
    on = headrace("users", "oncall", "plant", "--at", "2026-03-29T12:00", "--timezone", "Europe/Berlin", *there)
    off = headrace("users", "oncall", "plant", "--at", "2026-03-30T08:00+02:00", *there)
    (line,) = headrace("users", "oncall", "plant", "--at", "2026-03-29T12:00Z", "--json", *there).stdout.splitlines()

    assert b"ada@example.com" in on.stdout
    assert b"2026-03-30 08:00:00 CEST" in on.stdout
    assert "nobody is on call for plant at 2026-03-30 06:00:00 UTC" in off.stderr
    assert json.loads(line)["until"] == at("2026-03-30T06:00")
    assert "did you mean 'plant'" in headrace("users", "oncall", "plnt", *there, code=2).stderr
    assert "--timezone" in headrace("users", "oncall", "plant", "--timezone", "Mars", *there, code=2).stderr
    assert "--at" in headrace("users", "oncall", "plant", "--at", "noon", *there, code=2).stderr
    assert headrace("users", "oncall", "plant", "--ics", *there).stdout.startswith(b"BEGIN:VCALENDAR\r\n")


def test_an_escalation_is_played_through(headrace: Headrace, data: Path, tmp_path: Path) -> None:
    """Who is told at once, at each step with its repeats, by what, and what quiet hours hold."""
    (tmp_path / "headrace.toml").write_text(CONFIG)
    start = at("2026-03-30T05:50")
    options = ("--data", data, "--config", tmp_path / "headrace.toml", "--organisation", "acme", "--json")

    def told(severity: str, *more: str) -> list[dict[str, Any]]:
        asked = ("users", "escalate", "--severity", severity, "--at", "2026-03-30T05:50Z", *options, *more)
        return [json.loads(line) for line in headrace(*asked).stdout.splitlines()]

    steps = [
        (each["step"], (each["at"] - start) // 60_000, each["userId"], each["channels"]) for each in told("warning")
    ]
    assert steps == [
        (0, 0, "ada", ["email"]),
        (1, 5, "ada", ["email"]),
        (2, 15, "bob", ["sms"]),
        (3, 20, None, []),
        (4, 30, "bob", ["sms"]),
    ]
    assert [each["userId"] for each in told("info")] == ["ada"]
    assert len(told("critical", "--limit", "1")) == 2
    (early, *_) = told("warning", "--at", "2026-03-29T04:00Z")
    assert early["heldUntil"] == at("2026-03-29T05:00")


def test_an_escalation_of_a_device_knows_whose_it_is(headrace: Headrace, data: Path, tmp_path: Path) -> None:
    """By the registry; of another organisation nobody here hears. A device that is not there is none."""
    (tmp_path / "fleet.csv").write_text("id,name,organisation\nd-1,One,acme\nd-2,Two,globex\n")
    headrace("devices", "import", tmp_path / "fleet.csv", "--data", data)

    def at_once(device: str) -> list[str | None]:
        done = headrace("users", "escalate", "--device", device, "--data", data, "--json")
        assert "no escalation is for critical alerts" in headrace("users", "escalate", "--data", data).stderr
        return [json.loads(line)["userId"] for line in done.stdout.splitlines()]

    assert at_once("d-1") == ["ada"]
    assert at_once("d-2") == [None]
    assert "did you mean" in headrace("users", "escalate", "--device", "d-11", "--data", data, code=2).stderr


def test_examples_of_the_guide_run(headrace: Headrace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every command of docs/guides/users.md, on its own files, in its order."""
    page = GUIDE.read_text()
    commands = [shlex.split(line) for line in re.findall(r"^headrace users .+$", page, re.MULTILINE)]
    (people,) = re.findall(r"```\n(\[\[user\]\]\n.*?)```", page, re.DOTALL)
    (cells,) = re.findall(r"```\n(id,name,email,.*?)```", page, re.DOTALL)
    monkeypatch.chdir(tmp_path)
    Path("people.toml").write_text(people)
    Path("people.csv").write_text(cells)
    Path("fleet.csv").write_text("id,name,organisation\nsim-0001,Press,acme\n")
    Path("headrace.toml").write_text("".join(re.findall(r"```toml\n(.*?)```", page, re.DOTALL)))
    headrace("devices", "import", "fleet.csv", "--data", ".headrace/demo")

    said = {command[2]: headrace(*command[1 : command.index(">") if ">" in command else None]) for command in commands}

    assert {"import", "list", "show", "set", "export", "delete", "oncall", "escalate"} <= said.keys()
    known = [json.loads(line) for line in Path("people.ndjson").read_text().splitlines()]
    assert [each["userId"] for each in known] == ["ada", "bob", "eve", "u-boss"]
    assert known[1]["preferences"]["subscriptions"] == [{"tags": ["cold-chain"], "channels": ["push"]}]
    assert b"ada@example.com" in said["show"].stdout


def test_every_field_is_in_the_guide() -> None:
    """With the name that files have; also those of what is inside a user."""
    table = GUIDE.read_text().partition("| Field |")[2].partition("\n\n")[0]
    names = {
        field.alias or name
        for model in (User, DeviceToken, ChannelSwitches, QuietHours, Subscription, Preferences, Shift)
        for name, field in model.model_fields.items()
    }

    assert {name for name in names if f"`{name}`" not in table.replace("preferences.", "")} == set()


async def test_a_table_has_what_is_registered_beside_it(tmp_path: Path) -> None:
    """By another log on the same folder; who is deleted is gone."""
    log, other = EmbeddedLog(tmp_path), EmbeddedLog(tmp_path)
    table = user_table()
    try:
        await log.create_topics([table.spec()])
        registry = UserRegistry(other, SystemClock())
        await registry.change({"ada": user("ada"), "bob": user("bob")})
        applies = await registry.change({"bob": None})
        async with reading(log) as reader:
            for target, end in (await log.end_offsets(topics.USERS)).items():
                async for fetched in read_range(reader, target, 0, end):
                    assert table.take(fetched) == 0
    finally:
        await other.close()
        await log.close()

    assert table.get("ada", applies) == user("ada")
    assert table.get("bob", applies) is None
