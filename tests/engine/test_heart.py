"""The heart of an event loop, on a clock that is late on purpose."""

import asyncio
import threading

import pytest
import structlog

from headrace.engine.clock import SteppedClock, SystemClock
from headrace.engine.health import Health
from headrace.engine.heart import BEAT, BLOCKED_LEAST, Heart
from headrace.engine.metrics import Metrics


class LateClock(SteppedClock):
    """Its sleeps take these many seconds longer, one after the other; then they never end."""

    def __init__(self, late: list[float]) -> None:
        super().__init__()
        self._late = late
        self.done = asyncio.Event()

    async def sleep(self, delay: float) -> None:
        """Sleep, late."""
        if not self._late:
            self.done.set()
            await asyncio.Event().wait()
        await super().sleep(delay + self._late.pop(0))


async def beat_through(clock: LateClock, health: Health, metrics: Metrics) -> asyncio.Task[None]:
    """A heart that has beaten through all sleeps of the clock."""
    beating = asyncio.create_task(Heart(health, metrics, clock, "kafka").run())
    await clock.done.wait()
    return beating


async def stop(task: asyncio.Task[None]) -> None:
    """Cancel a heart and wait for its end."""
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_blocked_times_are_counted_and_logged() -> None:
    """Every beat that is half a second late or later; the short ones are normal."""
    clock, metrics = LateClock([0.0, 0.4, 12.0, 0.1, 0.5]), Metrics()

    with structlog.testing.capture_logs() as logged:
        beating = await beat_through(clock, Health(clock), metrics)
    await stop(beating)

    assert metrics.value("headrace_loop_blocked_total", loop="kafka") == 2
    assert metrics.value("headrace_loop_blocked_seconds_total", loop="kafka") == pytest.approx(12.5)
    assert [(entry["event"], entry["seconds"]) for entry in logged] == [("loop_blocked", 12.0), ("loop_blocked", 0.5)]


async def test_beating_loop_is_healthy_and_a_silent_one_not() -> None:
    """However long it has run; and a heart that was stopped is not missed."""
    clock = LateClock([0.0] * 100)
    health = Health(clock)

    beating = await beat_through(clock, health, Metrics())
    assert clock.monotonic() == pytest.approx(100 * BEAT)
    assert health.problems() == []

    clock.advance(10_000)
    assert [problem.component for problem in health.problems()] == ["event loop kafka"]

    await stop(beating)
    assert health.problems() == []


async def test_loop_that_is_really_blocked_is_noticed() -> None:
    """On the real clock: a call that does not give the loop back for longer than a beat and half a second."""
    clock, metrics = SystemClock(), Metrics()
    beating = asyncio.create_task(Heart(Health(clock), metrics, clock).run())
    await asyncio.sleep(0)

    threading.Event().wait(BEAT + BLOCKED_LEAST + 0.1)
    async with asyncio.timeout(120):
        while not metrics.value("headrace_loop_blocked_total", loop="agents"):
            await asyncio.sleep(0.001)
    await stop(beating)

    assert metrics.value("headrace_loop_blocked_seconds_total", loop="agents") >= BLOCKED_LEAST
