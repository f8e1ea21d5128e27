"""Recurrence rules: which are taken, and what they mean."""

from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from dateutil.rrule import rrulestr
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from headrace.schemas.recurrence import check_rule, check_start, starts
from headrace.schemas.user import Shift

UTC = ZoneInfo("UTC")
START = datetime(2026, 1, 5, 8)  # noqa: DTZ001


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        ("FREQ=SECONDLY", "FREQ must be one of DAILY, WEEKLY, MONTHLY, YEARLY"),
        ("FREQ=HOURLY;INTERVAL=12", "FREQ must be one of"),
        ("FREQ=WEKLY", "did you mean 'WEEKLY'"),
        ("INTERVAL=2", "FREQ must be one of"),
        ("FREQ=DAILY;BYHOUR=1,2", "BYHOUR is not taken: the time of day is that of start"),
        ("FREQ=DAILY;BYSECOND=1", "BYSECOND is not taken"),
        ("FREQ=DAILY;INTERVAL=0", "INTERVAL must be 1 to 1,000"),
        ("FREQ=DAILY;INTERVAL=1,2", "INTERVAL must be 1 to 1,000"),
        ("FREQ=DAILY;COUNT=100000", "COUNT must be 1 to 10,000"),
        ("FREQ=DAILY;COUNT=2;UNTIL=20270101", "COUNT and UNTIL do not go together"),
        ("FREQ=DAILY;UNTIL=20261301", "UNTIL must be a day or moment"),
        ("FREQ=DAILY;UNTIL=tomorrow", "must be an RRULE"),
        ("FREQ=DAILY;UNTIL=99990101", "UNTIL must be a day or moment"),
        ("FREQ=WEEKLY;BYDAY=1MO", "BYDAY must be of MO, TU"),
        ("FREQ=WEEKLY;BYDAY=XX", "BYDAY must be of MO, TU"),
        ("FREQ=MONTHLY;BYDAY=0MO", "or such as 1MO and -1FR"),
        ("FREQ=MONTHLY;BYMONTHDAY=32", "BYMONTHDAY must be 1 to 31 or, from the end, negative"),
        ("FREQ=MONTHLY;BYMONTHDAY=0", "BYMONTHDAY must be"),
        ("FREQ=YEARLY;BYMONTH=-1", "BYMONTH must be 1 to 12"),
        ("FREQ=WEEKLY;BYMONTHDAY=1", "BYMONTHDAY does not go with FREQ=WEEKLY"),
        ("FREQ=MONTHLY;BYSETPOS=1", "BYSETPOS needs another part"),
        ("FREQ=DAILY;FREQ=DAILY", "FREQ is given twice"),
        ("FREQ=DAILY;BYDAYS=MO", "BYDAYS is not known; did you mean 'BYDAY'?"),
        ("FREQ=DAILY;WKST=XX", "WKST must be one of"),
        ("RRULE:FREQ=DAILY", "must be an RRULE"),
        ("FREQ=DAILY;", "must be an RRULE"),
        ("", "must be an RRULE"),
    ],
)
def test_what_is_no_rule_or_too_many_moments_is_refused(rule: str, said: str) -> None:
    """With what is wrong."""
    with pytest.raises(ValueError, match=said.replace("?", r"\?")):
        check_rule(rule)


def test_every_mistake_is_told_at_once() -> None:
    """Separated by semicolons."""
    with pytest.raises(ValueError, match=r"BYHOUR is not taken.*; INTERVAL must be.*; BYDAY must be"):
        check_rule("FREQ=DAILY;BYHOUR=1;INTERVAL=0;BYDAY=XX")


def test_a_rule_begins_with_its_start() -> None:
    """Else it says when it would; a rule that never happens is refused."""
    with pytest.raises(ValueError, match="the first after it is 2026-01-06T08:00:00"):
        check_start("FREQ=WEEKLY;BYDAY=TU", START)
    with pytest.raises(ValueError, match="never happens"):
        check_start("FREQ=DAILY;BYMONTH=2;BYMONTHDAY=30", START)
    with pytest.raises(ValidationError, match="the first after it is"):
        Shift(team="plant", start=START, hours=1, rrule="FREQ=WEEKLY;BYDAY=TU")
    check_start("FREQ=WEEKLY;BYDAY=MO", START)


@pytest.mark.parametrize(
    "rule",
    [
        "FREQ=DAILY;INTERVAL=3",
        "FREQ=DAILY;BYMONTH=1,3",
        "FREQ=WEEKLY;INTERVAL=2;BYDAY=MO,SU;WKST=SU",
        "FREQ=WEEKLY;INTERVAL=2;BYDAY=MO,SU;WKST=MO",
        "FREQ=WEEKLY;BYDAY=MO,WE;COUNT=100",
        "FREQ=DAILY;UNTIL=20270309T080000Z",
        "FREQ=MONTHLY;BYDAY=1MO,-1FR",
        "FREQ=MONTHLY;BYDAY=MO,TU,WE,TH,FR;BYSETPOS=-1,3",
        "FREQ=YEARLY;BYMONTH=1;BYMONTHDAY=5",
        "FREQ=YEARLY;BYWEEKNO=2;BYDAY=MO",
    ],
)
@given(first=st.integers(-100, 4_000), length=st.integers(0, 60))
def test_any_part_of_it_is_that_part_of_all(rule: str, first: int, length: int) -> None:
    """What is skipped of a rule that began long ago changes nothing."""
    begin = START + timedelta(first, hours=3)
    end = begin + timedelta(length)
    start = next(iter(rrulestr(rule.replace("T080000Z", ""), dtstart=START)))
    whole = rrulestr(rule.replace("Z", ""), dtstart=start)

    assert starts(rule, start, UTC, begin, end) == whole.between(begin, end, inc=True)


def test_an_end_is_a_day_a_wall_clock_time_or_a_moment() -> None:
    """The day is in it; the wall clock is that of the shift; Z is UTC."""
    berlin = ZoneInfo("Europe/Berlin")
    last = START + timedelta(30)

    def days(until: str) -> int:
        return len(starts(f"FREQ=DAILY;UNTIL={until}", START, berlin, START, last))

    assert days("20260107") == 3
    assert days("20260107T080000") == 3
    assert days("20260107T075959") == 2
    assert days("20260107T070000Z") == 3
    assert days("20260107T065959Z") == 2


def test_without_a_rule_it_is_once() -> None:
    """If it is in what is asked for."""
    assert starts(None, START, UTC, START, START) == [START]
    assert starts(None, START, UTC, START + timedelta(1), START + timedelta(2)) == []
