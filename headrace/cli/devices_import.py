"""`headrace devices import`: read, check, compare, write, report."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import click
import orjson
from pydantic import ValidationError
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from headrace.cli.opened_log import opened_log
from headrace.cli.running import consoles
from headrace.cli.settings import Settings
from headrace.connectors.device_file import Row, device_rows
from headrace.engine.clock import SystemClock
from headrace.engine.errors import ConfigError
from headrace.engine.runtime.garbage import rare_collections
from headrace.schemas.device import Device, encode_device
from headrace.schemas.device_type import DeviceType
from headrace.schemas.text import near
from headrace.tables.devices import DeviceRegistry

#: Devices that one commit writes.
CHUNK = 5_000
#: Devices are no garbage: the collector need not look for any among them so often.
MANY_OBJECTS = 1_000_000
#: Rows between two steps of the progress bar, and between two lines off a terminal.
STEP, PLAIN_STEP = 1_000, 25_000


@dataclass(slots=True)
class Found:
    """The devices of a file by id, and what is wrong with the other rows, each with its line."""

    devices: dict[str, Device] = field(default_factory=dict)
    mistakes: list[str] = field(default_factory=list)


def read_devices(path: Path, rows: Iterable[Row], device_types: Mapping[str, DeviceType]) -> Found:
    """Check every row; of two rows with the same id the second is a mistake."""
    found, lines = Found(), dict[str, int]()
    for row in rows:
        place = f"{path}: line {row.line}"
        if row.document is None:
            found.mistakes.append(f"{place}: {row.mistake}")
            continue
        device, wrong = check_device(row.document, device_types)
        if device is not None and device.id in lines:
            wrong = [f"device {device.id!r} is on line {lines[device.id]} already"]
        if wrong or device is None:
            found.mistakes += [f"{place}: {mistake}" for mistake in wrong]
            continue
        lines[device.id] = row.line
        found.devices[device.id] = device
    return found


def check_device(document: object, device_types: Mapping[str, DeviceType]) -> tuple[Device | None, list[str]]:
    """The device of a document, and what is wrong with it."""
    try:
        device = Device.model_validate(document)
    except ValidationError as error:
        return None, [
            f"{'.'.join(map(str, each['loc']))}: {each['msg'].removeprefix('Value error, ')}"
            for each in error.errors(include_input=False, include_url=False, include_context=False)
        ]
    if device.type is not None and device.type not in device_types:
        known = ", ".join(sorted(device_types))
        return device, [f"deviceType: there is no {device.type!r}; there are {known}{near(device.type, device_types)}"]
    return device, []


class DevicesImport:
    """One run of the command.

    Args:
        skip_bad: import what is right in spite of mistakes.
        dry_run: write nothing.
    """

    def __init__(
        self,
        settings: Settings,
        data: Path | None,
        path: Path,
        device_types: Mapping[str, DeviceType],
        *,
        skip_bad: bool,
        dry_run: bool,
        as_json: bool,
    ) -> None:
        self._settings = settings
        self._data = data
        self._path = path
        self._device_types = device_types
        self._skip_bad = skip_bad
        self._dry_run = dry_run
        self._as_json = as_json

    async def run(self) -> None:
        """Import the file.

        Raises:
            ConfigError: every mistake in it; nothing was written.
        """
        result, screen = consoles(self._as_json)[1], Console(stderr=True)
        with rare_collections(MANY_OBJECTS), _Steps(screen, "reading", None) as steps:
            found = read_devices(self._path, steps.over(device_rows(self._path)), self._device_types)
        if found.mistakes and not self._skip_bad:
            raise ConfigError(
                *found.mistakes, f"nothing was imported; --skip-bad imports the other {len(found.devices):,} devices"
            )
        async with opened_log(self._settings, self._data, make=not self._dry_run) as opened:
            registry = DeviceRegistry(opened.log, SystemClock())
            stored = await registry.stored()
            changed = {
                name: device for name, device in found.devices.items() if stored.get(name) != encode_device(device)
            }
            if not self._dry_run:
                await self._write(registry, changed, screen)
        added = sum(name not in stored for name in changed)
        self._show(found, added, len(changed) - added, result)

    async def _write(self, registry: DeviceRegistry, changed: dict[str, Device], screen: Console) -> None:
        names = list(changed)
        with _Steps(screen, "writing", len(names)) as steps:
            for start in range(0, len(names), CHUNK):
                chunk = names[start : start + CHUNK]
                await registry.change({name: changed[name] for name in chunk})
                steps.advance(len(chunk))

    def _show(self, found: Found, added: int, changed: int, console: Console) -> None:
        unchanged = len(found.devices) - added - changed
        if self._as_json:
            counts = {"added": added, "changed": changed, "unchanged": unchanged}
            click.echo(orjson.dumps({**counts, "left_out": found.mistakes, "dry_run": self._dry_run}).decode())
            return
        for mistake in found.mistakes:
            click.echo(f"left out: {mistake}", err=True)
        would = "would be " if self._dry_run else ""
        console.print(f"{added:,} {would}added, {changed:,} {would}changed, {unchanged:,} unchanged", highlight=False)


class _Steps:
    """A bar on a terminal, a line now and then anywhere else."""

    def __init__(self, console: Console, what: str, total: int | None) -> None:
        columns = (TextColumn(what), BarColumn(), TextColumn("{task.completed:,.0f} devices"), TimeElapsedColumn())
        self._bar = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
        self._task = self._bar.add_task(what, total=total)
        self._console = console
        self._what = what
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
            self._console.print(f"{self._what}: {self._done:,} devices", highlight=False)
