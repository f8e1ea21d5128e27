"""`headrace devices`: the device registry."""

import asyncio
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, get_args

import click
import orjson
from rich.text import Text

from headrace.cli.devices_import import check_device, devices_of_file
from headrace.cli.document_fields import flat_fields, put_field
from headrace.cli.listing import listing, printable, show_listing
from headrace.cli.opened_log import load_settings, log_data_option, opened_log
from headrace.cli.registry_import import MANY_OBJECTS, How, RegistryImport
from headrace.cli.running import Mistakes, config_option, json_option
from headrace.cli.settings import Settings
from headrace.connectors.device_file import document_of, path_of
from headrace.engine.clock import SystemClock
from headrace.engine.errors import ConfigError
from headrace.engine.runtime.garbage import rare_collections
from headrace.schemas.device import Device, Status, decode_device
from headrace.schemas.device_type import DeviceType
from headrace.schemas.text import near
from headrace.tables.device_types import load_device_types
from headrace.tables.devices import DeviceRegistry

#: Devices that are listed unless told otherwise.
LIMIT = 100
#: Of more devices than this the id that was probably meant is not looked for: it would take seconds.
MOST_GUESSED = 10_000


@click.group()
def devices() -> None:
    """The device registry: import, list, show, change and remove devices.

    It works beside a running worker, on its data folder or on Kafka; what changes applies to messages that come a
    second later. See docs/guides/device-registry.md.
    """


