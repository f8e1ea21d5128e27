"""`headrace bridge` is killed, its broker restarted, its log stalled: what the broker acknowledged reaches the log."""

import asyncio
import random
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from headrace.connectors.mqtt.connection import BrokerAddress
from headrace.connectors.mqtt.publisher import MqttPublisher
from headrace.engine.clock import SystemClock
from headrace.engine.embedded.log import EmbeddedLog
from headrace.engine.errors import Disconnected
from headrace.schemas import topics
from tests.conftest import Require
from tests.mosquitto import ROOMY, Mosquitto, find_mosquitto

pytestmark = [pytest.mark.chaos, pytest.mark.integration, pytest.mark.timeout(1800)]
#: Messages a second, and devices that they are of.
RATE, DEVICES = 2000, 50
#: Seconds until everything has arrived after the last fault.
PATIENCE = 60.0
#: From this many seconds of load on the tests take their long form.
LONG = 60.0

clock = SystemClock()


class Bridge:
    """One `headrace bridge` on a data folder, started again and again.

    Args:
        folder: for its settings, its output and the data folder `data`.
        broker: that it takes messages from.
        version: of MQTT.
    """

    def __init__(self, folder: Path, broker: Mosquitto, version: str = "5") -> None:
        self.data = folder / "data"
        self._output = folder / "bridge.log"
        config = folder / "headrace.toml"
        config.write_text(
            f'[mqtt]\nhost = "{broker.host}"\nport = {broker.port}\nversion = "{version}"\nkeepalive = 2\n'
        )
        arguments = ["bridge", "--config", str(config), "--data", str(self.data)]
        self._command = [sys.executable, "-m", "headrace.cli.main", *arguments]
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it."""
        with self._output.open("ab") as output:
            self._process = subprocess.Popen(self._command, stdout=output, stderr=subprocess.STDOUT)

    def kill(self) -> None:
        """End it at once: kill -9."""
        if self._process is not None:
            assert self._process.poll() is None, self.said()
            self._process.kill()
            self._process.wait()

    def stop(self) -> int:
        """Its exit code after SIGTERM."""
        assert self._process is not None
        self._process.terminate()
        return self._process.wait(PATIENCE)

    def end(self) -> None:
        """Leave nothing behind."""
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait()

    def resident(self) -> int:
        """Its resident memory, bytes."""
        assert self._process is not None
        return int(psutil.Process(self._process.pid).memory_info().rss)

    def said(self) -> str:
        """The end of its output."""
        return self._output.read_text(errors="replace")[-3000:]


class Devices:
    """Publish at `RATE` with QoS 1, each message until the broker has acknowledged it."""

    def __init__(self, broker: Mosquitto) -> None:
        self._address = BrokerAddress(broker.host, broker.port)
        self._next = 0
        #: Messages that the broker has acknowledged.
        self.acknowledged: set[int] = set()

    @asynccontextmanager
    async def publishing(self) -> AsyncIterator[None]:
        """Publish for as long as the `async with` lasts."""
        stop = asyncio.Event()
        task = asyncio.create_task(self._run(stop))
        try:
            yield
        finally:
            stop.set()
            await task

    async def _run(self, stop: asyncio.Event) -> None:
        batch: list[int] = []
        while not stop.is_set() or batch:
            if not batch:
                batch = list(range(self._next, self._next + RATE // 20))
                self._next += len(batch)
            try:
                async with MqttPublisher(self._address) as publisher:
                    while batch:
                        began = clock.monotonic()
                        for number in batch:
                            await publisher.publish(f"dt/devices/d{number % DEVICES}/telemetry", b"%d" % number)
                        await publisher.drain()
                        self.acknowledged.update(batch)
                        batch = [] if stop.is_set() else list(range(self._next, self._next + RATE // 20))
                        self._next += len(batch)
                        await clock.sleep(max(0.0, 0.05 - (clock.monotonic() - began)))
            except* Disconnected:
                await clock.sleep(0.1)  # the broker restarts: the batch again


@pytest.fixture
def mosquitto(require: Require, tmp_path: Path) -> Iterator[Mosquitto]:
    """A Mosquitto that keeps its sessions over a restart; started."""
    require(find_mosquitto(), "mosquitto", "install the package `mosquitto`")
    # To save after every change, with thousands waiting, is all it would do.
    broker = Mosquitto(tmp_path / "mosquitto", settings=[*ROOMY, "autosave_on_changes false"], persistent=True)
    yield broker.start()
    broker.stop()


@pytest.fixture
def bridge(mosquitto: Mosquitto, tmp_path: Path) -> Iterator[Bridge]:
    """A bridge from it; started, and subscribed."""
    found = Bridge(tmp_path, mosquitto)
    found.start()
    yield found
    found.end()


async def wait_subscribed(mosquitto: Mosquitto) -> None:
    """Wait until the broker has the subscription: from now on it keeps what is published."""
    deadline = clock.monotonic() + PATIENCE
    while "dt/devices/+/telemetry" not in mosquitto.said():
        assert clock.monotonic() < deadline, mosquitto.said()
        await clock.sleep(0.02)


async def check(bridge: Bridge, devices: Devices) -> list[bytes]:
    """Wait until everything that the broker acknowledged is in the log; every payload there."""
    deadline, found = clock.monotonic() + PATIENCE, list[bytes]()
    log = EmbeddedLog(bridge.data)
    try:
        while devices.acknowledged - {int(each) for each in found} and clock.monotonic() < deadline:
            await clock.sleep(0.5)
            await log.topics()
            pieces = [await log.read(target, 0, 10_000_000) for target in await log.end_offsets(topics.RAW)]
            found = [value for piece in pieces if piece for value in piece.records.values if value is not None]
    finally:
        await log.close()
    missing = devices.acknowledged - {int(each) for each in found}
    assert not missing, f"{len(missing)} of {len(devices.acknowledged)} are missing\n{bridge.said()}"
    return found


async def test_killed_bridge_loses_nothing(
    bridge: Bridge, mosquitto: Mosquitto, chaos_size: Any, chaos_seed: int
) -> None:
    """kill -9 at random points, between receive, append and acknowledge: every acknowledged message is in the log."""
    rng, devices = random.Random(chaos_seed), Devices(mosquitto)
    await wait_subscribed(mosquitto)
    async with devices.publishing():
        for _ in range(chaos_size.kills):
            # A start takes about a second: some kills hit it, most hit the work.
            await clock.sleep(rng.uniform(0.5, 4.0))
            bridge.kill()
            bridge.start()

    found = await check(bridge, devices)

    assert bridge.stop() == 0, bridge.said()
    print(f"{len(devices.acknowledged)} acknowledged, {len(found) - len(set(found))} twice")


async def test_restarted_broker_loses_nothing(bridge: Bridge, mosquitto: Mosquitto, chaos_size: Any) -> None:
    """A broker that is stopped and started again, with its sessions saved: every acknowledged message is in the log."""
    devices = Devices(mosquitto)
    await wait_subscribed(mosquitto)
    async with devices.publishing():
        for _ in range(min(chaos_size.kills, 10)):
            await clock.sleep(1.0)
            await asyncio.to_thread(mosquitto.stop)
            await asyncio.to_thread(mosquitto.start)

    await check(bridge, devices)

    assert bridge.stop() == 0, bridge.said()


async def test_stalled_log_loses_nothing_and_costs_no_memory(
    bridge: Bridge, mosquitto: Mosquitto, chaos_size: Any
) -> None:
    """The log takes nothing for a while, under load: the bridge waits, connected, and grows by less than a quarter."""
    seconds = 60.0 if chaos_size.seconds >= LONG else 5.0
    devices = Devices(mosquitto)
    await wait_subscribed(mosquitto)
    async with devices.publishing():
        await clock.sleep(3.0)
        before, most = bridge.resident(), 0
        database = sqlite3.connect(bridge.data / "log.sqlite", isolation_level=None)
        database.execute("BEGIN IMMEDIATE")
        for _ in range(round(seconds * 2)):
            await clock.sleep(0.5)
            most = max(most, bridge.resident())
        database.execute("ROLLBACK")
        database.close()
        await clock.sleep(2.0)

    await check(bridge, devices)

    most = max(most, bridge.resident())
    assert bridge.stop() == 0, bridge.said()
    assert "mqtt_disconnected" not in bridge.said()
    print(f"{before / 1e6:.0f} MB before, at most {most / 1e6:.0f} MB")
    assert most < 1.25 * before
