"""Recurrence rules of iCalendar (RFC 5545, 3.3.10) for what happens at most once a day, such as shifts of people.

Not taken: rules by hours, minutes and seconds, of which one line can mean more moments than anybody could count.
"""

import re
from collections.abc import Iterator
from datetime import MAXYEAR, UTC, datetime, time, timedelta
from itertools import islice, takewhile
from zoneinfo import ZoneInfo

from dateutil.rrule import rrule, rrulestr

from headrace.schemas.text import near

#: Largest INTERVAL and COUNT.
MOST_INTERVAL, MOST_COUNT = 1_000, 10_000
#: Years in which a start may be.
FIRST_YEAR, LAST_YEAR = 1970, 2500
#: Years after which the calendar is the same, weekdays too. dateutil looks for what never happens until the last year
#: that there is, for 13 s; so it is asked about the last such years.
_CYCLE = 400
_EVERY = {"DAILY": timedelta(days=1), "WEEKLY": timedelta(weeks=1)}
_FREQUENCIES = ("DAILY", "WEEKLY", "MONTHLY", "YEARLY")
_DAY = r"(MO|TU|WE|TH|FR|SA|SU)"
#: Least and greatest number of each part; those that may count from the end are negative, too.
_NUMBERS = {
    "INTERVAL": (1, MOST_INTERVAL),
    "COUNT": (1, MOST_COUNT),
    "BYMONTH": (1, 12),
    "BYMONTHDAY": (1, 31),
    "BYYEARDAY": (1, 366),
    "BYWEEKNO": (1, 53),
    "BYSETPOS": (1, 366),
}
_FROM_END = ("BYMONTHDAY", "BYYEARDAY", "BYWEEKNO", "BYSETPOS")
_ONCE = ("INTERVAL", "COUNT")
_KNOWN = ("FREQ", "UNTIL", "WKST", "BYDAY", *_NUMBERS)
_TOO_OFTEN = ("BYHOUR", "BYMINUTE", "BYSECOND")
#: Parts that a frequency does not take.
_REFUSED = {
    "DAILY": ("BYWEEKNO", "BYYEARDAY"),
    "WEEKLY": ("BYWEEKNO", "BYYEARDAY", "BYMONTHDAY"),
    "MONTHLY": ("BYWEEKNO", "BYYEARDAY"),
    "YEARLY": (),
}
_UNTIL = r"\d{8}(T\d{6}Z?)?"


def check_rule(text: str) -> str:
    """A rule that can be followed, as it is written.

    Raises:
        ValueError: it is none; everything that is wrong.
    """
    wrong = list(_mistakes(text))
    if wrong:
        raise ValueError("; ".join(wrong))
    return text


def check_start(text: str, start: datetime) -> None:
    """Whether a rule begins with its start, as RFC 5545 wants it: readers do not agree on what another one means.

    Args:
        start: wall clock.
    Raises:
        ValueError: it does not; names the first moment that the rule has.
    """
    ahead = (MAXYEAR - start.year) // _CYCLE * _CYCLE
    shifted = start.replace(year=start.year + ahead)
    found = next(iter(_dateutil(text, shifted)), None)
    if found is None:
        raise ValueError(f"rrule: {text} never happens")
    if found != shifted:
        first = found.replace(year=found.year - ahead)
        raise ValueError(f"start: {start.isoformat()} is not in {text}; the first after it is {first.isoformat()}")


def starts(text: str | None, start: datetime, zone: ZoneInfo, first: datetime, last: datetime) -> list[datetime]:
    """When it happens from `first` to `last`, ascending, wall clock; once if there is no rule.

    Costs about 0.1 ms; more for a rule by months or years, or with COUNT, that began long ago.

    Args:
        text: a rule that was checked.
        start: wall clock.
        zone: of that; for an UNTIL in UTC.
    """
    if text is None:
        return [start] if first <= start <= last else []
    parts = _parts(text)
    count = int(parts["COUNT"]) if "COUNT" in parts else None
    from_here = start if count is not None else _skipped(parts, start, first)
    found = iter(_dateutil(text, from_here).replace(until=last))
    end = until_ms(parts["UNTIL"], zone) if "UNTIL" in parts else None
    if end is not None:
        found = takewhile(lambda each: instant_ms(each, zone) <= end, found)
    return [each for each in islice(found, count) if each >= first]


def instant_ms(wall: datetime, zone: ZoneInfo) -> int:
    """When a wall clock shows this, ms since 1970 UTC: of two times the first; of one that is skipped, what it would
    have been (RFC 5545, 3.3.5)."""
    return round(wall.replace(tzinfo=zone, fold=0).timestamp() * 1000)


