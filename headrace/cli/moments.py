"""Times and durations as people write them on the command line: `2025-06-01T12:00:00Z`, `2025-06-01`, `90s`, `2h`."""

import re
from datetime import UTC, datetime, timedelta

from headrace.engine.errors import ConfigError

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_SECONDS = {"s": 1, "m": 60, "min": 60, "h": 3600, "d": 86_400, "w": 604_800}
_NAMES = {"s": "second", "m": "minute", "min": "minute", "h": "hour", "d": "day", "w": "week"}
_DURATION = re.compile(rf"(\d+(?:\.\d+)?)({'|'.join(sorted(_SECONDS, key=len, reverse=True))})")


def duration(option: str, text: str) -> float:
    """Seconds in `text`, a number and one of s, m, h, d, w.

    Raises:
        ConfigError: it is none; names the option.

    >>> duration("--warm-up", "1.5h")
    5400.0
    """
    found = _DURATION.fullmatch(text.strip())
    if found is None:
        raise ConfigError(f"{option}: {text!r} is not a duration such as 90s, 15m, 2h, 7d or 1w")
    return float(found[1]) * _SECONDS[found[2]]


def words(text: str) -> str:
    """A duration as people say it.

    >>> words("7d"), words("1h"), words("1.5min")
    ('7 days', '1 hour', '1.5 minutes')
    """
    found = _DURATION.fullmatch(text.strip())
    assert found is not None
    name = _NAMES[found[2]]
    return f"{found[1]} {name}{'' if found[1] == '1' else 's'}"


def moment(option: str, text: str, now_ms: int) -> int:
    """Milliseconds since 1970 UTC of an ISO 8601 date or time (UTC unless it names an offset), or of a duration ago.

    Raises:
        ConfigError: it is neither; names the option.

    >>> moment("--from", "1970-01-02", 0), moment("--from", "1970-01-01T01:00+01:00", 0), moment("--from", "2s", 5000)
    (86400000, 0, 3000)
    """
    if _DURATION.fullmatch(text.strip()):
        return max(0, now_ms - round(min(duration(option, text) * 1000, now_ms)))
    try:
        found = datetime.fromisoformat(text.strip())
    except ValueError:
        raise ConfigError(
            f"{option}: {text!r} is neither an ISO 8601 time such as 2025-06-01T12:00:00Z nor a time ago such as 2h"
        ) from None
    if found.tzinfo is None:
        found = found.replace(tzinfo=UTC)
    return (found - _EPOCH) // timedelta(milliseconds=1)


def iso_ms(time_ms: int) -> str:
    """ISO 8601 to the millisecond, UTC: `moment` reads it back exactly.

    >>> iso_ms(1_750_000_000_123)
    '2025-06-15T15:06:40.123Z'
    """
    try:
        return (_EPOCH + timedelta(milliseconds=time_ms)).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    except OverflowError:
        return f"{time_ms} ms"
