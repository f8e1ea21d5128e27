"""What `headrace query` prints."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import click
import orjson
from rich.text import Text

from headrace.cli.listing import listing, printable, show_listing
from headrace.cli.moments import iso_ms
from headrace.connectors.timescale.answers import (
    About,
    BinnedHistory,
    FleetBins,
    Latest,
    LedgerAnswer,
    Listed,
    Outliers,
    RawHistory,
    Record,
    States,
)
from headrace.connectors.timescale.repeats import same
from headrace.engine.ledger import Ledger

#: Stretches of sources that are named one by one.
MOST_STRETCHES = 6


def show_latest(answer: Latest) -> None:
    """A line per device and metric."""
    _print(
        ("device", "metric", "time", "value"),
        ((each.device_id, each.metric, iso_ms(each.time_ms), _number(each.value)) for each in answer.values),
        right=("value",),
    )


def show_history(answer: BinnedHistory) -> None:
    """A line per bin."""
    columns = [f"{name} {what}" for name in answer.metrics for what in ("avg", "min", "max", "count")]
    values = [
        column.tolist() for bins in answer.metrics.values() for column in (bins.avg, bins.min, bins.max, bins.count)
    ]
    rows = zip(answer.times.tolist(), *values, strict=True)
    _print(("time", *columns), ((iso_ms(row[0]), *map(_number, row[1:])) for row in rows), right=tuple(columns))


def show_raw(answer: RawHistory) -> None:
    """A line per reading."""
    rows = zip(answer.times.tolist(), *(column.tolist() for column in answer.metrics.values()), strict=True)
    names = tuple(answer.metrics)
    _print(("time", *names), ((iso_ms(row[0]), *map(_number, row[1:])) for row in rows), right=names)
    _say_cursor(answer.cursor)


def show_bins(answer: FleetBins) -> None:
    """A line per device and bin."""
    columns = (answer.bins.avg, answer.bins.min, answer.bins.max, answer.bins.count)
    rows = zip(answer.times.tolist(), answer.device_ids, *(column.tolist() for column in columns), strict=True)
    names = ("avg", "min", "max", "count")
    _print(("time", "device", *names), ((iso_ms(row[0]), row[1], *map(_number, row[2:])) for row in rows), right=names)


def show_outliers(answer: Outliers) -> None:
    """A line per value."""
    rows = (
        (iso_ms(each.time_ms), each.device_id, *map(_number, (each.value, each.mean, each.stddev, each.sigmas)))
        for each in answer.values
    )
    names = (answer.metric, "mean", "stddev", "sigmas")
    _print(("time", "device", *names), rows, right=names)


def show_states(answer: States) -> None:
    """A line per device."""
    rows = (
        (each.device_id, each.device_type, iso_ms(each.time_ms), _ago(each.seen_ms_ago), each.presence or "",
         ", ".join(f"{name} {_value(value)}" for name, value in each.metrics.items()))
        for each in answer.devices
    )  # fmt: skip
    _print(("device", "type", "time", "seen", "connection", "metrics"), rows)


def show_conflicts(answer: Listed) -> None:
    """A line per conflict: what it said that was accepted otherwise."""
    _print(("time", "device", "message", "said", "accepted"), map(_conflict, answer.records))
    _say_cursor(answer.cursor)


def show_alerts(answer: Listed) -> None:
    """A line per alert."""
    names = ("ruleId", "severity", "status", "resolvedAt", "alertId")
    rows = (
        (_time(each), each.device_id or "", *(_value(each.document.get("data", {}).get(name)) for name in names))
        for each in answer.records
    )
    _print(("triggered", "device", "rule", "severity", "status", "resolved", "alert"), rows)
    _say_cursor(answer.cursor)


def show_anomalies(answer: Listed) -> None:
    """A line per anomaly."""
    names = ("metric", "detector", "value", "expected", "score", "text")
    rows = (
        (_time(each), each.device_id or "", *(_value(each.document.get(name)) for name in names))
        for each in answer.records
    )
    _print(("time", "device", *names), rows)
    _say_cursor(answer.cursor)


def show_ledger(answer: LedgerAnswer) -> None:
    """A line per time and device type, and the totals."""
    names = ("stored", "duplicate", "conflict")
    rows = [
        (iso_ms(each.start_ms), each.device_type, *(f"{getattr(each, name):,}" for name in names))
        for each in answer.rows
    ]
    total = ("in all", "", *(f"{answer.totals[name]:,}" for name in names))
    _print(("appended", "type", *names), [*rows, total], right=names)


def show_balance(found: Ledger) -> None:
    """The whole ledger in a line, on standard error."""
    terms = " + ".join(f"{count:,} {name.replace('_', ' ')}" for name, count in list(found._asdict().items())[1:])
    verdict = "balanced" if found.difference == 0 else f"off by {found.difference:,}; at rest it balances"
    click.echo(f"{found.accepted:,} accepted = {terms}: {verdict}", err=True)


def show_about(about: About) -> None:
    """Where the answer comes from and what it can lack, on standard error."""
    whole = about.completeness
    shown = [
        each.source + ("" if each.start_ms is None else f" {iso_ms(each.start_ms)} …")
        for each in about.sources[:MOST_STRETCHES]
    ]
    if len(about.sources) > MOST_STRETCHES:
        names = ", ".join(dict.fromkeys(each.source for each in about.sources))
        shown = [f"{len(about.sources)} stretches of {names}"]
    parts = [f"{about.resolution} of {', '.join(shown)}"]
    if whole.as_of_ms is not None:
        parts.append(f"as of {iso_ms(whole.as_of_ms)}")
    if whole.final_until_ms is not None:
        parts.append(f"final until {iso_ms(whole.final_until_ms)}")
    if whole.empty_bins:
        parts.append(f"{whole.empty_bins:,} bins without data")
    if whole.reaches_before_kept:
        oldest = "" if whole.oldest_ms is None else f" ({iso_ms(whole.oldest_ms)})"
        parts.append(f"begins before the oldest reading kept{oldest}")
    if whole.more:
        parts.append("there is more")
    click.echo("; ".join(parts), err=True)


def _conflict(record: Record) -> tuple[str, ...]:
    document = record.document
    said = {**document.get("measures", {}), **(document.get("extra") or {})}
    accepted = {**document.get("accepted", {}), **(document.get("accepted_extra") or {})}
    differs = [name for name, value in said.items() if name in accepted and not same(accepted[name], value)]
    sides = (", ".join(f"{name} {_exactly(side[name])}" for name in differs) for side in (said, accepted))
    return _time(record), record.device_id or "", str(document.get("message_id", "")), *sides


def _time(record: Record) -> str:
    return "" if record.time_ms is None else iso_ms(record.time_ms)


def _number(value: float) -> str:
    return "" if value != value else f"{value:.10g}"


def _value(value: Any) -> str:
    if isinstance(value, float):
        return _number(value)
    if isinstance(value, Mapping | Sequence) and not isinstance(value, str):
        return orjson.dumps(value).decode()
    return "" if value is None else str(value)


def _exactly(value: Any) -> str:
    """In full, so that what differs also looks different."""
    return value if isinstance(value, str) else orjson.dumps(value).decode().removesuffix(".0")


def _ago(milliseconds: int) -> str:
    seconds = milliseconds // 1000
    for size, unit in ((86_400, "d"), (3600, "h"), (60, "m")):
        if seconds >= 2 * size:
            return f"{seconds // size}{unit} ago"
    return f"{seconds}s ago"


def _say_cursor(cursor: str | None) -> None:
    if cursor is not None:
        click.echo(f"goes on with --cursor '{cursor}'", err=True)


def _print(columns: tuple[str, ...], rows: Iterable[tuple[str, ...]], right: tuple[str, ...] = ()) -> None:
    table = listing(*map(printable, columns), right=tuple(map(printable, right)))
    for row in rows:
        table.add_row(*(Text(printable(cell)) for cell in row))
    show_listing(table)
