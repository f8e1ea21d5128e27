"""What is remembered of alerts: who was told of those that are open, and which ones are over."""

from typing import NamedTuple

import msgspec

from headrace.agents.notifying.timers import TimedTable
from headrace.schemas.alert import Alert


class AlertKey(NamedTuple):
    """One alert at the most is open under it; alerts under it have rising trigger times."""

    rule_id: str
    device_type: str
    device_id: str


class OpenAlert(msgspec.Struct, frozen=True, omit_defaults=True):
    """The newest alert of a rule on a device, while it is open.

    Args:
        alert_id, triggered_at, revision: of it; revision of its last event that counted.
        told: recipients that a request went to, and who are told of what comes of it.
        suppressed: "snooze" if somebody asked to be told later, else "yes"; empty if people are told.
        acknowledged_at: append time, ms.
        since: append time from which the steps of its escalation count, ms; None while they stand still.
        step: number of the last step that was carried out.
        due: when the next step, or the next reminder, comes, ms; None for never.
        reminded: times that people were told of it again after it was acknowledged, count.
        again: times that its telling began anew: after a snooze, or as a reminder.
        alert: as it was last, JSON; empty if nothing is due.
        message_id: of the reading that caused it.
    """

    alert_id: str
    triggered_at: int
    revision: int
    told: tuple[str, ...] = ()
    suppressed: str = ""
    acknowledged_at: int | None = None
    since: int | None = None
    step: int = 0
    due: int | None = None
    reminded: int = 0
    again: int = 0
    alert: str = ""
    message_id: str | None = None


class OverAlert(msgspec.Struct, frozen=True):
    """The newest alert of a rule on a device, when it is over: events of it that come again are known by this.

    Args:
        alert_id, triggered_at, revision: as in `OpenAlert`.
        forget_at: append time, ms.
    """

    alert_id: str
    triggered_at: int
    revision: int
    forget_at: int


def open_table() -> TimedTable[AlertKey, OpenAlert]:
    """About 300 bytes per open alert, 10 per recipient told, and up to 10 KiB while a step or reminder is due."""
    return TimedTable.of("notify.open", AlertKey, OpenAlert, lambda each: each.due)


def over_table() -> TimedTable[AlertKey, OverAlert]:
    """About 400 bytes per rule and device that have had an alert lately."""
    return TimedTable.of("notify.over", AlertKey, OverAlert, lambda each: each.forget_at)


def is_old(alert: Alert, known: OpenAlert | OverAlert) -> bool:
    """Whether an event of this alert has come before, or is of an alert that was followed by another."""
    if alert.alertId == known.alert_id:
        return alert.revision <= known.revision
    return alert.triggeredAt <= known.triggered_at
