"""`headrace alerts watch`: what happens to alerts, as it happens."""

import asyncio
from pathlib import Path
from typing import Any, get_args

import click
import orjson

from headrace.cli.alert_answers import change_of, next_events
from headrace.cli.alert_view import SHORT
from headrace.cli.listing import printable
from headrace.cli.moments import moment
from headrace.cli.opened_log import load_settings, log_data_option, opened_log
from headrace.cli.running import Mistakes, config_option, finishes, stop_on_signals
from headrace.cli.settings import Settings
from headrace.engine.clock import SystemClock
from headrace.engine.errors import ConfigError
from headrace.engine.log import Log
from headrace.engine.log_range import reading
from headrace.schemas import topics
from headrace.schemas.rule import Severity


@click.command()
@click.option("--severity", type=click.Choice(get_args(Severity)), help="Of this severity.")
@click.option("--device", metavar="ID", help="Of this device.")
@click.option("--rule", metavar="ID", help="Of this rule.")
@click.option("--told", is_flag=True, help="Only what people are told of: nothing that is suppressed.")
@click.option("--from", "start", metavar="TIME", help="What was appended since then, too: 2025-06-01T12:00, or 2h ago.")
@click.option("--count", type=click.IntRange(1), help="End after so many events.")
@click.option("--json", "as_json", is_flag=True, help="One CloudEvent per line.")
@log_data_option
@config_option
def watch(
    start: str | None, count: int | None, as_json: bool, data: Path | None, config: Path | None, **wanted: Any
) -> None:
    """Follow what happens to alerts, from now on, until Ctrl-C."""
    wrong = Mistakes()
    settings = load_settings(wrong, config, data)
    now = SystemClock().now_ms()
    since = None if start is None else wrong.take(lambda: moment("--from", start, now))
    wrong.check()
    assert settings is not None
    asyncio.run(_watch(settings, data, since, count, wanted, as_json))


async def _watch(
    settings: Settings, data: Path | None, since: int | None, count: int | None, wanted: dict[str, Any], as_json: bool
) -> None:
    stop = stop_on_signals()
    async with opened_log(settings, data) as opened:
        if topics.ALERTS not in {spec.name for spec in await opened.log.topics()}:
            raise ConfigError(f"there is no topic {topics.ALERTS} yet; start a worker first")
        await finishes(_follow(opened.log, since, count, wanted, as_json), stop)


async def _follow(log: Log, since: int | None, count: int | None, wanted: dict[str, Any], as_json: bool) -> None:
    ends = await log.end_offsets(topics.ALERTS)
    positions = ends if since is None else await log.offsets_at(topics.ALERTS, since)
    shown = 0
    async with reading(log) as reader:
        while True:
            for event in await next_events(reader, positions):
                if not _is_wanted(event, **wanted):
                    continue
                click.echo(orjson.dumps(event).decode() if as_json else line_of(event))
                shown += 1
                if shown == count:
                    return


def _is_wanted(event: dict[str, Any], severity: str | None, device: str | None, rule: str | None, told: bool) -> bool:
    alert = event.get("data")
    if not isinstance(alert, dict):
        return False
    fits = all(
        value is None or alert.get(name) == value
        for name, value in (("severity", severity), ("deviceId", device), ("ruleId", rule))
    )
    return fits and not (told and alert.get("suppressed"))


def line_of(event: dict[str, Any]) -> str:
    """A line for a person."""
    alert, change = event["data"], change_of(event)
    words = [str(event.get("time", "")), change, str(alert.get("alertId") or "")[:SHORT], str(alert.get("deviceId"))]
    if change == "refused":
        words.append(f"{alert.get('command')}: {alert.get('reason')}")
    else:
        words += [str(alert.get("ruleId")), str(alert.get("severity")), str(alert.get("condition"))]
    if suppressed := alert.get("suppressed"):
        words.append(f"({suppressed.get('text')})")
    return printable("  ".join(words))
