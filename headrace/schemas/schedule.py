"""When an alert rule is in force: always, in business hours, or in stretches of the week of one's own."""

from datetime import UTC, datetime, time, timedelta
from functools import lru_cache
from typing import Annotated, Literal
from zoneinfo import ZoneInfo

from pydantic import AfterValidator, Field, StringConstraints, model_validator

from headrace.schemas.rule_model import RuleModel
from headrace.schemas.window import known_zone

Day = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
DAYS: tuple[Day, ...] = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
#: `24:00` is the end of a day.
Moment = Annotated[str, StringConstraints(pattern=r"^(([01][0-9]|2[0-3]):[0-5][0-9]|24:00)$")]
MOST_STRETCHES = 50


class Stretch(RuleModel):
    """From `start` until before `end`, wall-clock time, on each of `days`; past midnight if `end` is not later.

    Args:
        days: on which it starts.
        start: `HH:MM`.
        end: `HH:MM`; `24:00` is the end of the day.
    """

    days: tuple[Day, ...] = Field(DAYS, min_length=1)
    start: Moment
    end: Moment


BUSINESS_HOURS = (Stretch(days=DAYS[:5], start="09:00", end="17:00"),)


class Schedule(RuleModel):
    """When a rule is in force, by the event time of what it judges.

    Args:
        type: "always"; "business-hours": Monday to Friday, 09:00 to 17:00; "custom": `stretches`.
        timezone: IANA name; where the clocks change, an hour that is skipped or doubled is what the wall clock says.
        stretches: with "custom", at least one.
    """

    type: Literal["always", "business-hours", "custom"] = "always"
    timezone: Annotated[str, AfterValidator(known_zone)] = "UTC"
    stretches: tuple[Stretch, ...] = Field((), max_length=MOST_STRETCHES)

    @model_validator(mode="after")
    def _stretches_fit(self) -> "Schedule":
        if (self.type == "custom") != bool(self.stretches):
            raise ValueError("stretches: give at least one with type 'custom', and none otherwise")
        return self

    def covers(self, time_ms: int) -> bool:
        """Whether the rule is in force at this event time, ms since 1970 UTC."""
        if self.type == "always":
            return True
        return _covers(self, time_ms // 60_000)

    def next_covered(self, time_ms: int) -> int | None:
        """The first event time from this one on at which the rule is in force, ms since 1970 UTC; None for never.

        Where the wall clock skips the start of a stretch it is the hour after that.
        """
        if self.covers(time_ms):
            return time_ms
        zone = ZoneInfo(self.timezone)
        today = datetime.fromtimestamp(time_ms / 1000, UTC).astimezone(zone).date()
        stretches = BUSINESS_HOURS if self.type == "business-hours" else self.stretches
        minutes = {_minutes(stretch.start) for stretch in stretches}
        starts = (
            datetime.combine(today + timedelta(day), time(), zone) + timedelta(minutes=minute)
            for day in range(9)
            for minute in minutes
        )
        found = (round(start.timestamp() * 1000) for start in starts)
        return min((each for each in found if each > time_ms and self.covers(each)), default=None)


@lru_cache(maxsize=10_000)
def _covers(schedule: Schedule, minute: int) -> bool:
    there = datetime.fromtimestamp(minute * 60, UTC).astimezone(ZoneInfo(schedule.timezone))
    clock, day = there.hour * 60 + there.minute, there.weekday()
    for stretch in BUSINESS_HOURS if schedule.type == "business-hours" else schedule.stretches:
        start, end = _minutes(stretch.start), _minutes(stretch.end)
        if end > start:
            if DAYS[day] in stretch.days and start <= clock < end:
                return True
        elif (DAYS[day] in stretch.days and clock >= start) or (DAYS[day - 1] in stretch.days and clock < end):
            return True
    return False


def _minutes(moment: str) -> int:
    return int(moment[:2]) * 60 + int(moment[3:])
