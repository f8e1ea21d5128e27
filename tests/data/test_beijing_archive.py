"""The real Beijing air-quality set, its older half archived: archive, database and history equal the raw files."""

import asyncio
import json
import subprocess
import sys
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import orjson
import polars as pl
import pytest

from headrace.connectors.archive.object_store import open_store
from headrace.connectors.archive.reader import ArchiveReader
from headrace.connectors.archive.settings import ArchiveSettings
from headrace.connectors.postgres_server import PostgresServer
from headrace.connectors.timescale.store import Store
from headrace.engine.clock import SystemClock
from tests.data.test_beijing import COLUMNS, buckets, raw_rows, stored

#: Days before this one are archived.
BEFORE = date(2015, 3, 1)
CUT_MS = round(datetime(2015, 3, 1, tzinfo=UTC).timestamp() * 1000)
DAY_MS = 86_400_000
HEADRACE = [sys.executable, "-m", "headrace.cli.main"]


@pytest.fixture(scope="module")
def frame(request: pytest.FixtureRequest) -> pl.DataFrame:
    return raw_rows(Path(request.config.getoption("--data")) / "beijing-air").rename({"wd": "wind_direction"})


@pytest.fixture(scope="module")
def archived(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """The data folder of a replay whose older rows were archived, and what the command reported."""
    source = Path(request.config.getoption("--data")) / "beijing-air"
    folder = tmp_path_factory.mktemp("archived")
    data = ["--data", str(folder / "data")]
    subprocess.run([*HEADRACE, "replay", str(source), "--json", *data], stdout=subprocess.DEVNULL, check=True)
    run = [*HEADRACE, "archive", "run", "--before", BEFORE.isoformat(), "--json", *data]
    done = subprocess.run(run, stdout=subprocess.PIPE, text=True, check=True)
    return folder, json.loads(done.stdout)


def tree(folder: Path) -> str:
    return str(folder / "data/archive/readings/**/*.parquet")


@pytest.mark.data
@pytest.mark.timeout(1800)
def test_every_archived_row_equals_the_raw_files(archived: tuple[Path, dict[str, Any]], frame: pl.DataFrame) -> None:
    """DuckDB finds each old row once, on its day, with the raw file's values bit for bit; the database the others."""
    folder, report = archived
    old = frame.filter(pl.col("time") < CUT_MS)

    found = pl.DataFrame(
        duckdb.execute(
            f"SELECT device_id, epoch_ms(time) AS time, day, extra, {', '.join(COLUMNS.values())} "
            "FROM read_parquet(?, hive_partitioning = true) ORDER BY device_id, time",
            [tree(folder)],
        ).fetchall(),
        orient="row",
        schema={"device_id": pl.String, "time": pl.Int64, "day": pl.Date, "extra": pl.String}
        | dict.fromkeys(COLUMNS.values(), pl.Float64),
    )

    assert report["failures"] == []
    assert found.height == old.height <= report["rows"]  # anomalies leave, too
    files = list((folder / "data/archive/readings").rglob("*.parquet"))
    assert len(files) == old.select((pl.col("time") // DAY_MS).n_unique()).item()
    expected = old.sort("station", "time")
    assert found["device_id"].to_list() == expected["station"].to_list()
    assert found["time"].to_list() == expected["time"].to_list()
    assert (found["day"].cast(pl.Datetime("ms")).dt.epoch("ms") == found["time"] // DAY_MS * DAY_MS).all()
    for name in COLUMNS.values():
        assert found[name].equals(expected[name].cast(pl.Float64).rename(name), null_equal=True), name
    directions = [orjson.loads(extra).get("wind_direction") if extra else None for extra in found["extra"]]
    assert directions == expected["wind_direction"].to_list()


@pytest.mark.data
@pytest.mark.timeout(1800)
def test_the_database_has_the_rest(archived: tuple[Path, dict[str, Any]], frame: pl.DataFrame) -> None:
    """Every younger row is still stored, and no older one."""
    folder, _ = archived

    rows = asyncio.run(stored(folder, 'SELECT device_id, time FROM "readings_beijing-air"'))

    young = frame.filter(pl.col("time") >= CUT_MS)
    found = {(row["device_id"], round(row["time"].timestamp() * 1000)) for row in rows}
    assert len(rows) == young.height
    assert found == set(young.select("station", "time").iter_rows())


@pytest.mark.data
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(("step", "seconds"), [("1h", 3600), ("1d", 86_400)])
def test_bins_of_the_archive_equal_the_raw_files(
    archived: tuple[Path, dict[str, Any]], frame: pl.DataFrame, step: str, seconds: int
) -> None:
    """Counts, extremes and means per hour and per day, by SQL over the files, equal polars over the raw files."""
    folder, _ = archived
    cells = ", ".join(f"count({name}), min({name}), max({name}), avg({name})" for name in COLUMNS.values())

    rows = duckdb.execute(
        f"SELECT device_id, epoch_ms(time) // {seconds * 1000} * {seconds * 1000} AS start, {cells} "
        "FROM read_parquet(?, hive_partitioning = true) GROUP BY 1, 2 ORDER BY 1, 2",
        [tree(folder)],
    ).fetchall()

    utc = frame.filter(pl.col("time") < CUT_MS).with_columns(pl.col("moment").dt.convert_time_zone("UTC"))
    for station in frame["station"].unique(maintain_order=True).to_list():
        expected = buckets(utc.filter(pl.col("station") == station), step, 1)
        mine = {row[1]: row[2:] for row in rows if row[0] == station}
        assert mine.keys() == expected.keys()
        for start, values in mine.items():
            for place, name in enumerate(COLUMNS.values()):
                count, least, most, mean = values[4 * place : 4 * place + 4]
                wanted = expected[start].get(name)
                assert count == (wanted["count"] if wanted else 0)
                if wanted:
                    assert (least, most) == (wanted["min"], wanted["max"])
                    assert mean == pytest.approx(wanted["sum"] / count, rel=1e-12, abs=1e-9)


@pytest.mark.data
@pytest.mark.timeout(1800)
def test_history_spans_the_archive(archived: tuple[Path, dict[str, Any]], frame: pl.DataFrame) -> None:
    """Raw history of each station over the boundary, and days from the first on, equal the raw files."""
    folder, _ = archived
    stations = frame["station"].unique(maintain_order=True).to_list()
    start_ms, end_ms = CUT_MS - 40 * DAY_MS, CUT_MS + 40 * DAY_MS

    async def ask() -> list[tuple[Any, Any]]:
        async with PostgresServer(folder / "data") as address:
            connect = address.connect_arguments()
            reader = ArchiveReader(connect, open_store(ArchiveSettings(), folder / "data"))
            async with Store(connect, SystemClock(), archive=reader) as store:
                found = [
                    (
                        await store.raw(station, start_ms, end_ms, limit=10_000),
                        await store.history(station, start_ms, end_ms, "1d", source="readings"),
                    )
                    for station in stations
                ]
            await reader.close()
            return found

    for station, (raw, days) in zip(stations, asyncio.run(ask()), strict=True):
        own = frame.filter((pl.col("station") == station) & pl.col("time").is_between(start_ms, end_ms, closed="left"))
        own = own.sort("time")
        some = own.filter(pl.any_horizontal(pl.col(name).is_not_null() for name in COLUMNS.values()))
        assert raw.times.tolist() == some["time"].to_list()
        for name in COLUMNS.values():
            expected = some[name].cast(pl.Float64).fill_null(float("nan")).to_numpy()
            assert np.array_equal(raw.metrics[name], expected, equal_nan=True)
        assert [stretch.source for stretch in raw.about.sources] == ["archive", "readings"]
        by_day = own.group_by(pl.col("time") // DAY_MS * DAY_MS, maintain_order=True).agg(pl.col("pm25").count())
        assert dict(zip(days.times.tolist(), days.metrics["pm25"].count.tolist(), strict=True)) == dict(
            by_day.iter_rows()
        )
