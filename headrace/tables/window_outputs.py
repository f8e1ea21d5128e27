"""What a batch makes of windows: those that close, those that are corrected, and the readings that missed them."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from headrace.schemas.readings import Ints
from headrace.schemas.window import Window
from headrace.tables.aggregates import Aggregation, Cells
from headrace.tables.window_columns import WindowColumns

#: Kinds of records that say something else than that a window closed or was corrected.
UPDATE, RETRACTION = "update", "retraction"


class Watermarks(NamedTuple):
    """The partition's watermark, ms, before and after each row of a batch; (rows,) int64."""

    before: Ints
    after: Ints

    @classmethod
    def follow(cls, watermark: int, times: Ints) -> "Watermarks":
        """Of a batch whose rows have these event times, (rows,), rows >= 1, when it was `watermark` before."""
        after = np.maximum.accumulate(np.maximum(times, watermark))
        return cls(np.append(watermark, after[:-1]), after)

    @classmethod
    def move(cls, watermark: int, by: int) -> "Watermarks":
        """Of one row without an event time, at which it moves on by itself."""
        return cls(np.array([watermark]), np.array([watermark + by]))


@dataclass(slots=True)
class Outputs:
    """Windows of one device type that are to be emitted; columns of length k.

    Args:
        device_type: of all of them.
        aggregation: what their cells hold.
        measures: which cell is which measure's, sorted by name.
        rows: (k,) int64, the row of the batch that caused each.
        windows: of which kind each is.
        starts, ends: (k,) int64, ms.
        device_ids: one per window.
        kind: of all of them; None where it follows from the revision.
        revisions: (k,) int64, 0 where the window is closed for the first time, more where it is corrected; -1 where
            nothing was sent of it.
        cells: of k windows.
        previous: the cells before the correction or retraction; without meaning elsewhere.
    """

    device_type: str
    aggregation: Aggregation
    measures: list[tuple[str, int]]
    rows: Ints
    windows: list[Window]
    starts: Ints
    ends: Ints
    device_ids: list[str]
    revisions: Ints
    cells: Cells
    previous: Cells
    kind: str | None = None

    def __len__(self) -> int:
        return len(self.device_ids)


class Late(NamedTuple):
    """A reading that came too late for these windows; `behind` is by how much it missed the first, ms."""

    row: int
    place: int
    windows: list[Window]
    behind: int
    by_own_clock: bool


def outputs_of_slots(
    windows: WindowColumns, device_type: str, slots: Ints, causes: Ints, kind: str | None = None
) -> Outputs:
    """First outputs of the windows in these slots; or other ones, of a `kind`."""
    series, starts, devices = windows.series[slots], windows.start[slots], windows.device[slots]
    return first_outputs(windows, device_type, causes, series, starts, devices, windows.cells[slots], kind)


def first_outputs(
    windows: WindowColumns,
    device_type: str,
    causes: Ints,
    series: Ints,
    starts: Ints,
    devices: Ints,
    cells: Cells,
    kind: str | None = None,
) -> Outputs:
    """First outputs of windows; all arrays (k,)."""
    names, kinds = windows.devices.names, windows.grid.windows
    return Outputs(
        device_type,
        windows.aggregation,
        windows.measures.by_name(),
        causes,
        [kinds[row] for row in series.tolist()],
        starts,
        windows.grid.ends(series, starts),
        [names[device] for device in devices.tolist()],
        np.full(len(starts), -1 if kind == UPDATE else 0),
        cells,
        cells,
        kind,
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
