"""The seed of the chaos tests."""

import os
import random

import pytest

#: Names the seed of an earlier run, to repeat what was random in it.
SEED = "HEADRACE_TEST_CHAOS_SEED"


@pytest.fixture
def chaos_seed() -> int:
    """Decides what a test kills, and when; printed."""
    seed = int(os.environ.get(SEED) or random.SystemRandom().randrange(1 << 32))
    print(f"{SEED}={seed}")
    return seed
