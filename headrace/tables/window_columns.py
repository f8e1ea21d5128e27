"""Open and kept windows of the devices of one type, as columns: one slot per device × window, holding all measures."""

from collections.abc import Iterator

import numpy as np

from headrace.schemas.readings import Ints
from headrace.tables.aggregates import Aggregation, Cells
from headrace.tables.grid import Grid
from headrace.tables.grouping import NEVER, Flags, Numbering, grown

#: Revision of a window that is still open; a closed one counts its corrections from 0.
OPEN = -1
#: A watermark that never comes.
FOREVER = 1 << 62


class WindowColumns:
    """Windows of one device type in one partition.

    A device has at most one open window per series of the grid, the one its own clock is in; `current` points to its
    newest window, and `older` from there to the ones kept for corrections, newest first.

    64 bytes per measure (more as `Aggregation` says) and 28 besides per window, and about 180 per device, in memory.
    Arrays double when they are full; what is not used yet takes no memory.

    Args:
        grid: where windows begin and end.
        aggregation: what is kept of each measure.
        grace: how long a closed window takes late readings, by the device's own clock, ms.
        keep: how far the windows of a silent device may be behind the partition's watermark, ms.
    """

    def __init__(self, grid: Grid, aggregation: Aggregation, grace: int, keep: int) -> None:
        self.grid = grid
        self.aggregation = aggregation
        self.grace = grace
        self.keep = keep
        self.devices = Numbering()
        self.measures = Numbering()
        # By device: its own clock; the watermark at its last reading; its newest window of each series.
        self.clocks: Ints = np.full(1, NEVER)
        self.seen_at: Ints = np.full(1, NEVER)
        self.current: Ints = np.full((len(grid), 1), -1, dtype=np.int32)
        # By slot; a device of -1 is a free slot.
        self.device: Ints = np.full(1, -1, dtype=np.int32)
        self.series: Ints = np.zeros(1, dtype=np.int16)
        self.start: Ints = np.zeros(1, dtype=np.int64)
        self.revision: Ints = np.zeros(1, dtype=np.int32)
        self.older: Ints = np.full(1, -1, dtype=np.int32)
        self.cells = Cells.empty(1, 0, aggregation)
        self.dirty: Flags = np.zeros(1, dtype=np.bool_)
        self._changed: Flags = np.zeros(1, dtype=np.bool_)
        self._free: Ints = np.zeros(1, dtype=np.int32)
        #: No silent device's window closes before the watermark is here; ms.
        self.quiet_until = NEVER
        #: Windows dropped since the last commit: device, series, start.
        self.dropped: list[tuple[str, int, int]] = []

    def reserve(self) -> None:
        """Make room for all numbered devices and measures."""
        devices, measures = len(self.devices), len(self.measures)
        if devices > len(self.clocks):
            room = max(devices, 2 * len(self.clocks))
            self.clocks = grown(self.clocks, (room,), NEVER)
            self.seen_at = grown(self.seen_at, (room,), NEVER)
            self.current = grown(self.current, (len(self.grid), room), -1)
        have = self.cells.values.shape[1]
        if measures > have:
            more = Cells.empty(len(self.device), measures, self.aggregation)
            more.values[:, :have], more.sketches[:, :have] = self.cells.values, self.cells.sketches
            self.cells = more

    def take(self, count: int) -> Ints:
        """`count` free slots, (count,) int64."""
        have = len(self.device)
        if count > len(self._free):
            room = max(2 * have, have + count)
            self.device = grown(self.device, (room,), -1)
            self.series = grown(self.series, (room,), 0)
            self.start = grown(self.start, (room,), 0)
            self.revision = grown(self.revision, (room,), 0)
            self.older = grown(self.older, (room,), -1)
            values, sketches = self.cells.values, self.cells.sketches
            self.cells = Cells(
                grown(values, (room, *values.shape[1:]), 0.0), grown(sketches, (room, *sketches.shape[1:]), 0)
            )
            self.dirty = grown(self.dirty, (room,), False)
            self._changed = grown(self._changed, (room,), False)
            self._free = np.concatenate([self._free, np.arange(have, room, dtype=np.int32)])
        slots, self._free = self._free[:count], self._free[count:]
        return slots

    def open(self, series: Ints, devices: Ints, starts: Ints) -> Ints:
        """Slots for windows newer than all their device has; per series and device together and in order of time."""
        slots = self.take(len(starts))
        self.series[slots], self.device[slots], self.start[slots] = series, devices, starts
        key = series.astype(np.int64) * len(self.devices) + devices
        self.older[slots] = self.current[series, devices]
        follows = key[1:] == key[:-1]
        self.older[slots[1:][follows]] = slots[:-1][follows]
        last = np.append(~follows, True)[: len(key)]
        self.current[series[last], devices[last]] = slots[last]
        return slots

    def chain(self, series: int, device: int) -> Iterator[int]:
        """Slots of the device's windows of one series, newest first."""
        slot = int(self.current[series, device])
        while slot >= 0:
            yield slot
            slot = int(self.older[slot])

    def find(self, series: int, device: int, start: int) -> int:
        """The slot of a window, or -1."""
        return next((slot for slot in self.chain(series, device) if self.start[slot] == start), -1)

    def insert(self, series: int, device: int, start: int) -> int:
        """A slot for a window that the device does not have, wherever in time it is."""
        slot = int(self.take(1)[0])
        self.series[slot], self.device[slot], self.start[slot] = series, device, start
        newer = -1
        for other in self.chain(series, device):
            if self.start[other] < start:
                break
            newer = other
        if newer < 0:
            self.older[slot], self.current[series, device] = self.current[series, device], slot
        else:
            self.older[slot], self.older[newer] = self.older[newer], slot
        return slot

    def ends(self, slots: Ints) -> Ints:
        """Where the windows in these slots end, (k,), ms."""
        return self.grid.ends(self.series[slots], self.start[slots])

    def write(self, slots: Ints, cells: Cells, revisions: Ints) -> None:
        """Set windows: (k,) slots, cells of k windows, (k,) revisions."""
        self.cells[slots], self.revision[slots], self.dirty[slots] = cells, revisions, True
        self._changed[slots] = True

    def take_changed(self) -> Ints:
        """Slots of the open windows that were written since the last call."""
        slots = np.flatnonzero(self._changed)
        self._changed[slots] = False
        open_: Ints = slots[(self.revision[slots] == OPEN) & (self.device[slots] >= 0)]
        return open_

    def close(self, slots: Ints) -> None:
        """Mark windows as closed."""
        self.revision[slots], self.dirty[slots] = 0, True

    def deadline(self, ends: Ints, seen_at: Ints) -> Ints:
        """The watermark that closes a window if its device stays silent, ms.

        Grace after the window's end; but a device that is sending a backlog is not silent, however old its readings
        are: its windows wait until grace after the last one, for as long as a window is kept at all.
        """
        return np.clip(seen_at, ends, ends + self.keep) + self.grace

    def silent(self, watermark: int) -> tuple[Ints, Ints]:
        """Slots of open windows whose deadline the watermark has reached, and their deadlines.

        Moves nothing; the caller says afterwards with `quiet_until` when to look again.
        """
        none = np.zeros(0, dtype=np.int64)
        if watermark < self.quiet_until:
            return none, none
        slots, deadlines = self._open_deadlines()
        due = deadlines <= watermark
        return slots[due], deadlines[due]

    def look_again(self) -> None:
        """Set `quiet_until` from the windows that are open now."""
        _, deadlines = self._open_deadlines()
        self.quiet_until = int(deadlines.min()) if len(deadlines) else FOREVER

    def _open_deadlines(self) -> tuple[Ints, Ints]:
        slots = self.current[self.current >= 0]
        slots = slots[self.revision[slots] == OPEN]
        return slots, self.deadline(self.ends(slots), self.seen_at[self.device[slots]])

    def sweep(self, watermark: int) -> None:
        """Drop the windows that no reading can reach any more. When this runs changes no output."""
        slots = np.flatnonzero(self.device >= 0)
        dead = self.final(self.ends(slots), self.clocks[self.device[slots]], watermark)
        slots = slots[dead]
        if not len(slots):
            return
        names, series, starts = self.devices.names, self.series[slots].tolist(), self.start[slots].tolist()
        self.dropped += zip((names[device] for device in self.device[slots].tolist()), series, starts, strict=True)
        self.device[slots] = -1
        self.dirty[slots] = False
        # To be taken first: memory that was never used stays so.
        self._free = np.concatenate([slots.astype(np.int32), self._free])
        # Windows of one device and series die oldest first: whatever a dead one points to is dead too.
        self.older[(self.older >= 0) & (self.device[self.older] < 0)] = -1
        self.current[(self.current >= 0) & (self.device[self.current] < 0)] = -1

    def final(self, ends: Ints, clocks: Ints, watermark: Ints | int) -> Flags:
        """Whether windows take no more readings: past grace by own clock, or too far behind the watermark."""
        return np.maximum(clocks, watermark - self.keep) >= ends + self.grace
