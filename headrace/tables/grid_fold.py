"""What the readings of a batch do to the windows of a grid: computed first, applied afterwards.

Every reading is, for every series of windows, exactly one of

    late      its window takes no more readings
    direct    its window is open: folded with all others like it, vectorised
    stray     its window is closed already, or older than any its device has: one by one, in log order

A window closes once, at one record: the reading that moves its device's clock past the end, or, if the device is
silent, the one that moves the partition's watermark to its deadline. All its direct readings come before that record
and all its stray ones after it, so folding the direct ones first keeps log order within the window.
"""

from dataclasses import dataclass

import numpy as np

from headrace.schemas.readings import Ints, Readings
from headrace.schemas.window import Window
from headrace.tables.aggregates import Cells, Lists, fold_one, fold_runs, sketch_one
from headrace.tables.grouping import Flags, group, measure_matrix
from headrace.tables.window_columns import OPEN, WindowColumns
from headrace.tables.window_outputs import Late, Outputs, Watermarks, first_outputs, outputs_of_slots


@dataclass(slots=True)
class Kept:
    """A window that stray readings change: `run` of this batch, `slot` of the store, or neither (-1) when it is new."""

    run: int
    slot: int
    revision: int
    width: int
    values: Lists
    sketches: Ints

    @classmethod
    def of(cls, run: int, slot: int, revision: int, cells: Cells) -> "Kept":
        """With the cells of one window."""
        return cls(run, slot, revision, cells.values.shape[2], cells.lists(), cells.sketches[0])

    def cells(self) -> Cells:
        """The cells of the one window."""
        values = np.array(self.values, dtype=np.float64).reshape(1, len(self.values), self.width)
        return Cells(values, self.sketches[np.newaxis])


