"""Where windows begin and end: series of windows that follow each other, for one device type or all."""

from collections.abc import Iterable
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo

import numpy as np

from headrace.schemas import window
from headrace.schemas.readings import Ints
from headrace.schemas.window import DAY_MS, Hopping, Tumbling

#: Days in a time zone are looked up from here to there; event times are within (see `headrace.agents.event_time`).
_FIRST_DAY, _LAST_DAY = date(1999, 12, 1), date(2110, 1, 1)
_EPOCH = date(1970, 1, 1)

#: A kind of window that a grid can hold.
OnGrid = Tumbling | Hopping


class Grid:
    """Series of windows. Windows of a series do not overlap; hopping windows are size ÷ hop series.

    Arrays are (s,) int64, a row per series, ms.

    Args:
        windows: which; of the same twice one is taken.

    >>> Grid([Tumbling(60_000), Hopping(60_000, 30_000)]).starts(np.array([100_000])).tolist()
    [[60000], [60000], [90000]]
    """

    def __init__(self, windows: Iterable[OnGrid]) -> None:
        #: Which kind each series is of.
        self.windows: list[OnGrid] = []
        offsets: list[int] = []
        for each in sorted(set(windows), key=lambda each: (each.size_ms, step(each))):
            for offset in range(0, each.size_ms, step(each) or each.size_ms):
                self.windows.append(each)
                offsets.append(offset)
        self.lengths: Ints = np.array([each.size_ms for each in self.windows], dtype=np.int64)
        #: What tells kinds of the same size apart: how often windows begin; 0 for days in a time zone.
        self.steps: Ints = np.array([step(each) for each in self.windows], dtype=np.int64)
        self.offsets: Ints = np.array(offsets, dtype=np.int64)
        self._days = {
            row: midnights(each.zone, each.size_ms // DAY_MS)
            for row, each in enumerate(self.windows)
            if isinstance(each, Tumbling) and each.zone != window.UTC
        }

    def __len__(self) -> int:
        return len(self.windows)

    def starts(self, times: Ints) -> Ints:
        """Where the windows begin that hold these times: (n,) → (s, n)."""
        length, offset = self.lengths[:, np.newaxis], self.offsets[:, np.newaxis]
        starts: Ints = (times - offset) // length * length + offset
        for row, days in self._days.items():
            starts[row] = days[np.clip(days.searchsorted(times, side="right") - 1, 0, len(days) - 2)]
        return starts

    def ends(self, series: Ints, starts: Ints) -> Ints:
        """Where windows end that begin at `starts`; series and starts of shapes that broadcast."""
        ends: Ints = starts + self.lengths[series]
        for row, days in self._days.items():
            ours = np.broadcast_to(series == row, ends.shape)
            at = np.minimum(days.searchsorted(starts[ours], side="right"), len(days) - 1)
            ends[ours] = days[at]
        return ends

    def find(self, lengths: Ints, steps: Ints, starts: Ints) -> Ints:
        """The series that windows of this size and step belong to, -1 where there is none; all (n,)."""
        series = np.full(len(starts), -1)
        for row in range(len(self)):
            of_kind = (lengths == self.lengths[row]) & (steps == self.steps[row])
            days = self._days.get(row)
            fits = np.isin(starts, days) if days is not None else (starts - self.offsets[row]) % self.lengths[row] == 0
            series[of_kind & fits] = row
        return series


def step(each: OnGrid) -> int:
    """How often windows of a kind begin, ms; 0 for days in a time zone, which begin when they do there."""
    if isinstance(each, Hopping):
        return each.hop_ms
    return each.size_ms if each.zone == window.UTC else 0


@lru_cache(maxsize=64)
def midnights(zone: str, days: int) -> Ints:
    """When every so many days begin in a time zone, ms since 1970 UTC, ascending.

    A midnight that the clocks jump over is the moment of the jump; of one that comes twice it is the first.
    """
    info, first = ZoneInfo(zone), (_FIRST_DAY - _EPOCH).days
    moments = [
        datetime.combine(_EPOCH + timedelta(days=day), datetime.min.time(), info).astimezone(UTC)
        for day in range(first - first % days, (_LAST_DAY - _EPOCH).days, days)
    ]
    return np.unique(np.array([round(moment.timestamp() * 1000) for moment in moments], dtype=np.int64))
