"""Everything that watches a worker, on the embedded log in memory and real sockets."""

import asyncio
import json
import threading
from collections.abc import AsyncIterator
from typing import Any
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest

from headrace.engine.clock import SteppedClock
from headrace.engine.collectors import Reads
from headrace.engine.embedded.database import MEMORY
from headrace.engine.embedded.log import EmbeddedLog
from headrace.engine.errors import ConfigError
from headrace.engine.ledger import Ledger
from headrace.engine.log import Append, TopicPartition, TopicSpec, Transaction
from headrace.engine.monitor import MonitorSettings
from headrace.engine.monitoring import Monitoring
from headrace.engine.records import Records

TARGET = TopicPartition("things", 0)
#: Seconds for what takes milliseconds.
PATIENCE = 120.0


@pytest.fixture
async def log() -> AsyncIterator[EmbeddedLog]:
    """A log with a topic of one partition, and three records in it."""
    log = EmbeddedLog(MEMORY)
    await log.create_topics([TopicSpec("things", 1)])
    await log.commit(Transaction([Append(TARGET, Records([b"k"] * 3, [b"v"] * 3, [0] * 3))]))
    yield log
    await log.close()


def ask(monitoring: Monitoring, path: str) -> tuple[int, bytes]:
    """Status and body of a page."""
    try:
        with urlopen(f"http://127.0.0.1:{monitoring.monitor.port}{path}", timeout=PATIENCE) as response:
            return response.status, response.read()
    except HTTPError as error:
        with error:
            return error.code, error.read()


async def wait_page(monitoring: Monitoring, path: str, status: int, text: str) -> Any:
    """Ask, giving the loop back in between, until the page has this status and text; the page."""
    async with asyncio.timeout(PATIENCE):
        while True:
            found, body = await asyncio.to_thread(ask, monitoring, path)
            if found == status and text in body.decode():
                return json.loads(body) if path != "/metrics" else body.decode()


async def test_stuck_group_shows_up_and_goes(log: EmbeddedLog) -> None:
    """Lag is read, exported and judged without anybody's doing; a commit makes the worker healthy again."""
    clock = SteppedClock()
    monitoring = Monitoring(MonitorSettings(port=0), clock)
    monitoring.watch_lag(log, [Reads("g", lambda: [TARGET], lambda: "no disk")])

    async with monitoring:
        text = await wait_page(monitoring, "/metrics", 200, "headrace_lag_records{")
        assert 'headrace_lag_records{group="g",partition="0",topic="things"} 3.0' in text

        document = await wait_page(monitoring, "/health", 503, "g things[0]")
        assert "no disk" in document["problems"][0]["problem"]

        await log.commit(Transaction(group="g", positions={TARGET: 3}))
        await wait_page(monitoring, "/health", 200, "ok")


async def test_ledger_shows_up() -> None:
    """It is read and exported."""
    monitoring = Monitoring(MonitorSettings(port=0), SteppedClock())

    async def read() -> Ledger:
        return Ledger(9, 8, 1, 0, 0, 0)

    monitoring.watch_ledger(read)

    async with monitoring:
        await wait_page(monitoring, "/metrics", 200, 'headrace_ledger_messages{term="stored"} 8.0')


async def test_without_a_port_nothing_is_served_or_read() -> None:
    """Only the event loop is watched."""
    clock = SteppedClock()
    monitoring = Monitoring(MonitorSettings(), clock)

    async def read() -> Ledger:
        raise AssertionError("read without anybody to look")

    monitoring.watch_ledger(read)

    async with monitoring:
        while clock.monotonic() < 60:
            await asyncio.sleep(0)
        assert monitoring.monitor.port == 0
        assert monitoring.health.problems() == []
    assert monitoring.metrics.value("headrace_collector_failures_total", collector="ledger") == 0


async def test_end_stops_everything() -> None:
    """Tasks and thread, also when the worker fails."""
    monitoring = Monitoring(MonitorSettings(port=0), SteppedClock())

    with pytest.raises(RuntimeError, match="worker"):
        async with monitoring:
            raise RuntimeError("worker")

    assert asyncio.all_tasks() == {asyncio.current_task()}
    assert "headrace-http" not in {thread.name for thread in threading.enumerate()}


async def test_port_in_use_is_told_before_the_worker_starts() -> None:
    """Entering fails, and leaves nothing behind."""
    async with Monitoring(MonitorSettings(port=0), SteppedClock()) as first:
        with pytest.raises(ConfigError, match=r"monitor\.port"):
            await Monitoring(MonitorSettings(port=first.monitor.port), SteppedClock()).__aenter__()
