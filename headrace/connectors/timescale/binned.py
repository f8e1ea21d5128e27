"""Aggregates of several metrics over the bins of a grid, as arrays; and how readings become them."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from headrace.connectors.timescale.answers import Bins
from headrace.connectors.timescale.bin_grid import BinGrid
from headrace.schemas.readings import Floats, Ints


@dataclass(slots=True)
class Binned:
    """Aggregates of m metrics in n bins, (m, n) each: NaN, and count 0, where there is nothing."""

    avg: Floats
    min: Floats
    max: Floats
    count: Ints

    @classmethod
    def empty(cls, metrics: int, bins: int) -> "Binned":
        """Nothing in any bin."""
        shape = (metrics, bins)
        return cls(
            np.full(shape, np.nan), np.full(shape, np.nan), np.full(shape, np.nan), np.zeros(shape, dtype=np.int64)
        )

    @classmethod
    def of_rows(cls, places: Ints, rows: Sequence[Sequence[Any]], metrics: int, bins: int) -> "Binned":
        """From rows whose columns are avg, min, max and count of each metric, all behind the first.

        Args:
            places: (r,) the bin of each row; no bin twice.
        """
        found = cls.empty(metrics, bins)
        if rows:
            columns = list(zip(*rows, strict=True))
            for metric in range(metrics):
                for number, target in enumerate((found.avg, found.min, found.max)):
                    target[metric, places] = np.array(columns[1 + 4 * metric + number], dtype=np.float64)
                found.count[metric, places] = columns[4 + 4 * metric]
        return found

    @classmethod
    def of_panes(cls, places: Ints, count: Ints, total: Floats, low: Floats, high: Floats, bins: int) -> "Binned":
        """From panes, of which several make a bin.

        Args:
            places: (p,) the bin of each pane.
            count, total, low, high: (m, p) count, sum, minimum and maximum per pane; NaN where there is none.
        """
        found = cls.empty(len(count), bins)
        sums = np.zeros(found.avg.shape)
        for metric in range(len(count)):
            np.add.at(found.count[metric], places, count[metric])
            np.add.at(sums[metric], places, np.nan_to_num(total[metric]))
            np.fmin.at(found.min[metric], places, low[metric])
            np.fmax.at(found.max[metric], places, high[metric])
        np.divide(sums, found.count, out=found.avg, where=found.count > 0)
        return found

    @classmethod
    def of_readings(cls, grid: BinGrid, times: Ints, metrics: Floats) -> "Binned":
        """From readings: times (r,) of the range, metrics (m, r) with NaN where one has none."""
        present = (metrics == metrics).astype(np.int64)
        return cls.of_panes(grid.places(times), present, metrics, metrics, metrics, len(grid))

    def take(self, other: "Binned", bins: Any) -> None:
        """Replace some bins, given by a mask or numbers, by those of another."""
        for ours, theirs in zip(self._arrays(), other._arrays(), strict=True):
            ours[:, bins] = theirs[:, bins]

    def total(self) -> Ints:
        """(n,) values of all metrics together."""
        total: Ints = self.count.sum(axis=0)
        return total

    def bins(self, names: Iterable[str]) -> dict[str, Bins]:
        """By metric."""
        return {
            name: Bins(self.avg[row], self.min[row], self.max[row], self.count[row]) for row, name in enumerate(names)
        }

    def _arrays(self) -> tuple[Any, ...]:
        return self.avg, self.min, self.max, self.count


def stretches(mask: Any) -> list[tuple[int, int]]:
    """The runs of True in a mask, as (first, behind the last).

    >>> stretches(np.array([True, False, True, True]))
    [(0, 1), (2, 4)]
    """
    edges = np.flatnonzero(np.diff(np.concatenate([[0], np.asarray(mask, dtype=np.int8), [0]])))
    return list(zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True))
