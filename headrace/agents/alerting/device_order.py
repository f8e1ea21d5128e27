"""Which readings are evaluated: those not older than the device's own clock, in each lane."""

from typing import NamedTuple

import numpy as np

from headrace.agents.alerting.work import Work
from headrace.schemas.readings import Readings
from headrace.tables.clocks import ClockColumn, ClockTable
from headrace.tables.grouping import Flags, Groups, group


class Ordered(NamedTuple):
    """Readings by device.

    Args:
        groups: the readings of a batch, brought together by device.
        in_order: (n,) bool, in the order of `groups`, which are to be evaluated.
        clocks: the clocks of the devices in the ordinary lane, whose numbers caches may use.
    """

    groups: Groups
    in_order: Flags
    clocks: ClockColumn


class DeviceOrder:
    """The clocks of devices in both lanes, changelog-backed."""

    def __init__(self) -> None:
        self._ordinary = ClockTable("alert.clocks")
        self._priority = ClockTable("alert.priority-clocks")
        self.tables = (self._ordinary, self._priority)

    def of(self, work: Work, readings: Readings) -> Ordered:
        """The readings of one device type by device. The clocks of their lane move on when the batch finishes.

        Those of the priority lane must also be newer than what the ordinary lane has brought.
        """
        ordinary = self._ordinary.of_type(work.partition, readings.device_type)
        clocks = self._priority.of_type(work.partition, readings.device_type) if work.early else ordinary
        groups = group(clocks.numbers(readings.device_ids), readings.times, clocks.clocks)
        in_order = groups.times >= groups.before
        devices, ends = groups.devices[groups.tails], groups.after[groups.tails]
        work.batch.on_finish(lambda: clocks.set(devices, ends))
        if work.early:
            numbers = ordinary.numbers(readings.device_ids)
            in_order &= groups.times > ordinary.clocks[numbers[groups.order]]
        return Ordered(groups, np.asarray(in_order), ordinary)
