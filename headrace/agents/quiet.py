"""Keeps a detector from saying the same thing again and again."""

from typing import NamedTuple

import numpy as np

from headrace.schemas.readings import Floats, Ints

#: Numbers per series and detector: score of the last anomaly, how many readings ago, and at what event time (ms).
QUIET_FIELDS = ("said", "readings_since", "said_at")


class Quiet(NamedTuple):
    """After an anomaly of a series, the next must score `stronger` times as high until the first is forgotten.

    Args:
        readings: readings after which it is forgotten, count,
        seconds: if as much event time has passed as well.
        stronger: factor.
    """

    readings: int = 200
    seconds: float = 3600.0
    stronger: float = 1.6

    def pass_on(self, state: Floats, score: Floats, threshold: float, times: Ints) -> Floats:
        """The scores, 0 where one makes no anomaly although it reaches the threshold, (k, m).

        Args:
            state: (3, k, m), `QUIET_FIELDS`; changed in place.
            score: (k, m).
            threshold: score from which a reading is an anomaly.
            times: (k,) event time, ms.
        """
        said, since, at = state
        stamps = times[:, np.newaxis].astype(np.float64)
        said[...] = np.where((since >= self.readings) & (stamps - at >= self.seconds * 1000), 0.0, said)
        anomaly = (score >= threshold) & (score > said * self.stronger)
        said[...] = np.where(anomaly, score, said)
        since[...] = np.where(anomaly, 0.0, since + 1)
        at[...] = np.where(anomaly, stamps, at)
        return np.where(anomaly | (score < threshold), score, 0.0)
