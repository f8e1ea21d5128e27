"""The real Beijing air-quality set: what is stored and rolled up equals the raw files. `make verify-data DATA=…`."""

import asyncio
import json
import math
import random
import subprocess
import sys
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import asyncpg
import numpy as np
import orjson
import polars as pl
import pytest

from headrace.agents.rollup import Rollup
from headrace.connectors.postgres_server import PostgresServer
from headrace.engine.embedded.log import EmbeddedLog
from headrace.engine.log import TopicSpec
from headrace.engine.testkit import Driven, drive, reading_records
from headrace.schemas import topics
from headrace.schemas.readings import Readings
from headrace.tables.aggregates import Aggregation

COLUMNS = {
    "PM2.5": "pm25", "PM10": "pm10", "SO2": "so2", "NO2": "no2", "CO": "co", "O3": "o3", "TEMP": "temperature",
    "PRES": "pressure", "DEWP": "dew_point", "RAIN": "rain", "WSPM": "wind_speed",
}  # fmt: skip
ROWS, ABSENT, ABSENT_WIND = 420_768, 72_205, 1_822
STATIONS = 12
ZONE = "Asia/Shanghai"
PERCENTILES = (5, 50, 95)
#: Window, how often one begins in local time, and how many hold a reading.
WINDOWS = {"1h": ("1h", 1), "6h every 2h": ("2h", 3), f"1d {ZONE}": ("1d", 1)}
CONFIG = f"""
[rollup]
windows = ["1h", "6h every 2h", "1d"]
time_zone = "{ZONE}"
variance = true
percentiles = {list(PERCENTILES)}
"""
EXACT = ("count", "min", "max", "first", "last")
KILLS = 10


def raw_rows(folder: Path) -> pl.DataFrame:
    """The files as they are, with the event time as moment and in ms."""
    frame = pl.concat(
        [pl.read_csv(file, null_values=["NA"], infer_schema_length=None) for file in sorted(folder.glob("*.csv.gz"))]
    )
    local = pl.datetime("year", "month", "day", "hour", time_zone=ZONE)
    return frame.with_columns(local.alias("moment"), local.dt.epoch("ms").alias("time")).rename(COLUMNS)


@pytest.fixture(scope="module")
def source(request: pytest.FixtureRequest) -> Path:
    return Path(request.config.getoption("--data")) / "beijing-air"


@pytest.fixture(scope="module")
def frame(source: Path) -> pl.DataFrame:
    return raw_rows(source)


def command(source: Path, folder: Path) -> list[str]:
    """A replay into a data folder, with the windows above."""
    folder.mkdir(exist_ok=True)
    (folder / "config.toml").write_text(CONFIG)
    replay = [sys.executable, "-m", "headrace.cli.main", "replay", str(source), "--json"]
    return [*replay, "--data", str(folder / "data"), "--config", str(folder / "config.toml")]


