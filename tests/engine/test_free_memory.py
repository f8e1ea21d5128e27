"""What a burst took is given back to the system."""

import asyncio
import sys

import psutil
import pytest

from headrace.engine.clock import SteppedClock
from headrace.engine.free_memory import keep_releasing

KEPT_EVERY = 64
PIECE = b"x" * 1_000


def fill_with_holes() -> list[bytearray]:
    """40 MB of the heap, free but for one piece in every few pages."""
    pieces = [bytearray(PIECE) for _ in range(40_000)]
    return pieces[::KEPT_EVERY]


@pytest.mark.skipif(sys.platform != "linux", reason="only glibc can")
async def test_free_memory_goes_back_although_something_lies_behind_it() -> None:
    """Of memory with few pieces in it most is given back, and what is in them stays."""
    process = psutil.Process()
    kept = fill_with_holes()
    before = process.memory_info().rss

    releasing = asyncio.create_task(keep_releasing(SteppedClock()))
    async with asyncio.timeout(120):
        while process.memory_info().rss > before - 20_000_000:
            await asyncio.sleep(0)
    releasing.cancel()

    assert kept == [PIECE] * len(kept)
