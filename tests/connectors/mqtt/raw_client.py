"""An MQTT client that sends and receives packets one by one, for tests of servers."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from headrace.connectors.mqtt.codec.frames import Frames
from headrace.connectors.mqtt.codec.packets import NONE, V5, Connack, Connect, Packet, Properties, Publish, Will
from headrace.connectors.mqtt.codec.read import read
from headrace.connectors.mqtt.codec.write import write

#: Seconds that a packet may take.
PATIENCE = 60.0


class RawClient:
    """A connection; nothing is sent or acknowledged by itself."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, version: int) -> None:
        self._reader = reader
        self._writer = writer
        self._frames = Frames()
        self._packets: list[Packet] = []
        self.version = version
        self.connack = Connack(False)

    @classmethod
    async def open(cls, port: int, version: int = V5, tls: ssl.SSLContext | None = None) -> "RawClient":
        """Connect by TCP; no packet is sent yet."""
        host = "localhost" if tls else "127.0.0.1"
        reader, writer = await asyncio.open_connection(host, port, ssl=tls)
        return cls(reader, writer, version)

    def send(self, *packets: Packet) -> None:
        """Send packets, in one piece."""
        self.send_bytes(b"".join(write(packet, self.version) for packet in packets))

    def send_bytes(self, data: bytes) -> None:
        """Send bytes as they are."""
        self._writer.write(data)

    async def flush(self) -> None:
        """Wait until what was sent is on its way."""
        await self._writer.drain()

    async def receive(self) -> Packet:
        """The next packet.

        Raises:
            EOFError: the server has closed the connection.
            TimeoutError: there is none.
        """
        async with asyncio.timeout(PATIENCE):
            while not self._packets:
                try:
                    data = await self._reader.read(1 << 16)
                except ConnectionError as error:
                    raise EOFError from error
                if not data:
                    raise EOFError
                self._packets += [read(frame, self.version) for frame in self._frames.feed(data)]
        return self._packets.pop(0)

    async def ask(self, *packets: Packet) -> Packet:
        """Send packets and wait for the next one that comes."""
        self.send(*packets)
        return await self.receive()

    async def last_words(self) -> Packet | None:
        """What the server still says before it closes; None if nothing."""
        said = None
        while True:
            try:
                said = await self.receive()
            except EOFError:
                return said

    async def close(self) -> None:
        """Close, without goodbye."""
        self._writer.transport.abort()
        await asyncio.sleep(0)


@asynccontextmanager
async def connected(
    port: int,
    client_id: str = "a",
    version: int = V5,
    *,
    clean: bool = True,
    keep_alive: int = 60,
    username: str | None = None,
    password: bytes | None = None,
    will: Will | None = None,
    properties: Properties = NONE,
    tls: ssl.SSLContext | None = None,
) -> AsyncIterator[RawClient]:
    """A client that has sent CONNECT and has its CONNACK."""
    client = await RawClient.open(port, version, tls)
    try:
        answer = await client.ask(Connect(client_id, version, clean, keep_alive, username, password, will, properties))
        assert isinstance(answer, Connack)
        client.connack = answer
        yield client
    finally:
        await client.close()


def telemetry(
    payload: bytes, packet_id: int = 0, qos: int = 0, *, device: str = "a", duplicate: bool = False
) -> Publish:
    """A message of a device."""
    return Publish(f"dt/devices/{device}/telemetry".encode(), payload, packet_id, qos, duplicate)
