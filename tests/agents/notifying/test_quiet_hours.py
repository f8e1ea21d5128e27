"""Quiet hours, against wall clocks that are looked at every minute."""

from functools import cache

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.agents.notifying.quiet_hours import quiet_until
from headrace.schemas.user import QuietHours, User
from tests.agents.notifying.people import MINUTE_MS, ZONES, at, changes, clock, user

CLOCKS = st.builds("{:02}:{:02}".format, st.integers(0, 23), st.sampled_from([0, 1, 15, 29, 30, 31, 59]))
#: Nearly all changes of the clocks are at night.
NIGHT = st.builds("{:02}:{:02}".format, st.integers(0, 4), st.sampled_from([0, 1, 29, 30, 31, 59]))


def resting(start: str, end: str, zone: str = "UTC", **fields: object) -> User:
    return user(preferences={"quiet_hours": {"start": start, "end": end, "timezone": zone, **fields}})


def is_quiet(quiet: QuietHours, zone: str, at_ms: int) -> bool:
    shown = clock(zone, at_ms).strftime("%H:%M")
    if quiet.start < quiet.end:
        return quiet.start <= shown < quiet.end
    return shown >= quiet.start or shown < quiet.end


def oracle(quiet: QuietHours, zone: str, at_ms: int) -> int | None:
    """Looks at the clock at every minute. A whole day of quiet, as Apia skipped one, is possible twice in a row."""
    if not is_quiet(quiet, zone, at_ms):
        return None
    minute = at_ms // MINUTE_MS * MINUTE_MS
    return next(each for each in range(minute, minute + 3 * 86_400_000, MINUTE_MS) if not is_quiet(quiet, zone, each))


@cache
def nights(zone: str) -> list[int]:
    """Changes of the clocks, ms; Kolkata's last was in 1945."""
    return changes(zone, 1984, 2027) or [at("2026-03-29")]


@pytest.mark.parametrize("zone", ZONES)
@given(data=st.data())
def test_they_end_when_the_wall_clock_says(zone: str, data: st.DataObject) -> None:
    """Around every kind of change of the clocks, to the ms."""
    start, end = data.draw(st.tuples(CLOCKS | NIGHT, CLOCKS | NIGHT).filter(lambda pair: pair[0] != pair[1]))
    change = data.draw(st.sampled_from(nights(zone)))
    at_ms = change + data.draw(st.integers(-26 * 60, 26 * 60)) * MINUTE_MS + data.draw(st.sampled_from([0, 1, 59_999]))
    them = resting(start, end, zone)
    quiet = them.preferences.quiet_hours
    assert quiet is not None

    assert quiet_until(them, "warning", at_ms) == oracle(quiet, zone, at_ms)


def test_an_ordinary_night() -> None:
    """From the start, which is in them, until the end, which is not."""
    them = resting("22:00", "08:00", "America/New_York")

    def told(text: str) -> int | None:
        return quiet_until(them, "warning", at(text, "America/New_York"))

    assert told("2026-01-10T21:59:59") is None
    assert told("2026-01-10T22:00") == told("2026-01-11T07:59:59") == at("2026-01-11T08:00", "America/New_York")
    assert told("2026-01-11T08:00") is None


def test_an_end_that_is_skipped_is_the_moment_after() -> None:
    """At two it is three: who rests until half past two is told at three."""
    them = resting("22:00", "02:30", "Europe/Berlin")

    assert quiet_until(them, "info", at("2026-03-28T23:00", "Europe/Berlin")) == at("2026-03-29T01:00")


def test_an_end_that_comes_twice_is_the_first_and_they_hold_again() -> None:
    """At three it is two: who rests until half past two may be told for half an hour in between."""
    them = resting("22:00", "02:30", "Europe/Berlin")

    assert quiet_until(them, "info", at("2026-10-24T23:00", "Europe/Berlin")) == at("2026-10-25T00:30")
    assert quiet_until(them, "info", at("2026-10-25T00:45")) is None
    assert quiet_until(them, "info", at("2026-10-25T01:00")) == at("2026-10-25T01:30")


def test_the_zone_is_the_users_unless_they_have_another() -> None:
    """At 23:00 UTC it is midnight in Berlin and the afternoon in New York."""
    quiet = {"start": "22:00", "end": "08:00"}
    berlin = user(timezone="Europe/Berlin", preferences={"quiet_hours": quiet})
    away = user(timezone="Europe/Berlin", preferences={"quiet_hours": {**quiet, "timezone": "America/New_York"}})

    assert quiet_until(berlin, "warning", at("2026-01-10T23:00")) == at("2026-01-11T07:00")
    assert quiet_until(away, "warning", at("2026-01-10T23:00")) is None


def test_some_severities_come_through() -> None:
    """Critical ones, or those that somebody says; none if none is said."""
    night = at("2026-01-10T23:00")

    assert quiet_until(resting("22:00", "08:00"), "critical", night) is None
    assert quiet_until(resting("22:00", "08:00", override=["warning"]), "critical", night) is not None
    assert quiet_until(resting("22:00", "08:00", override=["warning"]), "warning", night) is None
    assert quiet_until(resting("22:00", "08:00", override=[]), "critical", night) is not None


def test_who_has_none_is_told_at_any_time() -> None:
    """Or has switched them off."""
    night = at("2026-01-10T23:00")

    assert quiet_until(user(), "info", night) is None
    assert quiet_until(resting("22:00", "08:00", enabled=False), "info", night) is None
