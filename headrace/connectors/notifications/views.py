"""What templates see of a notification: texts for one reader, and nothing that runs."""

import re
import unicodedata
from collections.abc import Mapping
from typing import NamedTuple
from urllib.parse import quote, urlsplit

from headrace.connectors.notifications.languages import nearest, words
from headrace.connectors.notifications.quantities import Quantities
from headrace.schemas.alert import Alert
from headrace.schemas.notification import Notification, Place, Subject

#: Characters of one value from outside.
LONGEST = 200
#: Marks that turn what stands behind them: with them a name could rewrite the line it is in.
_TURNS = dict.fromkeys([*range(0x202A, 0x202F), *range(0x2066, 0x206A), 0x200E, 0x200F, 0x061C])
_COMPARISON = re.compile(r"(.+?)(?: per (\S+) s)? (>=|<=|==|!=|>|<) -?[0-9.e+\-]+")
_OPERATORS = {">": "above", "<": "below", ">=": "at_least", "<=": "at_most", "==": "equal", "!=": "unequal"}
#: Conditions that compare no metric: nothing of them has a unit but silence, in seconds.
_OWN_UNITS = {"silence": "s", "connection": "s"}


def one_line(text: object, longest: int = LONGEST) -> str:
    """What came from outside as part of a line: no ends of lines, no control characters, no marks that turn it."""
    kept = "".join(
        " " if unicodedata.category(each) in ("Cc", "Zl", "Zp", "Cs") else each for each in str(text).translate(_TURNS)
    )
    kept = " ".join(kept.split())
    return kept if len(kept) <= longest else f"{kept[: longest - 1]}…"


class AlertView(NamedTuple):
    """An alert in words; what it does not have is empty.

    Args:
        id, device_id: as they are.
        rule, device, location: names. place: where it is in a word or two.
        severity, status: codes, for `say`.
        condition, value, resolved_value: with units.
        time, acknowledged_time, resolved_time: in the reader's zone. minute, resolved_minute: without date.
        lasted: from trigger to end.
        acknowledged_by, resolved_by, resolution: who, and what they said.
        link, acknowledge_link: where it is seen, and acknowledged.
    """

    id: str
    device_id: str
    rule: str
    device: str
    location: str
    place: str
    severity: str
    status: str
    condition: str
    value: str
    resolved_value: str
    time: str
    minute: str
    acknowledged_time: str
    acknowledged_by: str
    resolved_time: str
    resolved_minute: str
    resolved_by: str
    resolution: str
    lasted: str
    link: str
    acknowledge_link: str


class CountView(NamedTuple):
    """Of a digest, the alerts of one rule: its name, `severity` as a code, and counts."""

    rule: str
    severity: str
    alerts: int
    open: int
    devices: int


class Links(NamedTuple):
    """Patterns of addresses, in which `{alert}` and `{device}` stand for ids; None for no links."""

    dashboard: str | None = None
    acknowledge: str | None = None

    def of(self, pattern: str | None, alert: Alert) -> str:
        """The address for an alert; empty without a pattern."""
        ids = {"{alert}": alert.alertId, "{device}": alert.deviceId}
        return re.sub(
            r"\{(?:alert|device)\}", lambda found: quote(ids[found[0]], safe="", errors="replace"), pattern or ""
        )

    def home(self) -> str:
        """Where the dashboard begins; empty if there is none."""
        parts = urlsplit(self.dashboard or "")
        return f"{parts.scheme}://{parts.netloc}/" if parts.netloc else ""


