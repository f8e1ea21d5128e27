"""`headrace cache`: compare the cache with the database, and look at what it has of a device."""

import asyncio
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
import orjson
from rich.console import Console
from rich.table import Column, Table

from headrace.cli.opened_database import database_folder, opened_database
from headrace.cli.running import Mistakes, config_option, json_option, stop_on_signals
from headrace.cli.settings import Settings
from headrace.connectors.redis.contents import CachedEntry, contents
from headrace.connectors.redis.verification import Report
from headrace.connectors.redis.verifier import CacheVerifier
from headrace.engine import logging
from headrace.engine.clock import SystemClock
from headrace.engine.config import load

#: What a report shows, in this order.
SHOWN = ("checked", "equal", "missing", "stale", "wrong", "ahead", "added", "changed", "removed")

database_data_option = click.option(
    "--data",
    type=click.Path(path_type=Path, file_okay=False),
    help="Data folder with the embedded database. Not needed where [database] dsn names a server.",
)


@click.group()
def cache() -> None:
    """The cache in Redis or Valkey, as [redis] in --config says; docs/guides/cache.md tells what is in it."""


@cache.command()
@click.option("--once", is_flag=True, help="One run, then end. Default: at intervals, until Ctrl-C.")
@click.option("--dry-run", is_flag=True, help="Report what differs and repair nothing.")
@database_data_option
@config_option
@json_option
def verify(once: bool, dry_run: bool, data: Path | None, config: Path | None, as_json: bool) -> None:
    """Compare the cache with the database, and repair it.

    Reports entries that are missing, stale, wrong, or ahead of the database, and how many were added, changed and
    removed. `headrace sink` does the same at intervals. Ends with 1 if a single run did not come to its end.
    """
    settings = _settings(config, data)
    complete = asyncio.run(_verify(settings, data, once, dry_run, as_json))
    sys.exit(0 if complete else 1)


@cache.command()
@click.argument("device")
@config_option
@json_option
def show(device: str, config: Path | None, as_json: bool) -> None:
    """Show what the cache has of DEVICE: its status, and its newest window of each kind."""
    settings = _settings(config, None)
    found = asyncio.run(contents(settings.redis, device, SystemClock()))
    if as_json:
        entries = [{"key": each.key, "expires_in": each.expires_in, "document": each.document} for each in found]
        print(orjson.dumps({"device": device, "entries": entries}).decode())
    else:
        _show(device, found)


def _settings(config: Path | None, data: Path | None) -> Settings:
    wrong = Mistakes()
    settings = wrong.take(lambda: load(Settings, config))
    if settings is not None:
        logging.configure(settings.log_level)
        if data is not None:
            wrong.take(lambda: database_folder(settings, data))
    if settings is not None and settings.redis.url is None:
        wrong.add("[redis] url is missing in --config: name a Redis or Valkey, as in redis://localhost:6379/0")
    wrong.check()
    assert settings is not None
    return settings


async def _verify(settings: Settings, data: Path | None, once: bool, dry_run: bool, as_json: bool) -> bool:
    async with opened_database(settings, data) as connect:
        kinds = settings.rollup.kinds()
        verifier = CacheVerifier(settings.redis, connect, kinds, SystemClock(), dry_run=dry_run)
        stop = stop_on_signals()
        if not once:
            await verifier.run(stop)
            return True
        report = await verifier.verify(stop)
    if as_json:
        print(orjson.dumps(report.as_json()).decode())
    else:
        _show_report(report, dry_run)
    return report.complete


def _show_report(report: Report, dry_run: bool) -> None:
    values: dict[str, Any] = report.as_json()
    console = Console()
    console.print(", ".join(f"{name} {values[name]:,}" for name in SHOWN if values[name] or name == "checked"))
    for finding, keys in values["examples"].items():
        console.print(f"{finding}, for example: {', '.join(keys)}", markup=False)
    if dry_run:
        console.print("nothing was repaired (--dry-run)")
    if not report.complete:
        console.print(f"unfinished after {report.seconds:.0f} s; [redis] verify_timeout is the limit", markup=False)


def _show(device: str, found: list[CachedEntry]) -> None:
    console = Console(markup=False)
    if not found:
        console.print(f"the cache has nothing of {device}")
        return
    table = Table(
        "KEY", Column("AS OF", no_wrap=True), Column("EXPIRES IN", no_wrap=True), Column("CONTENT", overflow="fold")
    )
    for each in found:
        as_of = datetime.fromtimestamp(each.document["asOf"] / 1000, UTC).isoformat(timespec="milliseconds")
        content = each.document.get("metrics", each.document.get("measures"))
        expires = "never" if each.expires_in is None else f"{each.expires_in:.0f} s"
        table.add_row(each.key, as_of, expires, orjson.dumps(content).decode())
    console.print(table)
