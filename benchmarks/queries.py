"""One run of the queries of `Store` beside hand-written SQL on bare asyncpg, in turns on the same server.

Prints {"value": the worst query's p95 ÷ that of its SQL, per query: p50 and p95 in ms of both, …}. With `--variant sql`
the SQL takes the place of the store as well: what the machine's noise makes of 1.
"""

import argparse
import asyncio
import json
import re
import tempfile
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import asyncpg
import numpy as np

from headrace.agents.rollup import Rollup
from headrace.connectors.postgres_server import PostgresServer
from headrace.connectors.timescale.readings_table import TableSpec
from headrace.connectors.timescale.sink import TimescaleSink
from headrace.connectors.timescale.store import Store
from headrace.engine import logging
from headrace.engine.clock import ManualClock, SystemClock
from headrace.engine.log import TopicPartition
from headrace.engine.records import Records
from headrace.engine.testkit import drive, fetched, reading_records
from headrace.schemas import topics
from headrace.schemas.readings import Readings

START_MS = 1_750_032_000_000
MINUTE_MS = 60_000
HOUR_MS = 3_600_000
#: TSBS's trucks: where they are, how fast, what they carry and how full their battery (its fuel) is.
METRICS = ("latitude", "longitude", "velocity", "load", "battery", "temperature")
TRUCK = TableSpec("truck", METRICS)
WRITE = 20_000
#: Seconds for one query, but at least so many rounds.
MOST_SECONDS = 2.0
LEAST_ROUNDS = 12

Query = Callable[[], Awaitable[Any]]


