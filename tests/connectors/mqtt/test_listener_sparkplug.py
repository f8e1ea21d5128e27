"""Sparkplug B from an edge node that connects straight to headrace's listener."""

import asyncio
import json
from collections.abc import AsyncIterator

import aiomqtt
import pytest

from headrace.connectors.mqtt.host_state import HostState
from headrace.connectors.mqtt.listener import MqttListener
from headrace.connectors.mqtt.listener_config import ListenerConfig
from headrace.connectors.routed_intake import RoutedIntake
from headrace.connectors.sparkplug.intake import SparkplugIntake
from headrace.connectors.sparkplug.routing import SparkplugRouting
from headrace.connectors.sparkplug.settings import SparkplugSettings
from headrace.connectors.topic_profile import TopicProfile
from headrace.engine.clock import SystemClock
from headrace.engine.embedded.database import MEMORY
from headrace.engine.embedded.log import EmbeddedLog
from headrace.engine.intake import Intake
from tests.connectors.mqtt.edge_client import EdgeClient
from tests.connectors.sparkplug.edge_node import EdgeNode
from tests.connectors.sparkplug.motor import PATIENCE, Motor
from tests.contract.source_contract import until

PROFILES = (TopicProfile(name="plant", topic="spBv1.0/#", device_type="machine", format="sparkplug"),)
RIGHTS = {"publish": ["spBv1.0/+/+/+/#"], "subscribe": ["spBv1.0/+/NCMD/+", "spBv1.0/STATE/+"]}


class Plant(Motor):
    """A listener with its Sparkplug intake, on a log in memory."""

    def __init__(self, log: EmbeddedLog) -> None:
        self.log = log
        clock, intake = SystemClock(), Intake(log, SystemClock())
        self.sparkplug = SparkplugIntake(SparkplugSettings(reorder_timeout=0.2), PROFILES[0], intake, log, clock)
        routing = SparkplugRouting(self.sparkplug, RoutedIntake(intake, PROFILES))
        config = ListenerConfig.model_validate({"port": 0, "anonymous": True, **RIGHTS})
        self.listener = MqttListener(config, routing, log, clock, host=HostState("scada", clock))
        self.sparkplug.commands.append(self.listener.command)


@pytest.fixture
async def plant() -> AsyncIterator[Plant]:
    """It at work."""
    log = EmbeddedLog(MEMORY)
    specs = [*Intake.topic_specs(4), *SparkplugIntake.topic_specs(), *MqttListener.topic_specs(1)]
    await log.create_topics(specs)
    found, stop = Plant(log), asyncio.Event()
    tasks = [asyncio.create_task(each.run(stop)) for each in (found.listener, found.sparkplug)]
    await found.listener.wait_listening()
    yield found
    stop.set()
    await asyncio.gather(*tasks)
    await log.close()


async def edge_of(plant: Plant) -> EdgeClient:
    """An edge node with one device that has one metric."""
    port = (await plant.listener.wait_listening())[0]
    client = EdgeClient(EdgeNode(metrics={"motor": {"rpm": (7, "Int32")}}), port)
    client.values = {("motor", "rpm"): 100}
    return client


async def test_it_is_asked_for_its_births(plant: Plant) -> None:
    """An edge node that speaks before it was born gets the request on its connection, and all it said is read."""
    edge = await edge_of(plant)
    async with edge:
        edge.node.births(edge.now, edge.values)
        await edge.say("motor", {"rpm": 99})
        await plant.until_read(99, 100)

    assert edge.requests == 1


async def test_its_will_is_its_death(plant: Plant) -> None:
    """A connection that breaks off publishes the death certificate that the edge node left."""
    edge = await edge_of(plant)
    async with edge:
        await edge.be_born()
        await plant.until_read(100)
        edge.cut()
        await until(lambda: plant.sparkplug.statistics().online == 0)


async def test_a_primary_host_is_there(plant: Plant) -> None:
    """Who subscribes to the host's state is told at once; a listener that listens is there."""
    port = (await plant.listener.wait_listening())[0]
    async with aiomqtt.Client("127.0.0.1", port, identifier="press") as client, asyncio.timeout(PATIENCE):
        await client.subscribe("spBv1.0/STATE/scada", qos=1)
        message = await anext(aiter(client.messages))

    assert isinstance(message.payload, bytes)
    assert json.loads(message.payload)["online"] is True
