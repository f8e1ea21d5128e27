"""`headrace database`: what the database holds, and bringing its tables up to date, or back."""

import asyncio
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import asyncpg
import click
import orjson

from headrace.cli.database_view import show_actions, show_status
from headrace.cli.opened_database import opened_database, table_specs
from headrace.cli.running import config_option, json_option, set_up
from headrace.cli.settings import Settings
from headrace.cli.show_group import ShowGroup
from headrace.connectors.timescale.errors import translated
from headrace.connectors.timescale.migrations import MIGRATIONS, Migration, migrate, missing, packaged
from headrace.connectors.timescale.policies import apply_policies, job_removal, plan, view_removal
from headrace.connectors.timescale.readings_table import ReadingsTable, TableSpec
from headrace.connectors.timescale.revert import NOTHING, revert
from headrace.connectors.timescale.roles import grant
from headrace.connectors.timescale.status import database_status
from headrace.connectors.timescale.timescale_state import timescale_state
from headrace.engine.errors import ConfigError

#: Step that made the procedure of the refresh job.
REFRESH_STEP = "0005_refresh"

data_option = click.option(
    "--data",
    type=click.Path(path_type=Path, file_okay=False),
    help="Data folder of the worker, with the embedded database. Not needed where [database] dsn names a server.",
)
types_option = click.option(
    "--device-type", "names", metavar="NAME", multiple=True, help="A table for this device type too; any number."
)
dry_run_option = click.option("--dry-run", is_flag=True, help="Only say what would happen.")


@click.group(cls=ShowGroup, default="status")
def database() -> None:
    """Look at the database, and bring its tables up to date or back.

    headrace database is short for headrace database status. Tables are made and changed by the role of [database]
    migration_dsn where there is one, else by that of dsn.
    """


@database.command()
@data_option
@config_option
@json_option
def status(data: Path | None, config: Path | None, as_json: bool) -> None:
    """Show versions, migrations, tables with their sizes, and what TimescaleDB does with them."""
    asyncio.run(_status(_known(config, ()), data, as_json))


@database.command()
@types_option
@dry_run_option
@data_option
@config_option
@json_option
def up(names: tuple[str, ...], dry_run: bool, data: Path | None, config: Path | None, as_json: bool) -> None:
    """Apply the migrations that are missing, grant the role of dsn what it needs, and set TimescaleDB's policies.

    Makes the tables of all device types that are known. May be run again at any time, and beside a running sink.
    """
    asyncio.run(_up(_known(config, names), data, dry_run, as_json))


@database.command()
@click.option("--to", required=True, metavar="VERSION", help="Last migration that stays; 0 for none, nor any table.")
@click.option("--yes", is_flag=True, help="Go on although rows are lost.")
@dry_run_option
@data_option
@config_option
@json_option
def down(to: str, yes: bool, dry_run: bool, data: Path | None, config: Path | None, as_json: bool) -> None:
    """Undo the migrations after VERSION, all of them or none. Says what would be lost, and refuses without --yes."""
    asyncio.run(_down(_known(config, ()), data, to, yes, dry_run, as_json))


@database.command()
@click.option("--apply", "apply", is_flag=True, help="Change what is not as configured.")
@types_option
@data_option
@config_option
@json_option
def policies(apply: bool, names: tuple[str, ...], data: Path | None, config: Path | None, as_json: bool) -> None:
    """Show what TimescaleDB has still to be told so that it does as [timescale] says; the SQL, too."""
    asyncio.run(_policies(_known(config, names), data, apply, as_json))


@database.command(name="grant")
@click.argument("role")
@click.option("--read", "kind", flag_value="read", help="It may look at every table, later ones too.")
@click.option("--write", "kind", flag_value="write", help="It may do what a sink does: rows, and no tables.")
@data_option
@config_option
def grant_command(role: str, kind: str | None, data: Path | None, config: Path | None) -> None:
    """Let ROLE, which exists, look at the tables (--read), or fill them (--write)."""
    if kind is None:
        raise ConfigError("what may it do? --read or --write")
    asyncio.run(_grant(_known(config, ()), data, role, kind == "write"))


class _Known(NamedTuple):
    settings: Settings
    tables: Sequence[ReadingsTable]
    steps: Sequence[Migration]


def _known(config: Path | None, names: Sequence[str]) -> _Known:
    setup = set_up(config)
    more = [TableSpec(name) for name in names if name not in setup.device_types]
    tables = [ReadingsTable(spec) for spec in (*table_specs(setup.device_types), *more)]
    steps = [*packaged(MIGRATIONS), *(step for table in tables for step in table.migrations())]
    return _Known(setup.settings, tables, steps)


