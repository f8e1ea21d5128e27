"""`headrace types`: what device types say, whether files of them are right, and what changed between two versions."""

import sys
from pathlib import Path

import click
import orjson

from headrace.cli.listing import listing, show_listing
from headrace.cli.running import config_option
from headrace.cli.settings import Settings
from headrace.engine.config import load
from headrace.engine.errors import ConfigError
from headrace.schemas.device_type import DeviceType
from headrace.schemas.text import near
from headrace.schemas.type_compare import compare as changes_between
from headrace.schemas.type_schema import file_schema, payload_schema
from headrace.tables.device_types import load_device_types, read_device_types
from headrace.tables.type_file import SUFFIXES
from headrace.tables.type_reference import section

json_option = click.option("--json", "as_json", is_flag=True, help="One JSON object.")
files_argument = click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path, exists=True))


@click.group()
def types() -> None:
    """Device types: list, show and check them, compare versions, print schemas."""


@types.command("list")
@json_option
@config_option
def list_types(as_json: bool, config: Path | None) -> None:
    """Every device type with these settings."""
    rows = [
        {
            "name": each.name,
            "version": each.version,
            "fields": len(each.fields),
            "derived": len(each.derived),
            "cadence": each.cadence,
            "description": each.description,
        }
        for each in _types(config).values()
    ]
    if as_json:
        click.echo(orjson.dumps({"types": rows}).decode())
        return
    table = listing("name", "version", "fields", "derived", "cadence", "description", right=("version", "fields"))
    for row in rows:
        cells = ["" if cell is None else f"{cell:g}" if isinstance(cell, float) else str(cell) for cell in row.values()]
        table.add_row(*cells)
    show_listing(table)


@types.command()
@click.argument("name")
@json_option
@config_option
def show(name: str, as_json: bool, config: Path | None) -> None:
    """All that the device type NAME says; NAME may be a file."""
    found = _named(name, config)
    if as_json:
        click.echo(found.model_dump_json())
    else:
        click.echo("\n".join(section(found)).rstrip())


@types.command()
@files_argument
@json_option
def check(files: tuple[Path, ...], as_json: bool) -> None:
    """Say every mistake in FILES (or all files of a folder), and run their examples. Exits with 1 if there is any."""
    checked = [each for file in files for each in _within(file)]
    found, mistakes = read_device_types(checked)
    examples = sum(len(derived.examples) for each in found.values() for derived in each.derived.values())
    if as_json:
        result = {"files": len(checked), "types": sorted(found), "examples": examples, "mistakes": mistakes}
        click.echo(orjson.dumps(result).decode())
    else:
        for mistake in mistakes:
            click.echo(mistake)
        right = f"{len(found)} of {len(checked)} files are right"
        click.echo(f"{right}, {examples} examples give what they say")
    if mistakes or not checked:
        sys.exit(1)


@types.command()
@click.argument("old")
@click.argument("new")
@json_option
@config_option
def compare(old: str, new: str, as_json: bool, config: Path | None) -> None:
    """Say what changed from OLD to NEW, files or names of device types.

    Exits with 1 if messages or readers of OLD would not do with NEW.
    """
    changes = changes_between(_named(old, config), _named(new, config))
    compatible = all(change.compatible for change in changes)
    if as_json:
        told = [change._asdict() for change in changes]
        click.echo(orjson.dumps({"compatible": compatible, "changes": told}).decode())
    else:
        for change in sorted(changes, key=lambda change: change.compatible):
            where = f"{change.place}: " if change.place else ""
            click.echo(f"{'' if change.compatible else 'not compatible: '}{where}{change.what}")
        click.echo("nothing changed" if not changes else "compatible" if compatible else "not compatible")
    if not compatible:
        sys.exit(1)


@types.command()
@click.argument("name", required=False)
@click.option("--json", "as_json", is_flag=True, help="On one line.")
@config_option
def schema(name: str | None, as_json: bool, config: Path | None) -> None:
    """JSON Schema of the payloads of NAME (a device type or a file); without NAME of device type files."""
    made = file_schema() if name is None else payload_schema(_named(name, config))
    click.echo(orjson.dumps(made, option=0 if as_json else orjson.OPT_INDENT_2).decode())


def _types(config: Path | None) -> dict[str, DeviceType]:
    return load_device_types(load(Settings, config, {}).device_types)


def _named(name: str, config: Path | None) -> DeviceType:
    """The device type in a file, or of a name.

    Raises:
        ConfigError: there is none, or the file has mistakes.
    """
    if Path(name).suffix in SUFFIXES:
        found, mistakes = read_device_types([Path(name)])
        if mistakes:
            raise ConfigError(*mistakes)
        return next(iter(found.values()))
    known = _types(config)
    if name not in known:
        hint = near(name, known)
        raise ConfigError(f"there is no device type {name}{hint or '; there are ' + ', '.join(known)}")
    return known[name]


def _within(file: Path) -> list[Path]:
    if not file.is_dir():
        return [file]
    found = sorted(each for each in file.iterdir() if each.suffix in SUFFIXES)
    if not found:
        raise ConfigError(f"{file}: no device type files in it ({', '.join(sorted(SUFFIXES))})")
    return found
