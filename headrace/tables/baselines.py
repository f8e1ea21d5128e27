"""What each reading of a batch is compared with: mean and spread of its device's last panes. Computed, then applied.

A device's *baseline* is taken when its own clock enters a pane: from all readings of the panes before it that have come
by then, as far back as panes are kept. It stands until the clock enters the next pane, for every reading that comes
meanwhile. Readings count in the pane of their own event time, late ones too, and so in the baselines taken later.
"""

import numpy as np

from headrace.schemas.readings import Floats, Ints, Readings
from headrace.tables.grouping import Flags, group, measure_matrix
from headrace.tables.pane_columns import SUMS, PaneColumns

#: A baseline, by place: count, mean, standard deviation of the sample.
BASE_COUNT, MEAN, STDDEV = range(SUMS)


class BaselineFold:
    """Baselines of the readings of one device type in one batch.

    Construction computes and leaves `panes` as it is; `apply` changes it.

    Sums are of distances from a reference, the first value of the series, added one by one in log order. The relative
    error of a standard deviation is of the order of 1e-15 × ((mean − reference) / stddev)²: a thousandth when the first
    value was a million standard deviations away.

    Args:
        panes: the state.
        readings: the batch's readings of this type; not empty.
        length: of a pane, ms.
    """

    def __init__(self, panes: PaneColumns, readings: Readings, length: int) -> None:
        self._panes = panes
        self._length = length
        devices = panes.devices.numbers(readings.device_ids)
        matrix = measure_matrix(readings.news(), len(readings), panes.measures)
        panes.reserve()
        self._groups = groups = group(devices, readings.times, panes.clocks)
        #: (m, n) float64, values brought together by device; `order` (n,) says where each reading was.
        self.values = matrix[:, groups.order]
        self.order = groups.order
        #: (n,) int64, how far each reading is behind its device's own clock, ms.
        self.behind = groups.after - groups.times
        self._split()
        self._refer()
        self._sum()

    def baselines(self) -> Floats:
        """(3, m, n) float64: count, mean and standard deviation that each reading is compared with."""
        return self._run_baselines[:, :, self._run]

    def _split(self) -> None:
        """Find the runs, readings of one device while its clock is in one pane, and the panes that are touched."""
        panes, groups = self._panes, self._groups
        current = groups.after // self._length
        pane = groups.times // self._length
        crossed = current != groups.before // self._length
        first = groups.head | crossed
        self._run = np.cumsum(first) - 1
        at = np.flatnonzero(first)
        self._run_rank, self._run_device = groups.rank[at], groups.devices[at]
        self._run_pane, self._run_crossed = current[at], crossed[at]
        # Runs of one round belong to different devices; a device's first run without a crossing is in round 0.
        so_far = np.cumsum(crossed)
        self._round = so_far - (so_far - crossed)[groups.heads][groups.rank]
        self._run_round = self._round[at]

        self._counts: Flags = pane > current - panes.panes
        low, high = int(pane.min()) - panes.panes, int(current.max()) + 1
        span = high - low
        keys, self._cell = np.unique(groups.rank * span + (pane - low), return_inverse=True)
        self._cell_rank, number = np.divmod(keys, span)
        self._cell_device, self._cell_pane = groups.devices[groups.heads][self._cell_rank], number + low
        # Which touched panes (`keys` is sorted) are among the `panes` before each run's.
        base = self._run_rank * span - low
        self._reach = np.searchsorted(keys, base + self._run_pane - panes.panes)
        self._reach_end = np.searchsorted(keys, base + self._run_pane)

    def _refer(self) -> None:
        """A series without reference takes its first value."""
        groups = self._groups
        references = self._panes.references[groups.devices[groups.heads]]
        if np.isnan(references).any():
            count = len(groups.times)
            place = np.where(np.isnan(self.values), count, np.arange(count))
            first = np.minimum.reduceat(place, groups.heads, axis=1)
            values = np.take_along_axis(self.values, np.minimum(first, count - 1), axis=1).T
            references = np.where(np.isnan(references) & (count > first.T), values, references)
        self._references = references

    def _sum(self) -> None:
        panes, groups = self._panes, self._groups
        measures, runs = len(self.values), len(self._run_device)
        references = self._references.T[:, groups.rank]
        present = (self.values == self.values) & self._counts
        distance = np.where(present, self.values - references, 0.0)
        terms = np.stack([present.astype(np.float64), distance, distance * distance], axis=1)
        terms = terms.reshape(-1, len(groups.times))
        # One row per touched pane: sums of all measures, in the order of `terms`.
        cells = panes.read(self._cell_device, self._cell_pane).reshape(len(self._cell_pane), len(terms))
        flat, width = cells.reshape(-1), len(terms)
        offsets = np.arange(width)[:, np.newaxis]

        baselines = np.zeros((SUMS, measures, runs))
        standing = np.flatnonzero(~self._run_crossed)
        baselines[:, :, standing] = panes.baselines[self._run_device[standing]].transpose(2, 1, 0)
        by_round = np.argsort(self._round, kind="stable")
        run_by_round = np.argsort(self._run_round, kind="stable")
        rounds = np.arange(int(self._run_round.max()) + 2)
        ends = np.searchsorted(self._round[by_round], rounds)
        run_ends = np.searchsorted(self._run_round[run_by_round], rounds)
        for number in range(len(rounds) - 1):
            chosen = by_round[ends[number] : ends[number + 1]]
            if number:
                crossing = run_by_round[run_ends[number] : run_ends[number + 1]]
                baselines[:, :, crossing] = self._take(crossing, cells)
            np.add.at(flat, (self._cell[chosen] * width + offsets).reshape(-1), terms[:, chosen].reshape(-1))
        self._cells = cells
        self._run_baselines = baselines

    def _take(self, runs: Ints, cells: Floats) -> Floats:
        """Baselines, (3, m, c), of devices whose clock enters a pane; `cells` are the touched panes up to here."""
        panes = self._panes
        history = panes.history(self._run_device[runs], self._run_pane[runs])
        shape = history.shape
        history = history.reshape(*shape[:2], -1)
        counts = self._reach_end[runs] - self._reach[runs]
        which = np.repeat(np.arange(len(runs)), counts)
        touched = np.arange(len(which)) + np.repeat(self._reach[runs] - (np.cumsum(counts) - counts), counts)
        history[which, self._cell_pane[touched] % panes.panes] = cells[touched]

        # Ring order, one pane after the other: numpy adds along an outer axis in order, whatever the other axes are
        # (see test_batch_boundaries_and_crashes_do_not_matter).
        count, first, second = np.add.reduce(history, axis=1).reshape(shape[0], shape[2], SUMS).transpose(2, 1, 0)
        safe = np.maximum(count, 1.0)
        mean = np.where(count > 0, self._references[self._run_rank[runs]].T + first / safe, 0.0)
        variance = np.maximum(second - first * first / safe, 0.0) / np.maximum(count - 1.0, 1.0)
        return np.stack([count, mean, np.sqrt(variance)])

    def apply(self) -> None:
        """Make the panes what the batch made of them."""
        panes, groups = self._panes, self._groups
        devices = groups.devices[groups.tails]
        clocks = groups.after[groups.tails]
        current = clocks // self._length
        oldest = current - panes.panes + 1
        panes.clocks[devices] = clocks
        panes.references[devices] = self._references
        panes.baselines[devices] = self._run_baselines[:, :, self._run[groups.tails]].transpose(2, 1, 0)
        if self._run_crossed.any():
            panes.drop_before(devices, oldest)
        kept = np.flatnonzero(self._cell_pane >= oldest[self._cell_rank])
        sums = self._cells[kept].reshape(len(kept), len(self.values), SUMS)
        panes.write(self._cell_device[kept], self._cell_pane[kept], sums)
        # A device's newest pane carries its clock, references and baseline into the changelog.
        panes.mark(devices, current % panes.panes)
