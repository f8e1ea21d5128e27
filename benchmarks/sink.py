"""Readings into PostgreSQL: by the sink, and by bare statements. Prints {"value": rows per second, …}.

`sink` writes batches that are in memory, `log` reads them from the embedded log first, as `headrace sink` does. `bare`
is what one would write by hand: COPY of bytes made beforehand to a temporary table, then INSERT … ON CONFLICT, a
transaction per batch. Four measures a row, 1,000 devices, every key once; the same table, batches and server settings.
"""

import argparse
import asyncio
import itertools
import json
import resource
import tempfile
import time
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import asyncpg
import numpy as np

from headrace.connectors.postgres_server import PostgresServer
from headrace.connectors.timescale.copy_rows import copy_bytes
from headrace.connectors.timescale.readings_table import ReadingsTable, TableSpec
from headrace.connectors.timescale.sink import TimescaleSink
from headrace.engine import logging
from headrace.engine.clock import SystemClock
from headrace.engine.embedded.log import EmbeddedLog
from headrace.engine.log import Append, TopicPartition, TopicSpec, Transaction
from headrace.engine.sink_runner import SinkRunner
from headrace.engine.testkit import fetched, reading_records
from headrace.schemas import topics
from headrace.schemas.readings import Readings

DEVICES = 1_000
START_MS = 1_750_000_000_000
#: As SinkRunner writes them.
BATCH = 16_384
PARTITIONS = 4
MEASURES = ("co2", "humidity", "pm25", "temperature")
SPEC = TableSpec("environmental", MEASURES)
POLL = 0.01


def batches(total: int) -> Iterator[Readings]:
    """`total` readings, every device once a second, in batches of one partition's devices each."""
    rng = np.random.default_rng(7)
    names = [f"sensor-{number:04d}" for number in range(DEVICES)]
    numbers = np.arange(DEVICES)
    own = [numbers[numbers % PARTITIONS == partition] for partition in range(PARTITIONS)]
    second = [0] * PARTITIONS
    for start, partition in zip(range(0, total, BATCH), itertools.cycle(range(PARTITIONS))):
        size = min(BATCH, total - start)
        places = np.arange(second[partition], second[partition] + size)
        second[partition] += size
        devices = own[partition][places % len(own[partition])]
        times = START_MS + places // len(own[partition]) * 1000 + devices
        yield Readings(
            SPEC.device_type,
            np.arange(size),
            [names[device] for device in devices.tolist()],
            times,
            [str(uuid.UUID(bytes=rng.bytes(16))) for _ in range(size)],
            {name: np.round(rng.normal(20, 5, size), 2) for name in MEASURES},
        )


async def bare(connect: dict[str, Any], total: int) -> float:
    """Seconds by hand."""
    table = ReadingsTable(SPEC)
    connection = await asyncpg.connect(**connect, server_settings={"jit": "off"})
    for step in table.migrations():
        if not step.extension:
            await connection.execute(step.up)
    await connection.execute(table.create_staging)
    pieces = [copy_bytes(each, each.times, MEASURES, numbered=True) for each in batches(total)]
    began = time.perf_counter()
    for piece in pieces:
        async with connection.transaction():
            await connection.copy_to_table(
                table.staging, source=_once(piece), columns=table.staged_columns, format="binary"
            )
            await connection.execute(table.insert)
    seconds = time.perf_counter() - began
    await connection.close()
    return seconds


async def _once(data: bytes) -> AsyncIterator[bytes]:
    yield data


async def sink(connect: dict[str, Any], total: int) -> float:
    """Seconds of `TimescaleSink.write`."""
    target = TimescaleSink(connect, [SPEC], SystemClock())
    ends = [0] * PARTITIONS
    parts = []
    for number, each in enumerate(batches(total)):
        partition = number % PARTITIONS
        parts.append(fetched(reading_records(each), topics.READINGS, partition, ends[partition]))
        ends[partition] += len(each)
    await target.open()
    await target.positions([TopicPartition(topics.READINGS, partition) for partition in range(PARTITIONS)])
    began = time.perf_counter()
    for part in parts:
        await target.write([part])
    seconds = time.perf_counter() - began
    await target.close()
    return seconds


async def from_log(connect: dict[str, Any], total: int, folder: Path) -> float:
    """Seconds of a `SinkRunner` on a log that is full already."""
    log = EmbeddedLog(folder)
    target = TimescaleSink(connect, [SPEC], SystemClock())
    specs = [TopicSpec(name, PARTITIONS) for name in {*target.topics, topics.DEAD_LETTERS}]
    await log.create_topics([*specs, *SinkRunner.topic_specs()])
    for number, each in enumerate(batches(total)):
        where = TopicPartition(topics.READINGS, number % PARTITIONS)
        await log.commit(Transaction(appends=[Append(where, reading_records(each))]))
    runner = SinkRunner(log, target, SystemClock())
    stop = asyncio.Event()
    began = time.perf_counter()
    running = asyncio.create_task(runner.run(stop))
    while runner.statistics().written < total:
        if running.done():
            await running
        await asyncio.sleep(POLL)
    seconds = time.perf_counter() - began
    stop.set()
    await running
    await log.close()
    return seconds


async def measure(variant: str, total: int, folder: Path) -> dict[str, float]:
    """Start a server, store everything, look whether it is all there."""
    async with PostgresServer(folder) as address:
        connect = address.connect_arguments()
        cpu = time.process_time()
        if variant == "bare":
            seconds = await bare(connect, total)
        elif variant == "sink":
            seconds = await sink(connect, total)
        else:
            seconds = await from_log(connect, total, folder)
        cpu = time.process_time() - cpu
        connection = await asyncpg.connect(**connect)
        stored = await connection.fetchval(f'SELECT count(*) FROM "{ReadingsTable(SPEC).name}"')
        await connection.close()
    if stored != total:
        raise SystemExit(f"{stored} of {total} rows were stored")
    return {
        "value": total / seconds,
        "cpu_us_per_row": cpu / total * 1e6,
        "rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def main() -> None:
    """Parse arguments, run, print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--variant", choices=["bare", "sink", "log"], default="log")
    parser.add_argument("--rows", type=int, default=500_000)
    arguments = parser.parse_args()
    logging.configure("warning")
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps(asyncio.run(measure(arguments.variant, arguments.rows, Path(folder)))))


if __name__ == "__main__":
    main()
