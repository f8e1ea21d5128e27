"""Typed queries over what the sink stored."""

from collections.abc import AsyncIterator, Mapping, Sequence
from types import TracebackType
from typing import Any, Self

from headrace.connectors.timescale import fleet_bins, latest, sigma
from headrace.connectors.timescale.answers import (
    BinnedHistory,
    FleetBins,
    Latest,
    Outliers,
    RawHistory,
    Source,
)
from headrace.connectors.timescale.history import DeviceHistory
from headrace.connectors.timescale.history_archive import HistoryArchive
from headrace.connectors.timescale.query_catalog import Catalog
from headrace.connectors.timescale.query_pool import QueryError, QueryPool
from headrace.connectors.timescale.record_queries import PAGE, RecordQueries
from headrace.engine.clock import Clock
from headrace.engine.intake import MINUTE_MS
from headrace.schemas.window import UTC, parse_duration

#: Seconds that one statement may take.
TIMEOUT = 30.0


class Store(RecordQueries):
    """Answers from TimescaleDB or PostgreSQL, for as long as the `async with` lasts; safe for many tasks at once.

    Reads only. An answer that takes several statements is of one moment. Every answer has `about`: its resolution, its
    sources, and what it can lack. Times are ms since 1970 UTC.

    Args:
        connect: keyword arguments for `asyncpg.connect`.
        clock: says what time it is where nothing else does.
        grace: how late a reading may be and still correct a window, seconds: `[rollup] grace` of the worker.
        archive: where readings are that the database has no more.
        timeout: seconds that one statement may take.
        connections: most at once.
    Raises:
        QueryError: from every method: what is asked for does not exist, or cannot be.
        QueryTimeout, Disconnected, RetryLater: likewise: the database took too long, is gone, or has no room.
    """

    def __init__(
        self,
        connect: Mapping[str, Any],
        clock: Clock,
        *,
        grace: float = 300.0,
        archive: HistoryArchive | None = None,
        timeout: float = TIMEOUT,
        connections: int = 4,
    ) -> None:
        super().__init__(QueryPool(connect, timeout=timeout, size=connections), clock)
        self._grace_ms = round(grace * 1000)
        self._archive = archive
        self._catalog = Catalog(self._pool, clock)

    async def __aenter__(self) -> Self:
        await self._pool.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._pool.close()

    async def device_types(self) -> list[str]:
        """The types of which something is stored."""
        return await self._catalog.device_types()

    async def as_of_ms(self) -> int:
        """What the data know of the time: the end of the minute of the newest append that is stored, at most now."""
        return await self._newest_append_ms() or self._clock.now_ms()

    async def latest(
        self,
        device_ids: Sequence[str] | None = None,
        metrics: Sequence[str] = (),
        *,
        device_type: str | None = None,
        within: float = latest.WITHIN,
        as_of_ms: int | None = None,
        below: float | None = None,
        above: float | None = None,
    ) -> Latest:
        """The newest value of each metric, of chosen devices or all of a type. Costs a probe of the index per device.

        Args:
            metrics: all that the type has, if none are named.
            device_type: needed for all devices; else that of the first device.
            within: how long before `as_of_ms` a value may be, seconds.
            as_of_ms: values after this are ignored; now, or when the newest stored message came, unless given.
            below, above: devices only of which one of the metrics is; the newest value counts.
        """
        if device_type is None and not device_ids:
            raise QueryError("name devices, or the device type of which all are meant")
        if device_type is not None:
            table = await self._catalog.table(device_type, metrics)
        else:
            assert device_ids
            table = await self._catalog.of_device(device_ids[0], None, metrics)
        return await latest.latest(
            self._pool, table, device_ids, metrics, now_ms=self._clock.now_ms(), as_of_ms=as_of_ms, within=within,
            below=below, above=above,
        )  # fmt: skip

    async def history(
        self,
        device_id: str,
        start_ms: int,
        end_ms: int,
        aggregation: str,
        metrics: Sequence[str] = (),
        *,
        zone: str = UTC,
        device_type: str | None = None,
        source: Source | None = None,
    ) -> BinnedHistory:
        """Average, minimum, maximum and count of each metric in every bin that start <= time < end touches.

        Args:
            aggregation: width of the bins: 1m, 5m, 15m, 1h or 1d.
            zone: where days begin, IANA name.
            source: "readings" to aggregate readings only; else windows of the stream where they say the same.
        """
        about = await self._device(device_id, device_type, metrics)
        return await about.binned(start_ms, end_ms, aggregation, zone, source=source)

    async def raw(
        self,
        device_id: str,
        start_ms: int,
        end_ms: int,
        metrics: Sequence[str] = (),
        *,
        limit: int = PAGE,
        cursor: str | None = None,
        device_type: str | None = None,
    ) -> RawHistory:
        """A page of the readings with start <= time < end that have one of the metrics, by time; at most 90 days."""
        about = await self._device(device_id, device_type, metrics)
        return await about.raw(start_ms, end_ms, limit, cursor)

    async def stream(
        self,
        device_id: str,
        start_ms: int,
        end_ms: int,
        metrics: Sequence[str] = (),
        *,
        limit: int = PAGE,
        device_type: str | None = None,
    ) -> AsyncIterator[RawHistory]:
        """All pages of `raw`, of one moment; memory for one. `contextlib.aclosing` it unless it is exhausted."""
        about = await self._device(device_id, device_type, metrics)
        async for page in about.pages(start_ms, end_ms, limit, None):
            yield page

    async def bins(
        self,
        device_type: str,
        metric: str,
        start_ms: int,
        end_ms: int,
        width: str = "15m",
        *,
        device_ids: Sequence[str] | None = None,
        below: float | None = None,
        above: float | None = None,
    ) -> FleetBins:
        """Bins of one metric of all devices of a type, or of chosen ones; of the readings.

        Args:
            width: a number and s, m, h or d.
            below, above: bins only whose average is.
        """
        table = await self._catalog.table(device_type, [metric])
        return await fleet_bins.fleet_bins(
            self._pool, table, metric, device_ids, start_ms=start_ms, end_ms=end_ms, bin_ms=_width(width),
            now_ms=self._clock.now_ms(), grace_ms=self._grace_ms, below=below, above=above,
        )  # fmt: skip

    async def sigma(
        self,
        device_type: str,
        metric: str,
        *,
        device_ids: Sequence[str] | None = None,
        end_ms: int | None = None,
        window: float = sigma.WINDOW,
        recent: float = sigma.RECENT,
        sigmas: float = sigma.SIGMAS,
    ) -> Outliers:
        """Values of the last `recent` seconds that are more than `sigmas` standard deviations from the device's mean.

        Both are of the sample of `window` seconds; up to `end_ms`, or else as of the data.
        """
        table = await self._catalog.table(device_type, [metric])
        as_of = await self._newest_append_ms()
        end = end_ms if end_ms is not None else as_of or self._clock.now_ms()
        return await sigma.sigma(
            self._pool, table, metric, device_ids, end_ms=end, window=window, recent=recent, sigmas=sigmas,
            as_of_ms=as_of, grace_ms=self._grace_ms,
        )  # fmt: skip

    async def _device(self, device_id: str, device_type: str | None, metrics: Sequence[str]) -> DeviceHistory:
        table = await self._catalog.of_device(device_id, device_type, metrics)
        return DeviceHistory(
            self._pool, table, device_id, metrics, self._archive, self._grace_ms, self._catalog.windowed
        )

    async def _newest_append_ms(self) -> int | None:
        (row,) = await self._pool.fetch("SELECT max(minute) FROM ledger")
        return None if row[0] is None else min(row[0] + MINUTE_MS, self._clock.now_ms())


def _width(text: str) -> int:
    try:
        return parse_duration(text)
    except ValueError as error:
        raise QueryError(str(error)) from error
