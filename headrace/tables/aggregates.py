"""Aggregates of one measure in one window: a cell of a few floats, folded record by record in log order.

Sums are added strictly one after the other, onto the running state: a sum of sums would depend on where batches end
(see test_batch_boundaries_and_crashes_do_not_matter).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from headrace.schemas.readings import Floats, Ints
from headrace.tables import sketches

#: A cell, by place: count, sum, min, max, first and last by event time (ties: log order), and the times of those, ms.
COUNT, SUM, MIN, MAX, FIRST, LAST, FIRST_TIME, LAST_TIME = range(8)
#: With variance besides: the first value in log order, and sum and sum of squares of the distances from it.
REFERENCE, OFF, SQUARES = range(8, 11)
_PLAIN = (0.0, 0.0, math.nan, math.nan, math.nan, math.nan, math.inf, -math.inf)
_SPREAD = (math.nan, 0.0, 0.0)

#: The values of one window, a list per measure.
Lists = list[list[float]]


@dataclass(frozen=True, slots=True)
class Aggregation:
    """What is kept of every measure: count, sum, minimum, maximum, first and last always.

    Args:
        variance: its variance too; 24 bytes per measure and window.
        percentiles: which, 0 to 100; 1 KiB per measure and window if there are any.
    """

    variance: bool = False
    percentiles: tuple[float, ...] = ()

    @property
    def empty(self) -> tuple[float, ...]:
        """The values of a cell that no reading was folded into."""
        return _PLAIN + _SPREAD if self.variance else _PLAIN

    @property
    def sketch_width(self) -> int:
        """int64 of a measure's sketch."""
        return sketches.WIDTH if self.percentiles else 0


@dataclass(slots=True)
class Cells:
    """The cells of k windows with m measures.

    Args:
        values: (k, m, w) float64, see `COUNT` and so on; w is 8, with variance 11.
        sketches: (k, m, b) int64, see `headrace.tables.sketches`; b is 0 without percentiles.
    """

    values: Floats
    sketches: Ints

    @classmethod
    def empty(cls, windows: int, measures: int, aggregation: Aggregation) -> "Cells":
        """Cells without readings."""
        values = np.empty((windows, measures, len(aggregation.empty)))
        values[:] = aggregation.empty
        return cls(values, np.zeros((windows, measures, aggregation.sketch_width), dtype=np.int64))

    @classmethod
    def joined(cls, pieces: "Sequence[Cells]") -> "Cells":
        """One after the other; at least one."""
        return cls(np.concatenate([p.values for p in pieces]), np.concatenate([p.sketches for p in pieces]))

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, windows: Any) -> "Cells":
        """A copy of some; by a mask or numbers."""
        return Cells(self.values[windows], self.sketches[windows])

    def __setitem__(self, windows: Any, cells: "Cells") -> None:
        self.values[windows] = cells.values
        self.sketches[windows] = cells.sketches

    def lists(self) -> Lists:
        """The values of the first window, for `fold_one`."""
        lists: Lists = self.values[0].tolist()
        return lists


def fold_runs(cells: Cells, values: Floats, times: Ints, starts: Ints) -> Cells:
    """Fold runs of readings into one window each.

    Args:
        cells: of t windows, as they are.
        values: (m, e) float64, readings of window 0, then of window 1, …, in log order each; NaN where there is none.
        times: (e,) int64, their event times, ms.
        starts: (t,) int64, ascending, where each window's readings begin; no run is empty.
    Returns:
        The t windows as they become.
    """
    count, total = len(starts), values.shape[1]
    present = values == values
    complete = bool(present.all())
    folded = np.ascontiguousarray(cells.values.transpose(2, 1, 0))
    window = np.zeros(total, dtype=np.int64)
    window[starts[1:]] = 1
    np.cumsum(window, out=window)
    flat = (window + np.arange(len(values))[:, np.newaxis] * count).reshape(-1)
    addends = values if complete else np.where(present, values, 0.0)
    np.add.at(folded[SUM].reshape(-1), flat, addends.reshape(-1))
    if len(folded) > REFERENCE:
        _fold_spread(folded, values, present, window, flat, starts)
    folded[COUNT] += np.add.reduceat(present, starts, axis=1, dtype=np.int64)
    folded[MIN] = np.fmin(folded[MIN], np.fmin.reduceat(values, starts, axis=1))
    folded[MAX] = np.fmax(folded[MAX], np.fmax.reduceat(values, starts, axis=1))

    # First and last by (event time, place): both in one int64, which holds centuries times batch length.
    low = times.min()
    key = ((times - low) * total + np.arange(total))[np.newaxis]
    measure = np.arange(len(values))[:, np.newaxis]
    for first, at, absent in ((FIRST, FIRST_TIME, np.iinfo(np.int64).max), (LAST, LAST_TIME, -1)):
        reduceat = np.minimum.reduceat if first == FIRST else np.maximum.reduceat
        best = reduceat(key if complete else np.where(present, key, absent), starts, axis=1)
        place = best % total
        time = times[place].astype(np.float64)
        better = time < folded[at] if first == FIRST else time >= folded[at]
        better &= best != absent
        np.copyto(folded[first], values[measure, place], where=better)
        np.copyto(folded[at], time, where=better)
    folded_values = np.ascontiguousarray(folded.transpose(2, 1, 0))
    return Cells(folded_values, _fold_sketches(cells.sketches, values, present, window))