@devices.command(name="import")
@click.argument("file", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("--skip-bad", is_flag=True, help="Leave out what is wrong instead of importing nothing.")
@click.option("--dry-run", is_flag=True, help="Only check, and say what would change.")
@log_data_option
@config_option
@json_option
def import_(file: Path, skip_bad: bool, dry_run: bool, data: Path | None, config: Path | None, as_json: bool) -> None:
    """Add and change the devices of FILE: CSV with a header, NDJSON, a JSON array or TOML, plain or gzipped (.gz).

    A row is the whole device: what it does not say is not known of it any more. Devices that FILE does not name stay as
    they are.
    """
    settings, types = _set_up(config, data, make=not dry_run)
    how = How(skip_bad, dry_run, as_json)
    asyncio.run(RegistryImport(settings, data, file, devices_of_file(types), how).run())


@devices.command(name="list")
@click.option("--organisation", metavar="NAME", help="Of this organisation.")
@click.option("--type", "type_", metavar="NAME", help="Of this device type.")
@click.option("--status", type=click.Choice(get_args(Status)), help="With this status.")
@click.option("--tag", metavar="TAG", help="With this tag.")
@click.option("--gateway", metavar="ID", help="Behind this gateway.")
@click.option(
    "--limit", type=click.IntRange(min=0), help=f"So many; 0 for all. Default: {LIMIT}, with --json all of them."
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object per line.")
@log_data_option
@config_option
def list_(
    organisation: str | None,
    type_: str | None,
    status: str | None,
    tag: str | None,
    gateway: str | None,
    limit: int | None,
    as_json: bool,
    data: Path | None,
    config: Path | None,
) -> None:
    """List devices by id. Options that choose go together."""
    settings, _ = _set_up(config, data)
    wanted = {"organisation": organisation, "type": type_, "status": status, "gateway": gateway}

    def chosen(device: Device) -> bool:
        fits = all(value is None or getattr(device, name) == value for name, value in wanted.items())
        return fits and (tag is None or tag in device.tags)

    found = [device for device in asyncio.run(_all(settings, data)).values() if chosen(device)]
    most = limit if limit is not None else 0 if as_json else LIMIT
    shown = found[:most] if most else found
    if as_json:
        for device in shown:
            click.echo(_json(device))
        return
    table = listing("id", "name", "type", "organisation", "status", "gateway", "tags")
    for device in shown:
        cells = (
            device.id, device.name, device.type, device.organisation, device.status, device.gateway,
            ", ".join(device.tags),
        )  # fmt: skip
        table.add_row(*(Text(printable(cell or "")) for cell in cells))
    show_listing(table)
    if len(shown) < len(found):
        click.echo(f"{len(shown):,} of {len(found):,} devices; --limit 0 shows all", err=True)


@devices.command()
@click.argument("device_id", metavar="ID")
@log_data_option
@config_option
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def show(device_id: str, data: Path | None, config: Path | None, as_json: bool) -> None:
    """Show all that is known of the device ID."""
    settings, _ = _set_up(config, data)
    device = _one(asyncio.run(_all(settings, data)), device_id)
    if as_json:
        click.echo(_json(device))
        return
    table = listing("", "", header=False)
    for name, value in flat_fields(_document(device)):
        table.add_row(Text(name), Text(printable(value)))
    show_listing(table)


@devices.command(name="set")
@click.argument("device_id", metavar="ID")
@click.argument("changes", metavar="FIELD=VALUE...", nargs=-1, required=True)
@click.option("--add", is_flag=True, help="The device is a new one.")
@log_data_option
@config_option
@json_option
def set_(
    device_id: str, changes: tuple[str, ...], add: bool, data: Path | None, config: Path | None, as_json: bool
) -> None:
    """Change fields of the device ID, as in status=maintenance location.lat=48.1 tags=roof,east metadata.model=.

    Nothing behind the = takes the field away.
    """
    wrong = Mistakes([f"{change}: write FIELD=VALUE" for change in changes if "=" not in change])
    settings, types = _set_up(config, data, wrong, make=add)
    asyncio.run(_change(settings, data, device_id, dict(each.split("=", 1) for each in changes), types, add, as_json))


@devices.command()
@click.argument("device_ids", metavar="ID...", nargs=-1, required=True)
@log_data_option
@config_option
@json_option
def remove(device_ids: tuple[str, ...], data: Path | None, config: Path | None, as_json: bool) -> None:
    """Remove devices. To go on refusing what they send, set status=retired instead."""
    settings, _ = _set_up(config, data)
    asyncio.run(_remove(settings, data, device_ids, as_json))


def _set_up(
    config: Path | None, data: Path | None, wrong: Mistakes | None = None, *, make: bool = False
) -> tuple[Settings, dict[str, DeviceType]]:
    wrong = wrong or Mistakes()
    settings = load_settings(wrong, config, data, make=make)
    types = wrong.take(lambda: load_device_types(settings.device_types)) if settings else None
    wrong.check()
    assert settings is not None
    assert types is not None
    return settings, types


async def _all(settings: Settings, data: Path | None) -> dict[str, Device]:
    async with opened_log(settings, data) as opened:
        stored = await DeviceRegistry(opened.log, SystemClock()).stored()
    with rare_collections(MANY_OBJECTS):
        return {name: decode_device(stored[name]) for name in sorted(stored)}


def _guess(device_id: str, known: Collection[str]) -> str:
    return near(device_id, known) if len(known) <= MOST_GUESSED else ""


def _one(known: Mapping[str, Device], device_id: str) -> Device:
    if device_id not in known:
        raise ConfigError(f"there is no device {device_id!r} in the registry{_guess(device_id, known)}")
    return known[device_id]


async def _change(
    settings: Settings,
    data: Path | None,
    device_id: str,
    changes: Mapping[str, str],
    types: Mapping[str, DeviceType],
    add: bool,
    as_json: bool,
) -> None:
    async with opened_log(settings, data, make=add) as opened:
        registry = DeviceRegistry(opened.log, SystemClock())
        stored = await registry.stored()
        if add and device_id in stored:
            raise ConfigError(f"device {device_id!r} is in the registry already; leave --add out to change it")
        if not add and device_id not in stored:
            raise ConfigError(
                f"there is no device {device_id!r} in the registry{_guess(device_id, stored)}; --add makes a new one"
            )
        document = {"deviceId": device_id} if add else _document(decode_device(stored[device_id]))
        for name, text in changes.items():
            put_field(document, path_of(name), document_of({name: text}))
        device, wrong = check_device(document, types)
        if device is not None and device.id != device_id:
            wrong.append("deviceId: an id cannot be changed; remove the device and add the other one")
        if wrong or device is None:
            raise ConfigError(*wrong)
        await registry.change({device_id: device})
    click.echo(_json(device) if as_json else f"{device_id}: {', '.join(changes)} set")


async def _remove(settings: Settings, data: Path | None, device_ids: tuple[str, ...], as_json: bool) -> None:
    async with opened_log(settings, data) as opened:
        registry = DeviceRegistry(opened.log, SystemClock())
        stored = await registry.stored()
        missing = [name for name in device_ids if name not in stored]
        if missing:
            raise ConfigError(
                *(f"there is no device {name!r} in the registry{_guess(name, stored)}" for name in missing)
            )
        await registry.change(dict.fromkeys(device_ids))
    removed = {"removed": list(device_ids)}
    click.echo(orjson.dumps(removed).decode() if as_json else f"removed {', '.join(device_ids)}")


def _document(device: Device) -> dict[str, Any]:
    document = device.model_dump(mode="json", by_alias=True, exclude_defaults=True)
    return {**document, "status": device.status}


def _json(device: Device) -> str:
    return orjson.dumps(_document(device)).decode()
