"""A database with readings, an archive beside it, and what the two hold together."""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID, uuid5

import asyncpg
import numpy as np
import orjson

from headrace.connectors.archive.job import ArchiveJob
from headrace.connectors.archive.object_store import ArchiveStore, ObjectStore, open_store
from headrace.connectors.archive.reader import ArchiveReader
from headrace.connectors.archive.settings import ArchiveSettings, RetentionSettings
from headrace.connectors.timescale.migrations import migrate, packaged
from headrace.connectors.timescale.readings_table import ReadingsTable, TableSpec
from headrace.engine.clock import ManualClock
from tests.databases import Connect

AIR = TableSpec("air", ("co2", "temperature"))
#: 2024-03-01, 00:00 UTC, ms; and a moment 100 days later.
T0 = 1_709_251_200_000
NOW = T0 + 100 * 86_400_000 + 7_200_000
HOUR = 3_600_000
DAY = 24 * HOUR
NAMESPACE = UUID(int=7)

Row = tuple[str, int, float | None, float | None, dict[str, Any] | None]


def message_id(device_id: str, time_ms: int, salt: str = "") -> UUID:
    return uuid5(NAMESPACE, f"{device_id} {time_ms} {salt}")


def air(devices: int = 3, days: int = 2, per_day: int = 4, organisation: str | None = None) -> list[Row]:
    """Rows of type `air` from T0 on, with values that no decimal fraction has, and gaps."""
    rng = np.random.default_rng(5)
    extra = None if organisation is None else {"organisation": organisation}
    return [
        (f"{organisation or 'd'}{device}", T0 + day * DAY + turn * (DAY // per_day),
         float(rng.normal()) if rng.random() > 0.2 else None, float(rng.normal()), extra)
        for device in range(devices) for day in range(days) for turn in range(per_day)
    ]  # fmt: skip


class World:
    """See `conftest.world`."""

    def __init__(self, connect: Connect, folder: Path) -> None:
        self.connect = connect
        self.folder = folder
        self.clock = ManualClock(NOW)
        self.store: ObjectStore = open_store(ArchiveSettings(), folder)
        self.retention = RetentionSettings()

    async def open(self) -> None:
        settings = {"timezone": "Asia/Kathmandu"}  # nothing may depend on where the server is
        self.connection = await asyncpg.connect(**self.connect, server_settings=settings)
        await migrate(self.connection, [*packaged("sql"), *ReadingsTable(AIR).migrations()])

    async def close(self) -> None:
        await self.connection.close()

    def job(
        self, store: ObjectStore | None = None, step: Callable[[str], None] = lambda name: None, **more: Any
    ) -> ArchiveJob:
        retention = more.pop("retention", self.retention)
        return ArchiveJob(self.connect, store or self.store, retention, self.clock, ["air"], step=step, **more)

    def reader(self) -> ArchiveReader:
        return ArchiveReader(self.connect, self.store)

    async def insert(self, rows: Sequence[Row], salt: str = "") -> None:
        """Store rows of type `air` as the sink does."""
        await self.connection.executemany(
            "INSERT INTO readings_air (device_id, time, message_id, appended_at, co2, temperature, extra) "
            "VALUES ($1, $2, $3, $4, $5, $6, $7)",
            [
                (device, at(time), message_id(device, time, salt), at(time + 1), co2, temperature,
                 None if extra is None else orjson.dumps(extra).decode())
                for device, time, co2, temperature, extra in rows
            ],
        )  # fmt: skip

    async def stored(self) -> list[Row]:
        """Rows of type `air` in the database, in order."""
        rows = await self.connection.fetch("SELECT * FROM readings_air ORDER BY device_id, time")
        return [
            (
                row["device_id"],
                ms(row["time"]),
                row["co2"],
                row["temperature"],
                row["extra"] and orjson.loads(row["extra"]),
            )
            for row in rows
        ]

    async def archived(self, *devices: str) -> list[Row]:
        """Rows of type `air` in the archive, in order, as the reader has them."""
        found: list[Row] = []
        reader = self.reader()
        for device in devices or await self.archived_devices():
            readings = await reader.read("air", device, 0, NOW)
            for place in range(len(readings)):
                measures = readings.measures_of(place)
                extra = readings.extras[place] if readings.extras else None
                time = int(readings.times[place])
                found.append((device, time, measures.get("co2"), measures.get("temperature"), extra))
        await reader.close()
        return found

    async def archived_devices(self) -> list[str]:
        """Devices that any file of readings names."""
        import polars as pl

        names: set[str] = set()
        for name, _ in await self.store.list("readings"):
            assert isinstance(self.store, ArchiveStore)
            path, options = self.store.scan(name)
            frame = pl.scan_parquet(path, storage_options=options, glob=False, hive_partitioning=False)
            names |= set(frame.select("device_id").collect()["device_id"])
        return sorted(names)

    async def parts(self) -> list[tuple[Any, ...]]:
        """Organisation, day of the month, number, rows and state of each part."""
        rows = await self.connection.fetch(
            "SELECT organisation, extract(day FROM day)::int, number, rows, state FROM archive_parts ORDER BY part_id"
        )
        return [tuple(row) for row in rows]

    async def objects(self) -> list[str]:
        return [name for name, _ in await self.store.list()]


def at(time_ms: int) -> datetime:
    return datetime.fromtimestamp(time_ms / 1000, UTC)


def ms(moment: datetime) -> int:
    return round(moment.timestamp() * 1000)
