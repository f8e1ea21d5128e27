"""What wall clocks show, and when somebody changes them."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

_HOUR_MS = 3_600_000
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def wall(zone: ZoneInfo, at_ms: int) -> datetime:
    """What the clocks of a zone show at a moment, ms since 1970 UTC."""
    return (_EPOCH + timedelta(milliseconds=at_ms)).astimezone(zone)


def first_change(zone: ZoneInfo, after_ms: int, until_ms: int) -> int | None:
    """When the offset of a zone changes first, after the one moment and not after the other; None: it does not.

    Looks once an hour: a change that is taken back within the hour is none.
    """
    offset, low = wall(zone, after_ms).utcoffset(), after_ms
    while low < until_ms:
        high = min(low + _HOUR_MS, until_ms)
        if wall(zone, high).utcoffset() != offset:
            while high - low > 1:
                middle = (low + high) // 2
                low, high = (middle, high) if wall(zone, middle).utcoffset() == offset else (low, middle)
            return high
        low = high
    return None
