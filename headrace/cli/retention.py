"""`headrace retention`: what would be deleted tonight, and why."""

import asyncio
from pathlib import Path

import click
import orjson

from headrace.cli.archive import at_moment, database_data_option
from headrace.cli.archive_view import due_json, show_due
from headrace.cli.opened_database import database_folder, opened_database
from headrace.cli.running import Mistakes, Setup, config_option, json_option, set_up
from headrace.connectors.archive.job import ArchiveJob
from headrace.connectors.archive.object_store import memory_store
from headrace.engine.clock import SystemClock


@click.command()
@click.option("--at", "at", metavar="TIME", help="As of then: ISO 8601. Default: now.")
@click.option("--exact", is_flag=True, help="Count every row, however many there are.")
@database_data_option
@config_option
@json_option
def retention(at: str | None, exact: bool, data: Path | None, config: Path | None, as_json: bool) -> None:
    """Show what would be deleted tonight: rows by policy, device type, organisation and day.

    Nothing is deleted before it is in the archive and was read back. Of tables with more than two million old rows a
    sample is looked at, and numbers with ~ are estimates.
    """
    wrong = Mistakes()
    setup = wrong.take(lambda: set_up(config))
    if setup is not None:
        wrong.take(lambda: database_folder(setup.settings, data))
    now_ms = wrong.take(lambda: at_moment(at)) if at else SystemClock().now_ms()
    wrong.check()
    assert setup is not None
    assert now_ms is not None
    asyncio.run(_show(setup, data, now_ms, exact, as_json))


async def _show(setup: Setup, data: Path | None, now_ms: int, exact: bool, as_json: bool) -> None:
    settings = setup.settings
    async with opened_database(settings, data) as connect:
        job = ArchiveJob(connect, memory_store(), settings.retention, SystemClock(), setup.device_types)
        found = await job.plan(now_ms=now_ms, estimate=not exact)
    if as_json:
        click.echo(orjson.dumps(due_json(found)).decode())
    else:
        show_due(found)
