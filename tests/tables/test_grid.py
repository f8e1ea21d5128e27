"""Where windows begin and end: days in time zones on nights with a change of the clocks, hopping series, keys."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.schemas.window import DAY_MS, Hopping, Tumbling, known_zone, parse_window
from headrace.tables.grid import Grid

#: Zone, a moment in UTC, start and end of its day in UTC, and hours.
NIGHTS = [
    ("Europe/Berlin", "2025-03-30T12:00", "2025-03-29T23:00", "2025-03-30T22:00", 23),
    ("Europe/Berlin", "2025-10-26T12:00", "2025-10-25T22:00", "2025-10-26T23:00", 25),
    ("America/New_York", "2025-11-02T05:30", "2025-11-02T04:00", "2025-11-03T05:00", 25),
    ("Asia/Kolkata", "2025-06-01T00:00", "2025-05-31T18:30", "2025-06-01T18:30", 24),
    ("Asia/Kathmandu", "2025-06-01T00:00", "2025-05-31T18:15", "2025-06-01T18:15", 24),
    ("America/Sao_Paulo", "2018-11-04T12:00", "2018-11-04T03:00", "2018-11-05T02:00", 23),  # midnight is jumped over
    ("America/Havana", "2025-11-02T12:00", "2025-11-02T04:00", "2025-11-03T05:00", 25),  # midnight comes twice
    ("Pacific/Apia", "2011-12-30T09:00", "2011-12-29T10:00", "2011-12-30T10:00", 24),  # the 30th did not exist
    ("Pacific/Apia", "2011-12-30T11:00", "2011-12-30T10:00", "2011-12-31T10:00", 24),
]


def ms(text: str) -> int:
    return round(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() * 1000)


@pytest.mark.parametrize(("zone", "moment", "start", "end", "hours"), NIGHTS, ids=str)
def test_days_in_a_time_zone(zone: str, moment: str, start: str, end: str, hours: int) -> None:
    """From midnight to midnight there, also when the clocks change."""
    grid = Grid([Tumbling(DAY_MS, zone)])
    starts = grid.starts(np.array([ms(moment)]))[0]
    ends = grid.ends(np.array([0]), starts)

    assert (starts[0], ends[0]) == (ms(start), ms(end))
    assert ends[0] - starts[0] == hours * 3_600_000


@given(
    st.sampled_from(["Europe/Berlin", "Asia/Kolkata", "America/St_Johns", "Pacific/Apia", "Africa/Casablanca"]),
    st.integers(946_684_800_000, 4_386_000_000_000),
)
def test_every_moment_is_in_the_day_that_the_calendar_says(zone: str, time: int) -> None:
    """The window's start is on the same local date, and one millisecond before it is another one."""
    grid, info = Grid([Tumbling(DAY_MS, zone)]), ZoneInfo(zone)
    start = int(grid.starts(np.array([time]))[0, 0])
    end = int(grid.ends(np.array([0]), np.array([start]))[0])

    def date(at_ms: int) -> object:
        return (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=at_ms)).astimezone(info).date()

    assert start <= time < end
    assert date(start) == date(time) == date(end - 1)
    assert date(start - 1) != date(start) != date(end)


@given(st.integers(0, 10**13), st.sampled_from([(60_000, 20_000), (3_600_000, 900_000), (10_000, 5_000)]))
def test_a_moment_is_in_size_by_step_hopping_windows(time: int, size: tuple[int, int]) -> None:
    """And in no others: one of each series, a step apart."""
    grid = Grid([Hopping(*size)])

    starts = grid.starts(np.array([time]))[:, 0]

    assert all(start <= time < start + size[0] for start in starts)
    assert sorted(starts % size[1]) == [0] * len(starts)
    assert len(set(starts.tolist())) == size[0] // size[1]


def test_series_are_found_again_from_their_keys() -> None:
    """Kinds of one size are told apart; what is not on the grid is not found."""
    windows = ["1m", "1h", "1h every 15m", "2h every 1h"]
    grid = Grid([*map(parse_window, windows), parse_window("1d", "Asia/Kolkata")])  # type: ignore[list-item]
    starts = grid.starts(np.array([1_700_000_000_123]))[:, 0]

    assert grid.find(grid.lengths, grid.steps, starts).tolist() == list(range(len(grid)))
    assert set(grid.find(grid.lengths, grid.steps, starts + 1).tolist()) == {-1}
    assert set(grid.find(grid.lengths, grid.steps + 7, starts).tolist()) == {-1}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "m",
        "0s",
        "5 parsecs",
        "1h every 7m",
        "1h every 1h",
        "count 1",
        "count x",
        "session",
        "1d every 1m",
        "365000d",
        "count 9999999999",
        "-1m",
    ],
)
def test_what_is_no_window_says_how_to_write_one(text: str) -> None:
    """Every wrong form is a ValueError that quotes it or says what is wrong with its numbers."""
    with pytest.raises(ValueError, match=r"no window|no duration|whole number|2 to 96 times"):
        parse_window(text)


def test_a_time_zone_that_is_none_says_so() -> None:
    """Whatever the time zone database makes of it."""
    for name in ("Mars/Phobos", "+05:30", "", "../../etc/passwd"):
        with pytest.raises(ValueError, match="there is no time zone"):
            known_zone(name)
