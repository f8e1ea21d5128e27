"""A database as a worker leaves it: readings, and what the rollup agent made of them, stored by the real sink."""

from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

import asyncpg
import numpy as np
import pytest

from headrace.agents.rollup import Rollup
from headrace.connectors.timescale.readings_table import TableSpec
from headrace.connectors.timescale.sink import TimescaleSink
from headrace.connectors.timescale.store import Store
from headrace.engine.clock import ManualClock, SystemClock
from headrace.engine.log import Fetched, TopicPartition
from headrace.engine.records import Records
from headrace.engine.testkit import drive, fetched, reading_records
from headrace.schemas import topics
from headrace.schemas.readings import Readings
from headrace.schemas.window import Window
from tests.databases import Connect

#: Midnight in UTC.
T0 = 1_699_920_000_000
GRACE = 300.0
AIR = TableSpec("air", ("co2", "temperature"))
NAN = float("nan")

#: Device, seconds after T0, measures, and those of them that an earlier reading of the same time had.
Row = tuple[str, float, Mapping[str, float]] | tuple[str, float, Mapping[str, float], Sequence[str]]


def air(rows: Sequence[Row], extra: Mapping[str, Any] | None = None) -> Records:
    """Readings of type `air`, appended at their event time or that of the newest before."""
    names = ("co2", "temperature")
    times = [T0 + round(row[1] * 1000) for row in rows]
    repeats = [list(row[3]) if len(row) > 3 else None for row in rows]
    readings = Readings(
        "air",
        np.arange(len(rows)),
        [row[0] for row in rows],
        np.array(times, dtype=np.int64),
        [str(uuid4()) for _ in rows],
        {name: np.array([row[2].get(name, NAN) for row in rows]) for name in names},
        [dict(extra) if extra else None for _ in rows] if extra else None,
        repeats if any(repeats) else None,
    )
    return reading_records(readings, np.maximum.accumulate(times).tolist() if times else [])


@dataclass
class World:
    """A sink that can be filled, and a store on the same database.

    Args:
        database: as arguments for `asyncpg.connect`.
    """

    database: Connect
    sink: TimescaleSink
    clock: ManualClock
    offsets: Counter[str] = field(default_factory=Counter)

    async def write(self, topic: str, records: Records) -> None:
        """Store records behind those before."""
        if len(records):
            await self.sink.write([self._next(topic, records)])

    async def fill(
        self, rows: Sequence[Row], windows: Sequence[str | Window] = ("1m", "1h"), seen: int | None = None
    ) -> None:
        """Store readings, and what the rollup agent made of the first `seen` of them."""
        records = air(rows)
        driven = drive(Rollup(windows, GRACE), records.slice(0, len(records) if seen is None else seen))
        await self.write(topics.READINGS, records)
        for topic in (topics.ROLLUPS, topics.LATE):
            found = driven.sent.get(topic, [])
            await self.write(
                topic,
                Records(
                    [each.key for each in found], [each.value for each in found], [each.timestamp for each in found]
                ),
            )

    async def execute(self, sql: str, *args: object) -> list[asyncpg.Record]:
        """Run SQL beside."""
        connection = await asyncpg.connect(**self.database)
        try:
            rows: list[asyncpg.Record] = await connection.fetch(sql, *args)
        finally:
            await connection.close()
        return rows

    def store(self, **more: Any) -> Store:
        """A store, not yet open."""
        return Store(self.database, self.clock, grace=GRACE, **more)

    def _next(self, topic: str, records: Records) -> Fetched:
        part = fetched(records, topic, 0, self.offsets[topic])
        self.offsets[topic] += len(records)
        return part


@pytest.fixture
async def world(database: Connect) -> AsyncIterator[World]:
    """An empty database of its own."""
    sink = TimescaleSink(database, [AIR], SystemClock())
    await sink.open()
    await sink.positions([TopicPartition(topic, 0) for topic in sink.topics])
    yield World(database, sink, ManualClock(T0 + 10 * 86_400_000))
    await sink.close()


@pytest.fixture
async def store(world: World) -> AsyncIterator[Store]:
    """An open store on it."""
    async with world.store() as store:
        yield store
