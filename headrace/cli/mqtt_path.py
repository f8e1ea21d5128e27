"""Broker, source and publisher in one process: how the demo's devices, and a replay over MQTT, reach the log."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from pydantic import SecretStr

from headrace.connectors.broker import EmbeddedBroker
from headrace.connectors.mqtt.connection import BrokerAddress
from headrace.connectors.mqtt.publisher import MqttPublisher
from headrace.connectors.mqtt.settings import MqttSettings
from headrace.connectors.mqtt.source import MqttSource
from headrace.connectors.mqtt.topic_intake import ProfileIntake
from headrace.connectors.topic_profile import TopicProfile
from headrace.engine.clock import Clock
from headrace.engine.errors import Disconnected
from headrace.engine.intake import Intake

#: What was published must have reached the log this many seconds after the broker took the last of it.
ARRIVAL = 30.0
ARRIVAL_POLL = 0.01


class MqttPath:
    """Publishes as devices do, and knows when everything has arrived in the log."""

    def __init__(self, publisher: MqttPublisher, source: MqttSource, clock: Clock) -> None:
        self._publisher = publisher
        self._source = source
        self._clock = clock
        self._published = 0

    async def publish(self, topic: str, payload: bytes) -> None:
        """Hand one message to the broker; waits while it takes no more."""
        await self._publisher.publish(topic, payload)
        self._published += 1

    async def drain(self) -> None:
        """Wait until everything published is in the log.

        Raises:
            Disconnected: something is still missing after `ARRIVAL` seconds.
        """
        await self._publisher.drain()
        deadline = self._clock.monotonic() + ARRIVAL
        while (arrived := self._source.statistics().appended) < self._published:
            if self._clock.monotonic() > deadline:
                raise Disconnected(
                    f"the MQTT broker took {self._published} messages but passed on only {arrived}; "
                    "start again: what is in the log stays there"
                )
            await self._clock.sleep(ARRIVAL_POLL)


@asynccontextmanager
async def mqtt_path(folder: Path, clock: Clock, intake: Intake, device_type: str) -> AsyncIterator[MqttPath]:
    """An embedded broker with headrace subscribed to `dt/devices/+/telemetry`.

    On leaving, what has been received is appended and acknowledged; then the broker ends.

    Args:
        folder: for the broker's own files.
        device_type: of every device that publishes here.
    Raises:
        Disconnected: the broker ended.
        LogError: the log takes nothing more.
    """
    broker = EmbeddedBroker(folder, clock)
    address = await broker.start()
    try:
        async with asyncio.TaskGroup() as group:
            watch = group.create_task(broker.wait_stopped())
            profile = TopicProfile(name="devices", topic_filter="dt/devices/+/telemetry", device_type=device_type)
            routed = ProfileIntake(intake, [profile])
            source = MqttSource(_source_settings(address), [profile.topic_filter], routed, clock)
            stop = asyncio.Event()
            receiving = group.create_task(source.run(stop))
            await source.wait_subscribed()
            try:
                async with MqttPublisher(address) as publisher:
                    yield MqttPath(publisher, source, clock)
            finally:
                stop.set()
            await receiving
            watch.cancel()
    finally:
        await broker.stop()


def _source_settings(address: BrokerAddress) -> MqttSettings:
    return MqttSettings(
        host=address.host,
        port=address.port,
        username=address.username,
        password=None if address.password is None else SecretStr(address.password),
        version="3.1.1",
        probe="",
    )
