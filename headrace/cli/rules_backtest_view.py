"""What `headrace rules backtest` says: for a person, or as one JSON object."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import click
import orjson
from rich.text import Text

from headrace.agents.alerting.backtest import MOST_KEPT, Episode, Tried
from headrace.cli.listing import listing, printable, show_listing
from headrace.cli.moments import iso_ms
from headrace.cli.rules_session import document_of
from headrace.schemas.rule import AlertRule

#: Stored data that end so much before now are not "the last" of anything, ms.
STALE_MS = 3_600_000


@dataclass(frozen=True, slots=True)
class BackTested:
    """What came of it.

    Args:
        tried: one per rule.
        start_ms, end_ms: range whose triggers count.
        source: where the records were.
        records: how many were looked at, those before the range included; count.
        oldest_ms: append time of the oldest of them, or event time in the database; None if there were none.
        reaches: whether the source has everything of the range.
        now_ms: when that was, real.
        last: length of the range in words, if it was asked for so.
    """

    tried: Sequence[Tried]
    start_ms: int
    end_ms: int
    source: str
    records: int
    oldest_ms: int | None
    reaches: bool
    now_ms: int
    last: str | None

    def json(self, limit: int) -> str:
        """One JSON object."""
        return orjson.dumps(
            {
                "from": iso_ms(self.start_ms),
                "to": iso_ms(self.end_ms),
                "source": self.source,
                "records": self.records,
                "oldestRecord": None if self.oldest_ms is None else iso_ms(self.oldest_ms),
                "complete": self.reaches,
                "rules": [_document(each, limit) for each in self.tried],
            }
        ).decode()

    def show(self, limit: int, *, err: bool = False) -> None:
        """For a person; alerts in tables, unless it goes to standard error."""
        for each in self.tried:
            click.echo(f"{each.rule.rule_id}: {each.rule.condition}", err=err)
            alerts, devices = len_of(each.alerts, "alert"), len_of(len(each.devices), "device")
            before = f"; {len_of(each.open_before, 'alert')} from before" if each.open_before else ""
            click.echo(f"{self._range()}: {alerts}{f' on {devices}' if each.alerts else ''}{before}", err=err)
            if each.alerts and not err:
                _show_episodes(each, limit)
        click.echo(f"{len_of(self.records, 'record')} of {self.source} looked at{self._lacks()}", err=True)

    def _range(self) -> str:
        if self.last is None:
            return f"from {iso_ms(self.start_ms)} to {iso_ms(self.end_ms)}"
        if self.now_ms - self.end_ms > STALE_MS:
            return f"in the {self.last} before {iso_ms(self.end_ms)}"
        return f"in the last {self.last}"

    def _lacks(self) -> str:
        if self.oldest_ms is None:
            return "; none is stored"
        if not self.reaches:
            return f"; it goes back to {iso_ms(self.oldest_ms)} only"
        return f"; the oldest is of {iso_ms(self.oldest_ms)}" if self.oldest_ms > self.start_ms else ""


def len_of(count: int, noun: str) -> str:
    """`1 alert`, `1,200 alerts`."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def _document(tried: Tried, limit: int) -> dict[str, Any]:
    return {
        "rule": _rule(tried.rule),
        "alerts": tried.alerts,
        "devices": len(tried.devices),
        "openBefore": tried.open_before,
        "episodes": [_episode(each) for each in tried.episodes[: limit or None]],
    }


def _rule(rule: AlertRule) -> dict[str, Any]:
    """Its document; times in it are written as the others are here."""
    document = document_of(rule)
    return {name: iso_ms(value) if name in ("createdAt", "updatedAt") else value for name, value in document.items()}


def _episode(episode: Episode) -> dict[str, Any]:
    alert = episode.alert
    ended = episode.resolved_at
    return {
        "deviceId": alert.deviceId,
        "deviceName": alert.deviceName,
        "deviceType": alert.deviceType,
        "triggeredAt": iso_ms(alert.triggeredAt),
        "resolvedAt": None if ended is None else iso_ms(ended),
        "seconds": None if ended is None else (ended - alert.triggeredAt) / 1000,
        "actualValue": alert.actualValue,
        "peak": episode.peak,
        "resolvedValue": episode.resolved_value,
        "by": episode.by,
        "flapping": alert.flaps.flapping,
        "cooldownSuppressed": alert.cooldownSuppressed,
        "evidence": [{**each.model_dump(exclude_none=True), "time": iso_ms(each.time)} for each in alert.evidence],
    }


def _show_episodes(tried: Tried, limit: int) -> None:
    table = listing(
        "device", "name", "triggered", "resolved", "lasted", "value", "peak", right=("lasted", "value", "peak")
    )
    shown = tried.episodes[: limit or None]
    for episode in shown:
        alert, ended = episode.alert, episode.resolved_at
        values = alert.evidence[-1].values if alert.evidence else None
        value = ", ".join(f"{name} {each:g}" for name, each in values.items()) if values else _number(alert.actualValue)
        cells = (
            alert.deviceId,
            alert.deviceName or "",
            iso_ms(alert.triggeredAt),
            "open at the end" if ended is None else iso_ms(ended) + (", no data" if episode.by == "no-data" else ""),
            "" if ended is None else _lasted(ended - alert.triggeredAt),
            value,
            _number(episode.peak),
        )
        table.add_row(*(Text(printable(cell)) for cell in cells))
    show_listing(table)
    if len(shown) < tried.alerts:
        kept = "" if tried.alerts <= MOST_KEPT else f" (at most {MOST_KEPT:,})"
        click.echo(f"{len(shown):,} of {tried.alerts:,} alerts; --limit 0 shows all{kept}", err=True)


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:g}"


def _lasted(duration_ms: int) -> str:
    seconds = duration_ms // 1000
    for unit, size in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds} s"
