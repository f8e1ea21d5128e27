"""The MQTT listener keeps the source contract: devices resend what has no PUBACK, as MQTT clients do."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence

import pytest
from local_kafka.ports import free_ports

from headrace.connectors.mqtt.codec.packets import V3, Ack, Connack, Connect, Kind, Publish
from headrace.connectors.mqtt.listener import MqttListener
from headrace.connectors.mqtt.listener_config import ListenerConfig
from headrace.connectors.routed_intake import RoutedIntake
from headrace.connectors.topic_profile import SHIPPED
from headrace.engine.cancel import cancel_and_wait
from headrace.engine.clock import SystemClock
from headrace.engine.intake import Intake
from tests.connectors.mqtt.raw_client import RawClient
from tests.contract.source_contract import GatedIntake, Message, SourceContract, SourceWorld


class Device:
    """One MQTT 3.1.1 client with a session: sends in order, keeps what has no PUBACK, and connects again for ever."""

    def __init__(self, name: str, port: int) -> None:
        self._name = name
        self._port = port
        self._unacknowledged: dict[int, Publish] = {}
        self._queue: asyncio.Queue[bytes] = asyncio.Queue()
        self._last_id = 0

    def offer(self, payload: bytes) -> None:
        """Send this when its turn comes."""
        self._queue.put_nowait(payload)

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            with contextlib.suppress(OSError, EOFError, TimeoutError):
                client = await RawClient.open(self._port, V3)
                try:
                    answer = await client.ask(Connect(self._name, V3, False, 60))
                    assert isinstance(answer, Connack)
                    client.send(*(each._replace(duplicate=True) for each in self._unacknowledged.values()))
                    sending = asyncio.create_task(self._send(client))
                    try:
                        await self._listen(client)
                    finally:
                        await cancel_and_wait(sending)
                finally:
                    await client.close()
            await asyncio.sleep(0.01)

    async def _send(self, client: RawClient) -> None:
        with contextlib.suppress(ConnectionError):
            while True:
                payload = await self._queue.get()
                self._last_id += 1
                message = Publish(f"dt/devices/{self._name}/telemetry".encode(), payload, self._last_id, 1)
                self._unacknowledged[self._last_id] = message
                client.send(message)
                await client.flush()

    async def _listen(self, client: RawClient) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                packet = await client.receive()
                assert isinstance(packet, Ack)
                assert packet.kind == Kind.PUBACK
                self._unacknowledged.pop(packet.packet_id)


class ListenerWorld(SourceWorld):
    """Devices around a listener on one port."""

    def __init__(self) -> None:
        super().__init__()
        (self._port,) = free_ports(1)
        self._devices: dict[str, Device] = {}
        self.tasks: list[asyncio.Task[None]] = []

    async def begin(self, intake: Intake) -> "asyncio.Task[None]":
        assert isinstance(intake, GatedIntake)
        config = ListenerConfig(port=self._port, anonymous=True, max_waiting_bytes=1 << 20)
        routed = RoutedIntake(intake, SHIPPED)
        self._listener = MqttListener(config, routed, intake.log, SystemClock())
        task = asyncio.create_task(self._listener.run(self.stop))
        await self._listener.wait_listening()
        return task

    async def offer(self, messages: Sequence[Message]) -> None:
        for name, payload in messages:
            if name not in self._devices:
                self._devices[name] = Device(name, self._port)
                self.tasks.append(asyncio.create_task(self._devices[name].run()))
            self._devices[name].offer(payload)

    def taken(self) -> int:
        return self._listener.statistics().received


class TestListener(SourceContract):
    """Devices at QoS 1."""

    @pytest.fixture
    async def world(self) -> AsyncIterator[ListenerWorld]:
        world = ListenerWorld()
        yield world
        await cancel_and_wait(*world.tasks)
