"""The 3-sigma detector: readings far from the mean of their device's last seven days."""

from typing import Any

import numpy as np

from headrace.agents.anomalies import Found, duration, send_anomalies
from headrace.engine.batch import Batch
from headrace.engine.errors import ConfigError
from headrace.schemas import topics
from headrace.schemas.readings import Readings
from headrace.tables.baselines import BASE_COUNT, MEAN, STDDEV, BaselineFold
from headrace.tables.panes import PaneTable

HOUR = 3600
#: 168 hours are 7 days.
WEEK_OF_HOURS = 168
#: More than a year of hours; each takes memory for every device and measure.
MOST_PANES = 10_000
#: Distances from the mean that are rounding and no change: relative to the mean, and absolute.
NOISE_RELATIVE, NOISE_ABSOLUTE = 1e-9, 1e-12


class ThreeSigma:
    """Emit an anomaly for every measure of a reading with |value - mean| > `sigmas` × stddev of its device's past.

    The past is the device's last `panes` × `pane` seconds of event time, without the pane its own clock (its largest
    event time) is in: mean and standard deviation are taken when the clock enters a pane and stand until it enters the
    next (see `baselines`). Anomalous readings enter the past like all others, as in the query this is taken from, so
    that a lasting change is reported until it has become normal. A series that never changed reports the first change
    that is larger than rounding. A reading more than `recent` behind its device's clock counts in the past, but is
    not judged.

    The same log gives the same anomalies, in log order and by name of the measure, for any batch boundaries and
    restarts. O(1) per reading, `panes` × measures per device and pane; memory 24 bytes per device, pane and measure.

    Args:
        pane: length of a pane, seconds, a whole number of milliseconds; > 0.
        panes: panes in the past, count; 1 to 10,000.
        warm_up: readings of the measure in the past before it is judged, count; >= 2.
        sigmas: standard deviations from the mean that make an anomaly; > 0.
        recent: how far behind the device's own clock a reading is judged, seconds; > 0.
    Raises:
        ConfigError: a bound above is broken.
    Source: the "Detect anomalies" query over 7 days and the last hour in the requester's design, section 4.2.
    """

    name = "three-sigma"
    topic = topics.READINGS

    def __init__(
        self,
        pane: float = HOUR,
        panes: int = WEEK_OF_HOURS,
        warm_up: int = 50,
        sigmas: float = 3.0,
        *,
        recent: float = HOUR,
    ) -> None:
        bounds = {
            "pane must be at least 0.001 s": pane * 1000 >= 1,
            f"panes must be a whole number, 1 to {MOST_PANES:,}": 1 <= panes <= MOST_PANES and panes == int(panes),
            "warm_up must be 2 or more": warm_up >= 2,
            "sigmas must be positive": sigmas > 0,
            "recent must be positive": recent > 0,
        }
        mistakes = [f"detect: {bound}" for bound, kept in bounds.items() if not kept]
        if mistakes:
            raise ConfigError(*mistakes)
        self._pane = round(pane * 1000)
        self._warm_up = warm_up
        self._sigmas = sigmas
        self._recent = round(recent * 1000)
        self._past = duration(pane * panes)
        self._table = PaneTable("detect.panes", int(panes))
        self.tables = (self._table,)

    def process(self, batch: Batch) -> None:
        """Stage what `find` finds."""
        send_anomalies(batch, self.find(batch))

    def find(self, batch: Batch) -> list[Found]:
        """Judge every reading of the batch, and learn from it."""
        state = self._table.partition(batch.partition)
        folds: list[BaselineFold] = []
        found: list[tuple[int, str, dict[str, Any]]] = []
        for readings in batch.columns():
            panes = state.of_type(readings.device_type)
            fold = BaselineFold(panes, readings, self._pane)
            folds.append(fold)
            found += self._judge(fold, readings, panes.measures.names)

        def apply() -> None:
            for fold in folds:
                fold.apply()

        batch.on_finish(apply)
        found.sort(key=lambda anomaly: anomaly[:2])
        return [(row, document) for row, _, document in found]

    def _judge(self, fold: BaselineFold, readings: Readings, names: list[str]) -> list[tuple[int, str, dict[str, Any]]]:
        """Row of the batch, metric and document of every anomaly."""
        baselines = fold.baselines()
        distance = np.abs(fold.values - baselines[MEAN])
        limit = np.maximum(self._sigmas * baselines[STDDEV], NOISE_RELATIVE * np.abs(baselines[MEAN]) + NOISE_ABSOLUTE)
        judged = (baselines[BASE_COUNT] >= self._warm_up) & (fold.behind < self._recent)
        measures, places = np.nonzero(judged & (distance > limit))
        found = []
        for measure, place in zip(measures.tolist(), places.tolist(), strict=True):
            at, metric = int(fold.order[place]), names[measure]
            count, mean, stddev = baselines[:, measure, place].tolist()
            value = float(fold.values[measure, place])
            document = {
                "device_id": readings.device_ids[at],
                "device_type": readings.device_type,
                "time": int(readings.times[at]),
                "metric": metric,
                "value": value,
                "expected": mean,
                "score": abs(value - mean) / stddev if stddev else None,
                "probability": None,
                "detector": self.name,
                "numbers": {"stddev": stddev, "count": int(count)},
                "message_id": readings.message_ids[at],
                "text": self._sentence(readings.device_ids[at], metric, value, mean, stddev),
            }
            found.append((int(readings.rows[at]), metric, document))
        return found

    def _sentence(self, device_id: str, metric: str, value: float, mean: float, stddev: float) -> str:
        if not stddev:
            return f"{metric} of {device_id} is {value:.6g}; it was {mean:.6g} without any change for {self._past}"
        side = "above" if value > mean else "below"
        return (
            f"{metric} of {device_id} is {value:.6g}, {abs(value - mean) / stddev:.1f} σ {side} its mean over the last "
            f"{self._past} ({mean:.4g} ± {stddev:.2g})"
        )
