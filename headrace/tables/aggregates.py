"""Aggregates of one measure in one window: a cell of eight floats, folded record by record in log order.

Sums are added strictly one after the other, onto the running state: a sum of sums would depend on where batches end
(see test_batch_boundaries_do_not_matter).
"""

import math
from collections.abc import Sequence

import numpy as np

from headrace.schemas.readings import Floats, Ints

#: A cell, by place: count, sum, min, max, first and last by event time (ties: log order), and the times of those, ms.
COUNT, SUM, MIN, MAX, FIRST, LAST, FIRST_TIME, LAST_TIME = range(8)
WIDTH = 8
EMPTY = (0.0, 0.0, math.nan, math.nan, math.nan, math.nan, math.inf, -math.inf)

#: The cells of one window, one per measure, as plain lists.
Cells = list[list[float]]


def fold_runs(cells: Floats, values: Floats, times: Ints, starts: Ints) -> Floats:
    """Fold runs of readings into one window each.

    Args:
        cells: (t, m, 8) float64, the windows as they are.
        values: (m, e) float64, readings of window 0, then of window 1, …, in log order each; NaN where there is none.
        times: (e,) int64, their event times, ms.
        starts: (t,) int64, ascending, where each window's readings begin; no run is empty.
    Returns:
        (t, m, 8): the windows as they become.
    """
    count, total = len(starts), values.shape[1]
    present = values == values
    complete = bool(present.all())
    folded = np.ascontiguousarray(cells.transpose(2, 1, 0))
    window = np.zeros(total, dtype=np.int64)
    window[starts[1:]] = 1
    np.cumsum(window, out=window)
    flat = window + np.arange(len(values))[:, np.newaxis] * count
    addends = values if complete else np.where(present, values, 0.0)
    np.add.at(folded[SUM].reshape(-1), flat.reshape(-1), addends.reshape(-1))
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
    return np.ascontiguousarray(folded.transpose(2, 1, 0))


def fold_one(cells: Cells, values: Sequence[float], time: int) -> None:
    """Fold one reading into the cells of a window, in place; the same arithmetic as `fold_runs`."""
    for cell, value in zip(cells, values, strict=True):
        if value != value:
            continue
        cell[COUNT] += 1
        cell[SUM] += value
        cell[MIN] = value if not value >= cell[MIN] else cell[MIN]
        cell[MAX] = value if not value <= cell[MAX] else cell[MAX]
        if time < cell[FIRST_TIME]:
            cell[FIRST], cell[FIRST_TIME] = value, float(time)
        if time >= cell[LAST_TIME]:
            cell[LAST], cell[LAST_TIME] = value, float(time)
