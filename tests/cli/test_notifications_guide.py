"""docs/guides/notifications.md: its commands print what it says, on the night that it tells of."""

import asyncio
import re
import shlex
import tomllib
from pathlib import Path

import pytest

from headrace.cli.settings import Settings
from headrace.connectors.user_file import user_rows
from headrace.schemas.user_mistakes import check_user
from tests.agents.notifying.histories import AlertLog, World
from tests.agents.notifying.people import at
from tests.cli.conftest import Headrace
from tests.cli.decided_log import deliver, write

GUIDE = Path(__file__).parent.parent.parent / "docs" / "guides" / "notifications.md"
NOTIFY, USERS, CALM = re.findall(r"```toml\n(.*?)```", GUIDE.read_text(), re.DOTALL)
#: Commands, and what they print.
EXAMPLES = re.findall(r"```console\n\$ headrace (.*?)\n(.*?)```", GUIDE.read_text(), re.DOTALL)


def night() -> AlertLog:
    """An oven is hot in the evening and cools down at night; a fire in the first of two hours from two to three."""
    alerts = AlertLog({"hot": "warning", "fire": "critical"})
    alerts.trigger("hot", "oven-1", at("2025-10-25T21:30"))
    alerts.trigger("fire", "hall-2", at("2025-10-26T00:30"))
    alerts.acknowledge("fire", "hall-2", at("2025-10-26T00:45"))
    alerts.resolve("fire", "hall-2", at("2025-10-26T01:10"))
    alerts.resolve("hot", "oven-1", at("2025-10-26T03:00"))
    return alerts


def fill(folder: Path) -> None:
    """The files of the guide, and the log of its night."""
    for name, text in (("headrace.toml", NOTIFY), ("users.toml", USERS), ("calm.toml", CALM)):
        (folder / name).write_text(text)
    people = [each for row in user_rows(folder / "users.toml") if (each := check_user(row.document)[0]) is not None]
    assert len(people) == 2
    world = World(Settings(**tomllib.loads(NOTIFY)).notify, [(0, each.user_id, each) for each in people])
    asyncio.run(write(folder / ".headrace" / "plant", world, people, night(), at("2025-10-27T00:00")))
    asyncio.run(deliver(folder / ".headrace" / "plant", world, night(), at("2025-10-27T00:00")))


def test_every_example_prints_what_the_guide_says(
    tmp_path: Path, headrace: Headrace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each command, to the letter."""
    fill(tmp_path)
    monkeypatch.chdir(tmp_path)

    printed = [headrace(*shlex.split(command)).stdout.decode() for command, _ in EXAMPLES]

    assert len(EXAMPLES) == 5
    assert printed == [output for _, output in EXAMPLES]
