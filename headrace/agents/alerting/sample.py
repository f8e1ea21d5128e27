"""What a condition looks at in one reading."""

from collections.abc import Container, Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from headrace.agents.alerting.watch import Sampled
from headrace.schemas.condition import ThresholdCondition, ValueCondition
from headrace.schemas.expression import Expression


def metric_of(condition: ValueCondition) -> str:
    """What alerts say that a condition looks at."""
    return condition.metric if isinstance(condition, ThresholdCondition) else condition.expression


def at_once(condition: ValueCondition) -> bool:
    """Whether one reading is enough to meet the condition."""
    rate = isinstance(condition, ThresholdCondition) and condition.rate_per is not None
    return not (condition.duration or condition.out_of or rate)


def sample_of(
    condition: ValueCondition,
    time: int,
    values: Mapping[str, float],
    before: tuple[int, float] | None = None,
    new: Container[str] | None = None,
) -> Sampled | None:
    """What a condition looks at in a reading; None if the reading has nothing new to say of it.

    Args:
        time: event time, ms.
        values: measures of the reading.
        before: of a rate, event time (ms) and value of the metric's reading before.
        new: those of them that no reading of the same device and time had before, None for all. An expression needs
            one.
    """
    new = values if new is None else new
    if isinstance(condition, ThresholdCondition):
        value = values.get(condition.metric)
        if value is None or condition.metric not in new:
            return None
        if condition.rate_per is None:
            return time, value, None
        if before is None or time <= before[0]:
            return None
        return time, (value - before[1]) / (time - before[0]) * 1000 * condition.rate_per, None
    expression = compiled(condition.expression)
    if any(name not in values for name in expression.inputs) or not any(name in new for name in expression.inputs):
        return None
    used = {name: values[name] for name in expression.inputs}
    value = float(expression.evaluate({name: np.array([each]) for name, each in used.items()})[0])
    return None if value != value else (time, value, used)


class _AnyName(Sequence[str]):
    """Takes every name: rules are checked when they are saved."""

    def __contains__(self, name: object) -> bool:
        return True

    def __len__(self) -> int:
        return 0

    def __getitem__(self, index: Any) -> Any:
        raise IndexError(index)


@lru_cache(maxsize=20_000)
def compiled(expression: str) -> Expression:
    """An expression over whatever metrics it names."""
    return Expression(expression, _AnyName())
