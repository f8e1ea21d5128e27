"""`headrace replay` for real, in a process of its own: every row once, resumed where it was stopped."""

import asyncio
import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from headrace.engine.embedded.log import EmbeddedLog
from headrace.schemas import topics

pytestmark = pytest.mark.integration

#: Seconds; a limit for what hangs.
PATIENCE = 300.0
#: Rows in the log by which a replay is at work.
SOME = 20

COLUMNS = ("No", "year", "month", "day", "hour", "PM2.5", "PM10", "SO2", "NO2", "CO", "O3", "TEMP", "PRES", "DEWP")
HEADER = ",".join(f'"{name}"' for name in (*COLUMNS, "RAIN", "wd", "WSPM", "station"))


def data_set(folder: Path, rows: int) -> Path:
    """Two stations, hourly, in the form of the Beijing set, with gaps."""
    folder.mkdir()
    for station in ("North", "South"):
        lines = [HEADER]
        for number in range(rows):
            day, hour = divmod(number, 24)
            year, day = 2013 + day // 336, day % 336
            pm = "NA" if number % 7 == 0 else str(5 + number % 90)
            time = f"{year},{1 + day // 28},{1 + day % 28},{hour}"
            lines.append(
                f'{number + 1},{time},{pm},20,3,17,300,89,{number % 30 - 5},1024.5,-21.4,0,"NW",5.7,"{station}"'
            )
        (folder / f"{station}.csv").write_text("\n".join(lines) + "\n")
    return folder


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "headrace.cli.main", "replay", *arguments]


def replay(*arguments: str) -> dict[str, Any]:
    done = subprocess.run(command(*arguments, "--json"), capture_output=True, text=True, timeout=PATIENCE, check=True)
    report: dict[str, Any] = json.loads(done.stdout)
    return report


async def rows_in(folder: Path) -> int:
    """Rows that are in the log by now."""
    log = EmbeddedLog(folder)
    found = {spec.name for spec in await log.topics()}
    count = sum((await log.end_offsets(topics.RAW)).values()) if topics.RAW in found else 0
    await log.close()
    return count


def test_every_row_arrives_and_totals_cover_the_whole_replay(tmp_path: Path) -> None:
    """A replay that is run again adds nothing; its totals are those of the whole."""
    data = data_set(tmp_path / "set", 500)

    first = replay(str(data), "--data", str(tmp_path / "data"))
    again = replay(str(data), "--data", str(tmp_path / "data"))

    for report in (first, again):
        assert report["rows"] == report["accepted"] == report["stored"] == 1000
        assert report["finished"]
        assert report["balanced"]
    assert again["messages_per_second"] == 0


def test_stopped_half_way_it_goes_on_without_doubles(tmp_path: Path) -> None:
    """Ctrl-C in the middle, then kill -9 in the middle, then to the end: each row once."""
    data = data_set(tmp_path / "set", 4000)
    # All of it would take minutes: whoever looks at it late still finds it in the middle.
    paced = command(str(data), "--data", str(tmp_path / "data"), "--speed", "100000")
    for how in (signal.SIGINT, signal.SIGKILL):
        before = asyncio.run(rows_in(tmp_path / "data"))
        said = tmp_path / f"stderr-{how.name}"
        with (
            said.open("wb") as errors,
            subprocess.Popen(paced, stdout=subprocess.DEVNULL, stderr=errors) as process,
        ):
            deadline = time.monotonic() + PATIENCE
            while asyncio.run(rows_in(tmp_path / "data")) < before + SOME:
                assert process.poll() is None, said.read_text()
                assert time.monotonic() < deadline
                time.sleep(0.1)
            process.send_signal(how)
        assert asyncio.run(rows_in(tmp_path / "data")) < 8000

    report = replay(str(data), "--data", str(tmp_path / "data"))

    assert report["rows"] == report["accepted"] == report["stored"] == 8000
    assert report["duplicate"] == 0
    assert report["balanced"]


def test_through_the_broker(tmp_path: Path) -> None:
    """`--via mqtt` brings the same rows in over MQTT."""
    data = data_set(tmp_path / "set", 300)

    report = replay(str(data), "--via", "mqtt", "--data", str(tmp_path / "data"))

    assert report["accepted"] == report["stored"] == 600
    assert report["balanced"]


def test_another_data_set_in_the_same_folder_is_refused(tmp_path: Path) -> None:
    """The position belongs to one data set."""
    data = data_set(tmp_path / "set", 50)
    replay(str(data), "--data", str(tmp_path / "data"))
    other = data_set(tmp_path / "other", 60)

    done = subprocess.run(
        command(str(other), "--data", str(tmp_path / "data")),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )

    assert done.returncode == 2
    assert "--data" in done.stderr