def alert_view(subject: Subject, quantities: Quantities, texts: Mapping[str, str], links: Links) -> AlertView:
    """An alert for a reader."""
    alert, place = subject.alert, subject.place
    device = one_line(alert.deviceName or alert.deviceId)
    location = one_line(place.location or "")
    unit, difference = _unit(alert, place)
    over = alert.resolvedAt is not None and alert.status == "resolved"
    return AlertView(
        id=one_line(alert.alertId),
        device_id=one_line(alert.deviceId),
        rule=one_line(alert.ruleName),
        device=device,
        location=location,
        place=location.partition(",")[0].strip() or device,
        severity=alert.severity,
        status=alert.status,
        condition=_condition(alert, place, quantities, texts),
        value=quantities.value(alert.actualValue, unit, difference=difference),
        resolved_value=quantities.value(alert.resolvedValue, unit, difference=difference),
        time=quantities.time(alert.triggeredAt),
        minute=quantities.minute(alert.triggeredAt),
        acknowledged_time=quantities.time(alert.acknowledgedAt),
        acknowledged_by=one_line(_who(alert.acknowledgedBy)),
        resolved_time=quantities.time(alert.resolvedAt if over else None),
        resolved_minute=quantities.minute(alert.resolvedAt if over else None),
        resolved_by=_ender(alert, texts),
        resolution=one_line(alert.resolved.resolution or "", 1000) if alert.resolved else "",
        lasted=quantities.duration(alert.resolvedAt - alert.triggeredAt) if over and alert.resolvedAt else "",
        link=links.of(links.dashboard, alert),
        acknowledge_link=links.of(links.acknowledge, alert) if alert.status == "triggered" else "",
    )


def template_values(notification: Notification, links: Links) -> dict[str, object]:
    """Everything that a template may name, but `title` and `say`."""
    language = nearest(notification.reader.language)
    texts = words(language)
    quantities = Quantities(notification.reader)
    alerts = [alert_view(each, quantities, texts, links) for each in notification.subjects]
    counts = [
        CountView(one_line(each.ruleName), each.severity, each.alerts, each.open, each.devices)
        for each in notification.counts
    ]
    count = sum(each.alerts for each in counts) or len(alerts)
    digest = notification.kind == "digest"
    codes = dict.fromkeys(f"why_{each.code.replace('-', '_')}" for each in notification.reasons)
    return {
        "kind": notification.kind,
        "severity": notification.severity,
        "language": language,
        "name": one_line(notification.reader.name or ""),
        "alert": alerts[0],
        "alerts": alerts,
        "counts": counts,
        "count": count,
        "more": max(0, count - len(alerts)) if digest else 0,
        "since": quantities.minute(notification.since if notification.since is not None else notification.decidedAt),
        "step": notification.step,
        "team": one_line(notification.team or ""),
        "reasons": [texts[each] for each in codes if each in texts],
        "link": links.home() if digest else alerts[0].link,
        "acknowledge_link": "" if digest else alerts[0].acknowledge_link,
    }


def _unit(alert: Alert, place: Place) -> tuple[str | None, bool]:
    """The unit of what is compared, and whether that is a difference of two values."""
    if alert.metric in _OWN_UNITS:
        return _OWN_UNITS[alert.metric], False
    found = _COMPARISON.fullmatch(alert.condition)
    return _written(place), found is not None and found[2] is not None


def _written(place: Place) -> str | None:
    return None if place.unit is None else one_line(place.unit, 40)


def _condition(alert: Alert, place: Place, quantities: Quantities, texts: Mapping[str, str]) -> str:
    """`temperature > 30` as a sentence; what is no comparison of the metric as the rule has it."""
    found = _COMPARISON.fullmatch(alert.condition)
    if found is None or found[1] != alert.metric or alert.threshold is None:
        return one_line(alert.condition, 500)
    what = one_line(place.label or _label(alert.metric))
    if found[2] is not None:
        what = texts["change"].format(what=what, seconds=one_line(found[2]))
    limit = quantities.value(alert.threshold, _written(place), difference=found[2] is not None)
    return texts[_OPERATORS[found[3]]].format(what=what, limit=limit)


def _label(metric: str) -> str:
    """The name of a metric for people, where the registry has none."""
    text = metric.replace("_", " ")
    return text[:1].upper() + text[1:] if text.isalpha() or " " in text else text


def _who(person: object) -> str:
    return str(getattr(person, "name", None) or getattr(person, "userId", "") or "")


def _ender(alert: Alert, texts: Mapping[str, str]) -> str:
    if alert.resolved is None:
        return ""
    if alert.resolved.by == "person":
        return one_line(_who(alert.resolved.person))
    return texts[f"by_{alert.resolved.by.replace('-', '_')}"]
