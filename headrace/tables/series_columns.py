"""Numbers per series (device × measure), as columns of one device type: rows of floats by device and place."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from headrace.schemas.readings import Ints
from headrace.tables.grouping import Flags, Numbering

#: float64, or what a table says.
Numbers = NDArray[Any]


class SeriesColumns:
    """`width` numbers per device, place and measure, zero until they are written.

    What was never written takes no memory; else `width` × the size of a number per device, place and measure. Rows of a
    place lie together: were they a device's, its first hour would take the memory of dozens (pages are 4 KiB).

    Args:
        places: rows per device; 1, or the hours of a day or week.
        width: numbers per row and measure.
        dtype: of the numbers.
    """

    def __init__(self, places: int, width: int, dtype: type[np.floating[Any]]) -> None:
        self.devices = Numbering()
        self.measures = Numbering()
        self._places, self._width, self._dtype = places, width, dtype
        self._rows: Numbers = np.zeros((places, 1, 0, width), dtype)
        self._used: Flags = np.zeros((1, places), dtype=np.bool_)
        self._dirty: Flags = np.zeros((1, places), dtype=np.bool_)
        self._dirty_devices: Flags = np.zeros(1, dtype=np.bool_)

    def reserve(self) -> None:
        """Make room for all numbered devices and measures."""
        devices, measures = self._rows.shape[1:3]
        if len(self.devices) <= devices and len(self.measures) <= measures:
            return
        if len(self.devices) > devices:
            devices = max(len(self.devices), 2 * devices)
        rows = np.zeros((self._places, devices, max(len(self.measures), measures), self._width), self._dtype)
        # Copy only what is in use, so that the rest never becomes memory.
        used = np.nonzero(self._used)[::-1]
        rows[:, :, :measures][used] = self._rows[used]
        self._rows = rows
        self._used = _longer(self._used, devices)
        self._dirty = _longer(self._dirty, devices)
        self._dirty_devices = _longer(self._dirty_devices, devices)

    def read(self, devices: Ints, places: Ints) -> Numbers:
        """A copy of these rows with the series last, (width, r, m).

        Of the table's own type: were it wider, results would depend on how often rows are written, and so on batches.
        """
        return np.ascontiguousarray(self._rows[places, devices].transpose(2, 0, 1))

    def write(self, devices: Ints, places: Ints, rows: Numbers) -> None:
        """Set rows, as `read` gives them, and have them written to the changelog with the next commit."""
        self._rows[places, devices] = rows.transpose(1, 2, 0)
        self._used[devices, places] = True
        self._dirty[devices, places] = True
        self._dirty_devices[devices] = True

    def load(self, devices: Ints, places: Ints, rows: Numbers) -> None:
        """Set rows, (r, m, width), as the changelog has them."""
        self._rows[places, devices] = rows
        self._used[devices, places] = True

    def take_dirty(self) -> tuple[Ints, Ints, Numbers]:
        """Device, place and numbers, (r, m, width), of the rows to be written; they are marked no more."""
        devices = np.flatnonzero(self._dirty_devices)
        which, places = np.nonzero(self._dirty[devices])
        self._dirty[devices] = False
        self._dirty_devices[devices] = False
        return devices[which], places, self._rows[places, devices[which]]


def _longer(flags: Flags, length: int) -> Flags:
    longer = np.zeros((length, *flags.shape[1:]), dtype=np.bool_)
    longer[: len(flags)] = flags
    return longer
