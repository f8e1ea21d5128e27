"""The thresholds of many rules in one order: which of them lie between two values, and what holds at one."""

from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Iterator, Sequence
from math import inf, nextafter

import numpy as np

from headrace.schemas.condition import ExpressionCondition, ValueCondition
from headrace.schemas.readings import Floats
from headrace.tables.grouping import Flags

#: Values from the first to before the second; None for no end.
Stretch = tuple[float | None, float | None]


class Ladder:
    """Conditions on the same value, and the steps between which none of them changes its mind.

    Step 0 is all below the first edge, step `n` all from edge `n - 1` on. Memory: about 300 bytes per condition.

    Args:
        conditions: each with the number that it is asked for by.
    """

    def __init__(self, conditions: Sequence[tuple[int, ValueCondition]]) -> None:
        at: defaultdict[float, list[int]] = defaultdict(list)
        for number, condition in conditions:
            for edge in {edge for stretch in (*_holding(condition), *_held(condition)) for edge in stretch}:
                if edge is not None:
                    at[edge].append(number)
        self._edges = sorted(at)
        self._at = [at[edge] for edge in self._edges]
        #: The least and the largest value of every step.
        self.lows: Floats = np.array([-inf, *self._edges])
        self.highs: Floats = np.append(np.nextafter(np.array(self._edges), -inf), inf)
        self._bounds: list[tuple[float, float]] = list(zip(self.lows.tolist(), self.highs.tolist(), strict=True))
        stretches = [(number, *stretch) for number, condition in conditions for stretch in _holding(condition)]
        self._numbers = np.array([number for number, _, _ in stretches], dtype=np.int64)
        self._from = np.array([0 if low is None else self._after(low) for _, low, _ in stretches])
        self._to = np.array([len(self.lows) if high is None else self._after(high) for _, _, high in stretches])
        change = np.zeros(len(self.lows) + 1, dtype=np.int64)
        np.add.at(change, self._from, 1)
        np.add.at(change, self._to, -1)
        #: Whether no condition that is not met holds on a step.
        self.neutral: Flags = np.cumsum(change)[:-1] == 0

    def step(self, value: float) -> int:
        """The step of a value."""
        return bisect_right(self._edges, value)

    def bounds(self, step: int) -> tuple[float, float]:
        """The least and the largest value of a step."""
        return self._bounds[step]

    def steps(self, values: Floats) -> np.ndarray:
        """The step of each value, (n,) int64."""
        return np.searchsorted(self.lows[1:], values, side="right")

    def between(self, one: int, other: int) -> Iterator[int]:
        """Numbers of the conditions with an edge between two steps; some more than once."""
        for numbers in self._at[min(one, other) : max(one, other)]:
            yield from numbers

    def holding(self, step: int) -> list[int]:
        """Numbers of the conditions that hold on a step while they are not met."""
        found: list[int] = self._numbers[(self._from <= step) & (step < self._to)].tolist()
        return found

    def _after(self, edge: float) -> int:
        return bisect_left(self._edges, edge) + 1


def _holding(condition: ValueCondition) -> list[Stretch]:
    """Where a condition holds that is not met."""
    if isinstance(condition, ExpressionCondition):
        return [(None, 0.0), (nextafter(0.0, inf), None)]
    return _beyond(condition.operator, condition.threshold)


def _held(condition: ValueCondition) -> list[Stretch]:
    """Where a condition holds that is met."""
    if isinstance(condition, ExpressionCondition) or condition.clear is None:
        return []
    return _beyond(condition.operator, condition.clear)


def _beyond(operator: str, threshold: float) -> list[Stretch]:
    above = nextafter(threshold, inf)
    match operator:
        case ">":
            return [(above, None)]
        case ">=":
            return [(threshold, None)]
        case "<":
            return [(None, threshold)]
        case "<=":
            return [(None, above)]
        case _:
            return [(threshold, above)]
