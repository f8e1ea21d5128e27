"""The line through a run's memory: how much it rises, and how well that is known."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tests.benchmarks.conftest import FOLDER


@pytest.fixture
def memory(load_benchmark: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch) -> Any:
    """The benchmark, which imports others of its folder."""
    monkeypatch.syspath_prepend(FOLDER)
    return load_benchmark("memory")


@pytest.mark.parametrize("rise", [0.0, 0.02])
def test_slope_is_within_its_interval(memory: Any, rise: float) -> None:
    """Of memory with noise that neighbours share, as garbage collection makes it."""
    random = np.random.default_rng(7)
    times = np.arange(0, 1800, 0.25)
    saw = 5 * ((times + 3) % 11) / 11

    found, wide = memory.slope(times.tolist(), (300 + rise * times + saw + random.normal(0, 1, len(times))).tolist())

    assert found - wide <= rise <= found + wide
    assert wide < 0.002
    assert (found - wide > 0) == (rise > 0)


def test_a_jump_in_the_middle_makes_the_slope_uncertain(memory: Any) -> None:
    """One table that grew once is no leak, and no proof that there is none."""
    times = np.arange(0, 1800, 0.25)

    found, wide = memory.slope(times.tolist(), np.where(times < 900, 300.0, 310.0).tolist())

    assert wide > 0.2 * found
