"""`headrace bridge` is killed under an edge node of Sparkplug B: each value is in the log once, no gap is counted."""

import asyncio
import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from headrace.connectors.sparkplug.edge import Edge
from headrace.connectors.sparkplug.settings import SparkplugSettings
from headrace.connectors.sparkplug.store import TOPIC, load_edges
from headrace.engine.embedded.log import EmbeddedLog
from headrace.engine.log import TopicPartition
from tests.chaos.bridge_world import PATIENCE, Bridge, clock, read_folder
from tests.conftest import Require
from tests.connectors.mqtt.edge_client import EdgeClient
from tests.connectors.sparkplug.edge_node import EdgeNode
from tests.mosquitto import ROOMY, Mosquitto, find_mosquitto

pytestmark = [pytest.mark.chaos, pytest.mark.integration, pytest.mark.timeout(1800)]

PROFILE = '[[profiles]]\nname = "plant"\ntopic = "spBv1.0/#"\ndevice_type = "environmental"\nformat = "sparkplug"\n'
#: Messages between two pauses, and these in seconds.
BURST, PAUSE = 40, 0.02


@pytest.fixture
def mosquitto(require: Require, tmp_path: Path) -> Iterator[Mosquitto]:
    """A Mosquitto; started."""
    require(find_mosquitto(), "mosquitto", "install the package `mosquitto`")
    broker = Mosquitto(tmp_path / "mosquitto", settings=ROOMY)
    yield broker.start()
    broker.stop()


@pytest.fixture
def bridge(mosquitto: Mosquitto, tmp_path: Path) -> Iterator[Bridge]:
    """A bridge from it; started."""
    found = Bridge(tmp_path, f'[mqtt]\nhost = "{mosquitto.host}"\nport = {mosquitto.port}\n{PROFILE}')
    found.start()
    yield found
    found.end()


async def test_killed_bridge_counts_nothing_twice(
    bridge: Bridge, mosquitto: Mosquitto, chaos_size: Any, chaos_seed: int
) -> None:
    """kill -9 at random points between receive, append and acknowledge, while an edge node publishes with QoS 1."""
    rng = random.Random(chaos_seed)
    deadline = clock.monotonic() + PATIENCE
    while "spBv1.0/#" not in mosquitto.said():
        assert clock.monotonic() < deadline, mosquitto.said()
        await clock.sleep(0.02)
    edge = EdgeClient(EdgeNode(metrics={"motor": {"rpm": (1, "Int32")}}), mosquitto.port, qos=1)
    edge.values = {("motor", "rpm"): 0}
    async with edge:
        await edge.be_born()
        stop = asyncio.Event()
        publishing = asyncio.create_task(publish(edge, stop))
        for _ in range(chaos_size.kills):
            await clock.sleep(rng.uniform(0.5, 4.0))
            bridge.kill()
            bridge.start()
        stop.set()
        last = await publishing
        found = await read(bridge, last)

    assert bridge.stop() == 0, bridge.said()
    assert found == Counter(range(last + 1))
    assert edge.requests == 0
    counts = (await known(bridge.data))["plant/press"].session.counts
    assert (counts.gaps, counts.resets, counts.births) == (0, 0, 1)
    print(f"{last} values, {counts.repeats} messages twice")


async def publish(edge: EdgeClient, stop: asyncio.Event) -> int:
    """Publish values, each one more than the one before; the last one."""
    value = 0
    while not stop.is_set():
        for _ in range(BURST):
            value += 1
            await edge.say("motor", {"rpm": value})
        await clock.sleep(PAUSE)
    return value


async def read(bridge: Bridge, last: int) -> Counter[int]:
    """How often each value is in the log, once the last one is."""
    deadline, found = clock.monotonic() + PATIENCE, Counter[int]()
    while last not in found and clock.monotonic() < deadline:
        await clock.sleep(0.5)
        found = Counter(orjson.loads(each)["rpm"] for each in await read_folder(bridge.data))
    return found


async def known(folder: Path) -> dict[str, Edge]:
    """What is known of edge nodes."""
    log = EmbeddedLog(folder)
    try:
        await log.topics()
        entries = [entry async for chunk in log.restore(TopicPartition(TOPIC, 0)) for entry in chunk]
        return load_edges(entries, lambda name: Edge(name, SparkplugSettings()))[0]
    finally:
        await log.close()
