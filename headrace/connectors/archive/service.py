"""Runs the archive job every day, beside the sinks."""

import asyncio
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import structlog

from headrace.connectors.archive.job import ArchiveJob
from headrace.connectors.archive.run_report import ArchiveBusy, NeedsConfirmation, RunReport
from headrace.connectors.archive.settings import ArchiveSettings
from headrace.engine.cancel import cancel_and_wait
from headrace.engine.clock import Clock
from headrace.engine.collectors import Reads
from headrace.engine.errors import HeadraceError
from headrace.engine.metrics import Metrics

DAY_MS = 86_400_000
#: Seconds between two looks at the clock: a machine that slept, or whose clock was set, is noticed within these.
LOOK = 30.0
#: Seconds until a run that found the database or the store away, or another run at work, is tried again.
AGAIN = 900.0

logger = structlog.get_logger(__name__)


class ArchiveService:
    """Runs `ArchiveJob` once a day. A day that was missed is made up for at once.

    Whether today's run was is told by the database, so that a restart does not run it again, and two of these run it
    once.

    Args:
        job: what to run.
        settings: when.
        metrics: told of what was done.
    """

    name = "archive"

    def __init__(
        self, job: ArchiveJob, settings: ArchiveSettings, clock: Clock, metrics: Metrics | None = None
    ) -> None:
        self._job = job
        self._settings = settings
        self._clock = clock
        self._metrics = metrics or Metrics()
        self._state = "waiting"
        self._total = RunReport()
        self._runs = 0
        self._last_ms: int | None = None
        self._trouble = ""

    async def run(self, stop: asyncio.Event) -> None:
        """Work until `stop` is set. A run that is at work then is broken off, as safely as by kill -9."""
        working = asyncio.create_task(self._run())
        stopping = asyncio.create_task(stop.wait())
        try:
            await asyncio.wait([working, stopping], return_when=asyncio.FIRST_COMPLETED)
        finally:
            await cancel_and_wait(working, stopping)
        if not working.cancelled():
            working.result()

    async def _run(self) -> None:
        while True:
            await self._clock.sleep(await self._look())

    async def _look(self) -> float:
        """Run if it is time; seconds until the next look."""
        try:
            if await self._due():
                self._state = "running"
                self._note(await self._job.run())
        except ArchiveBusy:
            return AGAIN
        except HeadraceError as error:
            # A wrong configuration too: whoever stores must go on, and this is said once more every time.
            self._failed(error)
            return AGAIN
        finally:
            self._state = "waiting"
        return LOOK

    async def _due(self) -> bool:
        """Whether no run has begun since the newest time of day at which one should."""
        now_ms, second = self._clock.now_ms(), self._settings.second_of_day
        newest_ms = (now_ms - second * 1000) // DAY_MS * DAY_MS + second * 1000
        if self._last_ms is None or self._last_ms < newest_ms:
            self._last_ms = await self._job.last_run_ms()
        return self._last_ms is None or self._last_ms < newest_ms

    def _note(self, report: RunReport) -> None:
        self._runs += 1
        self._last_ms = self._clock.now_ms()
        for name in ("parts", "rows", "bytes", "duplicates", "conflicts"):
            setattr(self._total, name, getattr(self._total, name) + getattr(report, name))
        self._total.failures += report.failures
        self._trouble = report.failures[0] if report.failures else ""
        self._metrics.count("headrace_archive_rows_total", report.rows)
        self._metrics.count("headrace_archive_failures_total", len(report.failures))
        if not report.failures:
            self._metrics.set("headrace_archive_finished_timestamp_seconds", self._last_ms / 1000)
        logger.debug("archive_finished", parts=report.parts, rows=report.rows, failures=len(report.failures))

    def _failed(self, error: HeadraceError) -> None:
        note = logger.debug if str(error) == self._trouble else logger.error
        note("archive_failed", reason=str(error), again_in=AGAIN, confirm=isinstance(error, NeedsConfirmation))
        self._trouble = str(error)
        self._metrics.count("headrace_archive_failures_total")

    async def status(self) -> Mapping[str, Any]:
        """What it does now, for one line."""
        last = {} if self._last_ms is None else {"last run": _iso(self._last_ms)}
        return {"archived": self._total.rows, "state": self._state, **last, **self._why}

    def statistics(self) -> Mapping[str, Any]:
        """What it has done."""
        total = self._total
        counts = {"rows": total.rows, "parts": total.parts, "duplicates": total.duplicates}
        return {"runs": self._runs, **counts, "conflicts": total.conflicts, "last_error": self._trouble}

    @property
    def _why(self) -> Mapping[str, str]:
        return {"why": self._trouble} if self._trouble else {}

    @property
    def reads(self) -> Reads | None:
        """Nothing: it takes rows from the database."""
        return None


def _iso(time_ms: int) -> str:
    return datetime.fromtimestamp(time_ms / 1000, UTC).strftime("%Y-%m-%dT%H:%MZ")
