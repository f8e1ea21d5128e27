"""The running demo is killed with -9 at random points; what is stored is exactly what the log had accepted."""

import asyncio
import json
import os
import random
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from headrace.agents.ingest import Ingest
from headrace.agents.rollup import Rollup
from headrace.connectors.postgres_server import PostgresServer
from headrace.engine.embedded.log import EmbeddedLog
from headrace.engine.log import TopicPartition
from headrace.engine.records import Records
from headrace.engine.testkit import drive
from headrace.schemas import topics
from headrace.schemas.readings import decode_readings
from headrace.tables.device_types import load_device_types

#: At least; `make chaos KILLS=…` does more.
LEAST_KILLS = 10
START_TIMEOUT = 300.0


#: A minute of the demo's time is a second: one that stands still for longer must not close windows by the clock, which
#: the operators that it is compared with do not have.
ENVIRONMENT = {**os.environ, "HEADRACE_ROLLUP__IDLE_TIMEOUT": "0"}


def demo(folder: Path, *options: str) -> list[str]:
    return [sys.executable, "-m", "headrace.cli.main", "demo", "--data", str(folder), "--rate", "400", *options]


def size_of_log(folder: Path) -> int:
    """Bytes of the log's write-ahead file and database; grows when something is appended."""
    return sum(file.stat().st_size for file in folder.glob("log.sqlite*"))


async def records_of(log: EmbeddedLog, topic: str) -> dict[int, Records]:
    found: dict[int, Records] = {}
    for target, end in (await log.end_offsets(topic)).items():
        parts = []
        offset = 0
        while offset < end:
            fetched = await log.read(target, offset, 100_000)
            assert fetched is not None
            assert fetched.base_offset == offset, "nothing may be missing"
            parts.append(fetched.records)
            offset = fetched.next_offset
        if parts:
            found[target.partition] = Records.concat(parts)
    return found


async def compare(folder: Path, report: dict[str, Any]) -> None:
    """Run fresh operators over what the log accepted, in one go, and compare with what is in the log and stored."""
    log = EmbeddedLog(folder)
    await log.create_topics([])
    raw = await records_of(log, topics.RAW)
    ingest = Ingest(load_device_types())
    expected: dict[tuple[str, int], dict[str, float]] = {}
    counts: Counter[str] = Counter()
    readings_of: dict[int, Records] = {}
    for partition, records in raw.items():
        driven = drive(ingest, records, partition=partition)
        counts["accepted"] += len(records)
        counts["dead_lettered"] += len(driven.dead_letters)
        sent = driven.sent.get(topics.READINGS, [])
        counts["stored"] += len(sent)
        readings_of[partition] = Records(
            [record.key for record in sent], [record.value for record in sent], [record.timestamp for record in sent]
        )
        for readings in decode_readings([record.value for record in sent]):
            for index, key in enumerate(zip(readings.device_ids, readings.times.tolist(), strict=True)):
                expected[key] = readings.measures_of(index)
    for outcomes in ingest.counters.totals().values():
        counts.update(outcomes)
    terms = {name: report[name] for name in ("accepted", "stored", "duplicate", "conflict", "dead_lettered")}
    assert terms == {name: counts[name] for name in terms}

    written = await records_of(log, topics.READINGS)
    assert {partition: records.values for partition, records in written.items()} == {
        partition: records.values for partition, records in readings_of.items()
    }
    await compare_rollups(log, readings_of)
    await log.close()
    async with PostgresServer(folder) as address:
        connection = await asyncpg.connect(**address.connect_arguments())
        rows = await connection.fetch("SELECT * FROM readings_environmental")
        await connection.close()
    stored = {
        (row["device_id"], round(row["time"].timestamp() * 1000)): {
            name: value for name, value in row.items() if isinstance(value, float)
        }
        for row in rows
    }
    assert len(rows) == len(stored)
    assert stored == expected


async def compare_rollups(log: EmbeddedLog, readings_of: dict[int, Records]) -> None:
    """Windows closed over all the kills are, byte for byte, those of one run without any."""
    rollup = Rollup(grace=120)
    for partition, records in readings_of.items():
        sent = drive(rollup, records, partition=partition).sent.get(topics.ROLLUPS, [])
        fetched = await log.read(TopicPartition(topics.ROLLUPS, partition), 0, 10_000_000)
        assert (fetched.records.values if fetched else []) == [record.value for record in sent]


@pytest.mark.chaos
@pytest.mark.integration
@pytest.mark.timeout(1800)
def test_killed_demo_loses_and_doubles_nothing(tmp_path: Path, chaos_size: Any) -> None:
    """After kills at random points: ledger balanced, readings and windows as if nothing had happened, each row once."""
    kills = max(LEAST_KILLS, chaos_size.kills)
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    rng = random.Random(seed)
    folder = tmp_path / "data"
    for _ in range(kills):
        before = size_of_log(folder) if folder.exists() else 0
        process = subprocess.Popen(demo(folder), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=ENVIRONMENT)
        deadline = time.monotonic() + START_TIMEOUT
        # Some kills hit the start and its recovery, most hit the running demo.
        if rng.random() < 0.8:
            while size_of_log(folder) <= before and process.poll() is None and time.monotonic() < deadline:
                time.sleep(0.01)
        time.sleep(rng.uniform(0.0, 2.5))
        assert process.poll() is None, "the demo must run until it is killed"
        process.kill()
        process.wait()

    last = demo(folder, "--seconds", "2", "--json")
    done = subprocess.run(last, capture_output=True, text=True, timeout=START_TIMEOUT, check=False, env=ENVIRONMENT)

    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["in_flight"] == 0
    assert report["balanced"]
    assert report["stored"] > 0
    asyncio.run(compare(folder, report))
