"""The MQTT source keeps the source contract with Sparkplug B too, and brings nothing twice."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import orjson
import pytest

from headrace.connectors.mqtt.connection import BrokerAddress
from headrace.connectors.mqtt.publisher import MqttPublisher
from headrace.connectors.mqtt.source import MqttSource
from headrace.connectors.routed_intake import RoutedIntake
from headrace.connectors.sparkplug.intake import SparkplugIntake
from headrace.connectors.sparkplug.routing import SparkplugRouting
from headrace.connectors.sparkplug.settings import SparkplugSettings
from headrace.connectors.topic_profile import TopicProfile
from headrace.engine.clock import SystemClock
from headrace.engine.intake import Intake
from tests.conftest import Require
from tests.connectors.sparkplug.edge_node import EdgeNode, metric, payload
from tests.contract.source_contract import GatedIntake, Message, SourceContract
from tests.contract.test_mqtt_source import MosquittoWorld
from tests.mosquitto import Mosquitto, find_mosquitto

PROFILE = TopicProfile(name="plant", topic="spBv1.0/#", device_type="machine", format="sparkplug")


class OfDevices(Intake):
    """Appends under the last level of a device id: the contract's devices are the edge node's."""

    def __init__(self, intake: GatedIntake) -> None:
        super().__init__(intake.log, SystemClock())
        self._intake = intake

    async def append(self, device_ids: Sequence[bytes], *args: Any, **kwargs: Any) -> None:
        """See `Intake.append`."""
        await self._intake.append([each.rpartition(b"/")[2] for each in device_ids], *args, **kwargs)


class PlantWorld(MosquittoWorld):
    """An edge node behind the broker, whose devices say what the contract has them say, at QoS 1."""

    profiles = (PROFILE,)

    def __init__(self, broker: Mosquitto) -> None:
        super().__init__(broker, "5")
        self._node = EdgeNode()
        self._born = False

    async def begin(self, intake: Intake) -> "asyncio.Task[None]":
        assert isinstance(intake, GatedIntake)
        await intake.log.create_topics(SparkplugIntake.topic_specs())
        clock, appends = SystemClock(), OfDevices(intake)
        sparkplug = SparkplugIntake(SparkplugSettings(), PROFILE, appends, intake.log, clock)
        routing = SparkplugRouting(sparkplug, RoutedIntake(intake, self.profiles))
        self._source = MqttSource(self._settings, [PROFILE.topic_filter], routing, clock)
        sparkplug.commands.append(self._source.command)
        task = asyncio.create_task(self._source.run(self.stop))
        await self._source.wait_subscribed()
        return task

    async def offer(self, messages: Sequence[Message]) -> None:
        async with MqttPublisher(BrokerAddress(self._broker.host, self._broker.port)) as publisher:
            if not self._born:
                self._born = True
                self._node.connect()
                await publisher.publish(*self._node.node_birth(1, {}))
            for device, said in messages:
                await publisher.publish(*self._data(device, orjson.loads(said)))
            await publisher.drain()

    def _data(self, device: str, said: dict[str, Any]) -> tuple[str, bytes]:
        node = self._node
        node.seq = (node.seq + 1) % 256
        metrics = [metric("seq", "Int64", said["seq"]), metric("pad", "String", said["pad"])]
        return node.topic("DDATA", device), payload(metrics, node.seq, said["timestamp"])


@pytest.mark.integration
class TestSparkplugSource(SourceContract):
    """What comes again is recognised."""

    repeats = False

    @pytest.fixture
    async def world(self, require: Require, tmp_path: Path) -> AsyncIterator[PlantWorld]:
        require(find_mosquitto(), "mosquitto", "install the package `mosquitto`")
        broker = Mosquitto(tmp_path / "mosquitto")
        broker.start()
        yield PlantWorld(broker)
        broker.stop()
