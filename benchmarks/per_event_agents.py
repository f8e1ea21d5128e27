"""The pipeline's agents as one writes them for one event at a time: plain Python, dictionaries, no arrays.

Same logic as `headrace.agents` for sound messages: validate against the device type, derive, find repeats, 1-minute and
1-hour windows, 3-sigma over hourly panes, threshold rules. Columns would be slower here: an array per event costs more
than the event.
"""

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import orjson

from headrace.schemas import topics
from headrace.schemas.device_type import DeviceType
from headrace.schemas.rule import AlertRule

HORIZON_MS = 600_000
HOUR_MS = 3_600_000
PANES = 168
WARM_UP = 50
SIZES = (60, 3600)


class Out(NamedTuple):
    """One record to send."""

    topic: str
    key: bytes
    value: bytes


class Ingest:
    """Decode, identity, validate, derive, repeats."""

    topic = topics.RAW

    def __init__(self, device_type: DeviceType) -> None:
        self._name = device_type.name
        self._fields = [
            (name, [source.name for source in device_type.sources[name]], spec.min, spec.max)
            for name, spec in device_type.fields.items()
        ]
        self._seen: dict[str, dict[int, dict[str, float]]] = {}

    def process(self, key: bytes, value: bytes, appended_ms: int, headers: dict[str, bytes]) -> Iterator[Out]:
        """One message in, its reading or dead letter out."""
        try:
            document = orjson.loads(value)
            device_id = key.decode()
            time = document["timestamp"]
            if document.get("device_id", device_id) != device_id or type(time) is not int:
                raise ValueError("identity or time")
            if not 946_684_800_000 <= time <= appended_ms + 300_000:
                raise ValueError("time out of range")
            measures = self._measures(document)
        except (ValueError, KeyError, TypeError):
            yield Out(topics.DEAD_LETTERS, key, value)
            return
        seen = self._seen.setdefault(device_id, {})
        if time in seen:
            if seen[time] != measures:
                yield Out(topics.CONFLICTS, key, value)
            return
        seen[time] = measures
        while (oldest := next(iter(seen))) < time - HORIZON_MS:
            del seen[oldest]
        reading = {
            "message_id": headers[topics.MESSAGE_ID].decode(),
            "device_id": device_id,
            "device_type": self._name,
            "time": time,
            "measures": self._derived(measures),
        }
        yield Out(topics.READINGS, key, orjson.dumps(reading))

    def _measures(self, document: dict[str, Any]) -> dict[str, float]:
        measures = {}
        for name, sources, low, high in self._fields:
            for source in sources:
                value = document.get(source)
                if value is None:
                    continue
                if (
                    type(value) not in (int, float)
                    or (low is not None and value < low)
                    or (high is not None and value > high)
                ):
                    raise ValueError(name)
                measures[name] = value
        return measures

    @staticmethod
    def _derived(measures: dict[str, float]) -> dict[str, float]:
        temperature, humidity = measures.get("temperature"), measures.get("humidity")
        if temperature is None or not humidity:
            return measures
        gamma = math.log(humidity / 100) + 17.62 * temperature / (243.12 + temperature)
        return {**measures, "dew_point": 243.12 * gamma / (17.62 - gamma)}


