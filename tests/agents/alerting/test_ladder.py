"""Thresholds of many rules in one order, against looking at each of them."""

from math import inf, nextafter

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from headrace.agents.alerting.ladder import Ladder
from headrace.agents.alerting.watch import holds
from headrace.schemas.condition import ExpressionCondition, ThresholdCondition, ValueCondition

FEW = st.sampled_from([-1e308, -2.0, -0.0, 0.0, 5e-324, 1.5, 2.0, 1e308])
CONDITIONS: st.SearchStrategy[ValueCondition] = st.one_of(
    st.builds(
        ThresholdCondition, metric=st.just("t"), operator=st.sampled_from([">", ">=", "<", "<=", "=="]), threshold=FEW
    ),
    st.builds(
        ThresholdCondition, metric=st.just("t"), operator=st.just(">"), threshold=st.just(2.0), clear=st.just(-2.0)
    ),
    st.just(ExpressionCondition(expression="t")),
)
VALUES = FEW.flatmap(lambda value: st.sampled_from([nextafter(value, -inf), value, nextafter(value, inf)]))


@given(st.lists(CONDITIONS, min_size=1, max_size=12), VALUES, VALUES)
def test_between_two_values_are_all_conditions_that_tell_them_apart(
    conditions: list[ValueCondition], one: float, other: float
) -> None:
    """Met or not; on one step none does, and what holds on it is what holds at the value."""
    ladder = Ladder(list(enumerate(conditions)))
    steps = ladder.step(one), ladder.step(other)
    apart = {
        number
        for number, each in enumerate(conditions)
        for met in (False, True)
        if holds(each, one, met=met) != holds(each, other, met=met)
    }

    holding = [number for number, each in enumerate(conditions) if holds(each, one, met=False)]
    low, high = ladder.bounds(steps[0])

    assert apart <= set(ladder.between(*steps))
    assert sorted(ladder.holding(steps[0])) == holding
    assert bool(ladder.neutral[steps[0]]) == (not holding)
    assert ladder.steps(np.array([one, other])).tolist() == list(steps)
    assert (low <= other <= high) == (steps[0] == steps[1])
