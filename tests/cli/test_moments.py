"""Times as people write them."""

import pytest

from headrace.cli.moments import duration, iso_ms, moment
from headrace.engine.errors import ConfigError

NOW = 1_750_000_000_000


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2025-06-15T15:06:40Z", NOW),
        ("2025-06-15T15:06:40", NOW),
        ("2025-06-15T17:06:40.250+02:00", NOW + 250),
        (" 2025-06-15 ", NOW - 54_400_000),
        ("1969-12-31T23:59:59Z", -1000),
        ("0s", NOW),
        ("90s", NOW - 90_000),
        ("1.5h", NOW - 5_400_000),
        ("15m", NOW - 900_000),
        ("15min", NOW - 900_000),
        ("2d", NOW - 172_800_000),
        ("1w", NOW - 604_800_000),
    ],
)
def test_a_time_or_a_time_ago(text: str, expected: int) -> None:
    """ISO 8601, UTC unless it names an offset; or a duration before now."""
    assert moment("--since", text, NOW) == expected


@pytest.mark.parametrize("text", ["", "2", "h", "-2h", "2 h", "2y", "soon", "1e3s", "2025-13-01", "15:06"])
def test_anything_else_is_a_mistake(text: str) -> None:
    """Of the option that it was given for."""
    with pytest.raises(ConfigError, match="--since"):
        moment("--since", text, NOW)
    with pytest.raises(ConfigError, match="--warm-up"):
        duration("--warm-up", text)


@pytest.mark.parametrize("time_ms", [NOW, NOW + 1, 0, -1, 253_402_300_799_999])
def test_what_is_shown_can_be_given_back(time_ms: int) -> None:
    """To the millisecond."""
    assert moment("--from", iso_ms(time_ms), NOW) == time_ms


def test_a_time_that_no_calendar_has_is_shown_as_it_is() -> None:
    """A record's time stamp may be anything."""
    assert iso_ms(2**62) == f"{2**62} ms"
