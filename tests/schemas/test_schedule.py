"""When a schedule begins next."""

from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.schemas.schedule import DAYS, Schedule

MINUTE = 60_000
#: 2023-11-14T22:13:20Z, a Tuesday; no clock changes in the days after.
T0 = 1_700_000_000_000
moments = st.builds("{:02}:{:02}".format, st.integers(0, 23), st.integers(0, 59))
stretches = st.builds(
    lambda days, start, end: {"days": days, "start": start, "end": end},
    st.lists(st.sampled_from(DAYS), min_size=1, max_size=3, unique=True),
    moments,
    moments | st.just("24:00"),
)


@settings(max_examples=25, deadline=None)
@given(
    st.lists(stretches, min_size=1, max_size=3),
    st.sampled_from(["UTC", "Asia/Kolkata"]),
    st.integers(0, 7 * 86_400_000),
)
def test_the_next_covered_time_is_what_looking_minute_by_minute_finds(
    found: list[dict[str, object]], zone: str, shift: int
) -> None:
    """At the begin of a stretch, or at once."""
    schedule = Schedule.model_validate({"type": "custom", "stretches": found, "timezone": zone})
    time = T0 + shift

    minutes = range(time // MINUTE + 1, time // MINUTE + 8 * 1440)
    later = (minute * MINUTE for minute in minutes if schedule.covers(minute * MINUTE))
    assert schedule.next_covered(time) == (time if schedule.covers(time) else next(later))


def test_a_start_that_the_clock_skips_and_a_schedule_that_never_begins() -> None:
    """Half past two does not exist on 2023-03-26 in Berlin; a stretch from 24:00 to 00:00 is empty."""
    half_past = {"days": ["sun"], "start": "02:30", "end": "05:00"}
    berlin = Schedule.model_validate({"type": "custom", "stretches": [half_past], "timezone": "Europe/Berlin"})
    empty = Schedule.model_validate({"type": "custom", "stretches": [{"start": "24:00", "end": "00:00"}]})

    assert berlin.next_covered(1_679_785_200_000) == 1_679_794_200_000  # 00:00+01:00, 03:30+02:00
    assert empty.next_covered(T0) is None
