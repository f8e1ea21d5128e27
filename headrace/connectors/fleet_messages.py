"""What simulated devices send: a pure function of seed, device number, sequence and event time."""

import math
from random import Random
from typing import NamedTuple

from headrace.connectors import fleet_faults as faults
from headrace.connectors.fleet_config import SimulatedFleetConfig
from headrace.connectors.fleet_faults import Document, Fault

MINUTE_MS = 60_000
DAY_MS = 24 * 60 * MINUTE_MS

#: Devices that overheat, and devices with single odd values; fewer in a tiny fleet.
ODD_DEVICES = 3
#: Some device overheats every so often, for so long, the first time after so long; ms of the clock's time.
OVERHEAT_EVERY_MS = 10 * MINUTE_MS
OVERHEAT_FOR_MS = 5 * MINUTE_MS
OVERHEAT_FIRST_MS = 3 * MINUTE_MS
#: Each such device sends an odd value every so often, but never among its first messages, which detectors learn from.
SPIKE_EVERY_MS = 6 * MINUTE_MS
SPIKE_LEAST_MESSAGES = 45


class Message(NamedTuple):
    """What one device sends at one time.

    Args:
        device_id: of the device.
        fault: what happens to it.
        payload: the bytes.
        second: what follows at once: a duplicate or conflicting message.
        held_ms: how long a late message is held back, ms of the clock's time.
    """

    device_id: str
    fault: Fault
    payload: bytes
    second: bytes | None = None
    held_ms: int = 0


class FleetMessages:
    """Makes the messages of a fleet. The same arguments give the same bytes, on any machine, in any order.

    Args:
        config: the fleet.
        interval_ms: between two messages of a device, ms of the clock's time.
    """

    def __init__(self, config: SimulatedFleetConfig, interval_ms: float) -> None:
        self._config = config
        self._interval_ms = interval_ms
        order = list(range(config.devices))
        Random(f"{config.seed}/order").shuffle(order)
        self.overheating = order[:ODD_DEVICES]
        #: Others than those if there are enough, so that neither hides the other from a detector.
        self.spiking = order[ODD_DEVICES : 2 * ODD_DEVICES] or order[:1]
        self._spike_every = max(SPIKE_LEAST_MESSAGES, round(SPIKE_EVERY_MS / interval_ms))
        self._offsets = [Random(f"{config.seed}/{device}").uniform(-2.0, 2.0) for device in range(config.devices)]
        self._thresholds = [
            (Fault.DUPLICATE, config.duplicates),
            (Fault.LATE, config.late),
            (Fault.MALFORMED, config.malformed),
            (Fault.CONFLICTING, config.conflicting),
            (Fault.SPOOFED, config.spoofed),
        ]
        self._random = Random()

    def message(self, device: int, sequence: int, event_time_ms: int) -> Message:
        """The message of `device` (0 to devices - 1) with this sequence number (from 0)."""
        random = self._random
        random.seed(f"{self._config.seed}/{device}/{sequence}")
        fault = self._draw_fault(random)
        document = self._document(random, device, sequence, event_time_ms)
        device_id = device_name(device)
        if device % 2:
            document["device_id"] = device_id
        payload = faults.encode(document)
        match fault:
            case Fault.DUPLICATE:
                return Message(device_id, fault, payload, second=payload)
            case Fault.CONFLICTING:
                return Message(device_id, fault, payload, second=faults.conflicting(document))
            case Fault.LATE:
                return Message(device_id, fault, payload, held_ms=random.randint(*self._config.late_by_ms))
            case Fault.MALFORMED:
                return Message(device_id, fault, faults.malformed(document, random))
            case Fault.SPOOFED:
                return Message(device_id, fault, faults.spoofed(document, device_name(device + 1)))
            case _:
                return Message(device_id, fault, payload)

    def _draw_fault(self, random: Random) -> Fault:
        drawn = random.random()
        for fault, ratio in self._thresholds:
            drawn -= ratio
            if drawn < 0:
                return fault
        return Fault.NONE

    def _document(self, random: Random, device: int, sequence: int, event_time_ms: int) -> Document:
        """Four measures: a daily sine, the device's own offset, and noise that stays within 2.5 standard deviations."""
        day = math.sin(2 * math.pi * event_time_ms / DAY_MS)
        offset = self._offsets[device]
        document = {
            "temp": 22.0 + 4.0 * day + offset + _noise(random, 0.6),
            "humidity": 55.0 - 8.0 * day - 2.0 * offset + _noise(random, 2.0),
            "co2": 500.0 + 60.0 * day + 20.0 * offset + _noise(random, 25.0),
            "pm25": 14.0 + 3.0 * day + offset + _noise(random, 2.0),
        }
        if self._overheats(device, sequence):
            document["temp"] = 44.0 + _noise(random, 1.5)
        if self._spikes(device, sequence):
            document["temp"] -= 15.0
            document["co2"] += 1500.0
        return {**{name: round(value, 2) for name, value in document.items()}, "timestamp": event_time_ms}

    def _overheats(self, device: int, sequence: int) -> bool:
        if device not in self.overheating:
            return False
        since = sequence * self._interval_ms - OVERHEAT_FIRST_MS - self.overheating.index(device) * OVERHEAT_EVERY_MS
        return since >= 0 and since % (len(self.overheating) * OVERHEAT_EVERY_MS) < OVERHEAT_FOR_MS

    def _spikes(self, device: int, sequence: int) -> bool:
        if device not in self.spiking or sequence < SPIKE_LEAST_MESSAGES:
            return False
        shift = self.spiking.index(device) * self._spike_every // len(self.spiking)
        return (sequence - SPIKE_LEAST_MESSAGES - shift) % self._spike_every == 0


def device_name(number: int) -> str:
    """Device id of simulated device `number`, from 0."""
    return f"sim-{number:04d}"


def _noise(random: Random, reach: float) -> float:
    """Triangular noise within ±`reach`."""
    return (random.random() + random.random() - 1.0) * reach
