"""Keeps a detector from saying the same thing again and again."""

from typing import NamedTuple

import numpy as np

from headrace.agents.detector import Moment
from headrace.schemas.readings import Floats

#: Numbers per series and detector: the score that was passed on, how many readings ago, and at what event time (ms).
QUIET_FIELDS = ("passed_on", "readings_since", "passed_at")


class Quiet(NamedTuple):
    """After a score of a series was passed on, the next must be `stronger` times as high until it is forgotten.

    Args:
        readings: readings after which it is forgotten, count;
        seconds: if as much event time has passed as well.
        stronger: factor.
    """

    readings: int = 150
    seconds: float = 3600.0
    stronger: float = 1.3

    def pass_on(self, state: Floats, score: Floats, now: Moment) -> Floats:
        """The scores that are passed on, else 0, (k, m); `state`, (3, k, m), is changed in place."""
        passed_on, since, at = state
        stamps = now.times[:, np.newaxis].astype(np.float64)
        passes = score > passed_on * self.stronger
        # What is forgotten makes room for the score of today, said or not: it was there while nothing was to be said.
        forgotten = ~passes & (since >= self.readings) & (stamps - at >= self.seconds * 1000)
        anew = passes | forgotten
        passed_on[...] = np.where(anew, np.maximum(score, 0.0), passed_on)
        since[...] = np.where(anew, 0.0, since + 1)
        at[...] = np.where(anew, stamps, at)
        return np.where(passes, score, 0.0)
