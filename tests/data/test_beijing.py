"""The real Beijing air-quality set: what is stored and rolled up equals the raw files. `make verify-data DATA=…`."""

import asyncio
import json
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import asyncpg
import polars as pl
import pytest

from headrace.connectors.postgres_server import PostgresServer

COLUMNS = {
    "PM2.5": "pm25", "PM10": "pm10", "SO2": "so2", "NO2": "no2", "CO": "co", "O3": "o3", "TEMP": "temperature",
    "PRES": "pressure", "DEWP": "dew_point", "RAIN": "rain", "WSPM": "wind_speed",
}  # fmt: skip
ROWS, ABSENT, ABSENT_WIND = 420_768, 72_205, 1_822
DAY_MS = 86_400_000
CONFIG = "[rollup]\nwindows = [3600, 86400]\n"


def raw_rows(folder: Path) -> pl.DataFrame:
    """The files as they are, with the event time in ms."""
    frame = pl.concat(
        [pl.read_csv(file, null_values=["NA"], infer_schema_length=None) for file in sorted(folder.glob("*.csv.gz"))]
    )
    local = pl.datetime("year", "month", "day", "hour", time_zone="Asia/Shanghai")
    return frame.with_columns(local.dt.epoch("ms").alias("time")).rename(COLUMNS)


async def stored(folder: Path) -> tuple[list[Any], list[Any]]:
    async with PostgresServer(folder) as address:
        connection = await asyncpg.connect(**address.connect_arguments())
        readings = await connection.fetch('SELECT * FROM "readings_beijing-air"')
        rollups = await connection.fetch("SELECT * FROM rollups WHERE window_seconds = 86400")
        await connection.close()
    return readings, rollups


@pytest.mark.data
@pytest.mark.timeout(1200)
def test_replay_equals_the_raw_files(data_path: str, tmp_path: Path) -> None:
    """Every row once, no NA as a number, and each day's aggregates as polars computes them on the files."""
    source = Path(data_path) / "beijing-air"
    (tmp_path / "config.toml").write_text(CONFIG)
    command = [sys.executable, "-m", "headrace.cli.main", "replay", str(source), "--json"]
    options = ["--data", str(tmp_path / "data"), "--config", str(tmp_path / "config.toml")]
    done = subprocess.run([*command, *options], stdout=subprocess.PIPE, text=True, check=True)
    report = json.loads(done.stdout)
    frame = raw_rows(source)

    readings, rollups = asyncio.run(stored(tmp_path / "data"))

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
    compare_days(frame, rollups)


def compare_days(frame: pl.DataFrame, rollups: list[Any]) -> None:
    days = frame.sort("time").group_by("station", pl.col("time") // DAY_MS * DAY_MS, maintain_order=True)
    found = {(row["device_id"], row["start"]): json.loads(row["measures"]) for row in rollups}
    checked = 0
    for name in COLUMNS.values():
        column = pl.col(name).drop_nulls()
        cells = {"count": column.len(), "sum": column.sum(), "min": column.min(), "max": column.max()}
        cells |= {"first": column.first(), "last": column.last()}
        for row in days.agg(**cells).iter_rows(named=True):
            measures = found.get((row["station"], datetime.fromtimestamp(row["time"] / 1000, UTC)))
            if measures is None:
                continue  # the last day of each station is still open
            cell = measures.get(name)
            assert (cell is None) == (row["count"] == 0)
            if cell is not None:
                assert {key: cell[key] for key in ("count", "min", "max", "first", "last")} == {
                    key: row[key] for key in ("count", "min", "max", "first", "last")
                }
                assert cell["sum"] == pytest.approx(row["sum"], rel=1e-12, abs=1e-9)
                checked += 1
    assert checked > 11 * 12 * 1_400
