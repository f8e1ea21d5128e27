"""The C library's allocator, told now and then to give back what lies free between what is in use."""

import asyncio
import ctypes
import sys
from collections.abc import Callable

from headrace.engine.clock import Clock

#: Seconds. It takes 20 to 40 ms of another thread for a heap of 350 MB; this one waits only if it allocates meanwhile.
EVERY = 60.0


def release_free_memory() -> None:
    """Return the pages of the heap that nothing is in to the system.

    glibc does that only at the heap's end. Whatever a burst took (a slow disk or database, behind which batches wait)
    stayed with the process for good: each was a new maximum, and memory grew for as long as they did (70 MB after one
    at 5,000 messages a second, `benchmarks/memory.py`). Does nothing elsewhere.
    """
    trim = _malloc_trim()
    if trim is not None:
        trim(0)


async def keep_releasing(clock: Clock) -> None:
    """Release it again and again, until cancelled."""
    while _malloc_trim() is not None:
        await clock.sleep(EVERY)
        await asyncio.to_thread(release_free_memory)


def _malloc_trim() -> Callable[[int], int] | None:
    return getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
