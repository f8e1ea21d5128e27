"""Readings far from where level and trend of their series point."""

from collections.abc import Mapping

import numpy as np

from headrace.agents.detector import Moment, Verdict, check
from headrace.engine.errors import ConfigError
from headrace.schemas.readings import Floats

#: Part of the spread of the series that an error is measured by, at least.
SPREAD_IN_ERROR = 0.02
COUNT, LEVEL, TREND, ERROR = range(4)


class Holt:
    """Anomaly when the error of Holt's linear forecast exceeds `threshold` times the usual error.

    The forecast for the next reading is level + trend, both exponentially weighted. Finds spikes and sudden bends in
    series that move, and is soon used to a new level. The trend is per reading, not per second. O(1) time, four floats
    per series.

    Args:
        alpha: weight of a reading in the level; > 0, <= 1.
        beta: weight of a reading in the trend; > 0, <= 1.
        threshold: error that makes an anomaly, in mean errors; > 0.
        warm_up: readings of a series before it is judged, count; >= 10.
    Raises:
        ConfigError: a bound above is broken.
    Source: Holt (1957), Forecasting Seasonals and Trends by Exponentially Weighted Moving Averages; reprinted in
        International Journal of Forecasting 20 (2004).
    """

    name = "holt"
    version = 1
    fields = ("count", "level", "trend", "error")

    def __init__(self, alpha: float = 0.3, beta: float = 0.05, threshold: float = 10.0, warm_up: int = 50) -> None:
        check(
            self.name,
            alpha=(alpha, 0.0, False),
            beta=(beta, 0.0, False),
            threshold=(threshold, 0.0, False),
            warm_up=(warm_up, 10, True),
        )
        if max(alpha, beta) > 1:
            raise ConfigError("detect.holt: alpha and beta must be 1 or less")
        self.threshold = threshold
        self._alpha, self._beta, self._warm_up = alpha, beta, warm_up

    def step(self, state: Floats, now: Moment) -> Verdict:
        """See `headrace.agents.detector.Detector`."""
        first = state[COUNT] == 0
        forecast = np.where(first, now.values, state[LEVEL] + state[TREND])
        error = now.values - forecast
        usual = state[ERROR] + SPREAD_IN_ERROR * now.spread
        score = np.where(state[COUNT] >= self._warm_up, np.abs(error) / usual, 0.0)
        count = state[COUNT] = state[COUNT] + 1
        state[LEVEL] = forecast + self._alpha * error
        state[TREND] += self._alpha * self._beta * error
        state[ERROR] += (np.abs(error) - state[ERROR]) / np.minimum(count, now.horizon)
        return Verdict(score, {"expected": forecast, "error": error, "usual_error": usual})

    def says(self, value: float, numbers: Mapping[str, float], unit: str) -> str:
        """See `headrace.agents.detector.Detector`."""
        side = "above" if numbers["error"] > 0 else "below"
        times = abs(numbers["error"]) / numbers["usual_error"]
        return (
            f"{abs(numbers['error']):.4g} {unit} {side} where its level and trend point "
            f"({numbers['expected']:.4g}), {times:.0f} times the usual error"
        )
