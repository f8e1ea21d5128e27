"""The listener is killed, its log stalled, it is stopped under load: what it acknowledged to devices is in the log."""

import asyncio
import itertools
import random
import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from local_kafka.cluster import Cluster

from headrace.connectors.mqtt.codec.packets import Disconnect
from tests.chaos.bridge_world import (
    LONG,
    LONG_OUTAGE,
    MOST_LOCKED,
    OUTAGE,
    RATE,
    Bridge,
    clock,
    read_folder,
    read_kafka,
    watch,
)
from tests.chaos.listener_devices import ListenerDevices, port_below_ephemeral
from tests.connectors.mqtt.raw_client import connected

pytestmark = [pytest.mark.chaos, pytest.mark.integration, pytest.mark.timeout(1800)]
#: Of so many kills one is on Kafka, where a start takes longer.
KAFKA_SHARE = 10
#: The share of kills that hit the work; the others hit the start.
WORKING = 0.8
#: Messages after which a process has loaded all that it needs, so that its memory can be compared.
WARM_UP = 2 * RATE


@pytest.fixture
def port() -> int:
    """Where to listen."""
    return port_below_ephemeral()


@pytest.fixture
def bridge(tmp_path: Path, port: int) -> Iterator[Bridge]:
    """A listener on the embedded log; started."""
    found = Bridge(tmp_path, settings(port))
    found.start()
    yield found
    found.end()


def settings(port: int) -> str:
    """Of a listener that lets all devices in."""
    return f"[listener]\nport = {port}\nanonymous = true\n"


async def kill_again_and_again(bridge: Bridge, devices: ListenerDevices, rng: random.Random, kills: int) -> None:
    """kill -9 at random points, between receive, append and acknowledge, and start again."""
    await devices.wait_connected()
    for _ in range(kills):
        if rng.random() < WORKING:
            await devices.wait_acknowledged()
        await clock.sleep(rng.uniform(0.0, 1.0))
        bridge.kill()
        bridge.start()
    await devices.wait_acknowledged()


async def test_killed_listener_loses_nothing(bridge: Bridge, port: int, chaos_size: Any, chaos_seed: int) -> None:
    """On the embedded log: every message that a device got PUBACK or PUBREC for is there, first copies in order."""
    devices = ListenerDevices(port, chaos_seed)
    async with devices.publishing():
        await kill_again_and_again(bridge, devices, random.Random(chaos_seed), chaos_size.kills)

    assert bridge.stop() == 0, bridge.said()
    twice = devices.check(await read_folder(bridge.data))

    print(f"{devices.acknowledged} acknowledged, {twice} twice")


async def test_killed_listener_loses_nothing_on_kafka(
    tmp_path: Path, port: int, chaos_size: Any, chaos_seed: int, kafka_tools: None
) -> None:
    """The same on Kafka."""
    devices = ListenerDevices(port, chaos_seed)
    with Cluster() as cluster:
        bridge = Bridge(tmp_path, settings(port), f"kafka://{cluster.bootstrap}")
        bridge.start()
        try:
            async with devices.publishing():
                kills = max(1, chaos_size.kills // KAFKA_SHARE)
                await kill_again_and_again(bridge, devices, random.Random(chaos_seed), kills)
            assert bridge.stop() == 0, bridge.said()
            twice = devices.check(await read_kafka(cluster))
        finally:
            bridge.end()

    print(f"{devices.acknowledged} acknowledged, {twice} twice")


async def test_stopped_under_load_loses_nothing(bridge: Bridge, port: int, chaos_seed: int) -> None:
    """SIGTERM while devices send: it ends with 0, and what it acknowledged is in the log."""
    devices = ListenerDevices(port, chaos_seed)
    async with devices.publishing(finish=False):
        await devices.wait_connected()
        await devices.wait_acknowledged(RATE)
        assert await asyncio.to_thread(bridge.stop) == 0, bridge.said()

    assert devices.acknowledged
    devices.check(await read_folder(bridge.data))


async def test_locked_log_loses_nothing_and_costs_no_memory(
    bridge: Bridge, port: int, chaos_size: Any, chaos_seed: int
) -> None:
    """Somebody keeps the embedded log locked, under load: devices wait, and stay connected."""
    devices = ListenerDevices(port, chaos_seed)
    async with devices.publishing():
        await devices.wait_connected()
        await devices.wait_acknowledged(WARM_UP)
        database = sqlite3.connect(bridge.data / "log.sqlite", isolation_level=None)
        before = bridge.resident()
        database.execute("BEGIN IMMEDIATE")
        most = await watch_outage(bridge, devices, MOST_LOCKED if chaos_size.seconds >= LONG else OUTAGE)
        database.execute("ROLLBACK")
        database.close()
        most = max(most, await watch(bridge, 1.0))

    finish(bridge, devices, await read_folder(bridge.data), before, most)


async def test_kafka_away_loses_nothing_and_costs_no_memory(
    tmp_path: Path, port: int, chaos_size: Any, chaos_seed: int, kafka_tools: None
) -> None:
    """Kafka is killed under load and comes back: devices wait, and stay connected."""
    devices = ListenerDevices(port, chaos_seed)
    with Cluster() as cluster:
        bridge = Bridge(tmp_path, settings(port), f"kafka://{cluster.bootstrap}")
        bridge.start()
        try:
            async with devices.publishing():
                await devices.wait_connected()
                await devices.wait_acknowledged(WARM_UP)
                before = bridge.resident()
                cluster.kill(0)
                most = await watch_outage(bridge, devices, LONG_OUTAGE if chaos_size.seconds >= LONG else OUTAGE)
                await asyncio.to_thread(cluster.restart, 0)
                most = max(most, await watch(bridge, 1.0))
            finish(bridge, devices, await read_kafka(cluster), before, most)
        finally:
            bridge.end()


async def watch_outage(bridge: Bridge, devices: ListenerDevices, seconds: float) -> int:
    """The log is away: nothing is acknowledged, pings are answered, clients come and go; largest memory, bytes."""
    until = clock.monotonic() + seconds
    await devices.wait_quiet()  # what was committed just before it went is still being acknowledged
    acknowledged, most = devices.acknowledged, 0
    for number in itertools.count():
        async with connected(devices.port, f"guest{number}") as guest:
            assert guest.connack.reason == 0
            guest.send(Disconnect())
            await guest.last_words()
        await devices.wait_answered()
        most = max(most, bridge.resident())
        if clock.monotonic() >= until:
            break
    assert devices.acknowledged == acknowledged
    assert devices.lost == 0
    return most


def finish(bridge: Bridge, devices: ListenerDevices, found: Sequence[bytes], before: int, most: int) -> None:
    """End the listener; nobody was disconnected, everything has arrived, and it grew by less than a quarter."""
    assert devices.lost == 0
    most = max(most, bridge.resident())
    assert bridge.stop() == 0, bridge.said()
    devices.check(found)
    print(f"{devices.acknowledged} acknowledged; {before / 1e6:.0f} MB before, at most {most / 1e6:.0f} MB")
    assert most < 1.25 * before
