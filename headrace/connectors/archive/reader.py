"""Readings out of the archive, for a history that reaches further back than the database does."""

import asyncio
from collections.abc import Mapping
from datetime import date
from typing import Any

import asyncpg
import numpy as np
import orjson
import polars as pl

from headrace.connectors.archive import parts
from headrace.connectors.archive.dataset import READINGS
from headrace.connectors.archive.late import PLAIN
from headrace.connectors.archive.object_store import ObjectStore, translated
from headrace.connectors.archive.parquet import KEY
from headrace.connectors.archive.parts import Part, moment
from headrace.connectors.timescale import errors
from headrace.schemas.readings import Readings

#: Longest wait for the database, seconds.
CONNECT_TIMEOUT = 10.0
#: The years 1 to 9999: what a calendar has.
_FIRST_MS, _LAST_MS = -62_135_596_800_000, 253_402_300_800_000 - 1
_KEY = ["device_id", "time"]


class ArchiveReader:
    """Reads what `ArchiveJob` wrote. A `HistoryArchive`.

    Goes by the table `archive_parts`, so that nothing of a run that is at work is taken for archived. Of each part only
    the row groups are read that may hold the device and the time. Memory: the rows asked for, and one row group.

    Who joins archive and database reads the database first, and takes its row where both have one: rows move from the
    database to the archive, and nothing is then missed.

    Args:
        connect: keyword arguments for `asyncpg.connect`.
    """

    def __init__(self, connect: Mapping[str, Any], store: ObjectStore) -> None:
        self._connect = {"timeout": CONNECT_TIMEOUT, **connect}
        self._store = store
        self._connection: asyncpg.Connection | None = None
        self._turn = asyncio.Lock()

    async def close(self) -> None:
        """Let go of the connection, which is made when it is first needed."""
        if self._connection is not None:
            self._connection.terminate()
            self._connection = None

    async def device_types(self) -> list[str]:
        """Types of which the archive has readings, in order.

        Raises:
            Disconnected, RetryLater: the database does not answer now.
        """
        found = await self._parts()
        return sorted({part.place.device_type for part in found if part.place.device_type is not None})

    async def read(self, device_type: str, device_id: str, start_ms: int, end_ms: int) -> Readings:
        """Readings with `start_ms` <= time < `end_ms`, by time; one for each time.

        A reading that another completed has what both say.

        Raises:
            Disconnected, RetryLater: database or object store do not answer now.
        """
        frames = []
        start_ms, end_ms = max(start_ms, _FIRST_MS), min(end_ms, _LAST_MS)
        if start_ms < end_ms:
            days = (_day(start_ms), _day(end_ms - 1))
            for part in await self._parts(device_type, days, (device_id, device_id)):
                frame = await asyncio.to_thread(self._scan, part, device_id, start_ms, end_ms)
                if frame.height:
                    frames.append(frame)
        merged = merge(frames)
        return _readings(device_type, merged)

    async def _parts(self, device_type: str | None = None, days: Any = None, groups: Any = None) -> list[Part]:
        async with self._turn:
            with errors.translated():
                if self._connection is None or self._connection.is_closed():
                    self._connection = await asyncpg.connect(**self._connect)
                if await self._connection.fetchval("SELECT to_regclass('archive_parts') IS NULL"):
                    return []
                return await parts.archived(self._connection, READINGS, device_type, days, groups)

    def _scan(self, part: Part, device_id: str, start_ms: int, end_ms: int) -> pl.DataFrame:
        assert part.object is not None
        path, options = self._store.scan(part.object)
        time = pl.col("time")
        wanted = (pl.col("device_id") == device_id) & (time >= moment(start_ms)) & (time < moment(end_ms))
        with translated():
            try:
                said = orjson.loads(pl.read_parquet_metadata(path, storage_options=options).get(KEY, "{}"))
                # Only which file it is; that all its bytes are right is for `headrace archive verify`.
                if said.get("content_sha256") != part.content.hex():
                    raise OSError("another file is in its place")
                scan = pl.scan_parquet(path, storage_options=options, glob=False, hive_partitioning=False)
                return scan.filter(wanted).collect()
            # polars panics on some damaged files.
            except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError, ValueError) as error:
                raise OSError(f"{part.object} cannot be read, see `headrace archive verify`: {error}") from error


def merge(frames: list[pl.DataFrame]) -> pl.DataFrame:
    """The rows of several parts as one, by device and time; of two with the same, the older is completed by the newer.

    Args:
        frames: in the order in which the parts were made.
    """
    if len(frames) < 2:
        return frames[0] if frames else pl.DataFrame()
    rows = pl.concat(frames, how="diagonal")
    again = rows.filter(rows.select(_KEY).is_duplicated())
    if not again.height:
        return rows.sort(_KEY, maintain_order=True)
    first = [pl.col(name).drop_nulls().first() for name in rows.columns if name not in (*_KEY, "extra")]
    whole = again.group_by(_KEY, maintain_order=True).agg(*first, pl.col("extra"))
    extras = pl.Series("extra", [_join(each) for each in whole["extra"].to_list()], dtype=pl.String)
    whole = whole.with_columns(extras)
    alone = rows.filter(rows.select(_KEY).is_unique())
    return pl.concat([alone, whole.select(rows.columns)]).sort(_KEY)


def _join(extras: list[str | None]) -> str | None:
    joined: dict[str, Any] = {}
    for extra in extras:
        joined = (orjson.loads(extra) if extra else {}) | joined
    return orjson.dumps(joined).decode() if joined else None


def _readings(device_type: str, frame: pl.DataFrame) -> Readings:
    n = frame.height
    if not n:
        return Readings(device_type, np.arange(0), [], np.arange(0), [], {})
    measures = {name: frame[name].fill_null(float("nan")).to_numpy() for name in frame.columns if name not in PLAIN}
    extras = [orjson.loads(extra) if extra else None for extra in frame["extra"]]
    return Readings(
        device_type,
        np.arange(n),
        frame["device_id"].to_list(),
        frame["time"].to_physical().to_numpy() // 1000,
        frame["message_id"].to_list(),
        {name: column for name, column in measures.items() if not np.isnan(column).all()},
        extras if any(extras) else None,
    )


def _day(time_ms: int) -> date:
    return moment(time_ms).date()
