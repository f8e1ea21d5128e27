"""Windows and their tables: one run of a variant. Prints {"value": …, …}.

Readings of four measures, one per device every ten seconds of event time, devices in turns; windows of a minute and an
hour, with their changelog. An entry is a device × window.
"""

import argparse
import asyncio
import gc
import json
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).parent.parent / "scripts"))

import faust
import numpy as np
import orjson
import psutil
from local_kafka.cluster import Cluster

from headrace.agents.rollup import Rollup
from headrace.engine import logging
from headrace.engine.app import App
from headrace.engine.changelog import changelog_topic
from headrace.engine.clock import ManualClock
from headrace.engine.embedded.log import EmbeddedLog
from headrace.engine.kafka.log import KafkaLog
from headrace.engine.kafka.settings import KafkaSettings
from headrace.engine.ledger import lag
from headrace.engine.log import Append, Log, TopicPartition, TopicSpec, Transaction
from headrace.engine.partitioner import Partitioner
from headrace.engine.records import Records
from headrace.engine.runtime.garbage import rare_collections
from headrace.engine.runtime.large_arrays import release_large_arrays
from headrace.engine.runtime.restoring import restore_table
from headrace.engine.runtime.settings import RuntimeSettings
from headrace.engine.testkit import Driven, fetched, run_batch
from headrace.schemas import topics
from headrace.schemas.readings import Readings, encode_readings

GROUP = "windows"
#: Names of measures; a fleet with more has them numbered.
MEASURES = ("temperature", "humidity", "co2", "pm25")
T0 = 1_700_000_000_000 // 3_600_000 * 3_600_000
CADENCE_MS = 10_000
PARTITIONS = 4
WINDOWS = ("1m", "1h")
#: Readings appended at once, and those of a batch, as in a worker.
CHUNK, BATCH = 20_000, RuntimeSettings().max_batch_records
POLL = 0.02
#: Where a log on Kafka is.
BROKERS: dict[Log, str] = {}


class Fleet(NamedTuple):
    """So many devices with so many measures a reading."""

    devices: int
    measures: int

    @property
    def names(self) -> tuple[str, ...]:
        """Of the measures."""
        return (*MEASURES, *(f"measure_{number}" for number in range(len(MEASURES), self.measures)))[: self.measures]


def readings(fleet: Fleet, first: int, count: int) -> Readings:
    """Readings number `first` and following of the fleet."""
    devices = fleet.devices
    numbers = np.arange(first, first + count)
    device = numbers % devices
    rng = np.random.default_rng(first)
    return Readings(
        "environmental",
        np.arange(count),
        [f"device-{each:07d}" for each in device.tolist()],
        T0 + numbers // devices * CADENCE_MS + device * CADENCE_MS // devices,
        [f"message-{each}" for each in numbers.tolist()],
        {name: rng.normal(20, 5, count).round(2) for name in fleet.names},
    )


async def fill(log: Log, fleet: Fleet, first: int, total: int) -> None:
    """Append readings to their topic."""
    partitioner = Partitioner(log.partitions(topics.READINGS))
    for start in range(first, first + total, CHUNK):
        part = readings(fleet, start, min(CHUNK, first + total - start))
        keys = [device.encode() for device in part.device_ids]
        records = Records(keys, encode_readings(part), part.times.tolist())
        rows = partitioner.split(keys)
        targets = ((TopicPartition(topics.READINGS, number), records.take(mine)) for number, mine in rows.items())
        await log.commit(Transaction([Append(*each) for each in targets]))


@asynccontextmanager
async def embedded() -> AsyncIterator[Log]:
    """A log in a temporary folder."""
    with tempfile.TemporaryDirectory() as folder:
        log = EmbeddedLog(Path(folder))
        await log.create_topics(_specs())
        yield log
        await log.close()


@asynccontextmanager
async def kafka() -> AsyncIterator[KafkaLog]:
    """A log on a broker of its own."""
    with Cluster() as cluster:
        log = KafkaLog(f"kafka://{cluster.bootstrap}", KafkaSettings(), ManualClock())
        BROKERS[log] = f"kafka://{cluster.bootstrap}"
        await log.start()
        await log.create_topics(_specs())
        yield log
        await log.close()


def _specs() -> Iterator[TopicSpec]:
    for name in (topics.READINGS, topics.ROLLUPS, topics.LATE, topics.DEAD_LETTERS):
        yield TopicSpec(name, PARTITIONS)


@asynccontextmanager
async def running(log: Log, windows: Sequence[str] = WINDOWS) -> AsyncIterator[None]:
    """The rollup agent in an app, as in a worker; ready when its tables are restored."""
    rollup = Rollup(windows)
    app = App(GROUP, log, runtime=RuntimeSettings())
    app.add([rollup])
    await app.create_topics([], partitions=PARTITIONS)
    stop = asyncio.Event()
    task = asyncio.create_task(app.run(stop))
    while not app.assigned or not all(app.tables.is_restored(target) for target in app.assigned):
        await asyncio.sleep(0.001)
    yield
    stop.set()
    await task


async def passed(log: Log) -> None:
    """Wait until everything is committed."""
    while await lag(log, GROUP, topics.READINGS):
        await asyncio.sleep(POLL)