def _fold_spread(folded: Floats, values: Floats, present: Any, window: Ints, flat: Ints, starts: Ints) -> None:
    """Fold into `REFERENCE`, `OFF` and `SQUARES`; before `COUNT`."""
    total = values.shape[1]
    place = np.where(present, np.arange(total), total)
    first = np.minimum.reduceat(place, starts, axis=1)
    fresh = (folded[COUNT] == 0) & (first < total)
    measure = np.arange(len(values))[:, np.newaxis]
    np.copyto(folded[REFERENCE], values[measure, np.minimum(first, total - 1)], where=fresh)
    off = np.where(present, values - folded[REFERENCE][:, window], 0.0)
    np.add.at(folded[OFF].reshape(-1), flat, off.reshape(-1))
    np.add.at(folded[SQUARES].reshape(-1), flat, (off * off).reshape(-1))


def _fold_sketches(before: Ints, values: Floats, present: Any, window: Ints) -> Ints:
    count, measures, width = before.shape
    if not width or not count:
        return before
    measure, place = np.nonzero(present)
    rows = window[place] * measures + measure
    ones = np.ones(len(rows), dtype=np.int64)
    after = sketches.add(before.reshape(-1, width), rows, sketches.keys(values[measure, place]), ones)
    return after.reshape(before.shape)


def fold_one(cells: Lists, values: Sequence[float], time: int) -> None:
    """Fold one reading into the values of a window, in place; the same arithmetic as `fold_runs`."""
    for cell, value in zip(cells, values, strict=True):
        if value != value:
            continue
        if len(cell) > REFERENCE:
            if not cell[COUNT]:
                cell[REFERENCE] = value
            off = value - cell[REFERENCE]
            cell[OFF] += off
            cell[SQUARES] += off * off
        cell[COUNT] += 1
        cell[SUM] += value
        cell[MIN] = value if not value >= cell[MIN] else cell[MIN]
        cell[MAX] = value if not value <= cell[MAX] else cell[MAX]
        if time < cell[FIRST_TIME]:
            cell[FIRST], cell[FIRST_TIME] = value, float(time)
        if time >= cell[LAST_TIME]:
            cell[LAST], cell[LAST_TIME] = value, float(time)


def sketch_one(before: Ints, values: Sequence[float]) -> Ints:
    """The sketches of one window, (m, b), with one reading more."""
    if not before.shape[-1]:
        return before
    column = np.array(values)[:, np.newaxis]
    after: Ints = _fold_sketches(before[np.newaxis], column, column == column, np.zeros(1, dtype=np.int64))[0]
    return after


def merge(one: Lists, other: Lists) -> Lists:
    """The values of both windows' readings; sums are added in this order, ties of time go by it."""
    merged: Lists = []
    for a, b in zip(one, other, strict=True):
        if not a[COUNT] or not b[COUNT]:
            merged.append(list(a if a[COUNT] else b))
            continue
        cell = list(a)
        cell[COUNT], cell[SUM] = a[COUNT] + b[COUNT], a[SUM] + b[SUM]
        cell[MIN], cell[MAX] = min(a[MIN], b[MIN]), max(a[MAX], b[MAX])
        if b[FIRST_TIME] < a[FIRST_TIME]:
            cell[FIRST], cell[FIRST_TIME] = b[FIRST], b[FIRST_TIME]
        if b[LAST_TIME] >= a[LAST_TIME]:
            cell[LAST], cell[LAST_TIME] = b[LAST], b[LAST_TIME]
        if len(cell) > REFERENCE:
            shift = b[REFERENCE] - a[REFERENCE]
            cell[OFF] = a[OFF] + b[OFF] + b[COUNT] * shift
            cell[SQUARES] = a[SQUARES] + b[SQUARES] + 2 * shift * b[OFF] + b[COUNT] * shift * shift
        merged.append(cell)
    return merged


def variance(values: Floats) -> Floats:
    """Sample variance (n − 1) of cells with `REFERENCE`, (…, w) → (…); NaN for less than two readings."""
    count = values[..., COUNT]
    with np.errstate(invalid="ignore", divide="ignore"):
        spread = np.maximum(values[..., SQUARES] - values[..., OFF] ** 2 / count, 0.0) / (count - 1)
    return np.where(count > 1, spread, np.nan)
