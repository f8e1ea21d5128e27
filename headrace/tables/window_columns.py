"""Open and kept windows of the devices of one type, as columns: one slot per device × window, holding all measures."""

from collections.abc import Iterator

import numpy as np

from headrace.schemas.readings import Floats, Ints
from headrace.tables.aggregates import EMPTY, WIDTH
from headrace.tables.grouping import NEVER, Flags, Numbering, grown

#: Revision of a window that is still open; a closed one counts its corrections from 0.
OPEN = -1


class WindowColumns:
    """Tumbling windows of one device type in one partition.

    A device has at most one open window per size, the one its own clock is in; `current` points to its newest window,
    and `older` from there to the ones kept for corrections, newest first.

    About 64 bytes per measure and 45 more per window, in memory; arrays double when they are full.

    Args:
        sizes: (s,) int64, window lengths, ms.
        grace: how long a closed window takes late readings, by the device's own clock, ms.
        keep: how far the windows of a silent device may be behind the partition's watermark, ms.
    """

    def __init__(self, sizes: Ints, grace: int, keep: int) -> None:
        self.sizes = sizes
        self.grace = grace
        self.keep = keep
        self.devices = Numbering()
        self.measures = Numbering()
        # By device: its own clock; the watermark at its last reading; its newest window of each size.
        self.clocks: Ints = np.full(1, NEVER)
        self.seen_at: Ints = np.full(1, NEVER)
        self.current: Ints = np.full((len(sizes), 1), -1)
        # By slot; a device of -1 is a free slot.
        self.device: Ints = np.full(1, -1)
        self.size: Ints = np.zeros(1, dtype=np.int64)
        self.start: Ints = np.zeros(1, dtype=np.int64)
        self.revision: Ints = np.zeros(1, dtype=np.int64)
        self.older: Ints = np.full(1, -1)
        self.cells: Floats = np.zeros((1, 0, WIDTH))
        self.dirty: Flags = np.zeros(1, dtype=np.bool_)
        self._free: Ints = np.zeros(1, dtype=np.int64)
        #: No silent device's window closes before the watermark is here; ms.
        self.quiet_until = NEVER
        #: Windows dropped since the last commit: device, size, start.
        self.dropped: list[tuple[str, int, int]] = []

    def reserve(self) -> None:
        """Make room for all numbered devices and measures."""
        devices, measures = len(self.devices), len(self.measures)
        if devices > len(self.clocks):
            room = max(devices, 2 * len(self.clocks))
            self.clocks = grown(self.clocks, (room,), NEVER)
            self.seen_at = grown(self.seen_at, (room,), NEVER)
            self.current = grown(self.current, (len(self.sizes), room), -1)
        have = self.cells.shape[1]
        if measures > have:
            self.cells = grown(self.cells, (len(self.device), measures, WIDTH), 0.0)
            self.cells[:, have:] = EMPTY

    def take(self, count: int) -> Ints:
        """`count` free slots, (count,) int64."""
        have = len(self.device)
        if count > len(self._free):
            room = max(2 * have, have + count)
            self.device = grown(self.device, (room,), -1)
            self.size = grown(self.size, (room,), 0)
            self.start = grown(self.start, (room,), 0)
            self.revision = grown(self.revision, (room,), 0)
            self.older = grown(self.older, (room,), -1)
            self.cells = grown(self.cells, (room, *self.cells.shape[1:]), 0.0)
            self.dirty = grown(self.dirty, (room,), False)
            self._free = np.concatenate([self._free, np.arange(have, room)])
        slots, self._free = self._free[:count], self._free[count:]
        return slots

    def open(self, sizes: Ints, devices: Ints, starts: Ints) -> Ints:
        """Slots for windows newer than all their device has; per size and device together and in order of time."""
        slots = self.take(len(starts))
        self.size[slots], self.device[slots], self.start[slots] = sizes, devices, starts
        key = sizes * len(self.devices) + devices
        self.older[slots] = self.current[sizes, devices]
        follows = key[1:] == key[:-1]
        self.older[slots[1:][follows]] = slots[:-1][follows]
        last = np.append(~follows, True)[: len(key)]
        self.current[sizes[last], devices[last]] = slots[last]
        return slots

    def chain(self, size: int, device: int) -> Iterator[int]:
        """Slots of the device's windows of one size, newest first."""
        slot = int(self.current[size, device])
        while slot >= 0:
            yield slot
            slot = int(self.older[slot])

    def find(self, size: int, device: int, start: int) -> int:
        """The slot of a window, or -1."""
        return next((slot for slot in self.chain(size, device) if self.start[slot] == start), -1)

    def insert(self, size: int, device: int, start: int) -> int:
        """A slot for a window that the device does not have, wherever in time it is."""
        slot = int(self.take(1)[0])
        self.size[slot], self.device[slot], self.start[slot] = size, device, start
        newer = -1
        for other in self.chain(size, device):
            if self.start[other] < start:
                break
            newer = other
        if newer < 0:
            self.older[slot], self.current[size, device] = self.current[size, device], slot
        else:
            self.older[slot], self.older[newer] = self.older[newer], slot
        return slot

    def write(self, slots: Ints, cells: Floats, revisions: Ints) -> None:
        """Set windows: (k,) slots, (k, m, 8) cells, (k,) revisions."""
        self.cells[slots], self.revision[slots], self.dirty[slots] = cells, revisions, True

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
        self.quiet_until = int(deadlines.min()) if len(deadlines) else 1 << 62

    def _open_deadlines(self) -> tuple[Ints, Ints]:
        slots = self.current[self.current >= 0]
        slots = slots[self.revision[slots] == OPEN]
        ends = self.start[slots] + self.sizes[self.size[slots]]
        return slots, self.deadline(ends, self.seen_at[self.device[slots]])

    def sweep(self, watermark: int) -> None:
        """Drop the windows that no reading can reach any more. When this runs changes no output."""
        slots = np.flatnonzero(self.device >= 0)
        devices, sizes = self.device[slots], self.size[slots]
        ends = self.start[slots] + self.sizes[sizes]
        dead = self.final(ends, self.clocks[devices], watermark)
        slots, devices, sizes = slots[dead], devices[dead], sizes[dead]
        if not len(slots):
            return
        names, lengths, starts = self.devices.names, self.sizes[sizes].tolist(), self.start[slots].tolist()
        self.dropped += zip((names[device] for device in devices.tolist()), lengths, starts, strict=True)
        self.device[slots] = -1
        self.dirty[slots] = False
        self._free = np.concatenate([self._free, slots])
        # Windows of one device and size die oldest first: whatever a dead one points to is dead too.
        self.older[(self.older >= 0) & (self.device[self.older] < 0)] = -1
        self.current[(self.current >= 0) & (self.device[self.current] < 0)] = -1

    def final(self, ends: Ints, clocks: Ints, watermark: Ints | int) -> Flags:
        """Whether windows take no more readings: past grace by own clock, or too far behind the watermark."""
        return np.maximum(clocks, watermark - self.keep) >= ends + self.grace
