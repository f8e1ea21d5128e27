"""What is learned of how often devices speak: from the times of their readings, and of the arrivals of these.

State of k devices is (fields, k) float64, rows as `FIELDS` says, times in ms, zero for a device never heard of.
"""

import numpy as np

from headrace.schemas.readings import Floats
from headrace.tables.grouping import Flags

#: arrived, time: append time and event time of the newest reading; gaps: arrivals that did not come together with
#: another; interval, arrival: usual time between readings, and between their arrivals.
FIELDS = ("arrived", "time", "gaps", "interval", "arrival")
ARRIVED, TIME, GAPS, INTERVAL, ARRIVAL = range(len(FIELDS))
#: Gaps that the intervals are learned over, and how many intervals a gap counts for at most.
MEMORY, LONG_GAP = 20.0, 4.0
#: What arrives sooner than this part of an interval after the reading before came together with it.
TOGETHER = 0.5


def usual(state: Floats) -> Floats:
    """How long devices usually leave between readings, or between arrivals where many come at once, ms, (k,)."""
    longer: Floats = np.maximum(state[INTERVAL], state[ARRIVAL])
    return longer


def hear(state: Floats, arrived: Floats, times: Floats) -> None:
    """Learn from a reading of each of some devices, in place.

    Args:
        state: see above.
        arrived: (k,) append time, ms; not before the one before.
        times: (k,) event time, ms.
    """
    known, later = state[ARRIVED] > 0, times > state[TIME]
    _learn(state, INTERVAL, times - state[TIME], known & later)
    apart = arrived - state[ARRIVED]
    spaced = known & (apart >= TOGETHER * usual(state))
    _learn(state, ARRIVAL, apart, spaced)
    state[GAPS] += spaced
    state[ARRIVED] = arrived
    state[TIME] = np.where(later, times, state[TIME])


def _learn(state: Floats, field: int, gap: Floats, counts: Flags) -> None:
    before = state[field]
    bounded = np.where(before > 0, np.minimum(gap, LONG_GAP * before), gap)
    weight = np.where(before > 0, np.clip(state[GAPS] + 1, 1.0, MEMORY), 1.0)
    state[field] = np.where(counts, before + (bounded - before) / weight, before)
