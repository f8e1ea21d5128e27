"""The only place that knows what time it is: real, virtual or hand-driven."""

import asyncio
import time
from typing import Protocol


class Clock(Protocol):
    """Source of wall-clock time and of waiting. Injected everywhere."""

    def now_ms(self) -> int:
        """Time in milliseconds since 1970-01-01 UTC; on a virtual clock, virtual time."""
        ...

    def monotonic(self) -> float:
        """Real seconds that never go back, for durations and latencies."""
        ...

    async def sleep(self, delay: float) -> None:
        """Wait `delay` real seconds."""
        ...

    def real_seconds(self, duration_ms: float) -> float:
        """Real seconds that `duration_ms` of this clock's time take."""
        ...


class SystemClock:
    """The machine's own time."""

    def now_ms(self) -> int:
        return time.time_ns() // 1_000_000

    def monotonic(self) -> float:
        return time.monotonic()

    async def sleep(self, delay: float) -> None:
        await asyncio.sleep(delay)

    def real_seconds(self, duration_ms: float) -> float:
        return duration_ms / 1000


class VirtualClock(SystemClock):
    """Runs `speed` times as fast as the machine's time, from `start_ms` on.

    Args:
        start_ms: virtual time at construction, ms since 1970 UTC.
        speed: virtual seconds per real second; > 0.
    """

    def __init__(self, start_ms: int, speed: float = 1.0) -> None:
        self.speed = speed
        self.start(start_ms)

    def start(self, start_ms: int) -> None:
        """Go on from `start_ms`, now."""
        self._start_ms = start_ms
        self._origin = time.monotonic()

    def now_ms(self) -> int:
        return self._start_ms + int((time.monotonic() - self._origin) * 1000 * self.speed)

    def real_seconds(self, duration_ms: float) -> float:
        return duration_ms / 1000 / self.speed


class ManualClock(SystemClock):
    """Stands still until somebody moves it: `advance` by hand, or `follow` the data's own time.

    >>> clock = ManualClock(1000)
    >>> clock.follow(5000); clock.follow(4000); clock.now_ms()
    5000
    """

    def __init__(self, start_ms: int = 0) -> None:
        self._now_ms = start_ms

    def now_ms(self) -> int:
        return self._now_ms

    def advance(self, duration_ms: int) -> None:
        """Move on by `duration_ms`."""
        self._now_ms += duration_ms

    def follow(self, time_ms: int) -> None:
        """Move on to `time_ms`; never back."""
        self._now_ms = max(self._now_ms, time_ms)


class SteppedClock(ManualClock):
    """A manual clock on which real seconds stand still too: for tests of everything that waits or gives up.

    `advance` moves both; `sleep` moves on by what it is asked to wait and returns at once.
    """

    def __init__(self, start_ms: int = 0) -> None:
        super().__init__(start_ms)
        self._start_ms = start_ms

    def monotonic(self) -> float:
        return (self._now_ms - self._start_ms) / 1000

    async def sleep(self, delay: float) -> None:
        self.advance(round(delay * 1000))
        await asyncio.sleep(0)
