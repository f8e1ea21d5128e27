"""History of one device: raw, or in bins, of which each comes from where it is right."""

import math
from collections.abc import AsyncIterator, Sequence

import numpy as np

from headrace.connectors.timescale.answers import (
    About,
    BinnedHistory,
    Completeness,
    RawHistory,
    Source,
    Stretch,
)
from headrace.connectors.timescale.bin_grid import WIDTHS, BinGrid
from headrace.connectors.timescale.binned import Binned, stretches
from headrace.connectors.timescale.history_archive import HistoryArchive
from headrace.connectors.timescale.history_readings import DeviceReadings
from headrace.connectors.timescale.history_rollups import Progress, progress, rollup_bins
from headrace.connectors.timescale.query_catalog import TypeTable
from headrace.connectors.timescale.query_pool import QueryError, QueryPool, Reads, Snapshot
from headrace.schemas.readings import Ints
from headrace.schemas.window import DAY_MS, UTC

#: Longest range of raw readings in one request, days: as the seed documents' API.
MOST_RAW_DAYS = 90
#: Most readings of one page.
MOST_ROWS = 100_000
#: More separate stretches than this are asked of the readings as one.
MOST_STRETCHES = 500
_SOURCES: Sequence[Source] = ("rollups", "readings", "archive")
_ROLLUPS, _READINGS, _ARCHIVE = range(3)


