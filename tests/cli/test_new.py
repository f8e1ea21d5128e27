"""`headrace new agent`, agents of the user's own, and the guide to them, followed to the letter."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from headrace.cli.own_agents import own_agents
from headrace.cli.settings import Settings
from headrace.engine.errors import ConfigError
from tests.cli.conftest import Headrace

GUIDE = Path(__file__).parent.parent.parent / "docs" / "guides" / "add-an-agent.md"
#: Shell commands, and files with their paths, in the order of the page.
STEP = re.compile(r"^```(?:(sh)|python (\S+))\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def operator(**attributes: object) -> str:
    """The source of an agent."""
    said = {"name": "mine", "topic": "telemetry.readings", "tables": (), **attributes}
    lines = [f"    {name} = {value!r}" for name, value in said.items() if value is not ...]
    return "\n".join(["class Mine:", *lines, "    def process(self, batch): pass", ""])


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of agents in an empty working directory; what is imported from there is forgotten."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "modules", dict(sys.modules))
    made = tmp_path / "headrace_agents"
    made.mkdir()
    return made


def refused(folder: Path, **files: str) -> str:
    """What is said about these files."""
    for name, source in files.items():
        (folder / f"{name}.py").write_text(source)
    with pytest.raises(ConfigError) as caught:
        own_agents(Settings())
    return str(caught.value)


@pytest.mark.integration
def test_the_guide_works_as_it_says(tmp_path: Path) -> None:
    """Every command succeeds in an empty folder, and every file is what it says; the demo shows what the agent did."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    steps = STEP.findall(GUIDE.read_text())
    outputs = {}

    for shell, file, text in steps:
        if file:
            (tmp_path / file).write_text(text)
            continue
        for command in text.splitlines():
            assert shell
            done = subprocess.run(
                command, shell=True, cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False,
                env={**os.environ, "PATH": path},
            )  # fmt: skip
            assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
            outputs[command] = done.stdout

    assert len(steps) > 4
    assert "wrote headrace_agents/battery_low.py" in outputs["headrace new agent battery-low"]
    assert "2 passed" in outputs["python -m pytest tests/test_battery_low.py"]
    demo = outputs["headrace demo --seconds 6"]
    assert "agent battery-low (headrace_agents/battery_low.py): telemetry.readings → devices.battery-low" in demo
    assert re.search(r"^devices\.battery-low [1-9]", demo, re.MULTILINE)
    warnings = outputs["headrace topics tail devices.battery-low --data .headrace/demo"]
    assert re.search(r'"temperature":[4-9]\d', warnings)
    assert "sim-" in outputs["headrace tables battery-low --data .headrace/demo"]


def test_nothing_is_overwritten(headrace: Headrace, folder: Path) -> None:
    """Neither the agent nor the test; then neither is written."""
    headrace("new", "agent", "hot-one")
    (folder / "hot_one.py").unlink()
    test = folder.parent / "tests" / "test_hot_one.py"
    test.write_text("mine")

    error = headrace("new", "agent", "hot-one", code=2).stderr

    assert "tests/test_hot_one.py is there already" in error
    assert test.read_text() == "mine"
    assert not (folder / "hot_one.py").exists()


@pytest.mark.parametrize("name", ["Hot", "1st", "-a", "a/b", "class", "ä", "", "rollup"])
def test_a_name_that_cannot_be_is_refused(headrace: Headrace, folder: Path, name: str) -> None:
    """Before anything is written."""
    headrace("new", "agent", "--", name, code=2)

    assert list(folder.iterdir()) == []


def test_agents_are_loaded_with_what_they_import_of_each_other(folder: Path) -> None:
    """In the order of their files; what begins with _ is no agent."""
    (folder / "_shared.py").write_text("NAME = 'shared'\n")
    (folder / "b.py").write_text("from headrace_agents._shared import NAME\n" + operator(outputs=("b.out",)))
    (folder / "a.py").write_text(operator(name="first", topic="b.out"))

    found = own_agents(Settings())

    assert [(each.operator.name, each.operator.topic, each.outputs) for each in found] == [
        ("first", "b.out", ()), ("mine", "telemetry.readings", ("b.out",)),
    ]  # fmt: skip


def test_every_mistake_has_its_file_and_line(folder: Path) -> None:
    """Of all files at once."""
    said = refused(
        folder,
        broken="def x(:\n",
        raises="import json\n\njson.loads('{')\n",
        empty="x = 1\n",
        needs="class A:\n    def __init__(self, x): pass\n    def process(self, batch): pass\n",
        half=operator(tables=...),
    )

    for part in ("broken.py:1:", "raises.py:3: JSONDecodeError", "empty.py: no agent", "needs.py:1: TypeError"):
        assert f"headrace_agents/{part}" in said
    assert "half.py: Mine: it has no tables" in said


@pytest.mark.parametrize(
    ("attributes", "reason"),
    [
        ({"name": "rollup"}, "there is an agent 'rollup' already, in headrace"),
        ({"name": "timescale"}, "already"),
        ({"name": "My Agent"}, "name is 'My Agent'"),
        ({"outputs": ("telemetry.readings",)}, "written by headrace alone"),
        ({"outputs": "devices.hot"}, "write a tuple"),
        ({"outputs": ("a b",)}, "no name of a topic"),
        ({"topic": "telemetry.reading"}, "did you mean 'telemetry.readings'"),
    ],
)
def test_what_would_clash_is_refused(folder: Path, attributes: dict[str, object], reason: str) -> None:
    """Names of agents that ship, and topics that nobody may write to or nobody writes."""
    assert reason in refused(folder, mine=operator(**attributes))


def test_two_agents_cannot_share_a_name_or_a_table(folder: Path) -> None:
    """With each other, or with headrace."""
    table = "from headrace.tables.keyvalue import KeyValue\n"
    kept = operator().replace("tables = ()", "tables = (KeyValue.typed('alert.clocks', key=tuple[str], value=int),)")

    said = refused(folder, a=operator(), b=operator(), c=table + kept.replace("'mine'", "'other'"))

    assert "b.py: there is an agent 'mine' already, in headrace_agents/a.py" in said
    assert "c.py: there is a table 'alert.clocks' already, in headrace" in said


def test_a_folder_that_is_named_has_to_be_there(folder: Path) -> None:
    """The default one need not."""
    folder.rmdir()

    assert own_agents(Settings()) == []
    with pytest.raises(ConfigError, match="no folder nowhere"):
        own_agents(Settings(agents=Path("nowhere")))
