"""Verifies the cache at intervals, on its own: nothing else waits for it."""

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import structlog

from headrace.connectors.redis.client import close, connect
from headrace.connectors.redis.database import CacheTruth
from headrace.connectors.redis.entries import Keys
from headrace.connectors.redis.settings import RedisSettings
from headrace.connectors.redis.verification import REPAIRED, Report, Verification
from headrace.engine.clock import Clock
from headrace.engine.errors import Disconnected, RetryLater
from headrace.engine.metrics import Metrics
from headrace.schemas.window import Window

#: Sink whose database is the truth.
DATABASE_SINK = "timescale"
#: Seconds until a run that failed is repeated: a sink that has just started still makes the tables.
AGAIN = 10.0

logger = structlog.get_logger(__name__)


class CacheVerifier:
    """Compares the cache with the database every `[redis] verify_interval` seconds, and repairs it.

    After a verification the cache is equal to the database but for what is ahead of it. It holds nothing between runs.

    Args:
        settings: where Redis is, how often, and how long a run may take.
        connect: of the database, keyword arguments for `asyncpg.connect`.
        windows: those that are rolled up.
        clock: says how old data is, and waits.
        metrics: told what was found.
        dry_run: repair nothing.
        sink: whose positions in the database say how far it is.
    """

    def __init__(
        self,
        settings: RedisSettings,
        connect: Mapping[str, Any],
        windows: Sequence[Window],
        clock: Clock,
        *,
        metrics: Metrics | None = None,
        dry_run: bool = False,
        sink: str = DATABASE_SINK,
    ) -> None:
        self._settings = settings
        self._keys = Keys(settings, clock)
        self._truth = CacheTruth(connect, self._keys, windows, sink)
        self._clock = clock
        self._metrics = metrics or Metrics()
        self._dry_run = dry_run
        self._last: Report | None = None
        self._trouble = ""
        self._counts: Counter[str] = Counter()

    name = "cache-verifier"
    #: It reads nothing of the log.
    reads = None

    async def status(self) -> Mapping[str, Any]:
        """What it does, for one line."""
        if self._trouble:
            return {"state": "retrying", "why": self._trouble}
        last = {} if self._last is None else {"differed": sum(self._last.findings[each] for each in REPAIRED)}
        return {"state": "running", "runs": self._counts["runs"], **last}

    def statistics(self) -> Mapping[str, Any]:
        """What it has done."""
        return {name: self._counts[name] for name in ("runs", "checked", "added", "changed", "removed")}

    async def run(self, stop: asyncio.Event) -> None:
        """Verify now and at intervals, until `stop` is set. A run that fails is logged, and the next one comes."""
        while not stop.is_set():
            interval = self._settings.verify_interval
            try:
                await self.verify(stop)
            except (Disconnected, RetryLater) as error:
                self._trouble = str(error)
                interval = min(interval, AGAIN)
                logger.warning("cache_not_verified", error=str(error), again_in=interval)
            await self._wait(stop, interval)

    async def verify(self, stop: asyncio.Event | None = None) -> Report:
        """One run; it ends unfinished when `stop` is set.

        Raises:
            Disconnected, RetryLater: Redis or the database does not answer now. What was repaired stays.
            ConfigError: the client of Redis is not installed.
        """
        redis = connect(self._settings, "headrace-cache-verifier")
        try:
            async with self._truth:
                run = Verification(redis, self._truth, self._keys, self._clock, dry_run=self._dry_run)
                report = await run.run(self._settings.verify_timeout, stop or asyncio.Event())
        finally:
            await close(redis)
        self._last, self._trouble = report, ""
        done = {"checked": report.checked, "added": report.added, "changed": report.changed, "removed": report.removed}
        self._counts.update({"runs": 1, **done})
        for finding, count in report.findings.items():
            self._metrics.count("headrace_cache_keys_total", count, finding=finding)
        if report.complete:
            self._metrics.set("headrace_cache_verified_timestamp_seconds", self._clock.now_ms() / 1000)
        (logger.info if report.complete else logger.warning)("cache_verified", **report.as_json())
        return report

    async def _wait(self, stop: asyncio.Event, seconds: float) -> None:
        waits = [asyncio.ensure_future(self._clock.sleep(seconds)), asyncio.ensure_future(stop.wait())]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
