"""What a simulated device writes: its values under the names, and in the units, that its make reports."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from random import Random
from typing import Any, NamedTuple

from headrace.connectors.fleet_values import decimals_of
from headrace.schemas.device_type import DeviceType
from headrace.schemas.simulate import simulated
from headrace.schemas.units import IDENTITY, Linear

#: By how many steps a value is another one.
CHANGED_STEPS = 5

Document = dict[str, Any]


class Report(NamedTuple):
    """How a device reports a field.

    Args:
        name: payload name.
        unit: as the payload has it; None where it does not.
        linear: from the reported unit to the kept one.
        decimals: of the reported number.
        inside: how far reported values stay within the range of the field, in its unit; rounding them is less.
        whole: an integer, without a fraction.
        truth: a boolean.
    """

    name: str
    unit: str | None
    linear: Linear
    decimals: int
    inside: float
    whole: bool
    truth: bool


class Written(NamedTuple):
    """A payload before it is bytes.

    Args:
        document: all of it.
        number: the name in it of a measure, which faults change.
        time: the name in it of the event time.
    """

    document: Document
    number: str
    time: str


class FleetPayload:
    """Writes payloads. Every device has a make: the names and units that it reports in, of those its type knows.

    Args:
        device_type: of all devices; has a measure.
        seed: the same gives the same makes.
        devices: count.
    """

    def __init__(self, device_type: DeviceType, seed: int, devices: int) -> None:
        self._type = device_type
        self._metrics = device_type.measures
        self._makes: list[dict[str, Report]] = []
        choices = {name: _reports(device_type, name) for name in device_type.fields}
        for device in range(devices):
            random = Random(f"{seed}/{device}/make")
            self._makes.append({name: random.choice(reports) for name, reports in choices.items()})
        #: A message changes its first number; rather no counter.
        gauges = [name for name in self._metrics if name not in device_type.counters]
        self._changed = (gauges or list(self._metrics))[0]

    def metrics(self, sequence: int) -> Sequence[str]:
        """The measures that message number `sequence` of a device has: all, or one if messages name their metric."""
        if self._type.metric is None:
            return self._metrics
        return (self._metrics[sequence % len(self._metrics)],)

    def write(
        self, device: int, sequence: int, measures: Mapping[str, float], texts: Mapping[str, str], time_ms: int
    ) -> Written:
        """One message of `device`, without its id."""
        make, spec = self._makes[device], self._type.metric
        document: Document = {}
        if spec is None:
            for name, value in measures.items():
                document[make[name].name] = self._reported(name, make[name], value)
            number = make[self._changed].name
        else:
            (name,) = self.metrics(sequence)
            document = {spec.name: make[name].name, spec.value: self._reported(name, make[name], measures[name])}
            if spec.unit and make[name].unit is not None:
                document[spec.unit] = make[name].unit
            number = spec.value
        for name, text in texts.items():
            document[make[name].name] = text
        time = self._type.time.fields[0]
        document[time] = self.time(time_ms)
        return Written(document, number, time)

    def another(self, sequence: int, measures: Mapping[str, float]) -> dict[str, float]:
        """The same measures, but for the one that message number `sequence` has as its number."""
        name = self._changed if self._type.metric is None else self.metrics(sequence)[0]
        spec, step = self._type.fields[name], simulated(name, self._type.fields[name]).step
        value = measures[name]
        if spec.type == "boolean":
            return {**measures, name: 1.0 - value}
        other = value + CHANGED_STEPS * step
        if spec.max is not None and other > spec.max:
            other = value - CHANGED_STEPS * step
        return {**measures, name: round(other, decimals_of(step))}

    def time(self, time_ms: int) -> int | float | str:
        """An event time as the device type has it."""
        match self._type.time.formats[0]:
            case "epoch_ms":
                return time_ms
            case "epoch_s":
                return time_ms / 1000
            case _:
                return datetime.fromtimestamp(time_ms / 1000, UTC).isoformat(timespec="milliseconds")

    def _reported(self, name: str, report: Report, value: float) -> float | int | bool:
        if report.truth:
            return bool(value)
        if report.whole:
            return int(value)
        if report.linear is IDENTITY:
            return value
        spec = self._type.fields[name]
        if spec.min is not None:
            value = max(value, spec.min + report.inside)
        if spec.max is not None:
            value = min(value, spec.max - report.inside)
        return round((value - report.linear.offset) / report.linear.scale, report.decimals)


def _reports(device_type: DeviceType, name: str) -> list[Report]:
    """Every way in which a device may report field `name`."""
    spec, how = device_type.fields[name], simulated(name, device_type.fields[name])
    whole, truth = spec.type == "integer", spec.type == "boolean"
    ways: list[tuple[str, str | None, Linear]] = []
    for source in device_type.sources[name]:
        units: dict[str | None, Linear] = {None: source.linear}
        metric = device_type.metric
        if metric and metric.unit and spec.type != "text":
            known = device_type.reported_units[name]
            units = {unit: known[unit] for unit in (spec.unit, *metric.units) if unit in known}
        ways += [(source.name, unit, linear) for unit, linear in units.items()]
    return [
        Report(payload_name, unit, linear, _decimals(how.step, linear), how.step, whole, truth)
        for payload_name, unit, linear in ways
        if linear == IDENTITY or not (whole or truth)
    ]


def _decimals(step: float, linear: Linear) -> int:
    """One more than the step would need, so that converting back is nearer than half a step."""
    if linear == IDENTITY:
        return decimals_of(step)
    size = step / abs(linear.scale)
    return max(0, next(places for places in range(-12, 24) if 10.0**-places <= size / 4))
