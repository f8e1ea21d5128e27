"""What may be done with an alert, and when somebody else has to be told: pure functions over one alert."""

from headrace.schemas.alert import Alert

#: Why a command is refused, for a person.
OVER = "it is over: only comments can be added"
NOT_ACKNOWLEDGED = "acknowledge it first"


def why_not_acknowledge(alert: Alert) -> str | None:
    """Why the alert cannot be acknowledged; None if it can."""
    if alert.status == "resolved":
        return OVER
    if alert.status == "acknowledged":
        who = alert.acknowledgedBy.name or alert.acknowledgedBy.userId if alert.acknowledgedBy else "somebody"
        return f"{who} has acknowledged it already"
    return None


def can_acknowledge(alert: Alert) -> bool:
    """Whether somebody may say that they look after it: it is open, and nobody does."""
    return why_not_acknowledge(alert) is None


def why_not_resolve(alert: Alert) -> str | None:
    """Why a person cannot resolve the alert; None if they can."""
    if alert.status == "resolved":
        return "it is over already"
    return NOT_ACKNOWLEDGED if alert.status == "triggered" else None


def can_resolve(alert: Alert) -> bool:
    """Whether a person may end it: it is acknowledged, and not over."""
    return why_not_resolve(alert) is None


def should_escalate(alert: Alert, now_ms: int, after: float) -> bool:
    """Whether to tell the next people: nobody has looked after it for so long, and people are to be told of it.

    Args:
        now_ms: ms since 1970 UTC, by the clock that `triggeredAt` is of.
        after: seconds since the trigger.
    """
    waiting = alert.status == "triggered" and alert.suppressed is None
    return waiting and now_ms - alert.triggeredAt >= after * 1000
