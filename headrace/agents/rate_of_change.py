"""Readings that changed faster than their series does."""

from collections.abc import Mapping

import numpy as np

from headrace.agents import tail
from headrace.agents.detector import Moment, Verdict, check
from headrace.schemas.readings import Floats

RATE = 0
#: Shortest time that a change is divided by, ms: two readings of the same millisecond are one of noise.
SHORTEST_MS = 1.0
#: Part of the spread per usual interval that a rate is measured by, at least.
SPREAD_IN_RATE = 0.02


class RateOfChange:
    """Anomaly when a change per second is rarer than 1 in 10^`threshold` among the changes of the series.

    How rare a change is, is judged by the series' own changes, also beyond the largest so far (`headrace.agents.tail`).
    After a gap the change is divided by the whole gap, so that a restart after an outage is no jump. O(1) time, seven
    floats per series.

    Args:
        threshold: −log10 of the share of changes that are as fast; > 1.3, as only the fastest twentieth is looked at.
        warm_up: readings of a series before it is judged, count; >= 50.
    Raises:
        ConfigError: a bound above is broken.
    """

    name = "rate-of-change"
    version = 1
    fields = ("rate", *tail.FIELDS)

    def __init__(self, threshold: float = 4.0, warm_up: int = 100) -> None:
        check(self.name, threshold=(threshold, 1.3, False), warm_up=(warm_up, 50, True))
        self.threshold = threshold
        self._warm_up = warm_up

    def step(self, state: Floats, now: Moment) -> Verdict:
        """See `headrace.agents.detector.Detector`."""
        tails = state[1:]
        seconds = np.maximum(now.elapsed, SHORTEST_MS) / 1000
        rate = (now.values - now.previous) / seconds
        floor = SPREAD_IN_RATE * now.spread / np.maximum(now.interval, SHORTEST_MS) * 1000
        size = np.abs(rate) / (state[RATE] + floor)
        score = np.where(now.count >= self._warm_up, tail.rarity(tails, size), 0.0)
        tail.learn(tails, size, now.count > tail.STARTED)
        learning = np.where(now.count > 0, 1 / np.clip(now.count, 1.0, now.horizon), 0.0)
        usual = state[RATE].copy()
        state[RATE] += (np.abs(rate) - state[RATE]) * learning
        return Verdict(score, {"rate": rate, "usual_rate": usual, "previous": now.previous, "seconds": seconds})

    def says(self, value: float, numbers: Mapping[str, float], unit: str) -> str:
        """See `headrace.agents.detector.Detector`."""
        return (
            f"after {numbers['previous']:.6g} only {numbers['seconds']:.3g} s before: it changes by "
            f"{abs(numbers['rate']):.3g} {unit}/s, usual are {numbers['usual_rate']:.2g}"
        )
