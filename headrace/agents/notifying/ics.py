"""Shifts as a calendar that other programs read: iCalendar, RFC 5545."""

import uuid
from collections import defaultdict
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from headrace.agents.notifying.clock_changes import first_change, wall
from headrace.agents.notifying.on_call import length_of, zone_of
from headrace.schemas.recurrence import in_utc, instant_ms
from headrace.schemas.user import Shift, User

#: Years of changes of the clocks that a calendar brings along, after its last shift's first start. Whoever knows the
#: names of zones, as nearly all programs do, goes by these.
YEARS = 20
#: Octets of a line (3.1).
LONGEST = 75
_DAY_MS = 86_400_000
_NAMESPACE = uuid.uuid5(uuid.NAMESPACE_URL, "io.headrace.shift")
_LOCAL = "%Y%m%dT%H%M%S"


def ics(users: Iterable[User], team: str) -> str:
    """The shifts of a team as one calendar; the same users always give the same.

    A shift lasts as long as the wall clock says. RFC 5545 has that for whole days only: on the two nights a year of a
    change of the clocks, programs show another end of a shift that is not of whole days, an hour off.
    """
    shifts = [
        (user, number, shift)
        for user in sorted(users, key=lambda each: each.user_id)
        for number, shift in enumerate(user.on_call)
        if shift.team == team
    ]
    lines = ["BEGIN:VCALENDAR", "VERSION:2.0", "PRODID:-//headrace//on call//EN", "METHOD:PUBLISH"]
    lines.append(f"X-WR-CALNAME:{_text(f'On call: {team}')}")
    starts: dict[str, list[datetime]] = defaultdict(list)
    for user, _, shift in shifts:
        starts[zone_of(shift, user)].append(shift.start)
    for zone in sorted(starts.keys() - {"UTC"}):
        lines += _zone(zone, min(starts[zone]).year, max(starts[zone]).year + YEARS)
    for user, number, shift in shifts:
        lines += _event(user, number, shift)
    lines.append("END:VCALENDAR")
    return "".join(f"{_folded(line)}\r\n" for line in lines)


def _event(user: User, number: int, shift: Shift) -> Iterator[str]:
    zone = zone_of(shift, user)
    stamp = datetime.fromtimestamp((user.updated_at or user.created_at or 0) // 1000, UTC)
    start = shift.start.strftime(_LOCAL)
    yield "BEGIN:VEVENT"
    yield f"UID:{uuid.uuid5(_NAMESPACE, chr(0).join((user.user_id, shift.team, str(number))))}@headrace"
    yield f"DTSTAMP:{stamp.strftime(_LOCAL)}Z"
    yield f"DTSTART:{start}Z" if zone == "UTC" else f"DTSTART;TZID={zone}:{start}"
    yield f"DURATION:{_duration(length_of(shift))}"
    if shift.rrule is not None:
        yield f"RRULE:{in_utc(shift.rrule, ZoneInfo(zone))}"
    yield f"SUMMARY:{_text(f'{user.name or user.user_id}: {shift.team}')}"
    yield "TRANSP:TRANSPARENT"
    yield "END:VEVENT"


def _duration(length: timedelta) -> str:
    hours, rest = divmod(length.seconds, 3600)
    time = "".join(f"{count}{unit}" for count, unit in ((hours, "H"), (rest // 60, "M")) if count)
    return f"P{f'{length.days}D' if length.days else ''}{f'T{time}' if time else ''}"


def _zone(name: str, first_year: int, last_year: int) -> Iterator[str]:
    """The changes of its clocks in these years, those of one kind together."""
    zone = ZoneInfo(name)
    begin, end = (instant_ms(datetime(year, 1, 1), zone) for year in (first_year, last_year))  # noqa: DTZ001
    kinds: dict[tuple[timedelta, timedelta, str, bool], list[datetime]] = defaultdict(list)
    at_ms: int | None = begin
    before = wall(zone, begin).utcoffset() or timedelta()
    while at_ms is not None:
        there = wall(zone, at_ms)
        after = there.utcoffset() or timedelta()
        clock = (there.astimezone(UTC) + before).replace(tzinfo=None)
        kinds[before, after, there.tzname() or name, bool(there.dst())].append(clock)
        before, at_ms = after, _next_change(zone, at_ms, end)
    yield from ("BEGIN:VTIMEZONE", f"TZID:{name}")
    for (offset, to, short, is_summer), clocks in kinds.items():
        kind = "DAYLIGHT" if is_summer else "STANDARD"
        yield from (f"BEGIN:{kind}", f"DTSTART:{clocks[0].strftime(_LOCAL)}")
        yield from (f"TZOFFSETFROM:{_offset(offset)}", f"TZOFFSETTO:{_offset(to)}", f"TZNAME:{_text(short)}")
        yield from (f"RDATE:{clock.strftime(_LOCAL)}" for clock in clocks[1:])
        yield f"END:{kind}"
    yield "END:VTIMEZONE"


def _next_change(zone: ZoneInfo, at_ms: int, end_ms: int) -> int | None:
    """By days at first: hours are looked at where a day ends with another offset than it began with."""
    while at_ms < end_ms:
        offset = wall(zone, at_ms).utcoffset()
        if wall(zone, at_ms + _DAY_MS).utcoffset() != offset:
            return first_change(zone, at_ms, at_ms + _DAY_MS)
        at_ms += _DAY_MS
    return None


def _offset(offset: timedelta) -> str:
    seconds = round(offset.total_seconds())
    hours, rest = divmod(abs(seconds), 3600)
    minutes, odd = divmod(rest, 60)
    return f"{'-' if seconds < 0 else '+'}{hours:02}{minutes:02}{f'{odd:02}' if odd else ''}"


def _text(text: str) -> str:
    for each in "\\;,":
        text = text.replace(each, f"\\{each}")
    return text.replace("\n", "\\n")


def _folded(line: str) -> str:
    """With a break before each octet too many, and never within a character."""
    parts, length = [""], 0
    for character in line:
        octets = len(character.encode())
        if length + octets > LONGEST:
            parts.append(" ")
            length = 1
        parts[-1] += character
        length += octets
    return "\r\n".join(parts)
