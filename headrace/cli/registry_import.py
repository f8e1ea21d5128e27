"""`headrace devices import` and `headrace users import`: read, check, compare, write, report."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Generic, NamedTuple, TypeVar

import click
import orjson
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from headrace.cli.opened_log import opened_log
from headrace.cli.running import consoles
from headrace.cli.settings import Settings
from headrace.connectors.row_file import Kind, Row, file_rows
from headrace.engine.clock import Clock, SystemClock
from headrace.engine.errors import ConfigError
from headrace.engine.log import Log
from headrace.engine.runtime.garbage import rare_collections
from headrace.tables.live_registry import LiveRegistry

#: Entries that one commit writes.
CHUNK = 5_000
#: Entries are no garbage: the collector need not look for any among them so often.
MANY_OBJECTS = 1_000_000
#: Rows between two steps of the progress bar, and between two lines off a terminal.
STEP, PLAIN_STEP = 1_000, 25_000

Value = TypeVar("Value")


@dataclass(frozen=True, slots=True)
class Importable(Generic[Value]):
    """What is imported into which registry.

    Args:
        kind: of the file.
        id_of: of an entry.
        check: the entry of a document, and what is wrong with it.
        to_write: an entry as it is to be written, by what is stored of it; None if that says the same.
        registry: where it goes.
    """

    kind: Kind
    id_of: Callable[[Value], str]
    check: Callable[[object], tuple[Value | None, list[str]]]
    to_write: Callable[[Value, bytes | None], Value | None]
    registry: Callable[[Log, Clock], LiveRegistry[Value]]


@dataclass(slots=True)
class Found(Generic[Value]):
    """The entries of a file by id, and what is wrong with the other rows, each with its line."""

    entries: dict[str, Value] = field(default_factory=dict)
    mistakes: list[str] = field(default_factory=list)


class How(NamedTuple):
    """Options of the command.

    Args:
        skip_bad: import what is right in spite of mistakes.
        dry_run: write nothing.
        as_json: end with a JSON object.
    """

    skip_bad: bool
    dry_run: bool
    as_json: bool


def read_entries(path: Path, rows: Iterable[Row], what: Importable[Value]) -> Found[Value]:
    """Check every row; of two rows with the same id the second is a mistake."""
    found, lines = Found[Value](), dict[str, int]()
    for row in rows:
        place = f"{path}: line {row.line}"
        if row.document is None:
            found.mistakes.append(f"{place}: {row.mistake}")
            continue
        entry, wrong = what.check(row.document)
        name = None if entry is None else what.id_of(entry)
        if name in lines:
            wrong = [f"{what.kind.name} {name!r} is on line {lines[name]} already"]
        if wrong or entry is None or name is None:
            found.mistakes += [f"{place}: {mistake}" for mistake in wrong]
            continue
        lines[name] = row.line
        found.entries[name] = entry
    return found


class RegistryImport(Generic[Value]):
    """One run of the command."""

    def __init__(self, settings: Settings, data: Path | None, path: Path, what: Importable[Value], how: How) -> None:
        self._settings = settings
        self._data = data
        self._path = path
        self._what = what
        self._how = how
        self._names = f"{what.kind.name}s"

    async def run(self) -> None:
        """Import the file.

        Raises:
            ConfigError: every mistake in it; nothing was written.
        """
        result, screen = consoles(self._how.as_json)[1], Console(stderr=True)
        with rare_collections(MANY_OBJECTS), _Steps(screen, "reading", self._names, None) as steps:
            found = read_entries(self._path, steps.over(file_rows(self._path, self._what.kind)), self._what)
        if found.mistakes and not self._how.skip_bad:
            raise ConfigError(
                *found.mistakes,
                f"nothing was imported; --skip-bad imports the other {len(found.entries):,} {self._names}",
            )
        async with opened_log(self._settings, self._data, make=not self._how.dry_run) as opened:
            registry = self._what.registry(opened.log, SystemClock())
            stored = await registry.stored()
            changed = {
                name: entry
                for name, given in found.entries.items()
                if (entry := self._what.to_write(given, stored.get(name))) is not None
            }
            if not self._how.dry_run:
                await self._write(registry, changed, screen)
        added = sum(name not in stored for name in changed)
        self._show(found, added, len(changed) - added, result)

    async def _write(self, registry: LiveRegistry[Value], changed: dict[str, Value], screen: Console) -> None:
        names = list(changed)
        with _Steps(screen, "writing", self._names, len(names)) as steps:
            for start in range(0, len(names), CHUNK):
                chunk = names[start : start + CHUNK]
                await registry.change({name: changed[name] for name in chunk})
                steps.advance(len(chunk))

    def _show(self, found: Found[Value], added: int, changed: int, console: Console) -> None:
        unchanged = len(found.entries) - added - changed
        if self._how.as_json:
            counts = {"added": added, "changed": changed, "unchanged": unchanged}
            click.echo(orjson.dumps({**counts, "left_out": found.mistakes, "dry_run": self._how.dry_run}).decode())
            return
        for mistake in found.mistakes:
            click.echo(f"left out: {mistake}", err=True)
        would = "would be " if self._how.dry_run else ""
        console.print(f"{added:,} {would}added, {changed:,} {would}changed, {unchanged:,} unchanged", highlight=False)


class _Steps:
    """A bar on a terminal, a line now and then anywhere else."""

    def __init__(self, console: Console, what: str, names: str, total: int | None) -> None:
        columns = (TextColumn(what), BarColumn(), TextColumn(f"{{task.completed:,.0f}} {names}"), TimeElapsedColumn())
        self._bar = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
        self._task = self._bar.add_task(what, total=total)
        self._console = console
        self._what = what
        self._names = names
        self._done = 0

    def __enter__(self) -> "_Steps":
        self._bar.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._bar.stop()

    def over(self, rows: Iterable[Row]) -> Iterable[Row]:
        """The rows, counted."""
        for place, row in enumerate(rows, 1):
            if place % STEP == 0:
                self.advance(STEP)
            yield row

    def advance(self, count: int) -> None:
        """So many more are done."""
        before, self._done = self._done, self._done + count
        self._bar.advance(self._task, count)
        if not self._console.is_terminal and before // PLAIN_STEP < self._done // PLAIN_STEP:
            self._console.print(f"{self._what}: {self._done:,} {self._names}", highlight=False)
