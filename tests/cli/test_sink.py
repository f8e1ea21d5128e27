"""`headrace sink` as a user meets it, beside a log that is there."""

import asyncio
import json
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import urlopen

import asyncpg
import numpy as np
import pytest

from headrace.connectors.postgres_server import PostgresServer
from headrace.engine.clock import SystemClock
from headrace.engine.embedded.log import EmbeddedLog
from headrace.engine.log import Append, TopicPartition, TopicSpec, Transaction
from headrace.engine.testkit import reading_records
from headrace.schemas import topics
from headrace.schemas.readings import Readings

#: Seconds; many times what anything here takes.
PATIENCE = 120.0
T0 = 1_750_000_000_000

clock = SystemClock()


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., "subprocess.Popen[str]"]]:
    """Starts `headrace sink` on the data folder `data`, and leaves nothing behind."""
    started: list[subprocess.Popen[str]] = []

    def start(settings: str = "", *options: str) -> "subprocess.Popen[str]":
        config = tmp_path / "headrace.toml"
        config.write_text(settings)
        command = [sys.executable, "-m", "headrace.cli.main", "sink", "--config", str(config)]
        command += ["--data", str(tmp_path / "data"), *options]
        started.append(subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate()


async def append(folder: Path, first: int, count: int) -> None:
    """Readings of as many devices."""
    log = EmbeddedLog(folder)
    await log.create_topics([TopicSpec(topics.READINGS, 4)])
    devices = [f"d{number}" for number in range(first, first + count)]
    ids = [f"00000000-0000-4000-8000-{number:012d}" for number in range(first, first + count)]
    values = {"temperature": np.full(count, 20.0)}
    readings = Readings("environmental", np.arange(count), devices, np.full(count, T0), ids, values)
    await log.commit(Transaction([Append(TopicPartition(topics.READINGS, 1), reading_records(readings))]))
    await log.close()


async def wait_stored(folder: Path, count: int) -> None:
    """Wait until the database of the folder has so many readings."""
    deadline = clock.monotonic() + PATIENCE
    async with PostgresServer(folder) as address:
        connection = await asyncpg.connect(**address.connect_arguments())
        try:
            while clock.monotonic() < deadline:
                if await connection.fetchval("SELECT to_regclass('readings_environmental') IS NOT NULL"):
                    found = await connection.fetchval("SELECT count(*) FROM readings_environmental")
                    if found == count:
                        return
                    assert found < count
                await clock.sleep(0.05)
        finally:
            await connection.close()
    raise AssertionError(f"{count} readings are not stored")


def said(process: "subprocess.Popen[str]", pattern: str) -> str:
    """The first line on standard error in which there is `pattern`."""
    assert process.stderr is not None
    for line in process.stderr:
        if re.search(pattern, line):
            return line
    raise AssertionError(f"never said {pattern}")


def end(process: "subprocess.Popen[str]") -> Any:
    """SIGTERM, which is no error; the JSON that it ends with."""
    process.send_signal(signal.SIGTERM)
    output, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, errors
    return json.loads(output)


async def test_stores_what_is_in_the_log(start: Any, tmp_path: Path) -> None:
    """What was there before it, and what others append while it runs; it ends with statistics."""
    await append(tmp_path / "data", 0, 500)
    process = start("", "--json")
    assert "from" in said(process, "sink timescale:")
    await wait_stored(tmp_path / "data", 500)
    await append(tmp_path / "data", 500, 500)
    await wait_stored(tmp_path / "data", 1_000)

    found = end(process)["timescale"]

    assert (found["state"], found["stored"], found["lost"], found["last_error"]) == ("running", 1_000, 0, "")


async def test_second_process_takes_over(start: Any, tmp_path: Path) -> None:
    """It says that it stands by; after kill -9 of the first it stores."""
    await append(tmp_path / "data", 0, 100)
    first = start()
    await wait_stored(tmp_path / "data", 100)
    second = start("", "--json")
    line = said(second, "stands by")
    await append(tmp_path / "data", 100, 100)
    await wait_stored(tmp_path / "data", 200)

    first.kill()
    first.wait(PATIENCE)
    await append(tmp_path / "data", 200, 100)
    await wait_stored(tmp_path / "data", 300)

    assert "another process stores already: headrace timescale on this machine" in line
    assert end(second)["timescale"]["stored"] == 100


def test_database_that_is_not_there(start: Any, tmp_path: Path) -> None:
    """It is tried again; `/ready`, the metric and the statistics say what is wrong."""
    asyncio.run(append(tmp_path / "data", 0, 100))
    settings = '[database]\ndsn = "postgresql://headrace@127.0.0.1:1/headrace"\n[monitor]\nport = 0\n'
    process = start(settings, "--json")
    port = re.search(r'"port": (\d+)', said(process, "monitor_listening"))
    assert port is not None
    said(process, "sink_retrying")

    with pytest.raises(HTTPError) as refused:
        urlopen(f"http://127.0.0.1:{port[1]}/ready")
    why = json.loads(refused.value.read())["problems"][0]["problem"]
    with urlopen(f"http://127.0.0.1:{port[1]}/metrics") as answer:
        metrics = answer.read().decode()
    found = end(process)["timescale"]

    assert re.match("(retrying|probing): ConnectionRefusedError", why)
    assert re.search(r'headrace_sink_state{sink="timescale",state="(retrying|probing)"} 1', metrics)
    assert found["retries"] > 0
    assert "ConnectionRefusedError" in found["last_error"]


def test_every_mistake_is_named_at_once(start: Any, tmp_path: Path) -> None:
    """No such scheme, no such time: exit code 2."""
    process = start('[database]\ndsn = "mysql://x"\nconnect_timeout = 0\n[monitor]\nport = -1\n')

    _, errors = process.communicate(timeout=PATIENCE)

    assert process.returncode == 2
    assert all(name in errors for name in ("database.dsn", "database.connect_timeout", "monitor.port"))
