"""The kinds of windows, and how they are written in settings and records: `15m`, `1h every 15m`, `session 30m`, …"""

import re
from dataclasses import dataclass
from zoneinfo import ZoneInfo

_UNITS_MS = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
DAY_MS = _UNITS_MS["d"]
UTC = "UTC"


@dataclass(frozen=True, slots=True)
class Tumbling:
    """Windows of one size, one after the other; they begin at multiples of it.

    Args:
        size_ms: length, ms.
        zone: for whole days, time zone (IANA) in which they begin at midnight; a day there may have 23 or 25 hours.
    """

    size_ms: int
    zone: str = UTC

    def __str__(self) -> str:
        return duration(self.size_ms) + ("" if self.zone == UTC else f" {self.zone}")


@dataclass(frozen=True, slots=True)
class Hopping:
    """Windows of one size that begin every `hop_ms`; a reading is in size ÷ hop of them."""

    size_ms: int
    hop_ms: int

    def __str__(self) -> str:
        return f"{duration(self.size_ms)} every {duration(self.hop_ms)}"


@dataclass(frozen=True, slots=True)
class Sliding:
    """A window of `size_ms` for each reading, ending with it: what was in the last `size_ms` when it was measured."""

    size_ms: int

    def __str__(self) -> str:
        return f"sliding {duration(self.size_ms)}"


@dataclass(frozen=True, slots=True)
class Session:
    """Readings that are less than `gap_ms` apart; it ends `gap_ms` after its last one."""

    gap_ms: int

    def __str__(self) -> str:
        return f"session {duration(self.gap_ms)}"


@dataclass(frozen=True, slots=True)
class Count:
    """`size` readings, in the order of the log, whatever their event times."""

    size: int

    def __str__(self) -> str:
        return f"count {self.size}"


Window = Tumbling | Hopping | Sliding | Session | Count


def sort_size(window: Window) -> int:
    """By which kinds are sorted, ms: size or gap; 0 for a count."""
    match window:
        case Count():
            return 0
        case Session():
            return window.gap_ms
        case _:
            return window.size_ms


LONGEST_MS = 366 * DAY_MS
MOST_COUNTED = 1_000_000_000
#: Windows of a hopping kind that one reading may be in: it is folded once into each.
MOST_OVERLAPPING = 96


def duration(milliseconds: int) -> str:
    """`90000` as `90s`: a whole number of the largest unit that fits.

    >>> duration(90_000), duration(3_600_000)
    ('90s', '1h')
    """
    unit = next(unit for unit in reversed(_UNITS_MS) if milliseconds % _UNITS_MS[unit] == 0)
    return f"{milliseconds // _UNITS_MS[unit]}{unit}"


def parse_duration(text: str) -> int:
    """`15m` in ms; units are ms, s, m, h and d.

    Raises:
        ValueError: it is something else, or not positive.
    """
    found = re.fullmatch(r"(\d+) ?(ms|s|m|h|d)", text.strip())
    if not found:
        raise ValueError(f"{text!r} is no duration: write a number and ms, s, m, h or d, as in 15m")
    length = int(found[1]) * _UNITS_MS[found[2]]
    if not 0 < length <= LONGEST_MS:
        raise ValueError(f"{text!r} is no duration for a window: it must be more than 0 and at most 366d")
    return length


def parse_window(text: str, zone: str = UTC) -> Window:
    """A window as settings write it.

    Args:
        zone: in which whole days begin, IANA name.
    Raises:
        ValueError: it is none; says how to write one.

    >>> parse_window("1d", "Asia/Kolkata"), parse_window("1h every 15m"), parse_window("count 100")
    (Tumbling(size_ms=86400000, zone='Asia/Kolkata'), Hopping(size_ms=3600000, hop_ms=900000), Count(size=100))
    """
    words = text.strip().split(" ", 1)
    match words:
        case ["session", gap]:
            return Session(parse_duration(gap))
        case ["sliding", size]:
            return Sliding(parse_duration(size))
        case ["count", size] if size.strip().isdecimal() and 1 < int(size) <= MOST_COUNTED:
            return Count(int(size))
        case ["count", _]:
            raise ValueError(f"{text!r}: a count is a whole number of readings, 2 to {MOST_COUNTED:,}")
    if " every " in text:
        return _hopping(*map(parse_duration, text.split(" every ", 1)))
    try:
        length = parse_duration(text)
    except ValueError as error:
        if "366d" in str(error):
            raise
        raise ValueError(
            f"{text!r} is no window: write 15m, 1d, 1h every 15m, sliding 10m, session 30m or count 100"
        ) from None
    return tumbling(length, zone)


def tumbling(size_ms: int, zone: str = UTC) -> Tumbling:
    """Tumbling windows; the time zone matters for whole days only."""
    return Tumbling(size_ms, zone if size_ms % DAY_MS == 0 else UTC)


def _hopping(size: int, hop: int) -> Hopping:
    if size % hop or not 1 < size // hop <= MOST_OVERLAPPING:
        raise ValueError(
            f"{duration(size)} every {duration(hop)}: the size must be 2 to {MOST_OVERLAPPING} times the step"
        )
    return Hopping(size, hop)


def known_zone(name: str) -> str:
    """The name of a time zone that there is.

    Raises:
        ValueError: there is none of this name.
    """
    try:
        ZoneInfo(name)
    except (KeyError, OSError, ValueError) as error:
        raise ValueError(f"there is no time zone {name!r}; write an IANA name, as in Europe/Berlin") from error
    return name