def until_ms(value: str, zone: ZoneInfo) -> int:
    """The last moment that an UNTIL allows, ms since 1970 UTC; a day means all of it."""
    moment = datetime.fromisoformat(value)
    if moment.tzinfo is not None:
        return round(moment.timestamp() * 1000)
    return instant_ms(moment if "T" in value else datetime.combine(moment, time(23, 59, 59)), zone)


def in_utc(text: str, zone: ZoneInfo) -> str:
    """The rule with its UNTIL in UTC, as RFC 5545 wants it where starts have a zone."""
    parts = _parts(text)
    if "UNTIL" in parts:
        until = datetime.fromtimestamp(until_ms(parts["UNTIL"], zone) / 1000, UTC)
        parts["UNTIL"] = f"{until:%Y%m%dT%H%M%SZ}"
    return ";".join(f"{name}={value}" for name, value in parts.items())


def _parts(text: str) -> dict[str, str]:
    return dict(part.split("=", 1) for part in text.split(";"))


def _dateutil(text: str, start: datetime) -> rrule:
    """What is left of a rule without COUNT and UNTIL: those are counted here, with the zone."""
    rest = ";".join(f"{name}={value}" for name, value in _parts(text).items() if name not in ("COUNT", "UNTIL"))
    return rrulestr(rest, dtstart=start)


def _skipped(parts: dict[str, str], start: datetime, first: datetime) -> datetime:
    """A later start that gives the same from `first` on: whole intervals are skipped, not walked."""
    every = _EVERY.get(parts["FREQ"])
    if every is None or first <= start:
        return start
    step = every * int(parts.get("INTERVAL", 1))
    return start + step * max(0, (first - start) // step - 1)


def _mistakes(text: str) -> Iterator[str]:
    pairs = [part.partition("=") for part in text.split(";")]
    names = [name for name, _, _ in pairs]
    if any(not sign or not value for _, sign, value in pairs) or not re.fullmatch(r"[A-Z0-9=;,+\-]{1,300}", text):
        yield "must be an RRULE of RFC 5545, such as FREQ=WEEKLY;INTERVAL=3"
        return
    for name in sorted(set(names)):
        if names.count(name) > 1:
            yield f"{name} is given twice"
        if name in _TOO_OFTEN:
            yield f"{name} is not taken: the time of day is that of start; write one shift for each"
        elif name not in _KNOWN:
            yield f"{name} is not known{near(name, _KNOWN)}"
    parts = {name: value for name, _, value in pairs}
    frequency = parts.get("FREQ")
    if frequency not in _FREQUENCIES:
        yield f"FREQ must be one of {', '.join(_FREQUENCIES)}{near(frequency or '', _FREQUENCIES)}"
        return
    if "COUNT" in parts and "UNTIL" in parts:
        yield "COUNT and UNTIL do not go together"
    for name in _REFUSED[frequency]:
        if name in parts:
            yield f"{name} does not go with FREQ={frequency}"
    for name, (least, most) in _NUMBERS.items():
        if name in parts and not _fits(parts[name], least, most, signed=name in _FROM_END, one=name in _ONCE):
            signed = " or, from the end, negative" if name in _FROM_END else ""
            yield f"{name} must be {least} to {most:,}{signed}"
    yield from _days(parts, frequency)


def _days(parts: dict[str, str], frequency: str) -> Iterator[str]:
    ordinal = r"([+-]?[1-9]\d?)?" if frequency in ("MONTHLY", "YEARLY") and "BYWEEKNO" not in parts else ""
    if "BYDAY" in parts and not all(re.fullmatch(ordinal + _DAY, each) for each in parts["BYDAY"].split(",")):
        numbered = ", or such as 1MO and -1FR" if ordinal else ""
        yield f"BYDAY must be of MO, TU, WE, TH, FR, SA, SU{numbered}"
    if "WKST" in parts and not re.fullmatch(_DAY, parts["WKST"]):
        yield "WKST must be one of MO, TU, WE, TH, FR, SA, SU"
    if "BYSETPOS" in parts and not any(name.startswith("BY") and name != "BYSETPOS" for name in parts):
        yield "BYSETPOS needs another part, such as BYDAY"
    if "UNTIL" in parts:
        try:
            if not re.fullmatch(_UNTIL, parts["UNTIL"]):
                raise ValueError
            year = datetime.fromtimestamp(until_ms(parts["UNTIL"], ZoneInfo("UTC")) / 1000, UTC).year
            if not FIRST_YEAR <= year <= LAST_YEAR:
                raise ValueError
        except ValueError:
            yield "UNTIL must be a day or moment, such as 20261231 or 20261231T235959Z"


def _fits(text: str, least: int, most: int, *, signed: bool, one: bool) -> bool:
    values = text.split(",")
    pattern = r"[+-]?\d{1,5}" if signed else r"\d{1,5}"
    return (len(values) == 1 or not one) and all(
        re.fullmatch(pattern, each) and least <= abs(int(each)) <= most for each in values
    )
