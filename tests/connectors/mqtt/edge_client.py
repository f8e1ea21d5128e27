"""An edge node on a real broker, with a client library of its own; what it says is written from the specification."""

import asyncio
import contextlib
import socket
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self

import aiomqtt

from tests.connectors.sparkplug.edge_node import EdgeNode

#: What a Rebirth Request has to have in it: the metric's name, and its value true in field 14.
REBIRTH = b"Node Control/Rebirth"
TRUE = b"\x70\x01"


class EdgeClient:
    """Connects with its death as its will, is born, publishes, and answers rebirth requests. An async context manager.

    Args:
        node: makes the messages.
        port: of the broker on this machine.
        qos: of births and data; the specification says 0, some say more.
    """

    def __init__(self, node: EdgeNode, port: int, *, qos: int = 0) -> None:
        self.node = node
        self.qos = qos
        #: What births say: by device and metric.
        self.values: dict[tuple[str, str], Any] = {}
        self.now = 1_750_000_000_000
        self.requests = 0
        topic, death = node.connect()
        self._client = aiomqtt.Client(
            "127.0.0.1",
            port,
            identifier=f"{node.group}-{node.name}",
            will=aiomqtt.Will(topic, death, qos=1),
            protocol=aiomqtt.ProtocolVersion.V311,
        )

    async def __aenter__(self) -> Self:
        await self._client.__aenter__()
        await self._client.subscribe(self.node.topic("NCMD"), qos=1)
        self._listening = asyncio.create_task(self._listen())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._listening.cancel()
        await asyncio.wait([self._listening])
        with contextlib.suppress(aiomqtt.MqttError):  # one that was cut
            await self._client.__aexit__(kind, error, trace)

    async def be_born(self) -> None:
        """All births."""
        self.now += 1
        for topic, payload in self.node.births(self.now, self.values):
            await self._client.publish(topic, payload, qos=self.qos)

    async def say(self, device: str, values: Mapping[str, Any]) -> None:
        """Data."""
        self.now += 1
        topic, payload = self.node.data(device, self.now, values)
        await self._client.publish(topic, payload, qos=self.qos)

    async def die(self) -> None:
        """NDEATH before it goes on purpose (tck-id-operational-behavior-edge-node-intentional-disconnect-ndeath)."""
        topic, payload = self.node.death()
        await self._client.publish(topic, payload, qos=1)

    def cut(self) -> None:
        """The connection breaks, without a word."""
        found = self._client._client.socket()
        assert isinstance(found, socket.socket)
        found.shutdown(socket.SHUT_RDWR)

    async def _listen(self) -> None:
        with contextlib.suppress(aiomqtt.MqttError):  # one that was cut
            async for message in self._client.messages:
                assert isinstance(message.payload, bytes)
                if REBIRTH in message.payload and message.payload.endswith(TRUE):
                    self.requests += 1
                    await self.be_born()
