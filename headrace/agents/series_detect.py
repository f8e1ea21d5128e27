"""Detectors of single series over every reading, and the events they make."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from headrace.agents.anomalies import Found as Anomalous
from headrace.agents.anomalies import send_anomalies
from headrace.agents.detector import Detector
from headrace.agents.quiet import Quiet
from headrace.agents.series_fold import Found, SeriesFold, SeriesTables
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
        found: list[tuple[tuple[int, str, int], dict[str, Any]]] = []
        applies: list[Callable[[], None]] = []
        for readings in batch.columns():
            if not readings.measures:
                continue
            kind = self._types.get(readings.device_type)
            counters = kind.counters if kind is not None else frozenset[str]()
            fold = SeriesFold(self._series, batch.partition, readings, self._detectors, counters, self._quiet)
            applies.append(fold.apply)
            units = kind.units if kind is not None else {}
            for each in fold.found:
                place = (int(readings.rows[each.place]), each.metric, self._detectors.index(each.detector))
                found.append((place, _document(each, readings, units.get(each.metric, ""), each.metric in counters)))

        def apply() -> None:
            for each in applies:
                each()

        batch.on_finish(apply)
        found.sort(key=lambda anomaly: anomaly[0])
        return [(place[0], document) for place, document in found]


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
