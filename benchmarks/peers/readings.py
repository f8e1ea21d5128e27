"""What goes in, and what has to come out: readings of a fleet, and every window of a minute over them.

A thousand devices, a reading of four measures each every ten seconds of event time, in the order of time. At the end
one reading per device an hour later, so that every window before it closes by event time, whoever's clock an engine
goes by.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

DEVICES = 1_000
CADENCE_MS = 10_000
WINDOW_MS = 60_000
#: Start of a minute.
START_MS = 1_750_000_020_000
#: From the last minute with readings to the reading that closes it.
CLOSING_MS = 3_600_000
MEASURES = ("temperature", "humidity", "co2", "pm25")
PER_WINDOW = WINDOW_MS // CADENCE_MS
_PAYLOAD = '{"device_id":"%s","timestamp":%d,"temperature":%r,"humidity":%r,"co2":%r,"pm25":%r}'


class Aggregate(NamedTuple):
    """Of one measure in one window. The sum is added in the order of time, one after the other."""

    count: int
    sum: float
    min: float
    max: float


#: Device and start of the window, ms since 1970 UTC.
Window = tuple[str, int]
#: Aggregates by measure.
Aggregates = dict[str, Aggregate]


class Message(NamedTuple):
    """One reading as it lies in the topic: device, event time (ms since 1970 UTC), JSON."""

    device: int
    time: int
    payload: bytes


def device_id(number: int) -> str:
    """Name of a device; its UTF-8 is the record key."""
    return f"sensor-{number:04d}"


class Fleet:
    """The readings of a run; the same arguments give the same bytes.

    Args:
        messages: at least, rounded up so that every device has as many, count.
    """

    def __init__(self, messages: int, seed: int = 7) -> None:
        self.rounds = max(1, -(-messages // DEVICES))
        rng = np.random.default_rng(seed)
        shape = (self.rounds, DEVICES)
        base = rng.uniform(18, 26, DEVICES)
        #: By measure, (rounds, devices).
        self.values: dict[str, NDArray[np.float64]] = {
            "temperature": (base + rng.normal(0, 0.3, shape)).round(2),
            "humidity": (55 + rng.normal(0, 2, shape)).round(1),
            "co2": (450 + rng.normal(0, 15, shape)).round(),
            "pm25": np.abs(12 + rng.normal(0, 3, shape)).round(1),
        }
        windows = -(-self.rounds // PER_WINDOW)
        self._closing = START_MS + windows * WINDOW_MS + CLOSING_MS

    def __len__(self) -> int:
        """Messages, those that close the windows included."""
        return (self.rounds + 1) * DEVICES

    def messages(self) -> Iterator[Message]:
        """All messages, in the order of time."""
        names = [device_id(device) for device in range(DEVICES)]
        for number in range(self.rounds):
            yield from self._round(names, START_MS + number * CADENCE_MS, number)
        yield from self._round(names, self._closing, 0)

    def windows(self) -> int:
        """How many windows close."""
        return -(-self.rounds // PER_WINDOW) * DEVICES

    def expected(self) -> dict[Window, Aggregates]:
        """Every window that closes."""
        found: dict[Window, Aggregates] = {}
        names = [device_id(device) for device in range(DEVICES)]
        for first in range(0, self.rounds, PER_WINDOW):
            start = START_MS + first * CADENCE_MS
            columns = [_aggregates(self.values[name][first : first + PER_WINDOW]) for name in MEASURES]
            for name, *aggregates in zip(names, *columns, strict=True):
                found[name, start] = dict(zip(MEASURES, aggregates, strict=True))
        return found

    def closing_window(self) -> int:
        """Start of the window of the last readings, which no later one closes."""
        return self._closing

    def _round(self, names: list[str], time: int, number: int) -> Iterator[Message]:
        temperature, humidity, co2, pm25 = (self.values[name][number].tolist() for name in MEASURES)
        rows = zip(names, temperature, humidity, map(int, co2), pm25, strict=True)
        for device, (name, *values) in enumerate(rows):
            at = time + device * CADENCE_MS // DEVICES
            yield Message(device, at, (_PAYLOAD % (name, at, *values)).encode())


def _aggregates(values: NDArray[np.float64]) -> list[Aggregate]:
    """Per device, from (readings, devices)."""
    total = np.zeros(values.shape[1])
    for row in values:  # one after the other: np.sum adds in pairs, which differs in the last bit
        total += row
    lists = (each.tolist() for each in (total, values.min(axis=0), values.max(axis=0)))
    return [Aggregate(len(values), *each) for each in zip(*lists, strict=True)]
