"""For every device the values between which no rule has anything to do: what makes many rules cheap.

None of this is state: what is not known is found out with the device's next reading.
"""

from collections.abc import Iterable
from math import inf
from typing import NamedTuple

import numpy as np

from headrace.agents.alerting.measure_columns import Column, Looked
from headrace.schemas.readings import Floats
from headrace.tables.clocks import ClockColumn
from headrace.tables.grouping import grown


class Restless(NamedTuple):
    """A device some rule of which has something to do with every reading.

    Args:
        value: of its last reading.
        rules: numbers of those rules in their column.
    """

    value: float
    rules: list[int]


class QuietColumn:
    """From `lows` to `highs`, both included, is where a device's values mean nothing new to the rules of a column.

    (inf, -inf) where every reading is to be looked at: the device is restless, or nothing is known of it. 16 bytes per
    device.
    """

    def __init__(self, column: Column) -> None:
        self.column = column
        self.lows: Floats = np.full(1, inf)
        self.highs: Floats = np.full(1, -inf)
        self.restless: dict[int, Restless] = {}

    def grow(self, devices: int) -> None:
        """Make room for so many device numbers."""
        if devices > len(self.lows):
            room = (max(devices, 2 * len(self.lows)),)
            self.lows, self.highs = grown(self.lows, room, inf), grown(self.highs, room, -inf)

    def set(self, numbers: list[int], lows: list[float], highs: list[float], restless: dict[int, Restless]) -> None:
        """Set what is known of devices; for `Batch.on_finish`."""
        if numbers:
            self.lows[numbers], self.highs[numbers] = lows, highs
        if self.restless:
            for number in numbers:
                self.restless.pop(number, None)
        self.restless.update(restless)

    def forget(self, number: int) -> None:
        """Know nothing of a device any more."""
        if number < len(self.lows):
            self.lows[number], self.highs[number] = inf, -inf
        self.restless.pop(number, None)


class Organisations:
    """Which organisation each device was of when it was last looked up."""

    def __init__(self) -> None:
        self.registry: tuple[int, int] | None = None
        self.of: dict[int, str | None] = {}
        #: Devices looked up in `registry`.
        self.checked: set[int] = set()

    def set(self, registry: tuple[int, int], found: dict[int, str | None]) -> None:
        """What was looked up; for `Batch.on_finish`."""
        if registry != self.registry:
            self.registry = registry
            self.checked.clear()
        self.of.update(found)
        self.checked.update(found)


class QuietDevices:
    """What is known of the devices of one type in one partition, by the numbers that their clocks have."""

    def __init__(self, clocks: ClockColumn) -> None:
        self.clocks = clocks
        self.columns: dict[Looked, QuietColumn] = {}
        self.organisations = Organisations()

    def of(self, column: Column) -> QuietColumn:
        """Of the rules of a column; what was known of the same rules is."""
        found = self.columns.get(column.looked)
        if found is not None and found.column is not column and found.column.same(column):
            found.column = column
        if found is None or found.column is not column:
            found = self.columns[column.looked] = QuietColumn(column)
        found.grow(len(self.clocks.devices))
        return found

    def keep(self, columns: Iterable[Column]) -> None:
        """Only rules of these columns are known from now on."""
        wanted = {column.looked: column for column in columns}
        for looked, found in list(self.columns.items()):
            if looked in wanted and found.column.same(wanted[looked]):
                found.column = wanted[looked]
            else:
                del self.columns[looked]

    def forget(self, device_ids: Iterable[str]) -> None:
        """Know nothing of some devices any more."""
        for device_id in device_ids:
            number = self.clocks.devices.number(device_id)
            if number is not None:
                for column in self.columns.values():
                    column.forget(number)
