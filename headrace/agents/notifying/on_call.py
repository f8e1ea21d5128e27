"""Who is on call for a team at a moment."""

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo

from headrace.schemas.recurrence import instant_ms, starts
from headrace.schemas.user import Shift, User

_DAY_MS = 86_400_000
#: More than a wall clock is ever put on or back by; Apia's skipped a day.
_MARGIN = timedelta(days=2)


def on_call(users: Iterable[User], team: str, at_ms: int) -> list[User]:
    """Those who have a shift for a team at a moment, active or not, in the order of their ids.

    A shift is from its start until before its end by the wall clock of its zone. Where that skips one of them, it is
    what it would have been; of one that comes twice it is the first. So who hands over to somebody always does so
    in the same moment.
    """
    found = [user for user in users if on_until(user, team, at_ms) is not None]
    return sorted(found, key=lambda user: user.user_id)


def on_until(user: User, team: str, at_ms: int) -> int | None:
    """When the shift ends that somebody has for a team at a moment, ms since 1970 UTC; None if they have none."""
    ends = [
        end
        for shift in user.on_call
        if shift.team == team
        for begin, end in _stretches(shift, zone_of(shift, user), at_ms // _DAY_MS)
        if begin <= at_ms < end
    ]
    return max(ends, default=None)


def zone_of(shift: Shift, user: User) -> str:
    """By whose wall clock a shift is."""
    return shift.timezone or user.timezone


@lru_cache(maxsize=20_000)
def _stretches(shift: Shift, zone: str, day: int) -> tuple[tuple[int, int], ...]:
    """When a shift is on around a day of UTC, ms; what overlaps or touches is one."""
    there, length = ZoneInfo(zone), length_of(shift)
    midnight = datetime.fromtimestamp(day * 86_400, UTC).replace(tzinfo=None)
    found = starts(shift.rrule, shift.start, there, midnight - _MARGIN - length, midnight + _MARGIN)
    merged: list[tuple[int, int]] = []
    for start in found:
        begin, end = instant_ms(start, there), instant_ms(start + length, there)
        if merged and begin <= merged[-1][1]:
            begin, end = merged[-1][0], max(end, merged.pop()[1])
        merged.append((begin, end))
    return tuple(merged)


def length_of(shift: Shift) -> timedelta:
    """How long each lasts, in whole minutes of the wall clock."""
    return timedelta(minutes=max(1, round(shift.hours * 60)))
