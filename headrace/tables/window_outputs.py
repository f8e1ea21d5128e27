"""What a batch makes of windows: those that close, those that are corrected, and the readings that missed them."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from headrace.schemas.readings import Floats, Ints
from headrace.tables.window_columns import WindowColumns


class Watermarks(NamedTuple):
    """The partition's watermark, ms, before and after each row of a batch; (rows,) int64."""

    before: Ints
    after: Ints

    @classmethod
    def follow(cls, watermark: int, times: Ints) -> "Watermarks":
        """Of a batch whose rows have these event times, (rows,), rows >= 1, when it was `watermark` before."""
        after = np.maximum.accumulate(np.maximum(times, watermark))
        return cls(np.append(watermark, after[:-1]), after)


@dataclass(slots=True)
class Outputs:
    """Windows of one device type that are to be emitted, closed for the first time or corrected; columns of length k.

    Args:
        device_type: of all of them.
        rows: (k,) int64, the row of the batch that caused each.
        sizes, starts: (k,) int64, ms.
        device_ids: one per window.
        revisions: (k,) int64, 0 where the window is closed for the first time.
        cells: (k, m, 8) float64, see `aggregates`.
        previous: (k, m, 8) float64, the cells before the correction; without meaning where the revision is 0.
        measures: which cell is which measure's, sorted by name.
    """

    device_type: str
    rows: Ints
    sizes: Ints
    starts: Ints
    device_ids: list[str]
    revisions: Ints
    cells: Floats
    previous: Floats
    measures: list[tuple[str, int]]

    def __len__(self) -> int:
        return len(self.device_ids)


class Late(NamedTuple):
    """A reading that came too late for windows of these sizes; `behind` is by how much it missed the first, ms."""

    row: int
    place: int
    sizes: list[int]
    behind: int
    by_own_clock: bool


def outputs_of_slots(windows: WindowColumns, device_type: str, slots: Ints, causes: Ints) -> Outputs:
    """First outputs of the windows in these slots."""
    return first_outputs(
        windows,
        device_type,
        causes,
        windows.size[slots],
        windows.start[slots],
        windows.device[slots],
        windows.cells[slots],
    )


def first_outputs(
    windows: WindowColumns, device_type: str, causes: Ints, sizes: Ints, starts: Ints, devices: Ints, cells: Floats
) -> Outputs:
    """First outputs of windows; all arrays (k,), cells (k, m, 8)."""
    names = windows.devices.names
    device_ids = [names[device] for device in devices.tolist()]
    lengths, revisions = windows.sizes[sizes], np.zeros(len(starts), dtype=np.int64)
    return Outputs(
        device_type, causes, lengths, starts, device_ids, revisions, cells, cells, windows.measures.by_name()
    )


class Silence:
    """Closes the windows of devices of one type that have no reading in a batch, if the watermark says so.

    Args:
        windows: the state.
        device_type: its type.
        marks: the partition's watermark along the batch.
        present: numbers of the devices that have readings in the batch.
    """

    def __init__(self, windows: WindowColumns, device_type: str, marks: Watermarks, present: Ints) -> None:
        self._windows = windows
        self._watermark = int(marks.after[-1])
        slots, deadlines = windows.silent(self._watermark)
        if len(slots):
            absent = ~np.isin(windows.device[slots], present)
            slots, deadlines = slots[absent], deadlines[absent]
        self._slots = slots
        self.outputs = outputs_of_slots(windows, device_type, slots, marks.after.searchsorted(deadlines))

    def apply(self) -> None:
        """Close the windows."""
        windows = self._windows
        windows.close(self._slots)
        if self._watermark >= windows.quiet_until:
            windows.look_again()
