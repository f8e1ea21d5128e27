"""Detectors of single series over every reading, and the events they make."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any

from headrace.agents.anomalies import Found as Anomalous
from headrace.agents.anomalies import send_anomalies
from headrace.agents.detector import Detector
from headrace.agents.quiet import Quiet
from headrace.agents.series_fold import Found, SeriesFold, SeriesPart, SeriesTables
from headrace.engine.batch import Batch
from headrace.engine.errors import ConfigError
from headrace.schemas import topics
from headrace.schemas.device_type import DeviceType
from headrace.schemas.readings import Readings

#: How units are written for people, where that differs.
_SHOWN = {"1": "", "degC": "°C", "degF": "°F", "deg": "°", "ug/m3": "µg/m³", "mg/m3": "mg/m³", "m/s2": "m/s²"}


class SeriesDetect:
    """Emit an anomaly wherever a detector finds one, in log order, then by metric, then in the order of the detectors.

    Readings older than their device's newest are not looked at. The same log gives the same anomalies for any batch
    boundaries and restarts. O(1) per reading; memory about 3 KiB per series (device × measure) after a week, and 250
    bytes before.

    Args:
        detectors: with different names.
        device_types: for units and counters, by name.
        quiet: how long a detector keeps silent about a series after an event.
    Raises:
        ConfigError: two detectors have the same name.
    """

    name = "series-detect"
    topic = topics.READINGS

    def __init__(
        self,
        detectors: Sequence[Detector],
        device_types: Mapping[str, DeviceType] | None = None,
        quiet: Quiet | None = None,
    ) -> None:
        names = [each.name for each in detectors]
        if doubles := sorted({name for name in names if names.count(name) > 1}):
            raise ConfigError(*(f"detect: there is more than one detector {name!r}" for name in doubles))
        self._detectors = tuple(detectors)
        self._types = device_types or {}
        self._quiet = quiet or Quiet()
        self._series = SeriesTables(self._detectors)
        self.tables = self._series.all

    def process(self, batch: Batch) -> None:
        """Stage what `find` finds."""
        send_anomalies(batch, self.find(batch))

    def find(self, batch: Batch) -> list[Anomalous]:
        """Judge every reading of the batch, and learn from it."""
        return self.find_together([batch])[0]

    def find_together(self, batches: Sequence[Batch]) -> list[list[Anomalous]]:
        """What `find` gives for each, of different partitions; a round of many series costs little more than of few."""
        parts = [
            [SeriesPart(self._series, batch.partition, readings) for readings in batch.columns() if readings.measures]
            for batch in batches
        ]
        alike: defaultdict[tuple[str, tuple[str, ...]], list[SeriesPart]] = defaultdict(list)
        for part in chain.from_iterable(parts):
            alike[part.readings.device_type, part.metrics].append(part)
        for (device_type, _), group in alike.items():
            SeriesFold(group, self._detectors, self._counters(device_type), self._quiet)
        for batch, own in zip(batches, parts, strict=True):
            for part in own:
                batch.on_finish(part.apply)
        return [self._anomalies(own) for own in parts]

    def _anomalies(self, parts: Sequence[SeriesPart]) -> list[Anomalous]:
        found: list[tuple[tuple[int, str, int], dict[str, Any]]] = []
        for part in parts:
            kind, counters = self._types.get(part.readings.device_type), self._counters(part.readings.device_type)
            units = kind.units if kind is not None else {}
            for each in part.found:
                place = (int(part.readings.rows[each.place]), each.metric, self._detectors.index(each.detector))
                unit = units.get(each.metric, "")
                found.append((place, _document(each, part.readings, unit, each.metric in counters)))
        found.sort(key=lambda anomaly: anomaly[0])
        return [(place[0], document) for place, document in found]

    def _counters(self, device_type: str) -> frozenset[str]:
        kind = self._types.get(device_type)
        return kind.counters if kind is not None else frozenset()


def _document(found: Found, readings: Readings, unit: str, counter: bool) -> dict[str, Any]:
    numbers = {name: number for name, number in found.numbers.items() if name != "score"}
    unit = _SHOWN.get(unit, unit) + ("/s" if counter else "")
    device_id = readings.device_ids[found.place]
    said = found.detector.says(found.value, found.numbers, unit)
    return {
        "device_id": device_id,
        "device_type": readings.device_type,
        "time": int(readings.times[found.place]),
        "metric": found.metric,
        "value": found.value,
        "expected": numbers.pop("expected", None),
        "score": found.score,
        "probability": numbers.pop("probability", None),
        "detector": found.detector.name,
        "numbers": numbers,
        "message_id": readings.message_ids[found.place],
        "text": f"{found.metric} of {device_id} is {found.value:.6g}{unit and ' ' + unit}, {said}",
    }
