"""Event times as files write them, in milliseconds since 1970 UTC."""

import re
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta, timezone, tzinfo
from functools import cache, lru_cache
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

#: Named formats of a time column; anything else is a pattern of `strptime`.
TIME_FORMATS = ("auto", "s", "ms", "us", "ns", "iso8601")
TIME_PARTS = ("year", "month", "day", "hour", "minute", "second")
#: Stands for "no event time" in arrays of times.
NO_TIME = -(1 << 62)

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)
_UNITS_PER_MS = {"s": 0.001, "ms": 1, "us": 1_000, "ns": 1_000_000}
#: Of a minute; with a leap second one more than 60.
_SECONDS = 61
_YEAR_10000_MS = 253_402_300_800_000
#: Above every time in ns, and small enough to compute with; NaN is not below it either.
_TOO_LARGE = 1e21
#: Texts remembered by a parser: devices report at the same times, and `strptime` costs 5 µs.
_CACHED_TEXTS = 65_536

Parse = Callable[[object], int | None]


def parse_zone(name: str) -> tzinfo:
    """The time zone of an IANA name or a fixed offset like "+08:00".

    Raises:
        ValueError: there is no such zone.
    """
    offset = re.fullmatch(r"([+-])(\d\d):(\d\d)", name)
    if offset:
        sign = -1 if offset[1] == "-" else 1
        return timezone(sign * timedelta(hours=int(offset[2]), minutes=int(offset[3])))
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise ValueError(f"{name!r} is neither an IANA time zone nor an offset like +08:00") from error


@cache
def time_parser(format: str, zone: str) -> Parse:
    """A function from one value to ms since 1970 UTC; None for what is not a time.

    Args:
        format: one of `TIME_FORMATS`, or a `strptime` pattern.
        zone: of times that name none.

    >>> time_parser("iso8601", "+08:00")("2013-03-01 00:00:00")
    1362067200000
    """
    to_ms = _to_ms(parse_zone(zone))
    if format in _UNITS_PER_MS:
        return _numbers(_UNITS_PER_MS[format], lambda value: None)
    read = datetime.fromisoformat if format in ("auto", "iso8601") else _strptime(format)

    @lru_cache(_CACHED_TEXTS)
    def parse_text(text: str) -> int | None:
        try:
            return to_ms(read(text.strip()))
        except (ValueError, OverflowError):
            return None

    def parse(value: object) -> int | None:
        if isinstance(value, str):
            return parse_text(value)
        if isinstance(value, datetime):
            return to_ms(value)
        if isinstance(value, date):
            return to_ms(datetime(value.year, value.month, value.day))  # noqa: DTZ001
        return None

    return _numbers(1, parse) if format == "auto" else parse


@cache
def parts_parser(names: tuple[str, ...], zone: str) -> Callable[[tuple[object, ...]], int | None]:
    """A function from the values of `names` to ms; None for what is not a time.

    Args:
        names: of `TIME_PARTS` and in that order, year, month and day at least. A second may have a fraction.
        zone: that the values are in.

    >>> parts_parser(("year", "month", "day", "hour"), "+08:00")(("2013", "3", "1", "0"))
    1362067200000
    """
    to_ms = _to_ms(parse_zone(zone))
    has_second = names[-1] == "second"
    # hour and minute may be left out, each on its own
    template = [0 if part not in names else None for part in TIME_PARTS[:5]]

    @lru_cache(_CACHED_TEXTS)
    def parse(values: tuple[Any, ...]) -> int | None:
        try:
            second = float(values[-1]) if has_second else 0.0
            given = map(int, values)
            year, month, day, hour, minute = (next(given) if part is None else part for part in template)
            time = to_ms(datetime(year, month, day, hour, minute))  # noqa: DTZ001
            return time + round(second * 1000) if 0 <= second < _SECONDS else None
        except (TypeError, ValueError, OverflowError):
            return None

    return parse


def _numbers(units_per_ms: float, otherwise: Parse) -> Parse:
    def parse(value: object) -> int | None:
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            return otherwise(value)
        try:
            number = value if isinstance(value, int | float) else _number(value)
        except ValueError:
            return otherwise(value)
        if not abs(number) < _TOO_LARGE:
            return None
        time = round(number / units_per_ms) if units_per_ms < 1 else int(number // units_per_ms)
        return time if abs(time) < _YEAR_10000_MS else None

    return parse


def _number(text: str) -> int | float:
    try:
        return int(text)
    except ValueError:
        return float(text)


# A datetime without a zone is in the zone of the mapping; it gets it here and nowhere else.
def _to_ms(zone: tzinfo) -> Callable[[datetime], int]:
    offset = zone.utcoffset(None)
    if offset is None:
        return lambda time: ((time if time.tzinfo else time.replace(tzinfo=zone)) - _EPOCH) // _MILLISECOND
    start = _EPOCH.replace(tzinfo=None) + offset
    return lambda time: (time - (_EPOCH if time.tzinfo else start)) // _MILLISECOND


def _strptime(format: str) -> Callable[[str], datetime]:
    return lambda text: datetime.strptime(text, format)  # noqa: DTZ007
