"""Notices when an event loop is blocked, and shows `Health` that it is not."""

import structlog

from headrace.engine.clock import Clock
from headrace.engine.health import Health, LoopName
from headrace.engine.metrics import Metrics

#: Seconds between two beats, and how late a beat must be for the loop to count as blocked.
BEAT = 0.5
BLOCKED_LEAST = 0.5

logger = structlog.get_logger(__name__)


class Heart:
    """Beats on an event loop, so that `Health` knows that it runs, and notices when the loop was blocked.

    Args:
        health: beats go there.
        metrics: blocked times go there.
        clock: waits and measures.
        loop: name of the event loop it is run on.
    """

    def __init__(self, health: Health, metrics: Metrics, clock: Clock, loop: LoopName = "agents") -> None:
        self._health = health
        self._metrics = metrics
        self._clock = clock
        self._loop = loop

    async def run(self) -> None:
        """Beat until cancelled."""
        try:
            while True:
                self._health.beat(self._loop)
                before = self._clock.monotonic()
                await self._clock.sleep(BEAT)
                late = self._clock.monotonic() - before - BEAT
                if late >= BLOCKED_LEAST:
                    self._metrics.count("headrace_loop_blocked_total", loop=self._loop)
                    self._metrics.count("headrace_loop_blocked_seconds_total", late, loop=self._loop)
                    logger.warning("loop_blocked", loop=self._loop, seconds=round(late, 3))
        finally:
            self._health.stopped_beating(self._loop)
