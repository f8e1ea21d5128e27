"""Moves rows that are older than their retention from the database into the archive."""

from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import aclosing, asynccontextmanager
from datetime import date
from itertools import groupby
from typing import Any

import asyncpg
import structlog

from headrace.connectors.archive import parts
from headrace.connectors.archive.dataset import Dataset
from headrace.connectors.archive.due import Due, datasets, due
from headrace.connectors.archive.erase import RowsChanged, Verified, drop_day, erase
from headrace.connectors.archive.object_store import ObjectStore
from headrace.connectors.archive.parquet import ArchiveDamaged
from headrace.connectors.archive.parts import Part
from headrace.connectors.archive.run_report import ArchiveBusy, RunReport, begin_run, check_usual, finish_run
from headrace.connectors.archive.settings import RetentionSettings
from headrace.connectors.archive.writing import PartWriter, Step
from headrace.connectors.timescale.errors import GONE, translated
from headrace.connectors.timescale.migrations import MIGRATIONS, packaged
from headrace.connectors.timescale.schema import SchemaKeeper
from headrace.engine.clock import Clock
from headrace.engine.errors import RetryLater

#: Advisory lock of the run that is at work, "archive" in ASCII.
LOCK = int.from_bytes(b"archive")
#: Times that a day whose rows changed meanwhile is tried.
TRIES = 3
#: How values look in texts, whatever the server's defaults are: digests are made of them.
SESSION = {"timezone": "UTC", "bytea_output": "hex", "extra_float_digits": "1", "jit": "off"}

logger = structlog.get_logger(__name__)


