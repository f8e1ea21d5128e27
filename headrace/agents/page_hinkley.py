"""Change of the mean of a series, that lasts."""

from collections.abc import Mapping

import numpy as np

from headrace.agents.detector import Moment, Verdict, check
from headrace.schemas.readings import Floats

COUNT, MEAN, RISE, FALL = range(4)
#: One reading adds at most so many usual distances: a spike is no change of the mean.
MOST = 4.0


class PageHinkley:
    """Anomaly when the mean of a series has risen or fallen, with the daily and weekly course taken out.

    Sums up by how much each reading is beyond the mean since the last change by more than `delta`, upwards and
    downwards; begins anew after a change. Slow drifts are found too, later. O(1) time, four floats per series.

    Args:
        delta: change to ignore, in usual distances; >= 0.
        threshold: sum that makes an anomaly, in usual distances; > 0.
        warm_up: readings since the last change before the next, count; >= 10.
    Raises:
        ConfigError: a bound above is broken.
    Source: Page (1954), Continuous Inspection Schemes, Biometrika 41; Hinkley (1971), Inference about the Change-Point
        from Cumulative Sum Tests, Biometrika 58.
    """

    name = "page-hinkley"
    version = 1
    fields = ("count", "mean", "rise", "fall")

    def __init__(self, delta: float = 0.5, threshold: float = 20.0, warm_up: int = 100) -> None:
        check(self.name, delta=(delta, 0.0, True), threshold=(threshold, 0.0, False), warm_up=(warm_up, 10, True))
        self.threshold = threshold
        self._delta, self._warm_up = delta, warm_up

    def step(self, state: Floats, now: Moment) -> Verdict:
        """See `headrace.agents.detector.Detector`."""
        # In usual distances, so that what the hour expects and a change of it are on the same scale.
        size = np.where(now.known, now.residual / (now.usual + now.spread) * 2, 0.0)
        away = np.clip(size - state[MEAN], -MOST, MOST)
        ready = now.known & (state[COUNT] >= self._warm_up)
        state[RISE] = np.where(ready, np.maximum(state[RISE] + away - self._delta, 0.0), 0.0)
        state[FALL] = np.where(ready, np.maximum(state[FALL] - away - self._delta, 0.0), 0.0)
        score = np.maximum(state[RISE], state[FALL])
        numbers = {"expected": now.expected, "rise": state[RISE].copy(), "fall": state[FALL].copy()}
        state[COUNT] += now.known
        state[MEAN] += np.where(now.known, away / np.clip(state[COUNT], 1.0, now.horizon), 0.0)
        changed = score >= self.threshold
        state[:] = np.where(changed, 0.0, state)
        return Verdict(score, numbers)

    def says(self, value: float, numbers: Mapping[str, float], unit: str) -> str:
        """See `headrace.agents.detector.Detector`."""
        way = "risen" if numbers["rise"] > numbers["fall"] else "fallen"
        return f"and its mean has {way} for some time: {numbers['expected']:.4g} {unit} was usual at this hour"