class GridFold:
    """The readings of one device type in one batch, folded into their windows.

    Construction computes and leaves `windows` as it is; `apply` changes it. Cost: a fixed number of numpy calls over
    series × readings, and Python for stray readings and for the windows that close.

    Arrays below are (s, n), series by readings brought together by device, unless said otherwise. A *run* is the
    readings of one device during which its own clock stays in one window of one series.

    Args:
        windows: the state.
        readings: the batch's readings of this type; not empty.
        marks: the partition's watermark along the batch.
    """

    def __init__(self, windows: WindowColumns, readings: Readings, marks: Watermarks) -> None:
        self._windows = windows
        self._type = readings.device_type
        self._marks = marks
        devices = windows.devices.numbers(readings.device_ids)
        matrix = measure_matrix(readings.news(), len(readings), windows.measures)
        windows.reserve()
        self._groups = groups = group(devices, readings.times, windows.clocks)
        self._values = matrix[:, groups.order]
        self._rows = readings.rows[groups.order]
        self._seen = marks.after[self._rows]
        self._measures = windows.measures.by_name()
        self.outputs: list[Outputs] = []
        self._classify()
        self._fold()
        self._close()
        self._correct()

    def _classify(self) -> None:
        windows, groups, grid = self._windows, self._groups, self._windows.grid
        series = np.arange(len(grid))[:, np.newaxis]
        mark = self._marks.before[self._rows]
        seen_before = np.empty_like(self._seen)
        seen_before[1:] = self._seen[:-1]
        seen_before[groups.heads] = windows.seen_at[groups.devices[groups.heads]]
        self._start = grid.starts(groups.times)
        self._end = grid.ends(series, self._start)
        current, previous = grid.starts(groups.after), grid.starts(groups.before)
        self._late = windows.final(self._end, groups.before, mark)
        self._crossed = current != previous
        # Whether the watermark passed the deadline of the device's window while the device was silent.
        self._silence_end = windows.deadline(grid.ends(series, previous), seen_before)
        self._silent = mark >= self._silence_end

        first = (groups.head | self._crossed).reshape(-1)
        self._run = (np.cumsum(first) - 1).reshape(current.shape)
        self._run_at = at = np.flatnonzero(first)
        self._run_series, place = np.divmod(at, len(self._rows))
        self._run_device = groups.devices[place]
        self._run_start = current.reshape(-1)[at]
        slot = windows.current[self._run_series, self._run_device]
        self._run_slot = np.where((slot >= 0) & (windows.start[slot] == self._run_start), slot, -1)
        self._run_revision = np.where(self._run_slot >= 0, windows.revision[self._run_slot], OPEN)

        # A run's window takes nothing directly once it is closed: before the batch, or by a silence within it.
        shut = (self._run_revision != OPEN)[self._run]
        self._hushed = hushed = self._silent & ~self._crossed
        if hushed.any():
            so_far = np.cumsum(hushed).reshape(hushed.shape)
            before_run = (so_far.reshape(-1) - hushed.reshape(-1))[at]
            shut |= so_far > before_run[self._run]
        self._shut = shut
        self._direct = (self._start == current) & ~self._late & ~shut

    def _fold(self) -> None:
        windows, count = self._windows, len(self._rows)
        entries = np.flatnonzero(self._direct)
        run = self._run.reshape(-1)[entries]
        starts = np.flatnonzero(np.append(run[:1] >= 0, run[1:] != run[:-1]))
        self._touched = run[starts]
        slots = self._run_slot[self._touched]
        cells = windows.cells[slots]
        cells.values[slots < 0], cells.sketches[slots < 0] = windows.aggregation.empty, 0
        place = entries % count
        if len(entries):
            cells = fold_runs(cells, self._values[:, place], self._groups.times[place], starts)
        self._cells = cells
        self._cells_of = np.full(len(self._run_slot), -1)
        self._cells_of[self._touched] = np.arange(len(self._touched))

    def _close(self) -> None:
        """Collect the windows that close in this batch: of runs, and of slots that no run is about."""
        windows, groups, marks = self._windows, self._groups, self._marks
        count = len(self._rows)
        self._filled = (self._run_slot >= 0) | (self._cells_of >= 0)
        self._closing: Flags = np.zeros(len(self._run_at), dtype=np.bool_)

        # By a silence within a run: the first one counts.
        hush = np.flatnonzero(self._hushed)
        if len(hush):
            run, first = np.unique(self._run.reshape(-1)[hush], return_index=True)
            self._close_runs(run, self._end_of_silence(hush[first]))

        # By moving on: what the device was in before, in this batch or when it began.
        cross = np.flatnonzero(self._crossed)
        series, place = np.divmod(cross, count)
        cause = self._rows[place]
        silent = self._silent.reshape(-1)[cross]
        if silent.any():
            cause = np.where(silent, self._end_of_silence(cross), cause)
        head = groups.head[place]
        self._close_runs(self._run.reshape(-1)[cross[~head]] - 1, cause[~head])
        slot = windows.current[series[head], groups.devices[place[head]]]
        fresh = (slot >= 0) & (windows.revision[slot] == OPEN)
        self._closed_slots = slot[fresh]
        self.outputs.append(outputs_of_slots(windows, self._type, slot[fresh], cause[head][fresh]))

        # By a silence that began with the device's last reading in the batch.
        run = self._run[:, groups.tails]
        ends = windows.grid.ends(self._run_series[run], self._run_start[run])
        deadline = windows.deadline(ends, self._seen[groups.tails])
        due = deadline <= marks.after[-1]
        if due.any():
            self._close_runs(run[due], marks.after.searchsorted(deadline[due]))

    def _end_of_silence(self, at: Ints) -> Ints:
        """The rows at which the watermark reached the deadlines that the readings `at` found passed."""
        return self._marks.after.searchsorted(self._silence_end.reshape(-1)[at])

    def _close_runs(self, runs: Ints, causes: Ints) -> None:
        """Close the windows of these runs, unless they are closed or hold nothing."""
        fresh = self._filled[runs] & (self._run_revision[runs] == OPEN) & ~self._closing[runs]
        runs, causes = runs[fresh], causes[fresh]
        self._closing[runs] = True
        self.outputs.append(
            first_outputs(
                self._windows,
                self._type,
                causes,
                self._run_series[runs],
                self._run_start[runs],
                self._run_device[runs],
                self._cells_of_runs(runs),
            )
        )

    def _cells_of_runs(self, runs: Ints) -> Cells:
        touched = self._cells_of[runs]
        cells = self._windows.cells[self._run_slot[runs]]
        cells[touched >= 0] = self._cells[touched[touched >= 0]]
        return cells

    def _correct(self) -> None:
        """Fold stray readings one by one; each emits a correction, or the closed window that it alone makes."""
        windows, groups = self._windows, self._groups
        self._kept: dict[tuple[int, int, int], Kept] = {}
        series, place = np.divmod(np.flatnonzero(~(self._late | self._direct)), len(self._rows))
        if not len(series):
            return
        order = np.lexsort((series, self._rows[place]))
        place, series = place[order], series[order]
        runs = {
            (int(self._run_series[run]), int(self._run_device[run]), int(self._run_start[run])): int(run)
            for run in np.flatnonzero(self._filled)
        }
        device_ids, revisions, cells, previous = [], [], [], []
        for at, which in zip(place.tolist(), series.tolist(), strict=True):
            device, start = int(groups.devices[at]), int(self._start[which, at])
            key = (which, device, start)
            kept = self._kept.get(key)
            if kept is None:
                kept = self._kept[key] = self._look_up(key, runs.get(key, -1))
            previous.append(kept.cells())
            values = self._values[:, at].tolist()
            fold_one(kept.values, values, int(groups.times[at]))
            kept.sketches = sketch_one(kept.sketches, values)
            kept.revision += 1
            device_ids.append(windows.devices.names[device])
            revisions.append(kept.revision)
            cells.append(kept.cells())
        self.outputs.append(
            Outputs(
                self._type,
                windows.aggregation,
                self._measures,
                self._rows[place],
                [windows.grid.windows[row] for row in series.tolist()],
                self._start[series, place],
                self._end[series, place],
                device_ids,
                np.array(revisions),
                Cells.joined(cells),
                Cells.joined(previous),
            )
        )

    def _look_up(self, key: tuple[int, int, int], run: int) -> Kept:
        """The window as it is after the direct readings; revision OPEN if there is none yet."""
        windows = self._windows
        if run >= 0:
            cells = self._cells_of_runs(np.array([run]))
            return Kept.of(run, int(self._run_slot[run]), max(int(self._run_revision[run]), 0), cells)
        slot = windows.find(*key)
        if slot >= 0:
            return Kept.of(-1, slot, max(int(windows.revision[slot]), 0), windows.cells[np.array([slot])])
        return Kept.of(-1, -1, OPEN, Cells.empty(1, len(self._measures), windows.aggregation))

    def late(self) -> list[Late]:
        """The readings that missed a window, in log order."""
        found = []
        kinds = self._windows.grid.windows
        for at in np.flatnonzero(self._late.any(axis=0)).tolist():
            missed = np.flatnonzero(self._late[:, at])
            row, clock = int(self._rows[at]), int(self._groups.before[at])
            limit = int(self._marks.before[row]) - self._windows.keep
            behind = max(clock, limit) - int(self._end[missed[0], at]) - self._windows.grace
            missed_kinds = list[Window](dict.fromkeys(kinds[each] for each in missed.tolist()))
            found.append(Late(row, int(self._groups.order[at]), missed_kinds, behind, clock >= limit))
        return found

    def apply(self) -> None:
        """Make the windows what the batch made of them."""
        windows, groups = self._windows, self._groups
        clocks, watermark = groups.after[groups.tails], int(self._marks.after[-1])
        devices = groups.devices[groups.tails]
        windows.clocks[devices], windows.seen_at[devices] = clocks, self._seen[groups.tails]

        revisions = np.where(self._closing, 0, self._run_revision)
        for kept in self._kept.values():
            if kept.run >= 0 and kept.slot < 0:
                self._cells[self._cells_of[kept.run]], revisions[kept.run] = kept.cells(), kept.revision
        windows.close(self._run_slot[self._closing & (self._run_slot >= 0)])
        windows.close(self._closed_slots)

        run = self._touched
        ends = windows.grid.ends(self._run_series[run], self._run_start[run])
        slots = self._run_slot[run]
        # A window that opened and was already past within the batch is never stored.
        new = (slots < 0) & ~windows.final(ends, windows.clocks[self._run_device[run]], watermark)
        slots[new] = windows.open(self._run_series[run[new]], self._run_device[run[new]], self._run_start[run[new]])
        stored = slots >= 0
        windows.write(slots[stored], self._cells[stored], revisions[run[stored]])
        still_open = revisions[run] == OPEN
        if still_open.any():
            windows.quiet_until = min(windows.quiet_until, int(ends[still_open].min()) + windows.grace)

        for (series, device, start), kept in self._kept.items():
            if kept.run < 0 and kept.slot < 0:
                kept.slot = windows.insert(series, device, start)
            if kept.slot >= 0:
                windows.write(np.array([kept.slot]), kept.cells(), np.array([kept.revision]))

        # The newest window of a device carries its clock into the changelog.
        newest = windows.current[:, devices]
        windows.dirty[newest[newest >= 0]] = True

    @property
    def devices(self) -> Ints:
        """Numbers of the devices that have readings in the batch."""
        return self._groups.devices[self._groups.heads]
