"""Readings unlike their series at that hour of the week."""

from collections.abc import Mapping

import numpy as np

from headrace.agents import tail
from headrace.agents.detector import Moment, Verdict, check
from headrace.schemas.readings import Floats

#: A mean distance of 1 is a standard deviation of this, in a normal distribution.
SIGMA = 1.2533
#: Part of the whole spread that a distance is measured by, at least: a quiet hour is not judged by its rounding.
SPREAD_IN_DISTANCE = 0.1


class Seasonal:
    """Anomaly when the distance from what is usual at this hour of the week is rarer than 1 in 10^`threshold`.

    What is usual is learned per series, by hour of the day at once, and by hour of the week from its third week on
    (`headrace.agents.expectation`); how rare a distance is, by the series' own distances (`headrace.agents.tail`).
    O(1) time, six floats per series beside the hours.

    Args:
        threshold: −log10 of the share of readings as far off; > 1.3, as only the farthest twentieth is looked at.
        warm_up: readings of a series before it is judged, count; >= 50.
    Raises:
        ConfigError: a bound above is broken.
    """

    name = "seasonal"
    version = 1
    fields = tail.FIELDS

    def __init__(self, threshold: float = 3.5, warm_up: int = 100) -> None:
        check(self.name, threshold=(threshold, 1.3, False), warm_up=(warm_up, 50, True))
        self.threshold = threshold
        self._warm_up = warm_up

    def step(self, state: Floats, now: Moment) -> Verdict:
        """See `headrace.agents.detector.Detector`."""
        usual = now.usual + SPREAD_IN_DISTANCE * now.spread
        size = np.abs(now.residual) / usual
        score = np.where(now.known & (now.count >= self._warm_up), tail.rarity(state, size), 0.0)
        tail.learn(state, size, now.known & (now.count > tail.STARTED))
        return Verdict(score, {"expected": now.expected, "distance": now.residual, "sigma": size / SIGMA})

    def says(self, value: float, numbers: Mapping[str, float], unit: str) -> str:
        """See `headrace.agents.detector.Detector`."""
        side = "above" if numbers["distance"] > 0 else "below"
        return f"{numbers['sigma']:.1f} σ {side} what this sensor shows at this hour ({numbers['expected']:.4g} {unit})"
