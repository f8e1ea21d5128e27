"""The MQTT source keeps the source contract, behind a real Mosquitto, in both versions."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest

from headrace.connectors.mqtt.connection import BrokerAddress
from headrace.connectors.mqtt.publisher import MqttPublisher
from headrace.connectors.mqtt.settings import MqttSettings
from headrace.connectors.mqtt.source import MqttSource
from headrace.connectors.routed_intake import RoutedIntake
from headrace.connectors.topic_profile import SHIPPED
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
        filters = [profile.topic_filter for profile in SHIPPED]
        self._source = MqttSource(self._settings, filters, RoutedIntake(intake, SHIPPED), self._clock)
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