class Rollup:
    """Tumbling windows per device, closed by the device's own clock."""

    topic = topics.READINGS

    def __init__(self) -> None:
        self._windows: dict[tuple[str, int], tuple[int, dict[str, list[float]]]] = {}
        self.closed = 0

    def process(self, key: bytes, value: bytes, appended_ms: int, headers: dict[str, bytes]) -> Iterator[Out]:
        """Fold one reading in; emit the windows it closes."""
        reading = orjson.loads(value)
        device_id, time = reading["device_id"], reading["time"]
        for size in SIZES:
            start = time - time % (size * 1000)
            known = self._windows.get((device_id, size))
            if known is not None and known[0] < start:
                self.closed += 1
                yield Out(topics.ROLLUPS, key, orjson.dumps(self._record(reading, size, known)))
                known = None
            if known is None:
                known = self._windows[device_id, size] = (start, {})
            cells = known[1]
            for name, number in reading["measures"].items():
                cell = cells.get(name)
                if cell is None:
                    cells[name] = [1, number, number, number, number, number]
                else:
                    cell[0] += 1
                    cell[1] += number
                    cell[2] = min(cell[2], number)
                    cell[3] = max(cell[3], number)
                    cell[5] = number

    @staticmethod
    def _record(reading: dict[str, Any], size: int, window: tuple[int, dict[str, list[float]]]) -> dict[str, Any]:
        names = ("count", "sum", "min", "max", "first", "last")
        return {
            "device_id": reading["device_id"],
            "device_type": reading["device_type"],
            "window_seconds": size,
            "start": window[0],
            "end": window[0] + size * 1000,
            "kind": "closed",
            "revision": 0,
            "measures": {
                name: {**dict(zip(names, cell, strict=True)), "avg": cell[1] / cell[0]}
                for name, cell in window[1].items()
            },
        }


class ThreeSigma:
    """Mean and deviation of the last 168 hourly panes, per device and measure."""

    topic = topics.READINGS

    def __init__(self) -> None:
        self._panes: dict[tuple[str, str], dict[int, list[float]]] = {}
        self._baseline: dict[tuple[str, str], tuple[int, float, float, float]] = {}

    def process(self, key: bytes, value: bytes, appended_ms: int, headers: dict[str, bytes]) -> Iterator[Out]:
        """Judge one reading, then count it."""
        reading = orjson.loads(value)
        hour = reading["time"] // HOUR_MS
        for name, number in reading["measures"].items():
            series = (reading["device_id"], name)
            panes = self._panes.setdefault(series, {})
            baseline = self._baseline.get(series)
            if baseline is None or baseline[0] != hour:
                baseline = self._baseline[series] = self._past(panes, hour)
            _, count, mean, stddev = baseline
            if count >= WARM_UP and abs(number - mean) > 3 * stddev:
                anomaly = {"device_id": series[0], "metric": name, "value": number, "mean": mean, "stddev": stddev}
                yield Out(topics.ANOMALIES, key, orjson.dumps(anomaly))
            pane = panes.get(hour)
            if pane is None:
                panes[hour] = [1, number, 0.0]
            else:
                pane[0] += 1
                delta = number - pane[1]
                pane[1] += delta / pane[0]
                pane[2] += delta * (number - pane[1])

    @staticmethod
    def _past(panes: dict[int, list[float]], hour: int) -> tuple[int, float, float, float]:
        for old in [each for each in panes if each < hour - PANES]:
            del panes[old]
        count, mean, m2 = 0.0, 0.0, 0.0
        for each, (n, pane_mean, pane_m2) in panes.items():
            if each < hour:
                delta = pane_mean - mean
                total = count + n
                m2 += pane_m2 + delta * delta * count * n / total
                mean += delta * n / total
                count = total
        return hour, count, mean, math.sqrt(m2 / (count - 1)) if count > 1 else 0.0


class ThresholdAlert:
    """Rules with a duration, one open alert per rule and device, cooldown."""

    topic = topics.READINGS

    def __init__(self, rules: tuple[AlertRule, ...]) -> None:
        self._rules = rules
        self._since: dict[tuple[str, str], int] = {}
        self._open: dict[tuple[str, str], int] = {}

    def process(self, key: bytes, value: bytes, appended_ms: int, headers: dict[str, bytes]) -> Iterator[Out]:
        """Evaluate every rule on one reading; only `>` is needed here."""
        reading = orjson.loads(value)
        for rule in self._rules:
            number = reading["measures"].get(rule.condition.metric)
            if number is None:
                continue
            state = (rule.rule_id, reading["device_id"])
            if number > rule.condition.threshold:
                since = self._since.setdefault(state, reading["time"])
                held = reading["time"] - since >= rule.condition.duration * 1000
                if held and state not in self._open:
                    self._open[state] = reading["time"]
                    yield Out(topics.ALERTS, key, orjson.dumps({"ruleId": rule.rule_id, "deviceId": state[1]}))
            else:
                self._since.pop(state, None)
                self._open.pop(state, None)
