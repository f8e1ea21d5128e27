"""When somebody's quiet hours are over, by the wall clock where they are."""

from datetime import datetime
from zoneinfo import ZoneInfo

from headrace.agents.notifying.clock_changes import first_change, wall
from headrace.schemas.rule import Severity
from headrace.schemas.user import QuietHours, User

_MINUTE_MS = 60_000
_DAY = 1_440
#: Changes of the clocks that are looked past; there are never two within a night.
_MOST_CHANGES = 8


def quiet_until(user: User, severity: Severity, at_ms: int) -> int | None:
    """When they may be told of something of this severity that is known at `at_ms`.

    The end is the first moment at which the wall clock there shows nothing between start and end. Where it skips the
    end that is the moment after the skip; where it shows the end twice they are over at the first, and hold again
    while it shows what lies before it a second time.

    Returns:
        Ms since 1970 UTC, later than `at_ms`; None: now.
    """
    quiet = user.preferences.quiet_hours
    if quiet is None or not quiet.enabled or severity in quiet.override:
        return None
    zone = ZoneInfo(quiet.timezone or user.timezone)
    if not _is_quiet(quiet, zone, at_ms):
        return None
    end = _minutes(quiet.end)
    for _ in range(_MOST_CHANGES):
        over = at_ms + _until(end, wall(zone, at_ms))
        change = first_change(zone, at_ms, over)
        if change is None:
            return over
        if not _is_quiet(quiet, zone, change):
            return change
        at_ms = change
    return at_ms


def _is_quiet(quiet: QuietHours, zone: ZoneInfo, at_ms: int) -> bool:
    there = wall(zone, at_ms)
    clock, start, end = there.hour * 60 + there.minute, _minutes(quiet.start), _minutes(quiet.end)
    return start <= clock < end if start < end else clock >= start or clock < end


def _until(end: int, there: datetime) -> int:
    """Ms until the wall clock shows `end`, minutes of the day, if nobody changes it; more than 0."""
    minutes = (end - there.hour * 60 - there.minute) % _DAY or _DAY
    return minutes * _MINUTE_MS - there.second * 1000 - there.microsecond // 1000


def _minutes(clock: str) -> int:
    return int(clock[:2]) * 60 + int(clock[3:])
