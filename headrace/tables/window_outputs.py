"""What a batch makes of windows: those that close, those that are corrected, and the readings that missed them."""

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


class Output(NamedTuple):
    """A window as it is to be emitted: closed for the first time, or corrected.

    Sorts by the row of the batch that caused it, then window size and start (ms), device, type. `cells` and `previous`
    are (m, 8) float64; `measures` says which cell is which measure's, sorted by name.
    """

    row: int
    size: int
    start: int
    device_id: str
    device_type: str
    revision: int
    cells: Floats
    previous: Floats | None
    measures: list[tuple[str, int]]


class Late(NamedTuple):
    """A reading that came too late for windows of these sizes; `behind` is by how much it missed the first, ms."""

    row: int
    place: int
    sizes: list[int]
    behind: int
    by_own_clock: bool


def outputs_of_slots(windows: WindowColumns, device_type: str, slots: Ints, causes: Ints) -> list[Output]:
    """First outputs of the windows in these slots."""
    return outputs(
        windows,
        device_type,
        causes,
        windows.size[slots],
        windows.start[slots],
        windows.device[slots],
        windows.cells[slots],
    )


def outputs(
    windows: WindowColumns, device_type: str, causes: Ints, sizes: Ints, starts: Ints, devices: Ints, cells: Floats
) -> list[Output]:
    """First outputs of windows; all arrays (k,), cells (k, m, 8)."""
    names, measures = windows.devices.names, windows.measures.by_name()
    return [
        Output(row, size, start, names[device], device_type, 0, window, None, measures)
        for row, size, start, device, window in zip(
            causes.tolist(), windows.sizes[sizes].tolist(), starts.tolist(), devices.tolist(), cells, strict=True
        )
    ]


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
