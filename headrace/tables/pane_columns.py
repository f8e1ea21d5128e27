"""Panes of the devices of one type, as columns: a ring of the last n panes per device, holding sums of all measures."""

import numpy as np

from headrace.schemas.readings import Floats, Ints
from headrace.tables.grouping import NEVER, Flags, Numbering, grown

#: What a pane holds per measure: count, and sum and sum of squares of the distance from the series' reference.
SUMS = 3


class PaneColumns:
    """Panes of event time of one device type in one partition.

    Pane k of a device covers k × length <= event time < (k + 1) × length. 24 bytes per device, pane and measure.

    Args:
        panes: how many panes back are kept.
    """

    def __init__(self, panes: int) -> None:
        self.panes = panes
        self.devices = Numbering()
        self.measures = Numbering()
        # By device: its own clock; reference per measure (NaN: none yet); what its readings are compared with now.
        self.clocks: Ints = np.full(1, NEVER)
        self.references: Floats = np.zeros((1, 0))
        self.baselines: Floats = np.zeros((1, 0, SUMS))
        # By device and place in the ring, which is the pane's number modulo `panes`; NEVER is free.
        self.numbers: Ints = np.full((1, panes), NEVER)
        self.sums: Floats = np.zeros((1, panes, 0, SUMS))
        self.dirty: Flags = np.zeros((1, panes), dtype=np.bool_)
        self.dirty_devices: Flags = np.zeros(1, dtype=np.bool_)
        #: Panes dropped since the last commit: device and pane number.
        self.dropped: list[tuple[str, int]] = []

    def reserve(self) -> None:
        """Make room for all numbered devices and measures."""
        devices, measures = len(self.clocks), self.references.shape[1]
        if len(self.devices) <= devices and len(self.measures) <= measures:
            return
        if len(self.devices) > devices:
            devices = max(len(self.devices), 2 * devices)
        measures = max(len(self.measures), measures)
        self.clocks = grown(self.clocks, (devices,), NEVER)
        self.references = grown(self.references, (devices, measures), np.nan)
        self.baselines = grown(self.baselines, (devices, measures, SUMS), 0.0)
        # The ring is large and mostly untouched: copy only the panes in use, so that the rest never becomes memory.
        sums = np.zeros((devices, self.panes, measures, SUMS))
        used = np.nonzero(self.numbers > NEVER)
        sums[:, :, : self.sums.shape[2]][used] = self.sums[used]
        self.sums = sums
        self.numbers = grown(self.numbers, (devices, self.panes), NEVER)
        self.dirty = grown(self.dirty, (devices, self.panes), False)
        self.dirty_devices = grown(self.dirty_devices, (devices,), False)

    def read(self, devices: Ints, panes: Ints) -> Floats:
        """The sums of these panes, (t, m, 3) or (…, m, 3) as the arguments broadcast; zero where one is not there."""
        place = panes % self.panes
        sums = self.sums[devices, place]
        sums[self.numbers[devices, place] != panes] = 0.0
        return sums

    def write(self, devices: Ints, panes: Ints, sums: Floats) -> None:
        """Set panes: (t,) devices, (t,) pane numbers, (t, m, 3) sums."""
        place = panes % self.panes
        self.numbers[devices, place] = panes
        self.sums[devices, place] = sums
        self.mark(devices, place)

    def mark(self, devices: Ints, place: Ints) -> None:
        """Have these panes written to the changelog at the next commit."""
        self.dirty[devices, place] = True
        self.dirty_devices[devices] = True

    def take_dirty(self) -> tuple[Ints, Ints]:
        """Device and place of the panes to be written; they are marked no more."""
        devices = np.flatnonzero(self.dirty_devices)
        which, place = np.nonzero(self.dirty[devices])
        self.dirty[devices] = False
        self.dirty_devices[devices] = False
        return devices[which], place

    def drop_before(self, devices: Ints, oldest: Ints) -> None:
        """Drop the panes of each device that are older than the pane number `oldest`."""
        numbers = self.numbers[devices]
        which, place = np.nonzero((numbers > NEVER) & (numbers < oldest[:, np.newaxis]))
        names = self.devices.names
        for device, number in zip(devices[which].tolist(), numbers[which, place].tolist(), strict=True):
            self.dropped.append((names[device], number))
        self.numbers[devices[which], place] = NEVER
        self.dirty[devices[which], place] = False