async def rate(log: Log, fleet: Fleet, messages: int, windows: Sequence[str]) -> dict[str, float]:
    """Measures a second, after every device was seen once."""
    await fill(log, fleet, 0, fleet.devices)
    async with running(log, windows):
        await passed(log)
    await fill(log, fleet, fleet.devices, messages)
    async with running(log, windows):
        began, cpu = time.perf_counter(), time.process_time()
        await passed(log)
        seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
    measures = messages * fleet.measures
    return {"value": measures / seconds, "cpu_us_per_measure": cpu / measures * 1e6}


async def restore(log: Log, fleet: Fleet) -> dict[str, float]:
    """Changelog records restored a second, into tables that are ready to be used."""
    await fill(log, fleet, 0, fleet.devices)
    async with running(log):
        await passed(log)
    (table, *_) = Rollup(WINDOWS).tables
    changelog = changelog_topic(GROUP, table.name)
    began, cpu = time.perf_counter(), time.process_time()
    with rare_collections(RuntimeSettings().collect_after):
        for number in range(PARTITIONS):
            await restore_table(log, TopicPartition(changelog, number), table, "")
    seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
    entries = sum(
        int((windows.device >= 0).sum())
        for number in range(PARTITIONS)
        for windows in table.partition(number).types.values()
    )
    return {"value": entries / seconds, "cpu_us_per_entry": cpu / entries * 1e6, "entries": entries}


def memory(fleet: Fleet) -> dict[str, float]:
    """Bytes of resident memory per entry."""

    def run(rollup: Rollup, count: int) -> None:
        for start in range(0, count, BATCH):
            part = readings(fleet._replace(devices=count), start, min(BATCH, count - start))
            records = Records([b""] * len(part), encode_readings(part), part.times.tolist())
            run_batch(rollup, fetched(records, rollup.topic), Driven({}, []))
            rollup.tables[0].changes(0)

    release_large_arrays()
    run(Rollup(WINDOWS), 10 * BATCH)
    gc.collect()
    process, rollup = psutil.Process(), Rollup(WINDOWS)
    before = process.memory_info().rss
    run(rollup, fleet.devices)
    gc.collect()
    entries = sum(int((windows.device >= 0).sum()) for windows in rollup.tables[0].partition(0).types.values())
    return {"value": (process.memory_info().rss - before) / entries, "entries": entries}


async def faust_tumbling(log: Log, fleet: Fleet, messages: int) -> dict[str, float]:
    """Faust's own tumbling tables with the same aggregates, on its own Kafka driver."""
    await fill(log, fleet, 0, messages)
    app = faust.App(
        "faust-windows", broker=BROKERS[log], web_enabled=False, topic_disable_leader=True,
        topic_partitions=PARTITIONS, store="memory://", key_serializer="raw", value_serializer="raw",
    )  # fmt: skip
    app._create_directories = lambda: None  # type: ignore[method-assign]
    tables = [
        app.Table(f"windows-{size}", default=dict, partitions=PARTITIONS).tumbling(size, expires=size + 300)
        for size in (60, 3600)
    ]
    done, began, cpu = 0, 0.0, 0.0
    warm = messages // 4

    @app.agent(app.topic(topics.READINGS, value_serializer="raw", key_serializer="raw"))
    async def rollup(stream):  # type: ignore[no-untyped-def]
        nonlocal done, began, cpu
        async for value in stream:
            if done == warm:
                began, cpu = time.perf_counter(), time.process_time()
            reading = orjson.loads(value)
            for table in tables:
                window = table[reading["device_id"]]
                cells = window.value()
                for name, measured in reading["measures"].items():
                    cell = cells.get(name)
                    if cell is None:
                        cells[name] = [1, measured, measured, measured, measured, measured]
                    else:
                        cell[0] += 1
                        cell[1] += measured
                        cell[2] = min(cell[2], measured)
                        cell[3] = max(cell[3], measured)
                        cell[5] = measured
                table[reading["device_id"]] = cells
            done += 1

    await app.start()
    while done < messages:
        await asyncio.sleep(POLL)
    seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
    await app.stop()
    measures = (messages - warm) * fleet.measures
    return {"value": measures / seconds, "cpu_us_per_measure": cpu / measures * 1e6}


async def measure(arguments: argparse.Namespace) -> dict[str, float]:
    """One run."""
    fleet, messages = Fleet(arguments.devices, arguments.measures), arguments.messages
    if arguments.variant == "memory":
        return memory(fleet)
    async with kafka() if arguments.kafka else embedded() as log:
        if arguments.variant == "restore":
            return await restore(log, fleet)
        if arguments.variant == "faust":
            return await faust_tumbling(log, fleet, messages)
        return await rate(log, fleet, messages, arguments.windows)


def main() -> None:
    """Parse arguments, run, print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--variant", choices=["rate", "restore", "memory", "faust"], default="rate")
    parser.add_argument("--devices", type=int, default=100_000)
    parser.add_argument("--measures", type=int, default=len(MEASURES))
    parser.add_argument("--messages", type=int, default=500_000)
    parser.add_argument("--windows", nargs="+", default=WINDOWS)
    parser.add_argument("--kafka", action="store_true")
    arguments = parser.parse_args()
    logging.configure("warning")
    print(json.dumps(asyncio.run(measure(arguments))))


if __name__ == "__main__":
    main()
