"""A broker that does what a test tells it to: refuses, forgets, loses, sends twice."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from headrace.connectors.mqtt.codec.frames import Frames
from headrace.connectors.mqtt.codec.packets import (
    V3,
    V5,
    Ack,
    Connack,
    Connect,
    Disconnect,
    Kind,
    Packet,
    Ping,
    Publish,
    Suback,
    Subscribe,
)
from headrace.connectors.mqtt.codec.read import read
from headrace.connectors.mqtt.codec.write import write
from headrace.connectors.mqtt.connection import BrokerAddress


class ScriptedBroker:
    """Takes clients on a free port; what it is told holds from the next packet on."""

    def __init__(self) -> None:
        #: What it answers to CONNECT.
        self.welcome = Connack(False)
        #: Whether it refuses MQTT 5 as brokers do that only know 3.1.1.
        self.refuses_5 = False
        #: QoS or reason per filter, the last one for the rest.
        self.granted: list[int] = [1]
        #: Whether it delivers what is published to whoever published it.
        self.delivers = True
        #: Reason of its PUBACKs.
        self.puback = 0
        #: What clients sent, in order.
        self.heard: list[Packet] = []
        self._version = V5
        self._writer: asyncio.StreamWriter | None = None

    def heard_of(self, kind: type[Packet]) -> list[Packet]:
        """Packets of one kind that clients sent."""
        return [packet for packet in self.heard if isinstance(packet, kind)]

    def acks(self, kind: Kind) -> list[int]:
        """Packet ids of acknowledgements that clients sent."""
        return [packet.packet_id for packet in self.heard if isinstance(packet, Ack) and packet.kind == kind]

    def send(self, *packets: Packet) -> None:
        """Send to the newest client, all in one write."""
        assert self._writer is not None
        self._writer.write(b"".join([write(packet, self._version) for packet in packets]))

    def drop(self) -> None:
        """End the newest connection."""
        assert self._writer is not None
        self._writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        frames, self._version, self._writer = Frames(), V5, writer
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(65_536):
                for frame in frames.feed(data):
                    packet = read(frame, self._version)
                    self.heard.append(packet)
                    self._answer(packet, writer)
        writer.close()

    def _answer(self, packet: Packet, writer: asyncio.StreamWriter) -> None:
        match packet:
            case Connect(version=version):
                self._version = version
                if self.refuses_5 and version != V3:
                    writer.write(b"\x20\x02\x00\x01")
                    writer.close()
                else:
                    self.send(self.welcome)
            case Subscribe():
                reasons = [self.granted[min(place, len(self.granted) - 1)] for place in range(len(packet.filters))]
                self.send(Suback(Kind.SUBACK, packet.packet_id, reasons))
            case Publish():
                self.send(Ack(Kind.PUBACK, packet.packet_id, self.puback))
                if self.delivers:
                    self.send(Publish(packet.topic, packet.payload))
            case Ping():
                self.send(Ping(Kind.PINGRESP))
            case Disconnect():
                writer.close()


@asynccontextmanager
async def scripted_broker() -> AsyncIterator[tuple[ScriptedBroker, BrokerAddress]]:
    """One that runs for as long as the `async with` lasts, and its address."""
    broker = ScriptedBroker()
    server = await asyncio.start_server(broker._serve, "127.0.0.1", 0)
    async with server:
        yield broker, BrokerAddress("127.0.0.1", server.sockets[0].getsockname()[1])
