"""`headrace users`: people who may be told of alerts."""

import asyncio
import sys
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, get_args

import click
import orjson
from rich.text import Text

from headrace.cli.document_fields import flat_fields, put_field
from headrace.cli.listing import listing, printable, show_listing
from headrace.cli.masked import masked_user
from headrace.cli.opened_log import load_settings, log_data_option, opened_log
from headrace.cli.registry_import import How, RegistryImport
from headrace.cli.running import Mistakes, config_option, json_option
from headrace.cli.settings import Settings
from headrace.cli.users_import import read_user, stamped, users_of_file
from headrace.cli.users_on_call import escalate, on_call_command
from headrace.cli.users_preview import preview
from headrace.connectors.user_file import user_document, user_path
from headrace.engine.clock import SystemClock
from headrace.engine.errors import ConfigError
from headrace.schemas.text import near
from headrace.schemas.user import Role, User
from headrace.schemas.user_mistakes import check_user
from headrace.tables.users import UserRegistry

#: Users that are listed unless told otherwise.
LIMIT = 100


@click.group()
def users() -> None:
    """People who may be told of alerts: import, list, show, change and delete them; who is on call, who is next.

    It works beside a running worker, on its data folder or on Kafka; what changes applies to alerts that come a second
    later. See docs/guides/users.md.
    """


@users.command(name="import")
@click.argument("file", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("--skip-bad", is_flag=True, help="Leave out what is wrong instead of importing nothing.")
@click.option("--dry-run", is_flag=True, help="Only check, and say what would change.")
@log_data_option
@config_option
@json_option
def import_(file: Path, skip_bad: bool, dry_run: bool, data: Path | None, config: Path | None, as_json: bool) -> None:
    """Add and change the users of FILE: CSV with a header, NDJSON, a JSON array or TOML, plain or gzipped (.gz).

    A row is the whole user: what it does not say is not known of them any more. Users that FILE does not name stay as
    they are.
    """
    settings = _settings(config, data, make=not dry_run)
    how = How(skip_bad, dry_run, as_json)
    asyncio.run(RegistryImport(settings, data, file, users_of_file(SystemClock()), how).run())


@users.command()
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False), required=False)
@log_data_option
@config_option
def export(file: Path | None, data: Path | None, config: Path | None) -> None:
    """Write all users to FILE, or to standard output: NDJSON that `headrace users import` reads.

    There are the addresses, numbers and tokens of people in it.
    """
    found = asyncio.run(_all(_settings(config, data), data))
    lines = b"".join(_json(user) + b"\n" for user in found.values())
    if file is None:
        sys.stdout.buffer.write(lines)
        return
    try:
        file.touch(mode=0o600)
        file.write_bytes(lines)
    except OSError as error:
        raise ConfigError(f"{file}: cannot be written ({error.strerror})") from error
    click.echo(f"{len(found):,} users written to {file}", err=True)


@users.command(name="list")
@click.option("--organisation", metavar="NAME", help="Of this organisation.")
@click.option("--role", type=click.Choice(get_args(Role)), help="With this role.")
@click.option("--team", metavar="NAME", help="With a shift for this team, whenever.")
@click.option(
    "--limit", type=click.IntRange(min=0), help=f"So many; 0 for all. Default: {LIMIT}, with --json all of them."
)
@click.option("--contacts", is_flag=True, help="Show addresses, numbers and tokens whole.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object per line.")
@log_data_option
@config_option
def list_(
    organisation: str | None,
    role: str | None,
    team: str | None,
    limit: int | None,
    contacts: bool,
    as_json: bool,
    data: Path | None,
    config: Path | None,
) -> None:
    """List users by id. Options that choose go together.

    Addresses, numbers and tokens are shown in part, unless --contacts asks for them; `show` and `export` have them.
    """
    found = [
        user
        for user in asyncio.run(_all(_settings(config, data), data)).values()
        if organisation in (None, user.organization_id)
        and role in (None, user.role)
        and (team is None or team in {shift.team for shift in user.on_call})
    ]
    most = limit if limit is not None else 0 if as_json else LIMIT
    shown = found[:most] if most else found
    shown = shown if contacts else [masked_user(user) for user in shown]
    if as_json:
        for user in shown:
            click.echo(_json(user))
        return
    table = listing("id", "name", "organisation", "role", "email", "phone", "teams", "")
    for user in shown:
        teams = ", ".join(dict.fromkeys(shift.team for shift in user.on_call))
        cells = (user.user_id, user.name, user.organization_id, user.role, user.email, user.phone, teams)
        table.add_row(*(Text(printable(cell or "")) for cell in cells), "" if user.active else "not active")
    show_listing(table)
    if len(shown) < len(found):
        click.echo(f"{len(shown):,} of {len(found):,} users; --limit 0 shows all", err=True)


