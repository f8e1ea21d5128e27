"""Shifts, against an oracle that counts days and looks at clocks; and as a calendar that is read back."""

import re
from collections.abc import Callable, Iterator
from datetime import date, datetime, time, timedelta
from functools import cache
from io import StringIO
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from dateutil.rrule import rrulestr
from dateutil.tz import tzical
from hypothesis import given
from hypothesis import strategies as st

from headrace.agents.notifying.ics import YEARS, ics
from headrace.agents.notifying.on_call import on_call
from headrace.schemas.user import Shift, User
from tests.agents.notifying.people import MINUTE_MS, ZONES, at, changes, clock, user

HOUR_MS = 60 * MINUTE_MS
DAYS = ("MO", "TU", "WE", "TH", "FR", "SA", "SU")
#: Whether a rule has a day, by the day and that of the start.
Fits = Callable[[date, date], bool]


def daily(interval: int) -> tuple[str, Fits]:
    return f"FREQ=DAILY;INTERVAL={interval}", lambda day, start: (day - start).days % interval == 0


def weekly(interval: int, days: frozenset[int]) -> tuple[str, Fits]:
    """Weeks begin on Mondays."""
    named = ",".join(DAYS[day] for day in sorted(days))

    def fits(day: date, start: date) -> bool:
        monday, first = day - timedelta(day.weekday()), start - timedelta(start.weekday())
        return day.weekday() in days and (monday - first).days // 7 % interval == 0

    return f"FREQ=WEEKLY;INTERVAL={interval};BYDAY={named}", fits


def monthly(number: int, weekday: int) -> tuple[str, Fits]:
    """The first, second or third such weekday of each month."""
    return (
        f"FREQ=MONTHLY;BYDAY={number}{DAYS[weekday]}",
        lambda day, _: day.weekday() == weekday and (day.day - 1) // 7 == number - 1,
    )


RULES = st.one_of(
    st.builds(daily, st.integers(1, 5)),
    st.builds(weekly, st.integers(1, 4), st.frozensets(st.integers(0, 6), min_size=1)),
    st.builds(monthly, st.integers(1, 3), st.integers(0, 6)),
)
TIMES = st.builds(time, st.integers(0, 23), st.sampled_from([0, 15, 30]))


def instant(shown: datetime, zone: str) -> int:
    """The first minute in which a clock shows this; if none does, as the clock before the gap would have."""
    near = at(shown.isoformat())
    for each in range(near - 15 * HOUR_MS, near + 15 * HOUR_MS, 15 * MINUTE_MS):
        if clock(zone, each) == shown:
            return each
    before = next(
        each for each in range(near + 15 * HOUR_MS, near - 40 * HOUR_MS, -15 * MINUTE_MS) if clock(zone, each) < shown
    )
    return before + round((shown - clock(zone, before)).total_seconds() * 1000)


def stretches(shift: Shift, zone: str, fits: Fits, last: date) -> Iterator[tuple[int, int]]:
    """Every shift until a day, one by one."""
    day = shift.start.date()
    while day <= last:
        if fits(day, shift.start.date()):
            start = datetime.combine(day, shift.start.time())
            yield instant(start, zone), instant(start + timedelta(hours=shift.hours), zone)
        day += timedelta(1)


@cache
def nights(zone: str) -> list[int]:
    return changes(zone, 2005, 2027) or [at("2026-03-29")]


@st.composite
def drawn(draw: st.DrawFn, zone: str) -> tuple[Shift, Fits, int]:
    """A shift that began up to forty days before a change of the clocks, its rule, and a moment around that."""
    change = draw(st.sampled_from(nights(zone)))
    rule, fits = draw(RULES)
    first = (clock(zone, change) - timedelta(draw(st.integers(0, 40)))).date()
    while not fits(first, first):
        first += timedelta(1)
    hours = draw(st.sampled_from([1, 8, 12, 24, 36.5, 168]))
    start = datetime.combine(first, draw(TIMES))
    shift = Shift(team="plant", start=start, hours=hours, rrule=rule, timezone=zone)
    return shift, fits, change + draw(st.integers(-3 * 24 * 4, 3 * 24 * 4)) * 15 * MINUTE_MS


@pytest.mark.parametrize("zone", ZONES)
@given(data=st.data())
def test_it_is_who_the_wall_clock_says(zone: str, data: st.DataObject) -> None:
    """Around every kind of change of the clocks; Apia's skipped day is among them."""
    shift, fits, at_ms = data.draw(drawn(zone))
    last = clock(zone, at_ms).date() + timedelta(1)
    expected = any(begin <= at_ms < end for begin, end in stretches(shift, zone, fits, last))

    assert bool(on_call([user(on_call=[shift])], "plant", at_ms)) is expected


@pytest.mark.parametrize("zone", ZONES)
@given(data=st.data())
def test_who_takes_turns_leaves_no_gap(zone: str, data: st.DataObject) -> None:
    """One of three is on call, every week, and handed over to in the same moment, whatever the clocks do."""
    change = data.draw(st.sampled_from(nights(zone)))
    first = datetime.combine(clock(zone, change).date() - timedelta(30), data.draw(TIMES))
    weeks = {"team": "plant", "hours": 168, "rrule": "FREQ=WEEKLY;INTERVAL=3"}
    people = [
        user(f"u{turn}", timezone=zone, on_call=[{**weeks, "start": first + timedelta(weeks=turn)}])
        for turn in range(3)
    ]
    at_ms = change + data.draw(st.integers(-5 * 24 * 60, 20 * 24 * 60)) * MINUTE_MS

    assert len(on_call(people, "plant", at_ms)) == 1


