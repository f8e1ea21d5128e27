"""`headrace query state|conflicts|alerts|anomalies|ledger`: what is stored record by record."""

from collections import Counter
from pathlib import Path
from typing import Any

import click

from headrace.cli import query_view as view
from headrace.cli.agents import GROUP, build_agents
from headrace.cli.opened_log import log_folder, opened_log
from headrace.cli.query_options import Asking, answering, choosing, page_options, since_options
from headrace.cli.settings import Settings
from headrace.connectors.timescale.answers import LedgerAnswer
from headrace.connectors.timescale.ledger_rows import RESOLUTIONS
from headrace.connectors.timescale.record_queries import RECORDS
from headrace.connectors.timescale.records import MOST_RECORDS
from headrace.connectors.timescale.states import MOST_DEVICES
from headrace.engine.changelog import changelog_topic
from headrace.engine.errors import ConfigError
from headrace.engine.ledger import read_ledger
from headrace.engine.table_reader import table_rows

_records = page_options(RECORDS, MOST_RECORDS, "the newest so many")
_device = click.option("--device", metavar="ID", help="Of this device.")


@click.command()
@answering
@click.argument("devices", metavar="[DEVICE]...", nargs=-1)
@choosing("--type")
@click.option("--limit", type=click.IntRange(1, MOST_DEVICES), default=RECORDS, show_default=True, help="Devices.")
def state(ask: Asking, devices: tuple[str, ...], device_type: str | None, limit: int) -> None:
    """Show the newest reading of DEVICEs, of all of a --type, or of all, and how long ago it was."""
    ask(view.show_states, lambda store, _: store.state(devices or None, device_type=device_type, limit=limit))


@click.command()
@answering
@_device
@choosing("--type")
@since_options
@_records
def conflicts(
    ask: Asking,
    device: str | None,
    device_type: str | None,
    start: str | None,
    end: str | None,
    limit: int,
    cursor: str | None,
) -> None:
    """List messages that contradicted what was accepted: what they said, and what was accepted."""
    ask(
        view.show_conflicts,
        lambda store, times: store.conflicts(
            device_id=device, device_type=device_type, start_ms=times.moment("--start", start),
            end_ms=times.moment("--end", end), limit=limit, cursor=cursor,
        ),
    )  # fmt: skip


@click.command()
@answering
@_device
@click.option("--rule", metavar="ID", help="Of this rule.")
@click.option("--severity", help="Such as warning.")
@click.option("--status", help="Such as triggered.")
@since_options
@_records
def alerts(
    ask: Asking,
    device: str | None,
    rule: str | None,
    severity: str | None,
    status: str | None,
    start: str | None,
    end: str | None,
    limit: int,
    cursor: str | None,
) -> None:
    """List alerts by when they were triggered."""
    ask(
        view.show_alerts,
        lambda store, times: store.alerts(
            device_id=device, rule_id=rule, severity=severity, status=status, limit=limit, cursor=cursor,
            start_ms=times.moment("--start", start), end_ms=times.moment("--end", end),
        ),
    )  # fmt: skip


@click.command()
@answering
@_device
@choosing("--type")
@click.option("--metric", help="Of this metric.")
@click.option("--detector", help="Found by this detector.")
@since_options
@_records
def anomalies(
    ask: Asking,
    device: str | None,
    device_type: str | None,
    metric: str | None,
    detector: str | None,
    start: str | None,
    end: str | None,
    limit: int,
    cursor: str | None,
) -> None:
    """List anomalies by event time."""
    ask(
        view.show_anomalies,
        lambda store, times: store.anomalies(
            device_id=device, device_type=device_type, metric=metric, detector=detector, limit=limit, cursor=cursor,
            start_ms=times.moment("--start", start), end_ms=times.moment("--end", end),
        ),
    )  # fmt: skip


@click.command()
@answering
@click.option("--by", type=click.Choice([*RESOLUTIONS, "all"]), default="1h", show_default=True, help="Append time.")
@choosing("--type")
@since_options
def ledger(ask: Asking, by: str, device_type: str | None, start: str | None, end: str | None) -> None:
    """Show what became of messages, by when they were appended; whether the ledger balances, if the log is at hand."""
    whole = device_type is start is end is None
    ask(
        view.show_ledger,
        lambda store, times: store.ledger(
            None if by == "all" else by, device_type=device_type, start_ms=times.moment("--start", start),
            end_ms=times.moment("--end", end),
        ),
        _balance if whole else None,
    )  # fmt: skip


async def _balance(settings: Settings, data: Path | None, answer: LedgerAnswer) -> dict[str, Any]:
    """The whole ledger, where there is a log to read it from."""
    try:
        log_folder(settings, data)
    except ConfigError:
        return {}
    counters = build_agents(settings, {}, ()).ingest.counters
    decided = Counter[str]()
    async with opened_log(settings, data) as opened:
        if changelog_topic(GROUP, counters.name) in {spec.name for spec in await opened.log.topics()}:
            async for _, row in table_rows(opened.log, GROUP, counters):
                decided.update({term: row.get(term, 0) for term in ("duplicate", "conflict")})
        found = await read_ledger(opened.log, GROUP, "timescale", decided, answer.totals)
    view.show_balance(found)
    return {"ledger": {**found._asdict(), "balanced": found.difference == 0}}
