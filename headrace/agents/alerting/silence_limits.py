"""How long devices may be silent: the limits of absence rules, alike ones together."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from headrace.agents.usual_interval import GAPS, usual
from headrace.schemas.condition import AbsenceCondition
from headrace.schemas.readings import Floats
from headrace.tables.rule_book import RuleSet

#: Arrivals, not counting what comes together, before a learned limit is one, count.
WARM_UP = 10


class Limit(NamedTuple):
    """One limit.

    Args:
        fixed: ms; None if it is learned.
        times: of a learned one, the device's own usual intervals.
        least: of a learned one, ms.
    """

    fixed: float | None
    times: float = 0.0
    least: float = 0.0

    @property
    def floor(self) -> float:
        """What it is at the least, for any device, ms."""
        return self.least if self.fixed is None else self.fixed

    def of(self, state: Floats) -> Floats:
        """The limit of each device, whole ms, (k,); infinite where not enough is known. `state` is (fields, k)."""
        if self.fixed is not None:
            return np.full(state.shape[1], np.ceil(self.fixed))
        learned = np.ceil(np.maximum(self.times * usual(state), self.least))
        limit: Floats = np.where(state[GAPS] >= WARM_UP, learned, np.inf)
        return limit


def limit_of(condition: AbsenceCondition) -> Limit:
    """The limit that a condition sets."""
    if condition.silent_for == "learned":
        return Limit(None, condition.intervals, condition.least * 1000)
    return Limit(condition.silent_for * 1000)


class Limits:
    """The limits for one device type.

    Args:
        rules: of all types.
        device_type: its name.
    """

    def __init__(self, rules: RuleSet, device_type: str) -> None:
        self._for_all: dict[Limit, list[int]] = {}
        #: Rules that name their devices, which may be many.
        self._named: dict[Limit, dict[str, list[int]]] = {}
        for place in rules.of_type(device_type):
            rule = rules.rules[place]
            if not isinstance(rule.condition, AbsenceCondition):
                continue
            limit = limit_of(rule.condition)
            named = self._named.setdefault(limit, {})
            for device_id in rule.device_ids:
                named.setdefault(device_id, []).append(place)
            self._for_all.setdefault(limit, [])
            if not rule.device_ids:
                self._for_all[limit].append(place)
        self.floor = min((limit.floor for limit in self._for_all), default=np.inf)
        self._fixed = min((np.ceil(limit.fixed) for limit in self._for_all if limit.fixed is not None), default=np.inf)
        learned = [limit for limit in self._for_all if limit.fixed is None]
        self._learned = None
        if learned:
            self._learned = Limit(None, min(each.times for each in learned), min(each.least for each in learned))

    def __iter__(self) -> Iterator[Limit]:
        return iter(self._for_all)

    def __bool__(self) -> bool:
        return bool(self._for_all)

    def least(self, state: Floats) -> Floats:
        """What every limit of each device is at the least, ms, (k,); costs the same for any number of limits."""
        if self._learned is None:
            return np.full(state.shape[1], self._fixed)
        least: Floats = np.minimum(self._learned.of(state), self._fixed)
        return least

    def places(self, limit: Limit, device_id: str) -> list[int]:
        """Places of the rules with this limit that may be for a device."""
        return [*self._for_all[limit], *self._named[limit].get(device_id, ())]
