"""The bins of a history: where each begins, and which bin a time is in."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from headrace.connectors.timescale.query_pool import QueryError
from headrace.schemas.readings import Ints
from headrace.schemas.window import DAY_MS, known_zone
from headrace.schemas.window import UTC as UTC_NAME
from headrace.tables.grid import midnights

#: Widths that history comes in, ms.
WIDTHS: Mapping[str, int] = {"1m": 60_000, "5m": 300_000, "15m": 900_000, "1h": 3_600_000, "1d": DAY_MS}
#: Most bins of one answer: a year of minutes and some.
MOST_BINS = 600_000
#: About the year 10000, and as far back, ms: no ISO 8601 time is outside.
LATEST_MS = 253_402_300_800_000


@dataclass(frozen=True, slots=True)
class BinGrid:
    """Bins next to each other.

    Args:
        name: "1m" and so on, or "1d Europe/Berlin".
        edges: (n + 1,) int64, ascending, ms: bin i is edges[i] <= time < edges[i + 1].
        width_ms: of each, ms; None for days of a time zone, some of which have 23 or 25 hours.
    """

    name: str
    edges: Ints
    width_ms: int | None

    @classmethod
    def over(cls, start_ms: int, end_ms: int, width: str, zone: str = UTC_NAME) -> "BinGrid":
        """The bins that touch a range.

        Args:
            zone: for days, where they begin at midnight, IANA name.
        Raises:
            QueryError: there is no such width or zone, or there are no bins, or too many.
        """
        if width not in WIDTHS:
            raise QueryError(f"aggregation must be raw, {', '.join(WIDTHS)}; not {width!r}")
        if not start_ms < end_ms:
            raise QueryError("the range is empty: start must be before end")
        if max(abs(start_ms), abs(end_ms)) > LATEST_MS:
            raise QueryError("the range is outside of the times that PostgreSQL knows")
        size = WIDTHS[width]
        if (end_ms - start_ms) // size >= MOST_BINS:
            raise QueryError(
                f"the range has {(end_ms - start_ms) // size:,} bins of {width}, more than {MOST_BINS:,}: "
                "ask for wider bins, or in parts"
            )
        if width == "1d" and zone != UTC_NAME:
            return cls(f"1d {zone}", _days(start_ms, end_ms, zone), None)
        first, last = start_ms // size, -(-end_ms // size)
        return cls(width, np.arange(first, last + 1, dtype=np.int64) * size, size)

    def __len__(self) -> int:
        return len(self.edges) - 1

    @property
    def start_ms(self) -> int:
        """Where the first bin begins."""
        return int(self.edges[0])

    @property
    def end_ms(self) -> int:
        """Where the last bin ends."""
        return int(self.edges[-1])

    def places(self, times: Ints) -> Ints:
        """(n,) which bin each time is in; for times of the range only."""
        return np.searchsorted(self.edges, times, side="right") - 1

    def is_made_of(self, pane_ms: int) -> bool:
        """Whether every bin is a whole number of panes of this width, which begin at multiples of it."""
        return not (self.edges % pane_ms).any()


def _days(start_ms: int, end_ms: int, zone: str) -> Ints:
    try:
        days = midnights(known_zone(zone), 1)
    except ValueError as error:
        raise QueryError(str(error)) from error
    if not days[0] <= start_ms < end_ms <= days[-1]:
        raise QueryError("days of a time zone are known from 2000 to 2109 only")
    first, last = days.searchsorted(start_ms, side="right") - 1, days.searchsorted(end_ms)
    found: Ints = days[first : last + 1]
    return found
