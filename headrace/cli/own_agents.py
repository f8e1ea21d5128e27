"""Agents of the user's own: every operator class in the files of a folder, beside the agents that ship."""

import re
import sys
import traceback
from collections.abc import Iterable, Iterator, Sequence
from difflib import get_close_matches
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any, NamedTuple

from headrace.cli.agents import build_agents
from headrace.cli.settings import Settings
from headrace.engine.errors import ConfigError
from headrace.engine.intake import SOURCE_POSITIONS
from headrace.engine.log import TopicSpec
from headrace.engine.operator import Operator, topics_of
from headrace.schemas import topics

#: Where they are unless the setting `agents` says otherwise, in the working directory.
FOLDER = Path("headrace_agents")
#: As in a topic's name, which it is part of.
AGENT_NAME = r"[a-z][a-z0-9-]{0,39}"
TOPIC_NAME = r"[A-Za-z0-9._-]{1,200}"
#: Names that an agent cannot have: letters in `telemetry.dlq` are told apart by them.
SINKS = ("timescale",)
#: How alike two topics are if one is a misspelling, from 0 to 1.
SURELY = 0.9
#: What others write, and the ledger counts.
NOT_FOR_OUTPUT = (
    topics.RAW, topics.READINGS, *topics.PRIORITY, topics.DEAD_LETTERS, topics.RULES, topics.DEVICES, SOURCE_POSITIONS,
)  # fmt: skip


class OwnAgent(NamedTuple):
    """One of them.

    Args:
        path: its file.
        outputs: the topics that it sends to.
    """

    operator: Operator
    path: Path
    outputs: tuple[str, ...]

    def __str__(self) -> str:
        sends = f" → {', '.join(self.outputs)}" if self.outputs else ""
        return f"agent {self.operator.name} ({self.path}): {', '.join(topics_of(self.operator))}{sends}"


def own_agents(settings: Settings) -> list[OwnAgent]:
    """New instances with empty tables, by file and then by name.

    Raises:
        ConfigError: every mistake in any of the files, with file and line.
    """
    folder = settings.agents or FOLDER
    if not folder.is_dir():
        if settings.agents is not None:
            raise ConfigError(f"agents: there is no folder {folder}; `headrace new agent NAME` makes one with an agent")
        return []
    mistakes: list[str] = []
    parent = str(folder.resolve().parent)
    if parent not in sys.path:
        sys.path.append(parent)  # for what they import of each other, under the names that their tests use
    found = [agent for path in sorted(folder.glob("*.py")) for agent in _agents_in(path, mistakes)]
    mistakes += _clashes(found, settings)
    if mistakes:
        raise ConfigError(*mistakes)
    return found


def taken_names(settings: Settings) -> set[str]:
    """Names that agents and sinks of headrace have."""
    return {*SINKS, *(each.name for each in build_agents(settings, {}, ()))}


def own_topics(agents: Iterable[OwnAgent], partitions: int) -> list[TopicSpec]:
    """The topics that they read and send to."""
    names = dict.fromkeys(name for each in agents for name in (*each.outputs, *topics_of(each.operator)))
    return [TopicSpec(name, partitions) for name in names]


def _agents_in(path: Path, mistakes: list[str]) -> Iterator[OwnAgent]:
    if path.name.startswith("_"):
        return
    name = f"{path.parent.name}.{path.stem}"
    spec = spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except SyntaxError as error:
        mistakes.append(f"{path}:{error.lineno}: {error.msg}")
        return
    except (Exception, SystemExit) as error:  # whatever a file does when it is imported
        mistakes.append(_where(path, error))
        return
    classes = [each for each in vars(module).values() if isinstance(each, type) and each.__module__ == name]
    operators = [each for each in classes if hasattr(each, "process") and not each.__name__.startswith("_")]
    if not operators:
        mistakes.append(
            f"{path}: no agent in it: a class with name, topic, tables and process; see `headrace new agent`"
        )
    for each in operators:
        try:
            operator: Any = each()
        except Exception as error:
            mistakes.append(f"{_where(path, error)} (an agent is made without arguments)")
            continue
        wrong = [f"{path}: {each.__name__}: {mistake}" for mistake in _mistakes(operator)]
        mistakes += wrong
        if not wrong:
            yield OwnAgent(operator, path, tuple(getattr(operator, "outputs", ())))


def _where(path: Path, error: BaseException) -> str:
    """The last line of the file that led to an error, and what it was."""
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame.lineno for frame in frames if Path(frame.filename).resolve() == path.resolve()]
    return f"{path}:{lines[-1] if lines else 1}: {type(error).__name__}: {error}"


def _mistakes(operator: Any) -> Iterator[str]:
    missing = [name for name in ("name", "topic", "tables") if not hasattr(operator, name)]
    if missing:
        yield f"it has no {' and no '.join(missing)}"
        return
    if not isinstance(operator.name, str) or not re.fullmatch(AGENT_NAME, operator.name):
        yield f"name is {operator.name!r}; use up to 40 lower-case letters, digits and -"
    outputs: object = getattr(operator, "outputs", ())
    if not isinstance(outputs, list | tuple):
        yield f"outputs is {outputs!r}; write a tuple of topics, as in ('devices.hot',)"
        return
    for topic in (*topics_of(operator), *outputs):
        if not isinstance(topic, str) or not re.fullmatch(TOPIC_NAME, topic):
            yield f"{topic!r} is no name of a topic; use letters, digits, and . _ -"
        elif topic in NOT_FOR_OUTPUT and topic in outputs:
            yield f"outputs: {topic} is written by headrace alone; send to a topic of your own"


def _clashes(found: Sequence[OwnAgent], settings: Settings) -> Iterator[str]:
    agents = dict.fromkeys(taken_names(settings), "headrace")
    tables = {table.name: "headrace" for each in build_agents(settings, {}, ()) for table in each.tables}
    known = {topics.RAW, topics.RAW_PRIORITY, *topics.OUTPUTS, *(name for each in found for name in each.outputs)}
    for agent in found:
        name = agent.operator.name
        if name in agents:
            yield f"{agent.path}: there is an agent {name!r} already, in {agents[name]}; give it another name"
        agents.setdefault(name, str(agent.path))
        for table in agent.operator.tables:
            if table.name in tables:
                yield f"{agent.path}: there is a table {table.name!r} already, in {tables[table.name]}"
            tables.setdefault(table.name, str(agent.path))
        for topic in topics_of(agent.operator):
            if topic not in known and (meant := get_close_matches(topic, known, 1, SURELY)):
                yield f"{agent.path}: {name} reads {topic!r}, which nobody writes; did you mean {meant[0]!r}?"
