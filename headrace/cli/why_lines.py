"""The lines of a story of an alert and a person, in words and as JSON."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from zoneinfo import ZoneInfo

from headrace.agents.notifying.clock_changes import wall
from headrace.cli.moments import iso_ms
from headrace.cli.why_records import Happened
from headrace.schemas.contacts import masked, masked_text
from headrace.schemas.notification import Kind, NotificationState, Reason

#: Statuses of decisions; the others are of deliveries.
DECISIONS = frozenset({"queued", "held", "dropped"})
_ABOUT: dict[Kind, str] = {
    "alert": "",
    "acknowledged": "that it is acknowledged",
    "resolved": "that it is resolved",
    "escalation": "step {step} of the escalation",
    "digest": "digest of {alerts}",
}
#: Of a delivery, what it came to.
_DELIVERED = {
    "dropped": "{which}: not sent{to}",
    "sending": "{which}: being sent{to}{attempt}",
    "failed": "{which}: failed{to}{attempt}{why}; another one follows",
    "unknown": "{which}: a crash came before it was known whether it went{to}{attempt}; that is found out",
    "dead": "{which}: given up{to}, {attempts}{why}",
    "sent": "{which}: sent{to}{attempt}{known}",
    "delivered": "{which}: delivered{to}{known}",
}
#: Times in texts of reasons, which are for programs too.
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")


@dataclass(frozen=True, slots=True)
class Line:
    """One thing that happened, or did not, and why.

    Args:
        at_ms: when, ms since 1970 UTC.
        what: in words.
        reasons: why.
        channel: of a decision or a delivery; None for all, or none.
        state: of what is recorded.
        computed: not recorded: what the rules say of it now.
    """

    at_ms: int
    what: str
    reasons: Sequence[Reason] = ()
    channel: str | None = None
    state: NotificationState | None = None
    computed: bool = False


def shown(zone: ZoneInfo, at_ms: int) -> str:
    """A moment as the wall clock of a zone shows it."""
    return f"{wall(zone, at_ms):%Y-%m-%d %H:%M:%S %Z}"


def local_times(text: str, zone: ZoneInfo) -> str:
    """A reason's text with its times as the wall clock of a zone shows them."""
    return _TIME.sub(lambda found: shown(zone, round(datetime.fromisoformat(found[0]).timestamp() * 1000)), text)


def state_text(state: NotificationState, zone: ZoneInfo) -> str:
    """What became of a notification."""
    kind = about(state)
    which = f"{state.channel or 'all channels'}{f', {kind}' if kind else ''}"
    if state.status == "queued":
        return f"{which}: to be sent"
    if state.status == "held":
        return f"{which}: held{'' if state.until is None else f' until {shown(zone, state.until)}'}"
    return _DELIVERED[state.status].format(
        which=which,
        to=f" to {masked(state.contact)}" if state.contact else "",
        attempt=f", attempt {state.attempts}" if state.attempts > 1 else "",
        attempts=f"{state.attempts:,} attempt{'s'[: state.attempts != 1]}",
        why=f": {masked_text(state.error)}" if state.error else "",
        known=f", the provider's id is {state.providerId}" if state.providerId else "",
    )


def document_of(line: Line, zone: ZoneInfo) -> dict[str, object]:
    """As JSON has it; what is None is left out."""
    state = line.state
    found: dict[str, object | None] = {
        "time": iso_ms(line.at_ms),
        "local": wall(zone, line.at_ms).isoformat(timespec="seconds"),
        "what": line.what,
        "channel": line.channel,
        "reasons": [each.model_dump() for each in line.reasons],
        "recorded": not line.computed,
    }
    if state is not None:
        found |= {
            "status": state.status,
            "kind": state.kind,
            "step": state.step or None,
            "notificationId": state.notificationId,
            "alertIds": list(state.alertIds) or None,
            "until": None if state.until is None else iso_ms(state.until),
            "contact": state.contact and masked(state.contact),
            "attempts": state.attempts or None,
            "providerId": state.providerId,
            "error": state.error and masked_text(state.error),
        }
    return {name: value for name, value in found.items() if value is not None}


def event_text(each: Happened) -> str:
    alert = each.alert
    if each.change == "triggered":
        value = "" if alert.actualValue is None else f", value {alert.actualValue:g}"
        return f"alert triggered: {alert.condition}{value}; {alert.severity}"
    person = alert.acknowledgedBy if each.change == "acknowledged" else alert.resolved and alert.resolved.person
    by = f" by {person.name or person.userId}" if person and each.change in ("acknowledged", "resolved") else ""
    return f"alert {each.change}{by}"


def suppression(each: Happened) -> list[Reason]:
    """Why nobody is to be told, if so."""
    if each.alert.suppressed is None or each.change in ("commented", "updated"):
        return []
    return [Reason(code="suppressed", text=each.alert.suppressed.text)]


def about(state: NotificationState) -> str:
    count = len(state.alertIds) or 1
    return _ABOUT[state.kind].format(step=state.step, alerts=f"{count:,} alert{'s'[: count != 1]}")
