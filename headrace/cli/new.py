"""`headrace new`: files to start from."""

import keyword
import re
import shlex
from pathlib import Path

import click

from headrace.cli.agent_template import AGENT, TEST
from headrace.cli.own_agents import AGENT_NAME, FOLDER, own_agents, taken_names
from headrace.cli.running import config_option
from headrace.cli.settings import Settings
from headrace.engine.config import load
from headrace.engine.errors import ConfigError


@click.group()
def new() -> None:
    """Write files to start from."""


@new.command()
@click.argument("name")
@config_option
def agent(name: str, config: Path | None) -> None:
    """Write an agent NAME, such as battery-low, and a test for it.

    The agent is in the folder headrace_agents (setting `agents`) of the working directory: demo, replay and worker run
    it from there. The test is in tests. Nothing is overwritten. See docs/guides/add-an-agent.md.
    """
    settings = load(Settings, config)
    folder = settings.agents or FOLDER
    if not re.fullmatch(AGENT_NAME, name):
        raise ConfigError(f"{name}: use up to 40 lower-case letters, digits and -, a letter first, as in battery-low")
    module = name.replace("-", "_")
    if keyword.iskeyword(module):
        raise ConfigError(f"{name}: a Python file cannot be called that; take another name")
    if name in taken_names(settings):
        raise ConfigError(f"{name}: headrace has an agent or a sink of that name; take another one")
    package = ".".join(folder.parts)
    if not all(part.isidentifier() for part in folder.parts):
        raise ConfigError(
            f"agents: {folder}: to be found by tests it has to be below the working directory, as in {FOLDER}"
        )
    own = own_agents(settings.model_copy(update={"agents": folder if folder.is_dir() else None}))
    files = {folder / f"{module}.py": AGENT, Path("tests") / f"test_{module}.py": TEST}
    there = [f"{path} is there already; nothing was written" for path in files if path.exists()]
    taken = [f"there is an agent {name!r} already, in {each.path}" for each in own if each.operator.name == name]
    if there or taken:
        raise ConfigError(*there, *taken)
    names = {"NAME": name, "MODULE": module, "CLASS": "".join(map(str.capitalize, name.split("-"))), "PACKAGE": package}
    for path, template in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(re.sub("|".join(names), lambda found: names[found[0]], template), encoding="utf-8")
        click.echo(f"wrote {path}")
    demo = "headrace demo --seconds 6" + (f" --config {shlex.quote(str(config))}" if config else "")
    click.echo(f"\npython -m pytest tests/test_{module}.py   # pip install pytest, if need be\n{demo}")
