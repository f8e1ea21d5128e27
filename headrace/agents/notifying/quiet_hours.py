"""When somebody's quiet hours are over, by the wall clock where they are."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from headrace.schemas.rule import Severity
from headrace.schemas.user import QuietHours, User

_HOUR_MS = 3_600_000
_MINUTE_MS = 60_000
_DAY = 1_440
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
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
        over = at_ms + _until(end, _wall(zone, at_ms))
        change = _first_change(zone, at_ms, over)
        if change is None:
            return over
        if not _is_quiet(quiet, zone, change):
            return change
        at_ms = change
    return at_ms


def _is_quiet(quiet: QuietHours, zone: ZoneInfo, at_ms: int) -> bool:
    there = _wall(zone, at_ms)
    clock, start, end = there.hour * 60 + there.minute, _minutes(quiet.start), _minutes(quiet.end)
    return start <= clock < end if start < end else clock >= start or clock < end


def _until(end: int, there: datetime) -> int:
    """Ms until the wall clock shows `end`, minutes of the day, if nobody changes it; more than 0."""
    minutes = (end - there.hour * 60 - there.minute) % _DAY or _DAY
    return minutes * _MINUTE_MS - there.second * 1000 - there.microsecond // 1000


def _first_change(zone: ZoneInfo, after_ms: int, until_ms: int) -> int | None:
    """When the offset changes first, after the one moment and not after the other; None: it does not."""
    offset, low = _offset(zone, after_ms), after_ms
    while low < until_ms:
        high = min(low + _HOUR_MS, until_ms)
        if _offset(zone, high) != offset:
            while high - low > 1:
                middle = (low + high) // 2
                low, high = (middle, high) if _offset(zone, middle) == offset else (low, middle)
            return high
        low = high
    return None


def _offset(zone: ZoneInfo, at_ms: int) -> timedelta | None:
    return _wall(zone, at_ms).utcoffset()


def _wall(zone: ZoneInfo, at_ms: int) -> datetime:
    return (_EPOCH + timedelta(milliseconds=at_ms)).astimezone(zone)


def _minutes(clock: str) -> int:
    return int(clock[:2]) * 60 + int(clock[3:])
