"""Series that stand still for longer than they ever did."""

from collections.abc import Mapping

import numpy as np

from headrace.agents.detector import Moment, Verdict, check
from headrace.schemas.readings import Floats

RUN, SINCE, LONGEST, CHANGES = range(4)
#: A change smaller than this part of the usual distance from the mean is none: a stuck sensor may still flicker.
STILL = 0.001
#: Changes of a series before it can be stuck: one that never changes is not.
LEAST_CHANGES = 10
#: The longest run is forgotten slowly, in half after so many changes.
HALF_LIFE = 2_000


class Stuck:
    """Anomaly when a value has not changed for `times` as many readings as in its longest run so far.

    Says it once per run. A series that hardly ever changes has long runs, and one that never did has nothing to
    compare with: both are quiet. O(1) time, four floats per series.

    Args:
        times: how much longer than the longest run so far; >= 1.
        least: readings that a run must have, count; >= 2.
    Raises:
        ConfigError: a bound above is broken.
    """

    name = "stuck"
    version = 1
    fields = ("run", "since", "longest", "changes")
    threshold = 1.0

    def __init__(self, times: float = 3.0, least: int = 30) -> None:
        check(self.name, times=(times, 1.0, True), least=(least, 2, True))
        self._times, self._least = times, least

    def step(self, state: Floats, now: Moment) -> Verdict:
        """See `headrace.agents.detector.Detector`."""
        still = (np.abs(now.values - now.previous) <= STILL * now.spread) & (now.count > 0)
        stamps = np.broadcast_to(now.times[:, np.newaxis].astype(np.float64), still.shape)
        ended = np.where(still, 0.0, state[RUN])
        state[RUN] = np.where(still, state[RUN] + 1, 0.0)
        state[SINCE] = np.where(still, state[SINCE], stamps)
        state[CHANGES] += ~still & (now.count > 0)
        limit = np.maximum(self._times * state[LONGEST], self._least)
        reached = still & (state[RUN] >= limit) & (state[RUN] - 1 < limit)
        score = np.where(reached & (state[CHANGES] >= LEAST_CHANGES), state[RUN] / limit, 0.0)
        state[LONGEST] = np.where(still, state[LONGEST], np.maximum(state[LONGEST] * 0.5 ** (1 / HALF_LIFE), ended))
        return Verdict(
            score,
            {"readings": state[RUN] + 1, "seconds": (stamps - state[SINCE]) / 1000, "longest": state[LONGEST] + 1},
        )

    def says(self, value: float, numbers: Mapping[str, float], unit: str) -> str:
        """See `headrace.agents.detector.Detector`."""
        return (
            f"as in all {numbers['readings']:.0f} readings of the last {numbers['seconds'] / 60:.3g} minutes; "
            f"before, it never stood still for more than {numbers['longest']:.0f}"
        )
