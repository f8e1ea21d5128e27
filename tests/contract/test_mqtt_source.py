"""The MQTT source keeps the source contract, behind a real Mosquitto, in both versions."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import orjson
import pytest

from headrace.connectors.mqtt.connection import BrokerAddress
from headrace.connectors.mqtt.publisher import MqttPublisher
from headrace.connectors.mqtt.settings import MqttSettings
from headrace.connectors.mqtt.source import MqttSource
from headrace.connectors.routed_intake import RoutedIntake
from headrace.connectors.topic_profile import SHIPPED, TopicProfile
from headrace.engine.clock import Clock, SteppedClock, SystemClock
from headrace.engine.intake import Intake
from tests.conftest import Require
from tests.contract.source_contract import Message, SourceContract, SourceWorld
from tests.mosquitto import Mosquitto, find_mosquitto


class HurriedClock(SteppedClock):
    """Virtual time on which every wait is over soon."""

    async def sleep(self, delay: float) -> None:
        await asyncio.sleep(0.02)
        await super().sleep(delay)


class MosquittoWorld(SourceWorld):
    """A broker that keeps the source's session; offering is publishing to it."""

    profiles: Sequence[TopicProfile] = SHIPPED

    def __init__(self, broker: Mosquitto, version: str, **settings: object) -> None:
        super().__init__()
        self._broker = broker
        self._clock: Clock = HurriedClock() if "schedule" in settings else SystemClock()
        self._settings = MqttSettings.model_validate(
            {
                "host": broker.host,
                "port": broker.port,
                "version": version,
                "max_waiting_bytes": 1 << 20,
                "max_batch": 500,
                **settings,
            }
        )

    async def begin(self, intake: Intake) -> "asyncio.Task[None]":
        filters = [profile.topic_filter for profile in self.profiles]
        self._source = MqttSource(self._settings, filters, RoutedIntake(intake, self.profiles), self._clock)
        task = asyncio.create_task(self._source.run(self.stop))
        await self._source.wait_subscribed()
        return task

    async def offer(self, messages: Sequence[Message]) -> None:
        async with MqttPublisher(BrokerAddress(self._broker.host, self._broker.port)) as publisher:
            for device, payload in messages:
                await publisher.publish(f"dt/devices/{device}/telemetry", payload)
            await publisher.drain()

    def taken(self) -> int:
        return self._source.statistics().received


class GatewayWorld(MosquittoWorld):
    """The same broker, behind a gateway that puts several devices' messages into one."""

    profiles = (
        TopicProfile(
            name="gateway", topic="gw/+", device_type="environmental", format="envelope", device_field=("device_id",)
        ),
    )
    together = 7

    async def offer(self, messages: Sequence[Message]) -> None:
        async with MqttPublisher(BrokerAddress(self._broker.host, self._broker.port)) as publisher:
            for start in range(0, len(messages), self.together):
                group = messages[start : start + self.together]
                items = [{"device_id": device, **orjson.loads(payload)} for device, payload in group]
                await publisher.publish("gw/1", orjson.dumps({"readings": items}))
            await publisher.drain()

    def taken(self) -> int:
        return self._source.statistics().received * self.together


@pytest.mark.integration
class TestMqttSource(SourceContract):
    """Persistent session, QoS 1."""

    @pytest.fixture(params=["5", "3.1.1"])
    async def world(
        self, request: pytest.FixtureRequest, require: Require, tmp_path: Path
    ) -> AsyncIterator[MosquittoWorld]:
        require(find_mosquitto(), "mosquitto", "install the package `mosquitto`")
        broker = Mosquitto(tmp_path / "mosquitto")
        broker.start()
        yield MosquittoWorld(broker, request.param)
        broker.stop()


@pytest.mark.integration
class TestMqttSourceBehindGateway(SourceContract):
    """Messages that become several records each."""

    @pytest.fixture
    async def world(self, require: Require, tmp_path: Path) -> AsyncIterator[GatewayWorld]:
        require(find_mosquitto(), "mosquitto", "install the package `mosquitto`")
        broker = Mosquitto(tmp_path / "mosquitto")
        broker.start()
        yield GatewayWorld(broker, "5")
        broker.stop()


@pytest.mark.integration
class TestMqttSourceWithSchedule(SourceContract):
    """The same source, connected for a moment every five minutes of virtual time."""

    @pytest.fixture(params=["5", "3.1.1"])
    async def world(
        self, request: pytest.FixtureRequest, require: Require, tmp_path: Path
    ) -> AsyncIterator[MosquittoWorld]:
        require(find_mosquitto(), "mosquitto", "install the package `mosquitto`")
        broker = Mosquitto(tmp_path / "mosquitto")
        broker.start()
        yield MosquittoWorld(broker, request.param, schedule="rate(5 minutes)")
        broker.stop()