class DeviceHistory:
    """Answers about one device.

    Args:
        archive: where readings are that the database has no more.
        grace_ms: how late a reading may be and still correct a window, ms.
        windowed: device types and bins that have windows, as far as is known.
    """

    def __init__(
        self,
        pool: QueryPool,
        table: TypeTable,
        device_id: str,
        metrics: Sequence[str],
        archive: HistoryArchive | None,
        grace_ms: int,
        windowed: set[tuple[str, str]],
    ) -> None:
        self._pool = pool
        self._table = table
        self._device_id = device_id
        self._metrics = table.chosen(metrics)
        self._archive = archive
        self._grace_ms = grace_ms
        self._windowed = windowed

    async def pages(self, start_ms: int, end_ms: int, limit: int, cursor: str | None) -> AsyncIterator[RawHistory]:
        """All readings of the range in pages, of one snapshot; holds a connection until it is exhausted or closed."""
        at = _position(cursor, start_ms, end_ms)
        self._check(start_ms, end_ms, limit)
        async with self._pool.snapshot() as connection:
            while True:
                page = await self._page(connection, start_ms, end_ms, limit, at)
                yield page
                if page.cursor is None:
                    return
                at = int(page.cursor)

    async def raw(self, start_ms: int, end_ms: int, limit: int, cursor: str | None) -> RawHistory:
        """One page."""
        at = _position(cursor, start_ms, end_ms)
        self._check(start_ms, end_ms, limit)
        if self._archive is None:
            # The readings are one statement; what is said of them is of just before, and so claims no more than is so.
            return await self._page(self._pool, start_ms, end_ms, limit, at)
        async with self._pool.snapshot() as connection:
            return await self._page(connection, start_ms, end_ms, limit, at)

    @staticmethod
    def _check(start_ms: int, end_ms: int, limit: int) -> None:
        if end_ms - start_ms > MOST_RAW_DAYS * DAY_MS:
            raise QueryError(
                f"raw history is limited to {MOST_RAW_DAYS} days per request, and this is "
                f"{math.ceil((end_ms - start_ms) / DAY_MS):,}: ask in parts, or for bins ({', '.join(WIDTHS)})"
            )
        if not 0 < limit <= MOST_ROWS:
            raise QueryError(f"limit must be 1 to {MOST_ROWS:,}, not {limit}")

    async def _page(self, connection: Reads, start_ms: int, end_ms: int, limit: int, at: int) -> RawHistory:
        known = await self._progress(connection, BinGrid.over(start_ms, end_ms, "1d"))
        times, values, archived = await self._reader(connection).raw(at, end_ms, limit + 1)
        more = len(times) > limit
        sources = [Stretch("archive", at, end_ms)] if archived else []
        sources.append(Stretch("readings", at, end_ms))
        final = None if known.newest_ms is None else known.newest_ms - self._grace_ms
        return RawHistory(
            self._device_id,
            self._table.device_type,
            start_ms,
            end_ms,
            times[:limit],
            dict(zip(self._metrics, values[:, :limit], strict=True)),
            str(int(times[limit])) if more else None,
            About("raw", tuple(sources), _completeness(known, start_ms, final, 0, more)),
        )

    async def binned(
        self, start_ms: int, end_ms: int, width: str, zone: str = UTC, *, source: Source | None = None
    ) -> BinnedHistory:
        """Every bin that the range touches.

        Args:
            source: "readings": of readings alone. None: of rollups where they are as right as readings.
        """
        if source not in (None, "readings"):
            raise QueryError(f"source must be readings, or nothing for the fastest that is right; not {source!r}")
        grid = BinGrid.over(start_ms, end_ms, width, zone)
        windowed = (self._table.device_type, grid.name)
        known = None
        if self._archive is None and (source is not None or windowed not in self._windowed):
            # As in `raw`: without windows the bins are one statement.
            known = await self._progress(self._pool, grid)
            if source is None and known.window is not None:
                self._windowed.add(windowed)
                known = None
        if known is not None:
            found, _ = await self._reader(self._pool).bins(grid, np.ones(len(grid), dtype=bool))
            origin = np.full(len(grid), _READINGS)
        else:
            async with self._pool.snapshot() as connection:
                known = await self._progress(connection, grid)
                if known.window is None:
                    self._windowed.discard(windowed)
                found, origin = await self._joined(connection, grid, known, source)
        empty = int((found.total() == 0).sum())
        sources = tuple(
            Stretch(name, int(grid.edges[first]), int(grid.edges[behind]))
            for code, name in enumerate(_SOURCES)
            for first, behind in stretches(origin == code)
        )
        ordered = tuple(sorted(sources, key=lambda stretch: stretch.start_ms or 0))
        final = None if known.newest_ms is None else _edge_before(grid, known.newest_ms - self._grace_ms)
        return BinnedHistory(
            self._device_id,
            self._table.device_type,
            grid.start_ms,
            grid.end_ms,
            zone if width == "1d" else UTC,
            grid.edges[:-1],
            found.bins(self._metrics),
            About(width, ordered, _completeness(known, grid.start_ms, final, empty, False)),
        )

    async def _joined(
        self, connection: Snapshot, grid: BinGrid, known: Progress, source: Source | None
    ) -> tuple[Binned, Ints]:
        """Bins from windows, readings and archive, and which of `_SOURCES` each is from."""
        reader, device_type = self._reader(connection), self._table.device_type
        if source is not None:
            found, archived = await reader.bins(grid, np.ones(len(grid), dtype=bool))
            return found, np.where(archived, _ARCHIVE, _READINGS)
        found, believed, some = await rollup_bins(connection, known, device_type, self._device_id, self._metrics, grid)
        wanted = ~believed
        parts = stretches(wanted)
        if len(parts) > MOST_STRETCHES:
            wanted[parts[0][0] : parts[-1][1]] = True
        read, archived = await reader.bins(grid, wanted)
        # Where readings are gone from the database, whoever knows more of them is right.
        kept_from = grid.end_ms if known.oldest_ms is None else known.oldest_ms
        gone = some & (grid.edges[:-1] < kept_from) & (found.total() > read.total())
        found.take(read, wanted & ~gone)
        return found, np.where(wanted & ~gone, np.where(archived, _ARCHIVE, _READINGS), _ROLLUPS)

    async def _progress(self, connection: Reads, grid: BinGrid) -> Progress:
        return await progress(
            connection, self._table.name, self._table.device_type, self._device_id, grid, self._grace_ms
        )

    def _reader(self, connection: Reads) -> DeviceReadings:
        return DeviceReadings(connection, self._table, self._device_id, self._metrics, self._archive)


def _completeness(known: Progress, start_ms: int, final_ms: int | None, empty: int, more: bool) -> Completeness:
    reaches = known.oldest_ms is None or start_ms < known.oldest_ms
    return Completeness(known.as_of_ms, final_ms, empty, known.oldest_ms, reaches, more)


def _edge_before(grid: BinGrid, time_ms: int) -> int | None:
    """The last end of a bin that is not after a time; None if all are."""
    place = int(grid.edges.searchsorted(time_ms, side="right")) - 1
    return int(grid.edges[place]) if place > 0 else None


def _position(cursor: str | None, start_ms: int, end_ms: int) -> int:
    if not start_ms < end_ms:
        raise QueryError("the range is empty: start must be before end")
    if cursor is None:
        return start_ms
    if not (cursor.removeprefix("-").isdecimal() and start_ms <= int(cursor) < end_ms):
        raise QueryError(f"cursor: {cursor!r} is none that an answer for this range gave")
    return int(cursor)
