"""What tests of storage write, and how."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any
from uuid import uuid4

import numpy as np
import orjson

from headrace.connectors.timescale.readings_table import TableSpec
from headrace.connectors.timescale.sink import TimescaleSink
from headrace.engine.clock import SystemClock
from headrace.engine.log import Fetched, TopicPartition
from headrace.engine.records import Records
from headrace.engine.sink_runner import SinkRunner
from headrace.engine.testkit import fetched, reading_records
from headrace.schemas import topics
from headrace.schemas.readings import Readings
from tests.databases import Connect

AIR = TableSpec("air", ("co2", "temperature"))
T0 = 1_700_000_000_000


async def opened(database: Connect, *specs: TableSpec, partitions: int = 2) -> TimescaleSink:
    """A sink that has read its positions."""
    sink = TimescaleSink(database, specs or (AIR,), SystemClock())
    await sink.open()
    await sink.positions([TopicPartition(topic, number) for topic in sink.topics for number in range(partitions)])
    return sink


def air(*rows: tuple[str, int, float, float], extras: list[dict[str, Any] | None] | None = None) -> Records:
    """Readings of type `air`: (device, seconds after T0, co2, temperature), appended at T0."""
    readings = Readings(
        "air",
        np.arange(len(rows)),
        [row[0] for row in rows],
        np.array([T0 + row[1] * 1000 for row in rows], dtype=np.int64),
        [str(uuid4()) for _ in rows],
        {"co2": np.array([row[2] for row in rows]), "temperature": np.array([row[3] for row in rows])},
        extras,
    )
    return reading_records(readings, [T0] * len(rows))


def batch(records: Records, base: int = 0, partition: int = 0, topic: str = topics.READINGS) -> list[Fetched]:
    """One partition's records as the log hands them out."""
    return [fetched(records, topic, partition, base)]


def documents(*values: dict[str, Any]) -> Records:
    """Records of JSON documents."""
    return Records([b"k"] * len(values), [orjson.dumps(value) for value in values], [T0] * len(values))


async def until(condition: Callable[[], bool]) -> None:
    """Wait for a condition, looking every few milliseconds."""
    async with asyncio.timeout(120):
        while not condition():
            await SystemClock().sleep(0.005)


@asynccontextmanager
async def running(runner: SinkRunner) -> AsyncIterator[None]:
    """A runner at work; at the end it stops."""
    stop = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        group.create_task(runner.run(stop))
        try:
            yield
        finally:
            stop.set()