@pytest.fixture(scope="module")
def replayed(source: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """The data folder of a replay that nobody disturbed, and its report."""
    folder = tmp_path_factory.mktemp("replayed")
    done = subprocess.run(command(source, folder), stdout=subprocess.PIPE, text=True, check=True)
    return folder, json.loads(done.stdout)


async def stored(folder: Path, query: str) -> list[Any]:
    async with PostgresServer(folder / "data") as address:
        connection = await asyncpg.connect(**address.connect_arguments())
        rows: list[Any] = await connection.fetch(query)
        await connection.close()
    return rows


async def log_bytes(folder: Path, topic: str) -> dict[int, list[tuple[bytes | None, bytes | None]]]:
    """Keys and values of a topic by partition."""
    log = EmbeddedLog(folder / "data")
    await log.create_topics([TopicSpec(topic)])
    found: dict[int, list[tuple[bytes | None, bytes | None]]] = {}
    for target, end in (await log.end_offsets(topic)).items():
        position = 0
        rows = found[target.partition] = []
        while position < end:
            fetched = await log.read(target, position, 100_000)
            assert fetched is not None
            rows += zip(fetched.records.keys, fetched.records.values, strict=True)
            position = fetched.next_offset
    await log.close()
    return found


@pytest.mark.data
@pytest.mark.timeout(1800)
def test_replay_equals_the_raw_files(replayed: tuple[Path, dict[str, Any]], frame: pl.DataFrame) -> None:
    """Every row once, and no NA as a number."""
    folder, report = replayed

    readings = asyncio.run(stored(folder, 'SELECT * FROM "readings_beijing-air"'))

    assert report["accepted"] == report["stored"] == len(readings) == len(frame) == ROWS
    assert report["balanced"]
    expected = {(row["station"], row["time"]): row for row in frame.iter_rows(named=True)}
    absent = absent_wind = 0
    for row in readings:
        raw = expected[row["device_id"], round(row["time"].timestamp() * 1000)]
        for name in COLUMNS.values():
            assert row[name] == raw[name]
            absent += row[name] is None
        absent_wind += "wind_direction" not in json.loads(row["extra"] or "{}")
    assert (absent, absent_wind) == (ABSENT, ABSENT_WIND)


@pytest.mark.data
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("window", WINDOWS)
def test_rollups_equal_polars_on_the_raw_files(
    replayed: tuple[Path, dict[str, Any]], frame: pl.DataFrame, window: str
) -> None:
    """Every bucket and field, of closed windows in the database, and of open ones in the table."""
    folder, _ = replayed
    show = ["tables", "show", "rollup.windows", "--data", str(folder / "data"), "--json"]
    options = ["--config", str(folder / "config.toml")]
    table = subprocess.run(
        [sys.executable, "-m", "headrace.cli.main", *show, *options], stdout=subprocess.PIPE, check=True
    )
    entries = [entry for line in table.stdout.splitlines() if (entry := orjson.loads(line)).get("window") == window]
    stations = frame["station"].unique(maintain_order=True).to_list()

    assert len(stations) == STATIONS
    for station in stations:
        still_open = {
            entry["start"]: entry["measures"] for entry in entries if entry["device_id"] == station and entry["open"]
        }
        closed = asyncio.run(closed_windows(folder, window, station))
        expected = buckets(frame.filter(pl.col("station") == station), *WINDOWS[window])
        assert not closed.keys() & still_open.keys()
        assert closed.keys() | still_open.keys() == expected.keys()
        assert len(still_open) == WINDOWS[window][1]
        for start, measures in expected.items():
            compare(closed.get(start) or still_open[start], measures, start in closed)


async def closed_windows(folder: Path, window: str, station: str) -> dict[int, dict[str, Any]]:
    """Measures of the windows of a station in the database, by start."""
    query = f"SELECT start, measures FROM rollups WHERE \"window\" = '{window}' AND device_id = '{station}'"
    return {milliseconds(row["start"]): orjson.loads(row["measures"]) for row in await stored(folder, query)}


def milliseconds(moment: datetime) -> int:
    return round(moment.timestamp() * 1000)


def buckets(frame: pl.DataFrame, step: str, overlapping: int) -> dict[int, dict[str, Any]]:
    """By start of window, the aggregates of each measure that is there."""
    latest = pl.col("moment").dt.truncate(step)
    starts = [frame.with_columns(latest.dt.offset_by(f"-{int(step[:-1]) * back}{step[-1]}").alias("start"))
              for back in range(overlapping)]  # fmt: skip
    grouped = pl.concat(starts).sort("time").group_by("start", maintain_order=True)
    found: dict[int, dict[str, Any]] = {}
    for name in COLUMNS.values():
        column = pl.col(name).drop_nulls()
        cells = {"count": column.len(), "sum": column.sum(), "min": column.min(), "max": column.max()}
        cells |= {"first": column.first(), "last": column.last(), "variance": column.var(), "values": column.sort()}
        for row in grouped.agg(**cells).iter_rows(named=True):
            measures = found.setdefault(milliseconds(row["start"]), {})
            if row["count"]:
                measures[name] = row
    return found


def compare(found: dict[str, Any], expected: dict[str, Any], closed: bool) -> None:
    assert found.keys() == expected.keys()
    for name, cell in found.items():
        wanted = expected[name]
        assert {key: cell[key] for key in EXACT} == {key: wanted[key] for key in EXACT}
        assert cell["sum"] == pytest.approx(wanted["sum"], rel=1e-12, abs=1e-9)
        if not closed:
            continue
        assert cell["avg"] == pytest.approx(wanted["sum"] / wanted["count"], rel=1e-12, abs=1e-9)
        if wanted["variance"] is None:
            assert "variance" not in cell
        else:
            assert cell["variance"] == pytest.approx(wanted["variance"], rel=1e-9, abs=1e-9)
            assert cell["stddev"] == pytest.approx(math.sqrt(wanted["variance"]), rel=1e-9, abs=1e-6)
        for percentile in PERCENTILES:
            exact = wanted["values"][math.floor(percentile / 100 * (wanted["count"] - 1))]
            error = cell["percentile_error"] * abs(exact) * (1 + 1e-9)
            assert cell["percentiles"][f"p{percentile}"] == pytest.approx(exact, rel=0, abs=error)


@pytest.mark.data
@pytest.mark.timeout(1800)
def test_ten_kills_change_no_byte(replayed: tuple[Path, dict[str, Any]], source: Path, tmp_path: Path) -> None:
    """Killed with -9 ten times on the way, the replay leaves the same rollups, byte for byte."""
    undisturbed, report = replayed
    for _ in range(KILLS):
        process = subprocess.Popen(command(source, tmp_path), stdout=subprocess.DEVNULL)
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(4 + random.random() * report["seconds"] / KILLS)
        process.kill()
        process.wait()
    subprocess.run(command(source, tmp_path), stdout=subprocess.DEVNULL, check=True)

    expected = asyncio.run(log_bytes(undisturbed, topics.ROLLUPS))
    assert asyncio.run(log_bytes(tmp_path, topics.ROLLUPS)) == expected
    assert sum(map(len, expected.values())) > ROWS


@pytest.mark.data
@pytest.mark.timeout(1800)
def test_disorder_within_the_grace_changes_nothing(frame: pl.DataFrame) -> None:
    """Rows up to five hours late, ten hours of grace: of every window the last record says the same.

    The first 100,000 rows: nearly each is a correction, which takes a hundred times as long as a row in order.
    """
    frame = frame.sort("time").head(100_000)
    order = np.argsort(frame["time"].to_numpy(), kind="stable")
    jitter = np.random.default_rng(1).integers(0, 5 * 3_600_000, len(frame))
    shuffled = np.argsort(frame["time"].to_numpy() + jitter, kind="stable")

    one, other = (last_records(rollups_in(frame, rows)) for rows in (order, shuffled))

    assert one.keys() == other.keys()
    corrected = 0
    for key, (measures, _) in one.items():
        again, revision = other[key]
        corrected += revision > 0 and key[1] == "1d"
        assert measures.keys() == again.keys()
        for name, cell in measures.items():
            assert {field: cell[field] for field in EXACT} == {field: again[name][field] for field in EXACT}
            assert again[name]["sum"] == pytest.approx(cell["sum"], rel=1e-12, abs=1e-9)
    assert corrected > sum(key[1] == "1d" for key in one) / 2


def rollups_in(frame: pl.DataFrame, order: Any) -> Driven:
    """What the agent sends about the rows in this order."""
    rows = frame[order]
    rollup = Rollup(("1h", "1d"), 10 * 3600, aggregation=Aggregation(variance=True))
    driven = Driven({}, [])
    for start in range(0, len(rows), 5_000):
        part = rows[start : start + 5_000]
        readings = Readings(
            "beijing-air",
            np.arange(len(part)),
            part["station"].to_list(),
            part["time"].to_numpy(),
            [""] * len(part),
            {name: part[name].cast(pl.Float64).fill_null(float("nan")).to_numpy() for name in COLUMNS.values()},
        )
        for topic, records in drive(rollup, reading_records(readings), base_offset=start).sent.items():
            driven.sent.setdefault(topic, []).extend(records)
    assert topics.LATE not in driven.sent
    return driven


def last_records(driven: Driven) -> dict[tuple[str, str, int], tuple[dict[str, Any], int]]:
    def each() -> Iterator[tuple[tuple[str, str, int], tuple[dict[str, Any], int]]]:
        for record in driven.sent[topics.ROLLUPS]:
            one = orjson.loads(record.value or b"")
            yield (one["device_id"], one["window"], one["start"]), (one["measures"], one["revision"])

    return dict(each())