def readings(devices: int, first: int, behind: int) -> Readings:
    """Minutes `first` to `behind` of the fleet, by time."""
    minutes = np.repeat(np.arange(first, behind), devices)
    numbers = np.tile(np.arange(devices), behind - first)
    count = len(minutes)
    random = np.random.default_rng(first)
    moving = (numbers + minutes // 30) % 5 > 0
    return Readings(
        "truck",
        np.arange(count),
        [f"truck-{number:04d}" for number in numbers.tolist()],
        START_MS + minutes * MINUTE_MS + numbers,
        [str(UUID(int=int(low) << 64 | place)) for place, low in enumerate(random.integers(0, 1 << 62, count))],
        {
            "latitude": 48 + random.random(count),
            "longitude": 11 + random.random(count),
            "velocity": np.where(moving, random.normal(60, 8, count), random.random(count) * 0.5),
            "load": random.random(count) * 100,
            "battery": (numbers * 7 + minutes) % 100 * 1.0,
            "temperature": random.normal(20, 2, count) + (random.random(count) < 0.0005) * 40,
        },
    )


async def fill(connect: dict[str, Any], devices: int, minutes: int) -> None:
    """Store the fleet's readings and windows of an hour by the sink."""
    sink = TimescaleSink(connect, [TRUCK], SystemClock())
    await sink.open()
    await sink.positions([TopicPartition(topic, 0) for topic in sink.topics])
    rollup, offset, rolled = Rollup(["1h"], 300.0), 0, 0
    step = max(1, WRITE // devices)
    for first in range(0, minutes, step):
        records = reading_records(readings(devices, first, min(minutes, first + step)))
        await sink.write([fetched(records, topics.READINGS, 0, offset)])
        found = drive(rollup, records, base_offset=offset).sent.get(topics.ROLLUPS, [])
        offset += len(records)
        if found:
            documents = Records([e.key for e in found], [e.value for e in found], [e.timestamp for e in found])
            await sink.write([fetched(documents, topics.ROLLUPS, 0, rolled)])
            rolled += len(found)
    await sink.close()
    connection = await asyncpg.connect(**connect)
    await connection.execute("VACUUM ANALYZE")
    await connection.close()


COLUMNS = ", ".join(METRICS)
AGGREGATES = ", ".join(f"avg({m}), min({m}), max({m}), count({m})" for m in METRICS)
NEWEST = """
    SELECT device_id, newest.* FROM device_state CROSS JOIN LATERAL (
        SELECT time, {0} FROM readings_truck
        WHERE device_id = device_state.device_id AND time > :hour ORDER BY time DESC LIMIT 1
    ) AS newest WHERE device_type = 'truck' {1}
"""
BINNED = f"""
    SELECT date_bin('{{0}}', time, 'epoch') AS bin, {AGGREGATES} FROM readings_truck
    WHERE device_id = :device AND time >= :day AND time < :end GROUP BY 1 ORDER BY 1
"""
#: What somebody would write by hand, by name; `:name` is a parameter.
SQL = {
    "latest (seed 1)": """
        SELECT time, temperature FROM readings_truck
        WHERE device_id = :device AND temperature IS NOT NULL AND time > :hour ORDER BY time DESC LIMIT 1
    """,
    "15m bins of all (seed 2)": """
        SELECT device_id, date_bin('15 minutes', time, 'epoch') AS bin, avg(temperature), max(temperature),
            min(temperature), count(temperature)
        FROM readings_truck WHERE time >= :day AND time < :end GROUP BY 1, 2 ORDER BY 2 DESC, 1
    """,
    "3 sigma (seed 3)": """
        WITH stats AS (
            SELECT device_id, avg(temperature) AS mean, stddev(temperature) AS stddev
            FROM readings_truck WHERE time > :week AND time <= :end GROUP BY device_id
        )
        SELECT device_id, time, temperature, mean, stddev FROM readings_truck JOIN stats USING (device_id)
        WHERE time > :hour AND time <= :end AND abs(temperature - mean) > 3 * stddev ORDER BY time DESC, device_id
    """,
    "history 15m, 6 metrics": BINNED.format("15 minutes"),
    "history 1h, 6 metrics": BINNED.format("1 hour"),
    "history raw, 6 h": f"""
        SELECT time, {COLUMNS} FROM readings_truck
        WHERE device_id = :device AND time >= :six AND time < :end ORDER BY time LIMIT 10000
    """,
    "last-loc (TSBS)": NEWEST.format("latitude, longitude", ""),
    "low-battery (TSBS low-fuel)": NEWEST.format("battery", "AND battery < 10"),
    "high-load (TSBS)": NEWEST.format("load", "AND load > 90"),
    "stationary (TSBS)": """
        SELECT device_id, avg(velocity), min(velocity), max(velocity), count(velocity)
        FROM readings_truck WHERE time >= :ten AND time < :end GROUP BY device_id HAVING avg(velocity) < 1 ORDER BY 1
    """,
    "avg-load (TSBS)": """
        SELECT device_id, date_bin('1 day', time, 'epoch') AS bin, avg(load), min(load), max(load), count(load)
        FROM readings_truck WHERE time >= :midnight AND time < :end GROUP BY 1, 2 ORDER BY 2 DESC, 1
    """,
}


def pairs(store: Store, pool: asyncpg.Pool, minutes: int) -> dict[str, tuple[Query, Query]]:
    """By name: the store's query, and the same in SQL."""
    end, device = START_MS + minutes * MINUTE_MS, "truck-0007"
    hour, day, ten = end - HOUR_MS, end - 24 * HOUR_MS, end - 600_000
    begins = {"end": end, "hour": hour, "day": day, "week": end - 7 * 24 * HOUR_MS, "ten": ten}
    begins |= {"six": end - 6 * HOUR_MS, "midnight": day // (24 * HOUR_MS) * 24 * HOUR_MS}
    values: dict[str, Any] = {name: datetime.fromtimestamp(ms / 1000, UTC) for name, ms in begins.items()}
    values["device"] = device
    ours: dict[str, Query] = {
        "latest (seed 1)": lambda: store.latest([device], ["temperature"]),
        "15m bins of all (seed 2)": lambda: store.bins("truck", "temperature", day, end),
        "3 sigma (seed 3)": lambda: store.sigma("truck", "temperature", end_ms=end),
        "history 15m, 6 metrics": lambda: store.history(device, day, end, "15m"),
        "history 1h, 6 metrics": lambda: store.history(device, day, end, "1h"),
        "history raw, 6 h": lambda: store.raw(device, end - 6 * HOUR_MS, end),
        "last-loc (TSBS)": lambda: store.latest(None, ["latitude", "longitude"], device_type="truck"),
        "low-battery (TSBS low-fuel)": lambda: store.latest(None, ["battery"], device_type="truck", below=10.0),
        "high-load (TSBS)": lambda: store.latest(None, ["load"], device_type="truck", above=90.0),
        "stationary (TSBS)": lambda: store.bins("truck", "velocity", ten, end, "10m", below=1.0),
        "avg-load (TSBS)": lambda: store.bins("truck", "load", day, end, "1d"),
    }
    return {name: (ours[name], _by_hand(pool, sql, values)) for name, sql in SQL.items()}


def _by_hand(pool: asyncpg.Pool, sql: str, values: dict[str, Any]) -> Query:
    names = list(dict.fromkeys(re.findall(r":(\w+)", sql)))
    statement = re.sub(r":(\w+)", lambda found: f"${names.index(found[1]) + 1}", sql)
    arguments = [values[name] for name in names]
    return lambda: pool.fetch(statement, *arguments)


async def measure(variant: str, devices: int, minutes: int, rounds: int, folder: Path) -> dict[str, Any]:
    """Fill, then ask everything in turns."""
    async with PostgresServer(folder) as address:
        connect = address.connect_arguments()
        await fill(connect, devices, minutes)
        clock = ManualClock(START_MS + minutes * MINUTE_MS)
        async with Store(connect, clock, connections=1) as store, asyncpg.create_pool(**connect, min_size=1) as pool:
            found: dict[str, Any] = {}
            for name, (ours, theirs) in pairs(store, pool, minutes).items():
                found[name] = await _compare(theirs if variant == "sql" else ours, theirs, rounds)
    return {"value": max(each["ratio"] for each in found.values()), "rows": devices * minutes, "queries": found}


async def _compare(ours: Query, theirs: Query, rounds: int) -> dict[str, float]:
    """Percentiles of `rounds` runs of both, of fewer if they take long."""
    times: dict[int, list[float]] = {0: [], 1: []}
    warm_up, give_up = 8, time.perf_counter() + MOST_SECONDS
    for turn in range(warm_up + rounds):
        for which in (0, 1) if turn % 2 else (1, 0):
            began = time.perf_counter()
            await (ours, theirs)[which]()
            if turn >= warm_up:
                times[which].append((time.perf_counter() - began) * 1000)
        if turn >= warm_up + LEAST_ROUNDS and time.perf_counter() > give_up:
            break
    (p50, p95), (sql_p50, sql_p95) = (np.percentile(times[which], [50, 95]).tolist() for which in (0, 1))
    shown = {"p50_ms": p50, "p95_ms": p95, "sql_p50_ms": sql_p50, "sql_p95_ms": sql_p95, "ratio": p95 / sql_p95}
    return {name: round(value, 3) for name, value in shown.items()}


def main() -> None:
    """Parse arguments, run, print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--variant", choices=["store", "sql"], default="store")
    parser.add_argument("--devices", type=int, default=200)
    parser.add_argument("--minutes", type=int, default=1500)
    parser.add_argument("--rounds", type=int, default=100)
    arguments = parser.parse_args()
    logging.configure("warning")
    with tempfile.TemporaryDirectory() as folder:
        result = measure(arguments.variant, arguments.devices, arguments.minutes, arguments.rounds, Path(folder))
        print(json.dumps(asyncio.run(result)))


if __name__ == "__main__":
    main()
