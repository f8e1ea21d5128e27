"""`headrace archive`: move old rows to the archive now, look into it, check it, bring a day back."""

import asyncio
from collections import Counter
from dataclasses import asdict
from datetime import date
from pathlib import Path

import click
import orjson

from headrace.cli.archive_view import due_json, show_due, show_parts
from headrace.cli.moments import moment
from headrace.cli.opened_archive import opened_archive
from headrace.cli.opened_database import database_folder, opened_database, schema_keeper
from headrace.cli.running import Mistakes, Setup, config_option, json_option, set_up
from headrace.connectors.archive.job import ArchiveJob
from headrace.connectors.archive.parts import Part
from headrace.connectors.archive.restore import restore as restore_day
from headrace.connectors.archive.verify import all_parts
from headrace.connectors.archive.verify import verify as verify_parts
from headrace.engine.clock import SystemClock
from headrace.engine.errors import ConfigError, HeadraceError

database_data_option = click.option(
    "--data",
    type=click.Path(path_type=Path, file_okay=False),
    help="Data folder with the embedded database. Not needed where [database] dsn names a server.",
)


class ArchiveFailed(HeadraceError):
    """Something could not be archived, or is not in the archive as it should be."""


@click.group()
def archive() -> None:
    """Old rows as Parquet files: write them now, list them, check them, bring a day back."""


@archive.command("run")
@click.option("--before", metavar="DATE", help="Only days before DATE, as in 2026-01-31; never younger ones than due.")
@click.option("--dry-run", is_flag=True, help="Only say what would be moved.")
@click.option("--yes", is_flag=True, help="Also if that is far more than usual.")
@database_data_option
@config_option
@json_option
def run(before: str | None, dry_run: bool, yes: bool, data: Path | None, config: Path | None, as_json: bool) -> None:
    """Move rows that are older than their retention to the archive, as `headrace sink` does every night.

    Each file is read back and compared with the database before its rows are deleted. Whatever ends this, no row is
    lost, and running it again goes on.
    """
    wrong = Mistakes()
    setup = _setup(wrong, config, data)
    day = wrong.take(lambda: day_of("--before", before)) if before else None
    wrong.check()
    assert setup is not None
    asyncio.run(_run(setup, data, day, dry_run, yes, as_json))


@archive.command("list")
@click.option("--day", metavar="DATE", help="Only this day, UTC.")
@database_data_option
@config_option
@click.option("--json", "as_json", is_flag=True, help="One JSON object per line.")
def list_parts(day: str | None, data: Path | None, config: Path | None, as_json: bool) -> None:
    """List the parts of the archive: what they hold and how large they are."""
    wrong = Mistakes()
    setup = _setup(wrong, config, data)
    chosen = wrong.take(lambda: day_of("--day", day)) if day else None
    wrong.check()
    assert setup is not None
    asyncio.run(_list(setup, data, chosen, as_json))


@archive.command()
@click.option("--day", metavar="DATE", help="Only this day, UTC.")
@database_data_option
@config_option
@json_option
def verify(day: str | None, data: Path | None, config: Path | None, as_json: bool) -> None:
    """Read every file again and compare it with what was noted when it was written. Exit code 1 if one is damaged."""
    wrong = Mistakes()
    setup = _setup(wrong, config, data)
    chosen = wrong.take(lambda: day_of("--day", day)) if day else None
    wrong.check()
    assert setup is not None
    asyncio.run(_verify(setup, data, chosen, as_json))


@archive.command()
@click.option("--day", metavar="DATE", required=True, help="Readings of this day, UTC.")
@click.option("--device-type", help="Only this device type.")
@database_data_option
@config_option
@json_option
def restore(day: str, device_type: str | None, data: Path | None, config: Path | None, as_json: bool) -> None:
    """Bring archived readings back into the database: those that it has not. The files stay.

    Make their retention longer first, or the next run deletes them again.
    """
    wrong = Mistakes()
    setup = _setup(wrong, config, data)
    chosen = wrong.take(lambda: day_of("--day", day))
    wrong.check()
    assert setup is not None
    assert chosen is not None
    asyncio.run(_restore(setup, data, chosen, device_type, as_json))


def day_of(option: str, text: str) -> date:
    """A date on the command line.

    Raises:
        ConfigError: it is none; names the option.
    """
    try:
        return date.fromisoformat(text.strip())
    except ValueError:
        raise ConfigError(f"{option}: {text!r} is not a date such as 2026-01-31") from None


def at_moment(text: str) -> int:
    """`--at`: a date, or a time, ms."""
    return moment("--at", text, SystemClock().now_ms())


def _setup(wrong: Mistakes, config: Path | None, data: Path | None) -> Setup | None:
    setup = wrong.take(lambda: set_up(config))
    if setup is not None:
        wrong.take(lambda: database_folder(setup.settings, data))
    return setup


async def _run(setup: Setup, data: Path | None, before: date | None, dry_run: bool, yes: bool, as_json: bool) -> None:
    settings = setup.settings

    def say(part: Part) -> None:
        if not as_json and part.object is not None:
            click.echo(f"{part.object}: {part.rows:,} rows, {part.size:,} bytes", err=True)

    async with opened_archive(setup.settings, data) as (connect, store):
        job = ArchiveJob(
            connect,
            store,
            settings.retention,
            SystemClock(),
            setup.device_types,
            part_rows=settings.archive.part_rows,
            schema=schema_keeper(settings),
            on_part=say,
        )
        if dry_run:
            found = await job.plan(before)
            if as_json:
                click.echo(orjson.dumps(due_json(found)).decode())
            else:
                show_due(found)
            return
        report = await job.run(before, confirmed=yes)
    if as_json:
        click.echo(orjson.dumps(asdict(report)).decode())
    else:
        click.echo(
            f"archived {report.rows:,} rows in {report.parts:,} files; {report.duplicates:,} were there already, "
            f"{report.conflicts:,} contradict the archive"
        )
    if report.failures:
        raise ArchiveFailed("\n".join(["not archived, and not deleted:", *report.failures]))


async def _list(setup: Setup, data: Path | None, day: date | None, as_json: bool) -> None:
    async with opened_database(setup.settings, data) as connect:
        show_parts(await all_parts(connect, day), as_json)


async def _verify(setup: Setup, data: Path | None, day: date | None, as_json: bool) -> None:
    counts: Counter[str] = Counter()
    bad = []
    async with opened_archive(setup.settings, data) as (connect, store):
        async for found in verify_parts(connect, store, day):
            counts[found.finding] += 1
            if found.finding != "good":
                bad.append(found)
                if not as_json:
                    click.echo(f"{found.finding}: {found.object}: {found.why}")
    if as_json:
        click.echo(orjson.dumps({**counts, "found": [each._asdict() for each in bad]}).decode())
    else:
        click.echo(f"{counts['good']:,} files are as they were written, {counts['damaged']:,} are not")
    if counts["damaged"]:
        raise ArchiveFailed("the archive is damaged: bring these files back from a copy of the store")


async def _restore(setup: Setup, data: Path | None, day: date, device_type: str | None, as_json: bool) -> None:
    async with opened_archive(setup.settings, data) as (connect, store):
        rows = await restore_day(connect, store, day, device_type)
    if as_json:
        click.echo(orjson.dumps({"restored": rows}).decode())
        return
    for name, count in sorted(rows.items()):
        click.echo(f"{name}: {count:,} rows restored")
    if not rows:
        click.echo(f"the archive has no readings of {day}{f' of type {device_type}' if device_type else ''}")
