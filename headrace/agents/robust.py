"""Readings far from the median of their series, measured by the median distance from it."""

from collections.abc import Mapping

import numpy as np

from headrace.agents.detector import Moment, Verdict, check
from headrace.agents.expectation import NOISE_ABSOLUTE, NOISE_RELATIVE
from headrace.schemas.readings import Floats

#: A median distance of 1 is a standard deviation of this, in a normal distribution.
SIGMA = 1.4826
#: Steps of both medians, in mean distances: 2 / count, but at least this.
LEAST_STEP = 0.02
#: Part of the spread of the series that a standard deviation is, at least: after a stretch of equal values it would
#: be nothing.
SPREAD_IN_SIGMA = 0.1
COUNT, MEDIAN, DISTANCE = range(3)


class Robust:
    """Anomaly when |value − median| > `threshold` × 1.4826 × median absolute deviation (MAD).

    Half of the readings may be wild without moving it much. Both medians are followed by stochastic approximation,
    which forgets: a lasting change is the new normal after some hundred readings. O(1) time, three floats per series.

    Args:
        threshold: distance that makes an anomaly, standard deviations of a normal distribution; > 0.
        warm_up: readings of a series before it is judged, count; >= 10.
    Raises:
        ConfigError: a bound above is broken.
    Source: Iglewicz and Hoaglin (1993), How to Detect and Handle Outliers; Tierney (1983), A Space-Efficient Recursive
        Procedure for Estimating a Quantile of an Unknown Distribution, SIAM J. Sci. Stat. Comput. 4.
    """

    name = "robust"
    version = 1
    fields = ("count", "median", "distance")

    def __init__(self, threshold: float = 6.0, warm_up: int = 50) -> None:
        check(self.name, threshold=(threshold, 0.0, False), warm_up=(warm_up, 10, True))
        self.threshold = threshold
        self._warm_up = warm_up

    def step(self, state: Floats, now: Moment) -> Verdict:
        """See `headrace.agents.detector.Detector`."""
        first = state[COUNT] == 0
        median = np.where(first, now.values, state[MEDIAN])
        distance = now.values - median
        noise = NOISE_RELATIVE * np.abs(now.values) + NOISE_ABSOLUTE
        sigma = np.maximum(SIGMA * state[DISTANCE], SPREAD_IN_SIGMA * now.spread) + noise
        score = np.where(state[COUNT] >= self._warm_up, np.abs(distance) / sigma, 0.0)
        count = state[COUNT] = state[COUNT] + 1
        step = now.spread * np.maximum(2.0 / count, LEAST_STEP)
        state[MEDIAN] = median + np.clip(distance, -step, step)
        away = np.abs(distance) - state[DISTANCE]
        state[DISTANCE] += np.where(first, 0.0, np.clip(away, -step, step))
        return Verdict(score, {"expected": median, "mad": sigma / SIGMA, "sigma": np.abs(distance) / sigma})

    def says(self, value: float, numbers: Mapping[str, float], unit: str) -> str:
        """See `headrace.agents.detector.Detector`."""
        side = "above" if value > numbers["expected"] else "below"
        return (
            f"{numbers['sigma']:.1f} σ {side} the median of this sensor "
            f"({numbers['expected']:.4g} {unit}, median distance {numbers['mad']:.2g})"
        )
