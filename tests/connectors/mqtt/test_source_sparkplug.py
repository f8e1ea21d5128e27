"""Sparkplug B from an edge node through a real Mosquitto and the MQTT source into the log."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import aiomqtt
import orjson
import pytest

from headrace.connectors.mqtt.host_state import HostState
from headrace.connectors.mqtt.settings import MqttSettings
from headrace.connectors.mqtt.source import MqttSource
from headrace.connectors.routed_intake import RoutedIntake
from headrace.connectors.sparkplug.intake import SparkplugIntake
from headrace.connectors.sparkplug.routing import SparkplugRouting
from headrace.connectors.sparkplug.settings import SparkplugSettings
from headrace.connectors.topic_profile import TopicProfile
from headrace.engine.clock import SystemClock
from headrace.engine.embedded.database import MEMORY
from headrace.engine.embedded.log import EmbeddedLog
from headrace.engine.intake import Intake
from headrace.engine.log import TopicSpec
from headrace.schemas import topics
from tests.connectors.mqtt.edge_client import EdgeClient
from tests.connectors.sparkplug.edge_node import EdgeNode
from tests.connectors.sparkplug.motor import PATIENCE, Motor
from tests.contract.source_contract import GatedIntake, arrived, until
from tests.mosquitto import Mosquitto

pytestmark = pytest.mark.integration
PROFILES = (TopicProfile(name="plant", topic="spBv1.0/#", device_type="machine", format="sparkplug"),)
METRICS = {"motor": {"rpm": (7, "Int32")}}


class Bridge(Motor):
    """A source with its Sparkplug intake, one after the other on one log."""

    def __init__(self, broker: Mosquitto, log: EmbeddedLog, host_id: str | None = None) -> None:
        self._settings = MqttSettings(host=broker.host, port=broker.port, session_expiry=3600)
        self._host_id = host_id
        self.log = log

    async def start(self, intake: Intake | None = None) -> None:
        """As a process begins."""
        clock = SystemClock()
        intake = intake or Intake(self.log, clock)
        self.sparkplug = SparkplugIntake(SparkplugSettings(reorder_timeout=0.2), PROFILES[0], intake, self.log, clock)
        routing = SparkplugRouting(self.sparkplug, RoutedIntake(intake, PROFILES))
        host = None if self._host_id is None else HostState(self._host_id, clock)
        self.source = MqttSource(self._settings, ["spBv1.0/#"], routing, clock, host=host)
        self.sparkplug.commands.append(self.source.command)
        self.stop = asyncio.Event()
        self._tasks = [asyncio.create_task(each.run(self.stop)) for each in (self.source, self.sparkplug)]
        await self.source.wait_subscribed()

    async def finish(self) -> None:
        """As a person stops it."""
        self.stop.set()
        await asyncio.wait_for(asyncio.gather(*self._tasks), PATIENCE)

    async def kill(self) -> None:
        """As a crash ends it."""
        for task in self._tasks:
            task.cancel()
        await asyncio.wait(self._tasks)


@pytest.fixture
async def log() -> AsyncIterator[EmbeddedLog]:
    """An empty log."""
    log = EmbeddedLog(MEMORY)
    await log.create_topics([*Intake.topic_specs(4), *SparkplugIntake.topic_specs(), TopicSpec(topics.PRESENCE, 1)])
    yield log
    await log.close()


@pytest.fixture
async def edge(mosquitto: Mosquitto) -> EdgeClient:
    """An edge node with one device that has one metric."""
    client = EdgeClient(EdgeNode(metrics=METRICS), mosquitto.port)
    client.values = {("motor", "rpm"): 100}
    return client


async def test_births_data_and_death(mosquitto: Mosquitto, log: EmbeddedLog, edge: EdgeClient) -> None:
    """What an edge node says by alias is in the log by name, and when its connection breaks it is dead."""
    bridge = Bridge(mosquitto, log)
    await bridge.start()
    async with edge:
        await edge.be_born()
        await edge.say("motor", {"rpm": 101})
        await edge.say("motor", {"rpm": -102})
        await bridge.until_read(100, 101, -102)
        await edge.die()
    await until(lambda: bridge.sparkplug.statistics().online == 0)
    await bridge.finish()

    assert bridge.sparkplug.statistics().gaps == 0
    assert edge.requests == 0


async def test_a_host_that_comes_late(mosquitto: Mosquitto, log: EmbeddedLog, edge: EdgeClient) -> None:
    """Data of an edge node that was born before wait; it is asked for its births over the same connection."""
    bridge = Bridge(mosquitto, log)
    async with edge:
        await edge.be_born()
        await bridge.start()
        await edge.say("motor", {"rpm": 101})
        await bridge.until_read(100, 101)
        await bridge.finish()

    assert edge.requests == 1
    assert bridge.sparkplug.statistics().waiting == 0


async def test_a_lost_message(mosquitto: Mosquitto, log: EmbeddedLog, edge: EdgeClient) -> None:
    """A gap is counted, what came behind it is read, and the edge node is asked for its births."""
    bridge = Bridge(mosquitto, log)
    await bridge.start()
    async with edge:
        await edge.be_born()
        edge.node.data("motor", edge.now, {"rpm": 999})
        edge.values = {("motor", "rpm"): 103}
        await edge.say("motor", {"rpm": 102})
        await bridge.until_read(100, 102, 103)
        await bridge.finish()

    found = bridge.sparkplug.statistics()
    assert (found.gaps, found.missing, edge.requests) == (1, 1, 1)


async def test_killed_between_append_and_acknowledgement(
    mosquitto: Mosquitto, log: EmbeddedLog, edge: EdgeClient
) -> None:
    """What the broker sends again is recognised: each value is there once, and no gap is counted."""
    edge.qos = 1
    bridge, intake = Bridge(mosquitto, log), GatedIntake(log)
    await bridge.start(intake)
    async with edge:
        await edge.be_born()
        await bridge.until_read(100)
        intake.durable.clear()
        intake.after.clear()
        for rpm in range(300):
            await edge.say("motor", {"rpm": 1000 + rpm})
        await intake.durable.wait()
        await bridge.kill()
        await edge.say("motor", {"rpm": 2000})
        await bridge.start()
        await bridge.until_read(100, *range(1000, 1300), 2000)
        await bridge.finish()

    assert sorted(await bridge.rpm()) == [100, *range(1000, 1300), 2000]
    found = bridge.sparkplug.statistics()
    assert found.repeats > 0
    assert (found.gaps, found.resets, edge.requests) == (0, 0, 0)


async def test_what_came_while_we_were_away(mosquitto: Mosquitto, log: EmbeddedLog, edge: EdgeClient) -> None:
    """The session at the broker is kept, and so is what is known of the edge node: it need not be born again."""
    edge.qos = 1
    bridge = Bridge(mosquitto, log)
    await bridge.start()
    async with edge:
        await edge.be_born()
        await bridge.until_read(100)
        await bridge.finish()
        await edge.say("motor", {"rpm": 101})
        await bridge.start()
        await bridge.until_read(100, 101)
        await bridge.finish()

    assert (bridge.sparkplug.statistics().gaps, edge.requests) == (0, 0)


async def test_a_primary_host(mosquitto: Mosquitto, log: EmbeddedLog) -> None:
    """It says that it is there, retained, with its will's timestamp; that it is not after all is contradicted."""
    bridge = Bridge(mosquitto, log, host_id="scada")
    said: asyncio.Queue[dict[str, Any]] = asyncio.Queue()

    async def listen(client: aiomqtt.Client) -> None:
        async for message in client.messages:
            assert isinstance(message.payload, bytes)
            assert message.qos == 1
            said.put_nowait(orjson.loads(message.payload))

    async with aiomqtt.Client(mosquitto.host, mosquitto.port) as client:
        await client.subscribe("spBv1.0/STATE/scada", qos=1)
        listening = asyncio.create_task(listen(client))
        await bridge.start()
        async with asyncio.timeout(PATIENCE):
            birth = await said.get()
            assert birth == {"online": True, "timestamp": birth["timestamp"]}

            await client.publish("spBv1.0/STATE/scada", b'{"online": false, "timestamp": 1}', qos=1, retain=True)
            assert [(await said.get())["online"], (await said.get())["online"]] == [False, True]

            await bridge.kill()
            will = await said.get()
            assert will == {"online": False, "timestamp": birth["timestamp"]}

            await bridge.start()
            assert (await said.get())["online"]
            await bridge.finish()
            assert not (await said.get())["online"]
        listening.cancel()
        await asyncio.wait([listening])
    assert await arrived(log) == []
