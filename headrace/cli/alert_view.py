"""Alerts for a person to read."""

from collections.abc import Iterator, Mapping, Sequence

import click
from rich.text import Text

from headrace.cli.listing import listing, printable, show_listing
from headrace.cli.moments import iso_ms
from headrace.schemas.alert import Alert, Related, Sample
from headrace.schemas.text import shortened

#: Characters of an id that lists show: they nearly always name one.
SHORT = 8
#: Devices of explained alerts that are named.
MOST_NAMED = 10
#: Characters of the ids of devices and rules that lists show.
LONGEST = 40
#: What is a time, ms since 1970 UTC, of what an alert says beside its fields.
_TIMES = frozenset({"lastSeen", "offlineSince"})


def alert_rows(alerts: Sequence[Alert]) -> Iterator[tuple[str, ...]]:
    """A line per alert: short id, trigger, severity, status, device, rule, value, how people were told or why not."""
    for alert in alerts:
        told = ", ".join(alert.notificationChannels) if alert.suppressed is None else f"no: {alert.suppressed.text}"
        yield (
            alert.alertId[:SHORT], iso_ms(alert.triggeredAt), alert.severity, alert.status,
            shortened(printable(alert.deviceId), LONGEST), shortened(printable(alert.ruleId), LONGEST),
            value_of(alert), told,
        )  # fmt: skip


def value_of(alert: Alert) -> str:
    """What it was, and the threshold."""
    if alert.actualValue is None:
        return ""
    return f"{alert.actualValue:g}" + ("" if alert.threshold is None else f" / {alert.threshold:g}")


def show_facets(counts: Mapping[str, Mapping[str, int]]) -> None:
    """A line per value that some alert has."""
    table = listing("", "", "alerts", right=("alerts",))
    for name, values in counts.items():
        for place, (value, count) in enumerate(values.items()):
            table.add_row(Text("" if place else name), Text(printable(value)), f"{count:,}")
    show_listing(table)


def show_alert(alert: Alert, explained: Sequence[Alert]) -> None:
    """All of one alert.

    Args:
        explained: the open alerts that it explains now.
    """
    table = listing("", "", header=False)
    for name, text in (*_facts(alert, explained), *_life(alert)):
        table.add_row(Text(name), Text(printable(text)))
    show_listing(table)
    _show("evidence", ("time", "value", "of"), map(_sample, alert.evidence))
    _show(
        "comments",
        ("time", "who", "comment"),
        ((iso_ms(each.timestamp), each.name or each.userId, each.comment) for each in alert.comments),
    )
    _show("related", ("alert", "triggered", "device", "rule"), map(_related, alert.relatedAlerts))


def _facts(alert: Alert, explained: Sequence[Alert]) -> Iterator[tuple[str, str]]:
    yield "alert", alert.alertId
    yield "rule", f"{alert.ruleName} ({alert.ruleId})"
    yield "device", f"{alert.deviceName} ({alert.deviceId})" if alert.deviceName else alert.deviceId
    yield "type", alert.deviceType
    if alert.gatewayId is not None:
        yield "gateway", alert.gatewayId
    if alert.organizationId is not None:
        yield "organisation", alert.organizationId
    yield "severity", alert.severity
    yield "status", alert.status
    yield "condition", alert.condition
    if value := value_of(alert):
        yield "value", value
    yield "group", alert.groupKey
    if alert.suppressed is not None:
        until = "" if alert.suppressed.until is None else f", until {iso_ms(alert.suppressed.until)}"
        yield "told", f"no: {alert.suppressed.text}{until}"
    if explained:
        names = sorted({each.deviceId for each in explained})
        more = ", ..." if len(names) > MOST_NAMED else ""
        yield "explains", f"{len(explained):,} alerts: {', '.join(names[:MOST_NAMED])}{more}"
    for name, value in alert.metadata.items():
        yield name, iso_ms(value) if name in _TIMES and isinstance(value, int) else str(value)


def _life(alert: Alert) -> Iterator[tuple[str, str]]:
    yield "triggered", iso_ms(alert.triggeredAt)
    if alert.flaps.triggers > 1:
        yield "flaps", f"{alert.flaps.triggers} triggers lately{', flapping' if alert.flaps.flapping else ''}"
    if alert.cooldownSuppressed:
        yield "cooldown", f"met {alert.cooldownSuppressed:,} times before, while the cooldown ran"
    if alert.lastNotifiedAt is not None:
        yield "notified", f"{iso_ms(alert.lastNotifiedAt)} by {', '.join(alert.notificationsSent)}"
    if alert.acknowledgedAt is not None and alert.acknowledgedBy is not None:
        who = alert.acknowledgedBy.name or alert.acknowledgedBy.userId
        yield "acknowledged", f"{iso_ms(alert.acknowledgedAt)} by {who}"
    if alert.resolvedAt is not None and alert.resolved is not None:
        person = alert.resolved.person
        who = person.name or person.userId if person else alert.resolved.by
        yield "resolved", f"{iso_ms(alert.resolvedAt)} by {who}"
        if alert.resolved.resolution is not None:
            yield "resolution", alert.resolved.resolution
        if alert.resolved.preventionNotes is not None:
            yield "prevention", alert.resolved.preventionNotes


def _sample(sample: Sample) -> tuple[str, ...]:
    values = (sample.values or {}).items()
    return iso_ms(sample.time), f"{sample.value:g}", ", ".join(f"{name} {value:g}" for name, value in values)


def _related(related: Related) -> tuple[str, ...]:
    return related.alertId[:SHORT], iso_ms(related.triggeredAt), related.deviceId, related.ruleName


def _show(title: str, columns: tuple[str, ...], rows: Iterator[tuple[str, ...]]) -> None:
    """A table with a title; nothing where there are no rows."""
    found = list(rows)
    if not found:
        return
    click.echo(f"\n{title}")
    table = listing(*columns)
    for row in found:
        table.add_row(*(Text(printable(cell)) for cell in row))
    show_listing(table)
