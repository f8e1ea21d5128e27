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

#: Baselines taken together, count; bounds the memory for that.
_AT_ONCE = 256
#: With fewer runs to a block of panes than this, adding the panes for each run is faster than running sums.
_WORTH_SHARING = 3


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
        self._counts: Flags = pane > current - panes.panes
        low, high = int(pane.min()) - panes.panes, int(current.max()) + 1
        span = high - low
        keys, self._cell = np.unique(groups.rank * span + (pane - low), return_inverse=True)
        self._cell_rank, number = np.divmod(keys, span)
        self._cell_device, self._cell_pane = groups.devices[groups.heads][self._cell_rank], number + low
        self._keys, self._span, self._low = keys, span, low
        self._stretch = self._stretches(self._counts & (pane < current))
        self._run_stretch = self._stretch[at]

    def _stretches(self, late: Flags) -> Ints:
        """Which stretch of its device each reading is in, (n,) from 0: within one, no late reading follows a crossing.

        A baseline has only panes before the one that the clock enters. So all readings of a stretch may be added
        before its baselines are taken, but none of the next stretch.
        """
        groups = self._groups
        late_at = np.flatnonzero(late & self._run_crossed[self._run])
        begins = np.zeros(len(late), dtype=np.int64)
        begins[late_at[np.diff(self._run[late_at], prepend=-1) != 0]] = 1
        so_far = np.cumsum(begins)
        return so_far - (so_far - begins)[groups.heads][groups.rank]

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
        for stretch in range(int(self._stretch.max()) + 1):
            chosen = np.flatnonzero(self._stretch == stretch)
            np.add.at(flat, (self._cell[chosen] * width + offsets).reshape(-1), terms[:, chosen].reshape(-1))
            crossing = np.flatnonzero(self._run_crossed & (self._run_stretch == stretch))
            for start in range(0, len(crossing), _AT_ONCE):
                some = crossing[start : start + _AT_ONCE]
                baselines[:, :, some] = self._take(some, cells)
        self._cells = cells
        self._run_baselines = baselines

    def _take(self, runs: Ints, cells: Floats) -> Floats:
        """Baselines, (3, m, c), of devices whose clock enters a pane; `cells` are the touched panes up to here."""
        length = self._panes.panes
        ranks, place = self._run_rank[runs], self._run_pane[runs] % length
        borders = self._run_pane[runs] - place
        # Runs of one device and block of panes are neighbours, and ascend: a group.
        changed = (ranks[1:] != ranks[:-1]) | (borders[1:] != borders[:-1])
        shared = len(runs) >= _WORTH_SHARING * (1 + np.count_nonzero(changed))
        changed |= not shared
        head, tail = np.append(True, changed), np.append(changed, True)
        lows, highs = self._run_pane[runs[head]] - length, self._run_pane[runs[tail]]

        # A baseline is the sum of the panes below the border of two blocks, added downwards from it, plus that of the
        # panes above, upwards. So running sums serve a whole group, and depend on nothing but the panes
        # (see test_batch_boundaries_and_crashes_do_not_matter).
        below, above = self._read(ranks[head], lows, borders[head], highs, cells)
        if shared:
            which = np.cumsum(head) - 1
            np.add.accumulate(below, axis=1, out=below)
            np.add.accumulate(above, axis=1, out=above)
            sums = below[which, length - 1 - place]
            sums += np.where(place[:, np.newaxis] > 0, above[which, place - 1], 0.0)
        else:
            # The same additions: numpy adds along an outer axis in order.
            sums = np.add.reduce(below, axis=1) + np.add.reduce(above, axis=1)

        count, first, second = sums.reshape(len(runs), len(self.values), SUMS).transpose(2, 1, 0)
        safe = np.maximum(count, 1.0)
        mean = np.where(count > 0, self._references[ranks].T + first / safe, 0.0)
        variance = np.maximum(second - first * first / safe, 0.0) / np.maximum(count - 1.0, 1.0)
        return np.stack([count, mean, np.sqrt(variance)])

    def _read(self, ranks: Ints, lows: Ints, borders: Ints, highs: Ints, cells: Floats) -> tuple[Floats, Floats]:
        """Panes of devices as they are by now, from low to border and from border to high (not included).

        Returns:
            (r, l, 3 × m) from the border downwards, and (r, h, 3 × m) upwards; zero from `lows` and `highs` on.
        """
        below, above = int((borders - lows).max()), max(int((highs - borders).max()), 1)
        away = np.append(np.arange(-1, -below - 1, -1), np.arange(above))
        numbers = borders[:, np.newaxis] + away
        devices = self._groups.devices[self._groups.heads[ranks]]
        sums = self._panes.read(devices[:, np.newaxis], numbers).reshape(*numbers.shape, cells.shape[1])
        sums[(numbers < lows[:, np.newaxis]) | (numbers >= highs[:, np.newaxis])] = 0.0

        # Of the touched panes, whose keys ascend, each device has a range.
        begins = np.searchsorted(self._keys, ranks * self._span + lows - self._low)
        counts = np.searchsorted(self._keys, ranks * self._span + highs - self._low) - begins
        which = np.repeat(np.arange(len(ranks)), counts)
        touched = np.arange(len(which)) + np.repeat(begins - (np.cumsum(counts) - counts), counts)
        touched_away = self._cell_pane[touched] - borders[which]
        sums[which, np.where(touched_away < 0, -1 - touched_away, below + touched_away)] = cells[touched]
        return sums[:, :below], sums[:, below:]

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