@users.command()
@click.argument("user_id", metavar="ID")
@log_data_option
@config_option
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def show(user_id: str, data: Path | None, config: Path | None, as_json: bool) -> None:
    """Show all that is known of the user ID."""
    known = asyncio.run(_all(_settings(config, data), data))
    if user_id not in known:
        raise ConfigError(_nobody(user_id, known))
    if as_json:
        click.echo(_json(known[user_id]))
        return
    table = listing("", "", header=False)
    for name, value in flat_fields(orjson.loads(_json(known[user_id]))):
        table.add_row(Text(name), Text(printable(value)))
    show_listing(table)


@users.command(name="set")
@click.argument("user_id", metavar="ID")
@click.argument("changes", metavar="FIELD=VALUE...", nargs=-1, required=True)
@click.option("--add", is_flag=True, help="The user is a new one.")
@log_data_option
@config_option
@json_option
def set_(
    user_id: str, changes: tuple[str, ...], add: bool, data: Path | None, config: Path | None, as_json: bool
) -> None:
    """Change fields of the user ID, as in phone=+491701234567 notifications.sms=false quietHours.start=22:00.

    Lists have commas between, what has parts is JSON: subscribedDevices=d-1,d-2 'onCall=[{"team": "plant", …}]'.
    Nothing behind the = takes the field away.
    """
    wrong = Mistakes([f"{change}: write FIELD=VALUE" for change in changes if "=" not in change])
    settings = _settings(config, data, wrong, make=add)
    user = asyncio.run(_change(settings, data, user_id, dict(each.split("=", 1) for each in changes), add))
    click.echo(_json(user) if as_json else f"{user_id}: {', '.join(each.split('=')[0] for each in changes)} set")


@users.command()
@click.argument("user_ids", metavar="ID...", nargs=-1, required=True)
@log_data_option
@config_option
@json_option
def delete(user_ids: tuple[str, ...], data: Path | None, config: Path | None, as_json: bool) -> None:
    """Delete users. To keep one who is to be told of nothing, set active=false instead."""
    asyncio.run(_delete(_settings(config, data), data, user_ids))
    deleted = orjson.dumps({"deleted": list(user_ids)}).decode()
    click.echo(deleted if as_json else f"deleted {', '.join(user_ids)}")


users.add_command(on_call_command)
users.add_command(escalate)
users.add_command(preview)


def _settings(config: Path | None, data: Path | None, wrong: Mistakes | None = None, *, make: bool = False) -> Settings:
    wrong = wrong or Mistakes()
    settings = load_settings(wrong, config, data, make=make)
    wrong.check()
    assert settings is not None
    return settings


async def _all(settings: Settings, data: Path | None) -> dict[str, User]:
    async with opened_log(settings, data) as opened:
        stored = await UserRegistry(opened.log, SystemClock()).stored()
    return {name: user for name in sorted(stored) if (user := read_user(stored[name])) is not None}


async def _change(settings: Settings, data: Path | None, user_id: str, changes: Mapping[str, str], add: bool) -> User:
    async with opened_log(settings, data, make=add) as opened:
        registry = UserRegistry(opened.log, SystemClock())
        stored = await registry.stored()
        if add and user_id in stored:
            raise ConfigError(f"there is a user {user_id!r} already; leave --add out to change them")
        if not add and user_id not in stored:
            raise ConfigError(f"{_nobody(user_id, stored)}; --add makes a new one")
        before = None if add else read_user(stored[user_id])
        document: dict[str, Any] = {"userId": user_id} if before is None else orjson.loads(_json(before))
        for name, text in changes.items():
            put_field(document, user_path(name), user_document({name: text}))
        user, wrong = check_user(document)
        if user is not None and user.user_id != user_id:
            wrong.append("userId: an id cannot be changed; delete the user and add the other one")
        if wrong or user is None:
            raise ConfigError(*wrong)
        user = stamped(user, before, SystemClock().now_ms())
        await registry.change({user_id: user})
    return user


async def _delete(settings: Settings, data: Path | None, user_ids: tuple[str, ...]) -> None:
    async with opened_log(settings, data) as opened:
        registry = UserRegistry(opened.log, SystemClock())
        stored = await registry.stored()
        if missing := [name for name in user_ids if name not in stored]:
            raise ConfigError(*(_nobody(name, stored) for name in missing))
        await registry.change(dict.fromkeys(user_ids))


def _nobody(user_id: str, known: Collection[str]) -> str:
    return f"there is no user {user_id!r}{near(user_id, known)}"


def _json(user: User) -> bytes:
    document = user.model_dump(mode="json", by_alias=True, exclude_defaults=True)
    return orjson.dumps({**document, "role": user.role, "active": user.active})
