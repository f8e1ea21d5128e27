"""`headrace alerts`: what is wrong now, and what people do about it."""

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import click
import orjson
from rich.text import Text

from headrace.cli.alert_states import ALL, OPEN, Chosen, alert_named, explained_by, facets, read_states
from headrace.cli.alert_view import alert_rows, show_alert, show_facets
from headrace.cli.alerts_commands import ack, comment, resolve, snooze
from headrace.cli.alerts_silences import silence, silences, unsilence
from headrace.cli.alerts_watch import watch
from headrace.cli.listing import listing, printable, show_listing
from headrace.cli.moments import moment
from headrace.cli.opened_log import load_settings, log_data_option, opened_log
from headrace.cli.running import Mistakes, config_option
from headrace.engine.clock import SystemClock
from headrace.engine.errors import ConfigError
from headrace.schemas.alert import Alert, Status
from headrace.schemas.rule import Severity

#: Alerts that are listed unless told otherwise.
LIMIT = 50


@click.group()
def alerts() -> None:
    """Alerts: list, show and watch them, acknowledge and resolve them, comment, snooze and silence.

    It works beside a running worker, on its data folder or on Kafka; what is to change the worker carries out. An
    alert's id may be shortened, as long as no other begins so. See docs/guides/alerts.md.
    """


@alerts.command(name="list")
@click.option(
    "--status", type=click.Choice([OPEN, *get_args(Status), ALL]), default=OPEN, show_default=True, help="With this."
)
@click.option("--severity", type=click.Choice(get_args(Severity)), help="Of this severity.")
@click.option("--device", metavar="ID", help="Of this device.")
@click.option("--rule", metavar="ID", help="Of this rule.")
@click.option("--gateway", metavar="ID", help="Of the devices behind this gateway, and its own.")
@click.option("--organisation", metavar="NAME", help="Of devices of this organisation.")
@click.option("--suppressed/--not-suppressed", default=None, help="Only those that people are not told of; or not.")
@click.option("--from", "start", metavar="TIME", help="Triggered from then on: 2025-06-01T12:00, or 2h for 2 h ago.")
@click.option("--to", "end", metavar="TIME", help="Triggered before.")
@click.option("--limit", type=click.IntRange(0), default=LIMIT, show_default=True, help="So many; 0 for all.")
@click.option("--offset", type=click.IntRange(0), default=0, help="Leave out the first so many.")
@click.option("--facets", "counts_only", is_flag=True, help="Only how many there are by severity, status and rule.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object per line.")
@log_data_option
@config_option
def list_(
    start: str | None,
    end: str | None,
    limit: int,
    offset: int,
    counts_only: bool,
    as_json: bool,
    data: Path | None,
    config: Path | None,
    **options: Any,
) -> None:
    """List the newest alert of each rule and device, the newest first. Options that choose go together."""
    now = SystemClock().now_ms()
    wrong = Mistakes()
    chosen = replace(
        Chosen(**options),
        start_ms=None if start is None else wrong.take(lambda: moment("--from", start, now)),
        end_ms=None if end is None else wrong.take(lambda: moment("--to", end, now)),
    )
    found = [each for each in _states(config, data, wrong).values() if chosen.has(each)]
    counts = facets(found)
    if counts_only:
        click.echo(orjson.dumps({"total": len(found), **counts}).decode()) if as_json else show_facets(counts)
        return
    shown = found[offset : offset + limit if limit else None]
    if as_json:
        for each in shown:
            click.echo(each.model_dump_json(exclude_none=True))
        return
    table = listing("alert", "triggered", "severity", "status", "device", "rule", "value", "told")
    for row in alert_rows(shown):
        table.add_row(*(Text(printable(cell)) for cell in row))
    show_listing(table)
    if len(shown) < len(found):
        last = offset + len(shown)
        click.echo(f"{offset + 1:,} to {last:,} of {len(found):,} alerts; --offset {last} goes on", err=True)


@alerts.command()
@click.argument("alert_id", metavar="ALERT")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@log_data_option
@config_option
def show(alert_id: str, as_json: bool, data: Path | None, config: Path | None) -> None:
    """Show all of an ALERT: evidence, comments, what may have to do with it, why people are not told, how it ended."""
    known = _states(config, data, Mistakes())
    alert = alert_named(alert_id, known)
    explained = explained_by(known.values(), alert.alertId)
    if as_json:
        document = orjson.loads(alert.model_dump_json(exclude_none=True))
        click.echo(orjson.dumps({**document, "explainsNow": [each.alertId for each in explained]}).decode())
        return
    show_alert(alert, explained)


def _states(config: Path | None, data: Path | None, wrong: Mistakes) -> Mapping[str, Alert]:
    settings = load_settings(wrong, config, data)
    wrong.check()
    if settings is None:
        raise ConfigError("there are no settings")

    async def read() -> Mapping[str, Alert]:
        async with opened_log(settings, data) as opened:
            return await read_states(opened.log)

    return asyncio.run(read())


for command in (ack, resolve, comment, snooze, silence, silences, unsilence, watch):
    alerts.add_command(command)