@asynccontextmanager
async def _owner(settings: Settings, data: Path | None) -> AsyncIterator[asyncpg.Connection]:
    """A connection of the role that makes tables."""
    dsn = settings.database.migration_dsn
    async with opened_database(settings, data) as arguments:
        connect: dict[str, Any] = arguments if dsn is None else {"dsn": dsn.get_secret_value()}
        with translated():
            connection = await asyncpg.connect(**connect, server_settings={"application_name": "headrace database"})
        try:
            with translated():
                role = await connection.fetchval("SELECT current_user")
                try:
                    yield connection
                except asyncpg.InsufficientPrivilegeError as error:
                    raise ConfigError(f"role {role} may not: {error}; name one that may as migration_dsn") from error
        finally:
            connection.terminate()


async def _status(known: _Known, data: Path | None, as_json: bool) -> None:
    async with _owner(known.settings, data) as connection:
        found = await database_status(connection, known.steps, known.tables, known.settings.timescale)
    show_status(found, as_json=as_json)


async def _up(known: _Known, data: Path | None, dry_run: bool, as_json: bool) -> None:
    granted = ""
    async with _owner(known.settings, data) as connection:
        if dry_run:
            versions = [step.version for step in await missing(connection, known.steps)]
        else:
            versions = await migrate(connection, known.steps)
            views = await apply_policies(connection, known.settings.timescale, known.tables)
            if known.settings.database.migration_dsn is not None:
                role = await _data_role(known.settings, data)
                granted = str(await grant(connection, role, known.steps, write=True, views=views))
    if as_json:
        _print_json({"migrations": versions, "granted": granted, "dry_run": dry_run})
        return
    for version in versions:
        click.echo(f"{'would apply' if dry_run else 'applied'} {version}")
    if granted:
        click.echo(f"granted {granted}")
    if not versions and not granted:
        click.echo("nothing to do: the database is up to date")


async def _data_role(settings: Settings, data: Path | None) -> str:
    async with opened_database(settings, data) as connect:
        with translated():
            connection = await asyncpg.connect(**connect)
            role: str = await connection.fetchval("SELECT current_user::text")
            await connection.close()
    return role


async def _down(known: _Known, data: Path | None, to: str, yes: bool, dry_run: bool, as_json: bool) -> None:
    async with _owner(known.settings, data) as connection:
        state = await timescale_state(connection)
        first = [] if state is None or to >= REFRESH_STEP else job_removal(state)
        views = [] if state is None or to != NOTHING else _ours(state.views)
        first += view_removal(views)
        done = await revert(connection, to, lose=yes, dry_run=dry_run, first=first, views=views)
    if as_json:
        losses = [{"table": loss.table, "column": loss.column, "rows": loss.rows} for loss in done.losses]
        _print_json({"undone": list(done.versions), "lost": losses, "dry_run": dry_run})
        return
    for loss in done.losses:
        click.echo(f"{'would be lost' if dry_run else 'lost'}: {loss}")
    for version in done.versions:
        click.echo(f"{'would undo' if dry_run else 'undone'} {version}")
    if not done.versions:
        click.echo("nothing to do: nothing newer is applied")


def _ours(views: Iterable[str]) -> list[str]:
    """Continuous aggregates of readings tables, not those that somebody else made."""
    return [name for name in views if name.startswith("readings_")]


async def _policies(known: _Known, data: Path | None, apply: bool, as_json: bool) -> None:
    async with _owner(known.settings, data) as connection:
        state = await timescale_state(connection)
        actions = [] if state is None else plan(state, known.settings.timescale, known.tables)
        if apply:
            await apply_policies(connection, known.settings.timescale, known.tables)
    show_actions(state, actions, applied=apply, as_json=as_json)


async def _grant(known: _Known, data: Path | None, role: str, write: bool) -> None:
    async with _owner(known.settings, data) as connection:
        if not await connection.fetchval("SELECT EXISTS (SELECT FROM pg_roles WHERE rolname = $1)", role):
            raise ConfigError(f"the server has no role {role}; CREATE ROLE makes one")
        state = await timescale_state(connection)
        views = [] if state is None else _ours(state.views)
        before = await grant(connection, role, known.steps, write=write, views=views)
    click.echo(f"granted to {role}: {before}" if before else f"nothing to do: {role} has it all")


def _print_json(found: object) -> None:
    click.echo(orjson.dumps(found).decode())