def test_a_shift_of_a_night_ends_when_the_morning_comes() -> None:
    """At eight by the wall clock, though that night had thirteen hours."""
    nightly = {"team": "plant", "start": "2026-10-01T20:00", "hours": 12, "rrule": "FREQ=DAILY"}
    ada = user(timezone="Europe/Berlin", on_call=[nightly])

    assert on_call([ada], "plant", at("2026-10-25T07:59", "Europe/Berlin")) == [ada]
    assert on_call([ada], "plant", at("2026-10-25T08:00", "Europe/Berlin")) == []


def test_teams_are_kept_apart_and_people_in_order() -> None:
    """By the name of the team, and by their ids."""
    shift = {"team": "plant", "start": "2026-01-01T00:00", "hours": 24}
    people = [
        user("zoe", on_call=[shift]),
        user("ada", on_call=[shift]),
        user("eve", on_call=[{**shift, "team": "it"}]),
    ]
    noon = at("2026-01-01T12:00")

    assert [each.user_id for each in on_call(people, "plant", noon)] == ["ada", "zoe"]
    assert [each.user_id for each in on_call(people, "it", noon)] == ["eve"]
    assert on_call(people, "plant", noon + 86_400_000) == []


def read_back(text: str) -> tuple[dict[str, list[dict[str, str]]], Any]:
    """The components of a calendar, strictly: lines, their lengths, what begins and ends; and its zones."""
    assert text.endswith("\r\n")
    assert max(len(line.encode()) for line in text.split("\r\n")) <= 75
    lines = re.sub(r"\r\n ", "", text).removesuffix("\r\n").split("\r\n")
    found: dict[str, list[dict[str, str]]] = {}
    open_ones: list[tuple[str, dict[str, str]]] = []
    for line in lines:
        name, _, value = line.partition(":")
        assert re.fullmatch(r"[A-Z-]+(;[A-Z]+=[^:;]+)*", name)
        assert not re.search(r"[\x00-\x1f]", value)
        if name == "BEGIN":
            open_ones.append((value, {}))
        elif name == "END":
            kind, properties = open_ones.pop()
            assert kind == value
            found.setdefault(kind, []).append(properties)
        elif name != "RDATE":
            assert name not in open_ones[-1][1]
            open_ones[-1][1][name] = value
    assert open_ones == []
    assert (lines[0], lines[-1]) == ("BEGIN:VCALENDAR", "END:VCALENDAR")
    return found, tzical(StringIO(re.sub(r"\r\n ", "", text))) if "BEGIN:VTIMEZONE" in text else None


def one(zone: str, **fields: Any) -> User:
    shift = {"team": "plant", "start": "2011-01-03T08:00", "hours": 168, "rrule": "FREQ=WEEKLY;INTERVAL=3", **fields}
    return user(timezone=zone, on_call=[shift])


@pytest.mark.parametrize("zone", ZONES)
def test_a_calendar_has_the_same_shifts(zone: str) -> None:
    """Read by another program, with nothing but the zones that the calendar brings along."""
    them = one(zone)
    found, zones = read_back(ics([them], "plant"))
    (event,) = found["VEVENT"]
    there = zones.get(zone)
    first = datetime.strptime(event[f"DTSTART;TZID={zone}"], "%Y%m%dT%H%M%S")  # noqa: DTZ007
    starts = [each.replace(tzinfo=there) for each in rrulestr(event["RRULE"], dtstart=first)[:200]]

    assert event["DURATION"] == "P7D"
    for start in starts:
        at_ms = round(start.timestamp() * 1000)
        assert on_call([them], "plant", at_ms - 1) == []
        assert on_call([them], "plant", at_ms) == [them]


@pytest.mark.parametrize("zone", ZONES)
def test_a_calendar_brings_the_changes_of_the_clocks(zone: str) -> None:
    """At noon of every tenth day its clocks show what the zone's do, for so many years."""
    _, zones = read_back(ics([one(zone)], "plant"))
    there, real = zones.get(zone), ZoneInfo(zone)
    noon = datetime(2011, 1, 2, 12)  # noqa: DTZ001

    for days in range(0, (YEARS - 1) * 365, 10):
        each = noon + timedelta(days)
        assert each.replace(tzinfo=there).utcoffset() == each.replace(tzinfo=real).utcoffset(), each


def test_a_calendar_of_odd_names_and_lengths() -> None:
    """Commas and line lengths do not break it; an end is in UTC, and there needs no zone for UTC."""
    named = "Ada; Lovelace, Countess of " + "ß" * 60
    shift = {"team": "plant", "start": "2026-01-05T08:00", "hours": 8.5, "rrule": "FREQ=DAILY;UNTIL=20260131"}
    ada = user(name=named, on_call=[shift, {**shift, "timezone": "Asia/Kolkata", "hours": 25}, {**shift, "team": "it"}])

    found, _ = read_back(ics([ada], "plant"))

    utc, kolkata = found["VEVENT"]
    assert utc["SUMMARY"] == named.replace(";", r"\;").replace(",", r"\,") + ": plant"
    assert (utc["DTSTART"], utc["DURATION"]) == ("20260105T080000Z", "PT8H30M")
    assert utc["RRULE"] == "FREQ=DAILY;UNTIL=20260131T235959Z"
    assert kolkata["RRULE"] == "FREQ=DAILY;UNTIL=20260131T182959Z"
    assert kolkata["DURATION"] == "P1DT1H"
    assert utc["UID"] != kolkata["UID"]
    assert len(found["VTIMEZONE"]) == 1
    assert ics([ada], "plant") == ics([ada], "plant")
