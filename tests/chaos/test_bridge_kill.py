"""`headrace bridge` is killed, its broker restarted, its log stalled: what the broker acknowledged reaches the log."""

import asyncio
import random
import sqlite3
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from local_kafka.cluster import Cluster

from tests.chaos.bridge_world import (
    LONG,
    LONG_OUTAGE,
    MOST_LOCKED,
    OUTAGE,
    PATIENCE,
    RATE,
    Bridge,
    Devices,
    clock,
    from_broker,
    read_folder,
    read_kafka,
    watch,
)
from tests.conftest import Require
from tests.mosquitto import ROOMY, Mosquitto, find_mosquitto

pytestmark = [pytest.mark.chaos, pytest.mark.integration, pytest.mark.timeout(1800)]


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
    found = Bridge(tmp_path, from_broker(mosquitto))
    found.start()
    yield found
    found.end()


async def wait_subscribed(mosquitto: Mosquitto) -> None:
    """Wait until the broker has the subscription: from now on it keeps what is published."""
    deadline = clock.monotonic() + PATIENCE
    while "dt/devices/+/telemetry" not in mosquitto.said():
        assert clock.monotonic() < deadline, mosquitto.said()
        await clock.sleep(0.02)


async def warm_up(read: Callable[[], Awaitable[list[bytes]]]) -> None:
    """Wait until so much is in the log that the bridge has loaded all it needs, and its memory can be compared."""
    deadline = clock.monotonic() + PATIENCE
    while len(await read()) < 2 * RATE:
        assert clock.monotonic() < deadline, "too little comes into the log"
        await clock.sleep(0.5)


async def check(bridge: Bridge, devices: Devices, read: Callable[[], Awaitable[list[bytes]]]) -> list[bytes]:
    """Wait until everything that the broker acknowledged is in the log; every payload there."""
    deadline, found = clock.monotonic() + PATIENCE, list[bytes]()
    while devices.acknowledged - {int(each) for each in found} and clock.monotonic() < deadline:
        await clock.sleep(0.5)
        found = await read()
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

    found = await check(bridge, devices, lambda: read_folder(bridge.data))

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

    await check(bridge, devices, lambda: read_folder(bridge.data))

    assert bridge.stop() == 0, bridge.said()


async def test_locked_log_loses_nothing_and_costs_no_memory(
    bridge: Bridge, mosquitto: Mosquitto, chaos_size: Any
) -> None:
    """Somebody keeps the embedded log locked, under load: the bridge waits, and is not disconnected."""
    devices = Devices(mosquitto)
    await wait_subscribed(mosquitto)
    async with devices.publishing():
        await warm_up(lambda: read_folder(bridge.data))
        database = sqlite3.connect(bridge.data / "log.sqlite", isolation_level=None)
        before = bridge.resident()
        database.execute("BEGIN IMMEDIATE")
        most = await watch(bridge, MOST_LOCKED if chaos_size.seconds >= LONG else OUTAGE)
        database.execute("ROLLBACK")
        database.close()
        most = max(most, await watch(bridge, 2.0))

    await check(bridge, devices, lambda: read_folder(bridge.data))

    finish(bridge, before, most)


async def test_kafka_away_loses_nothing_and_costs_no_memory(
    mosquitto: Mosquitto, tmp_path: Path, chaos_size: Any, kafka_tools: None
) -> None:
    """Kafka is killed under load and comes back: the bridge waits, and is not disconnected."""
    devices = Devices(mosquitto)
    with Cluster() as cluster:
        bridge = Bridge(tmp_path, from_broker(mosquitto), f"kafka://{cluster.bootstrap}")
        bridge.start()
        try:
            await wait_subscribed(mosquitto)
            async with devices.publishing():
                await warm_up(lambda: read_kafka(cluster))
                before = bridge.resident()
                cluster.kill(0)
                most = await watch(bridge, LONG_OUTAGE if chaos_size.seconds >= LONG else OUTAGE)
                await asyncio.to_thread(cluster.restart, 0)
                most = max(most, await watch(bridge, 2.0))
            await check(bridge, devices, lambda: read_kafka(cluster))
            finish(bridge, before, most)
        finally:
            bridge.end()


def finish(bridge: Bridge, before: int, most: int) -> None:
    """End the bridge; it was never disconnected, and grew by less than a quarter."""
    most = max(most, bridge.resident())
    assert bridge.stop() == 0, bridge.said()
    assert "mqtt_disconnected" not in bridge.said()
    print(f"{before / 1e6:.0f} MB before, at most {most / 1e6:.0f} MB")
    assert most < 1.25 * before