class ArchiveJob:
    """One run after the other, over everything that is due. Only one is at work on a database at a time.

    Two phases: a day's rows are written as parts, read back and compared with the database; then each part's rows are
    deleted, if they are still the same. Interrupted anywhere it leaves every row in the database, or in the archive and
    deleted by the same transaction that says so. See test_killed_at_every_step.

    Args:
        connect: keyword arguments for `asyncpg.connect`.
        device_types: names of those that are known.
        part_rows: rows of a part, at most.
        schema: who makes tables.
        step: told of each step; for tests.
        on_part: called with each part whose rows were deleted.
    """

    def __init__(
        self,
        connect: Mapping[str, Any],
        store: ObjectStore,
        retention: RetentionSettings,
        clock: Clock,
        device_types: Iterable[str] = (),
        *,
        part_rows: int = 100_000,
        schema: SchemaKeeper | None = None,
        step: Step = lambda name: None,
        on_part: Callable[[Part], None] = lambda part: None,
    ) -> None:
        settings = {**connect.get("server_settings", {}), "application_name": "headrace archive", **SESSION}
        self._connect = {"timeout": 10.0, **connect, "server_settings": settings}
        self._store = store
        self._retention = retention
        self._clock = clock
        self._device_types = list(device_types)
        self._part_rows = part_rows
        self._schema = schema or SchemaKeeper()
        self._step = step
        self._on_part = on_part

    async def plan(self, before: date | None = None, *, now_ms: int | None = None, estimate: bool = False) -> list[Due]:
        """What a run would move; changes nothing.

        Args:
            before: only days before this one.
            now_ms: as of then; now if left out.
            estimate: look at a sample of large tables.
        """
        with translated():
            async with self._connected() as connection:
                if await connection.fetchval("SELECT to_regclass('archive_parts') IS NULL"):
                    await self._bring_up(connection)
                return await self._due(connection, before, now_ms, estimate)

    async def run(self, before: date | None = None, *, confirmed: bool = False) -> RunReport:
        """Archive everything that is due.

        Args:
            before: only days before this one.
            confirmed: however much that is.
        Raises:
            ArchiveBusy: another run is at work.
            NeedsConfirmation: it is far more than usual; nothing was done.
            ConfigError: a table cannot be archived as it is.
            Disconnected, RetryLater: the database does not answer now.
        """
        with translated():
            async with self._connected() as connection, self._connected() as reading:
                await self._bring_up(connection)
                if not await connection.fetchval("SELECT pg_try_advisory_lock($1)", LOCK):
                    raise ArchiveBusy("another archive run is at work on this database; wait until it is done")
                try:
                    return await self._locked(connection, reading, before, confirmed)
                finally:
                    if not connection.is_closed():
                        await connection.execute("SELECT pg_advisory_unlock($1)", LOCK)

    async def last_run_ms(self) -> int | None:
        """When the newest run began, by whoever; None if there was none."""
        with translated():
            async with self._connected() as connection:
                await self._bring_up(connection)
                found = await connection.fetchval(
                    "SELECT max(started_at) FROM archive_runs WHERE finished_at IS NOT NULL"
                )
        return None if found is None else round(found.timestamp() * 1000)

    async def _bring_up(self, connection: asyncpg.Connection) -> None:
        await self._schema.bring_up(connection, packaged(MIGRATIONS), [])

    async def _locked(
        self, connection: asyncpg.Connection, reading: asyncpg.Connection, before: date | None, confirmed: bool
    ) -> RunReport:
        report = RunReport()
        started_ms = self._clock.now_ms()
        await self._discard(connection, report)
        planned = await self._due(connection, before)
        if not confirmed:
            await check_usual(connection, sum(each.rows for each in planned), self._retention.shrink)
        run_id = await begin_run(connection, started_ms)
        writer = PartWriter(connection, reading, self._store, self._clock, self._part_rows, self._step)
        try:
            for _, group in groupby(planned, key=lambda each: (each.dataset.label, each.day)):
                if not await self._day(connection, writer, list(group), report):
                    break
        finally:
            if not connection.is_closed():
                await finish_run(connection, run_id, report, self._clock.now_ms())
        return report

    async def _day(
        self, connection: asyncpg.Connection, writer: PartWriter, of_day: list[Due], report: RunReport
    ) -> bool:
        """Archive one day of one dataset; whether it makes sense to go on with others."""
        label = f"{of_day[0].dataset.label} {of_day[0].day}"
        for left in reversed(range(TRIES)):
            try:
                await self._move(connection, writer, of_day, report)
                return True
            except RowsChanged as error:
                logger.info("archive_rows_changed", day=label, reason=str(error), again=left > 0)
                problem: Exception = error
            except ArchiveDamaged as error:
                problem = error
                break
            except RetryLater as error:
                self._fail(report, label, error)
                return False
            except asyncpg.PostgresError as error:
                if (error.sqlstate or "").startswith(GONE):
                    raise
                problem = error
                break
            finally:
                if not connection.is_closed():
                    await self._discard(connection, report, quietly=True)
        self._fail(report, label, problem)
        return True

    async def _move(
        self, connection: asyncpg.Connection, writer: PartWriter, of_day: list[Due], report: RunReport
    ) -> None:
        dataset = of_day[0].dataset
        made: list[tuple[Part, Verified]] = []
        for each in of_day:
            async with aclosing(writer.parts(each)) as written:
                made += [part async for part in written]
        if not made:
            return
        whole = await drop_day(connection, dataset, [rows for _, rows in made], self._clock.now_ms())
        for part, rows in made:
            if not whole:
                self._step("deleting")
                await erase(connection, dataset, rows, self._clock.now_ms())
            self._step("deleted")
            self._count(report, part)

    def _count(self, report: RunReport, part: Part) -> None:
        report.parts += part.object is not None
        report.rows += part.rows
        report.bytes += part.size
        report.duplicates += part.duplicates
        report.conflicts += part.conflicts
        self._on_part(part)

    async def _discard(self, connection: asyncpg.Connection, report: RunReport, *, quietly: bool = False) -> None:
        """Throw away parts whose rows are still in the database."""
        for part_id, name in await parts.unfinished(connection):
            try:
                if name is not None:
                    await self._store.delete(name)
            except RetryLater as error:
                if not quietly:
                    self._fail(report, name or "", error)
                return
            self._step("discarded")
            await parts.forget(connection, part_id)
            report.discarded += not quietly

    async def _due(
        self, connection: asyncpg.Connection, before: date | None, now_ms: int | None = None, estimate: bool = False
    ) -> list[Due]:
        now_ms = self._clock.now_ms() if now_ms is None else now_ms
        found: list[Due] = []
        for dataset in await self.datasets(connection):
            found += await due(connection, dataset, self._retention, now_ms, before, estimate=estimate)
        return found

    async def datasets(self, connection: asyncpg.Connection) -> list[Dataset]:
        """Everything in the database that can be archived."""
        return await datasets(connection, self._device_types)

    def _fail(self, report: RunReport, what: str, error: Exception) -> None:
        report.failures.append(f"{what}: {error}")
        logger.error("archive_failed", what=what, reason=str(error))

    @asynccontextmanager
    async def _connected(self) -> AsyncIterator[asyncpg.Connection]:
        connection = await asyncpg.connect(**self._connect)
        try:
            yield connection
        finally:
            connection.terminate()
