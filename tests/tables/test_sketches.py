"""Percentile sketches: the bound holds, and what a sketch holds depends on its values alone."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.schemas.readings import Floats, Ints
from headrace.tables import sketches

WANTED = (0, 1, 25, 50, 75, 99, 100)
numbers = st.floats(allow_nan=False, allow_infinity=False, allow_subnormal=False)
#: Few orders of magnitude, many, and both signs: sketches that merge buckets never, and often.
columns = st.lists(numbers, min_size=1, max_size=300) | st.lists(
    st.floats(-40, 50, allow_subnormal=False) | st.floats(1e-9, 1e9), min_size=1, max_size=600
)


def sketch(values: Floats, start: Ints | None = None) -> Ints:
    """One sketch of these values, added to `start`."""
    before = np.zeros((1, sketches.WIDTH), dtype=np.int64) if start is None else start
    ones = np.ones(len(values), dtype=np.int64)
    return sketches.add(before, np.zeros(len(values), dtype=np.int64), sketches.keys(values), ones)


@settings(max_examples=100, deadline=None)
@given(columns)
def test_percentiles_are_within_the_error_that_is_stated(values: list[float]) -> None:
    """Of the value at the rank, by nearest rank."""
    ordered, made = np.sort(np.array(values)), sketch(np.array(values))

    found, error = sketches.percentiles(made, WANTED)[0], sketches.error(made)[0]

    exact = ordered[np.floor(np.array(WANTED) / 100 * (len(values) - 1)).astype(int)]
    # One part in 10^9 for the arithmetic of logarithms.
    assert np.all(np.abs(found - exact) <= np.abs(exact) * (error + 1e-9))
    assert sketches.total(made)[0] == len(values)


@settings(max_examples=100, deadline=None)
@given(columns, st.randoms(use_true_random=False), st.integers(1, 20))
def test_order_and_merging_do_not_matter(values: list[float], random: object, pieces: int) -> None:
    """One at a time in any order, in pieces, or two sketches made one: the same bytes."""
    whole = sketch(np.array(values))
    shuffled = np.array(values)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    parts = np.array_split(shuffled, pieces)

    step_by_step = sketch(parts[0])
    for part in parts[1:]:
        step_by_step = sketch(part, step_by_step)
    merged = sketch(parts[0])
    for part in parts[1:]:
        merged = sketches.merged(merged, sketch(part))

    assert np.array_equal(step_by_step, whole)
    assert np.array_equal(merged, whole)


def test_many_sketches_at_once_are_what_each_is_alone() -> None:
    """Rows do not touch each other."""
    rng = np.random.default_rng(5)
    values, rows = rng.lognormal(0, 4, 3_000), rng.integers(0, 3, 3_000)
    before = np.zeros((4, sketches.WIDTH), dtype=np.int64)

    together = sketches.add(before, rows, sketches.keys(values), np.ones(len(rows), dtype=np.int64))

    for row in range(3):
        assert np.array_equal(together[row], sketch(values[rows == row])[0])
    assert not together[3].any()
    assert np.isnan(sketches.percentiles(together, WANTED)[3]).all()


def test_narrow_values_keep_the_finest_error() -> None:
    """Ten per cent around a value need no merging, however large it is."""
    for middle in (1e-6, 20.0, 1e9):
        made = sketch(np.linspace(middle * 0.9, middle * 1.1, 1_000))

        assert sketches.error(made)[0] <= 0.0011
