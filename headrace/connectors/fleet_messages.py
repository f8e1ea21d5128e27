"""What simulated devices send: a pure function of seed, device number, sequence and event time."""

from collections.abc import Mapping
from random import Random
from typing import NamedTuple

from headrace.connectors import fleet_faults as faults
from headrace.connectors.fleet_config import Kind, SimulatedFleetConfig
from headrace.connectors.fleet_faults import Fault
from headrace.connectors.fleet_payload import FleetPayload, Written
from headrace.connectors.fleet_script import Disturbance, FaultScript
from headrace.connectors.fleet_values import FleetValues
from headrace.engine.errors import ConfigError
from headrace.schemas.device_type import DeviceType


class Sample(NamedTuple):
    """What one device measures at one time.

    Args:
        time_ms: event time as the device's clock has it.
        measures: by field, in the units of the device type.
        wrong: what is wrong with the device.
        touched: whether this message shows it, or is missing because of it.
    """

    time_ms: int
    measures: Mapping[str, float]
    wrong: Disturbance | None
    touched: bool

    @property
    def silent(self) -> bool:
        """Whether it says nothing."""
        return self.wrong is not None and self.wrong.kind in (Kind.GAP, Kind.REBOOT)


class Message(NamedTuple):
    """What one device sends at one time.

    Args:
        device_id: of the device.
        time_ms: event time as the device's clock has it.
        fault: what happens to it.
        payload: the bytes; none of what is never sent.
        second: what follows at once: a duplicate or conflicting message.
        held_ms: how long a late message is held back, ms of the clock's time.
        wrong: what is wrong with the device.
        touched: see `Sample`.
    """

    device_id: str
    time_ms: int
    fault: Fault
    payload: bytes = b""
    second: bytes | None = None
    held_ms: int = 0
    wrong: Disturbance | None = None
    touched: bool = False


class FleetMessages:
    """Makes the messages of a fleet. The same arguments give the same bytes, on any machine, in any order.

    Args:
        config: the fleet.
        device_type: of all devices.
        interval_ms: between two messages of a device, ms of the clock's time.
    Raises:
        ConfigError: the device type has nothing to measure.
    """

    def __init__(self, config: SimulatedFleetConfig, device_type: DeviceType, interval_ms: float) -> None:
        if not device_type.measures:
            raise ConfigError(f"device type {device_type.name} has no field that is a number: nothing to simulate")
        self._config = config
        self._interval_ms = interval_ms
        self._identity = device_type.identity[0] if device_type.identity else None
        self._script = FaultScript(config, device_type, interval_ms)
        self._values = FleetValues(device_type, config.seed, config.devices, self._script)
        self._payload = FleetPayload(device_type, config.seed, config.devices)
        self._thresholds = [
            (Fault.DUPLICATE, config.duplicates),
            (Fault.LATE, config.late),
            (Fault.MALFORMED, config.malformed),
            (Fault.CONFLICTING, config.conflicting),
            # Nobody can tell where payloads do not say whose they are.
            (Fault.SPOOFED, config.spoofed if self._identity else 0.0),
        ]
        self._random = Random()

    def sample(self, device: int, sequence: int, time_ms: int) -> Sample:
        """What `device` (0 to devices - 1) measures for this sequence number (from 0), if nothing happens to it."""
        self._random.seed(f"{self._config.seed}/{device}/{sequence}")
        self._draw_fault(self._random)
        return self._sample(device, sequence, time_ms)

    def message(self, device: int, sequence: int, time_ms: int) -> Message:
        """The message of `device` with this sequence number.

        Args:
            device: 0 to devices - 1.
            sequence: from 0.
            time_ms: true event time; a skewed clock has another.
        """
        random = self._random
        random.seed(f"{self._config.seed}/{device}/{sequence}")
        fault = self._draw_fault(random)
        device_id = device_name(device)
        sample = self._sample(device, sequence, time_ms)
        if sample.silent:
            return Message(device_id, sample.time_ms, Fault.SILENT, wrong=sample.wrong, touched=sample.touched)
        written = self._write(device, sequence, sample)
        if self._identity and device % 2:
            written.document[self._identity] = device_id
        payload, second, held_ms = faults.encode(written.document), None, 0
        match fault:
            case Fault.DUPLICATE:
                second = payload
            case Fault.CONFLICTING:
                second = self._conflicting(device, sequence, sample, written)
            case Fault.LATE:
                held_ms = random.randint(*self._config.late_by_ms)
            case Fault.MALFORMED:
                payload = faults.malformed(written, self._payload, sample.time_ms, random)
            case Fault.SPOOFED:
                payload = faults.encode({**written.document, self._identity: device_name(device + 1)})
        return Message(device_id, sample.time_ms, fault, payload, second, held_ms, sample.wrong, sample.touched)

    def _sample(self, device: int, sequence: int, time_ms: int) -> Sample:
        age_ms = sequence * self._interval_ms
        wrong = self._script.at(device, age_ms)
        measures = self._values.measures(device, age_ms, time_ms, self._random, wrong)
        touched = wrong is not None and (wrong.metric is None or wrong.metric in self._payload.metrics(sequence))
        if wrong is not None and wrong.kind is Kind.SKEW:
            time_ms += int(wrong.size * 1000)
        return Sample(time_ms, measures, wrong, touched)

    def _write(self, device: int, sequence: int, sample: Sample) -> Written:
        return self._payload.write(device, sequence, sample.measures, self._values.texts(device), sample.time_ms)

    def _conflicting(self, device: int, sequence: int, sample: Sample, written: Written) -> bytes:
        """The same device and time, and another value."""
        changed = self._payload.another(sequence, sample.measures)
        other = self._write(device, sequence, sample._replace(measures=changed))
        return faults.encode({**written.document, written.number: other.document[other.number]})

    def _draw_fault(self, random: Random) -> Fault:
        drawn = random.random()
        for fault, ratio in self._thresholds:
            drawn -= ratio
            if drawn < 0:
                return fault
        return Fault.NONE


def device_name(number: int) -> str:
    """Device id of simulated device `number`, from 0."""
    return f"sim-{number:04d}"
