"""A client of a broker, packet by packet: fast enough for tens of thousands, and it sees every reason code."""

import asyncio
import ssl
from collections.abc import Sequence
from typing import Any

from headrace.connectors.mqtt.codec.frames import Frames
from headrace.connectors.mqtt.codec.packets import V5, Ack, Connack, Connect, Disconnect, Filter, Kind, Publish, Suback
from headrace.connectors.mqtt.codec.packets import Subscribe as SubscribePacket
from headrace.connectors.mqtt.codec.read import read
from headrace.connectors.mqtt.codec.write import write, write_acks

#: Publishes without PUBACK at a time.
WINDOW = 1000
#: Seconds; a limit for what hangs: 50,000 messages take two where nothing else runs.
PATIENCE = 240.0
FOR_EVER = {"session_expiry_interval": 0xFFFF_FFFF}


class Client:
    """One connection; use with `async with`.

    Args:
        port: of the loopback interface.
        client_id: names the session.
        tls: context with a client certificate, or None for plain TCP.
        keep: go on with the session, and have it kept.
    """

    def __init__(
        self,
        port: int,
        client_id: str,
        *,
        username: str | None = None,
        password: bytes | None = None,
        tls: ssl.SSLContext | None = None,
        keep: bool = False,
        version: int = V5,
        keep_alive: int = 60,
    ) -> None:
        self._port = port
        self._tls = tls
        self._version = version
        properties = FOR_EVER if keep and version == V5 else {}
        self._connect = Connect(client_id, version, not keep, keep_alive, username, password, properties={**properties})
        self._packet_id = 0
        self._window = asyncio.Semaphore(WINDOW)
        self._unacknowledged: dict[int, bytes] = {}
        self.messages: list[tuple[bytes, bytes]] = []
        self.acknowledged: list[bytes] = []
        self.refused: list[tuple[bytes, int]] = []
        self.connack: Connack | None = None
        self._subacks: asyncio.Queue[Suback] = asyncio.Queue()
        self._quiet = asyncio.Event()
        self._connected = asyncio.Event()
        self.closed = asyncio.Event()

    async def __aenter__(self) -> "Client":
        name = "localhost" if self._tls else None
        self._reader, self._writer = await asyncio.open_connection(
            "127.0.0.1", self._port, ssl=self._tls, server_hostname=name
        )
        self._writer.write(write(self._connect, self._version))
        self._reading = asyncio.create_task(self._read())
        async with asyncio.timeout(PATIENCE):
            await self._connected.wait()
        return self

    async def __aexit__(self, *error: object) -> None:
        if not self.closed.is_set() and self.connack is not None and self.connack.reason == 0:
            self._writer.write(write(Disconnect(), self._version))
        self._writer.close()
        await asyncio.wait([self._reading], timeout=PATIENCE)

    async def publish(self, topic: str, payload: bytes, qos: int = 1) -> None:
        """Send; the answer goes to `acknowledged` or `refused`."""
        if qos == 0:
            self._writer.write(write(Publish(topic.encode(), payload), self._version))
            await self._writer.drain()
            return
        await self._window.acquire()
        self._packet_id = self._packet_id % 65_535 + 1
        self._unacknowledged[self._packet_id] = payload
        self._quiet.clear()
        self._writer.write(write(Publish(topic.encode(), payload, self._packet_id, qos), self._version))
        await self._writer.drain()

    async def drain(self) -> None:
        """Wait until everything sent is answered, or the broker hung up."""
        while self._unacknowledged and not self.closed.is_set():
            waits = [asyncio.create_task(event.wait()) for event in (self._quiet, self.closed)]
            _, late = await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            for task in late:
                task.cancel()

    async def subscribe(self, *filters: str, qos: int = 1) -> Sequence[int]:
        """Subscribe; the reason codes."""
        packet = SubscribePacket(1, [Filter(each, qos) for each in filters])
        self._writer.write(write(packet, self._version))
        return (await asyncio.wait_for(self._subacks.get(), PATIENCE)).reasons

    async def wait_messages(self, count: int, seconds: float = PATIENCE) -> None:
        """Wait until so many have come."""
        async with asyncio.timeout(seconds):
            while len(self.messages) < count:
                await asyncio.sleep(0.005)

    async def _read(self) -> None:
        frames = Frames()
        try:
            while data := await self._reader.read(1 << 18):
                acknowledge = []
                for frame in frames.feed(data):
                    packet: Any = read(frame, self._version)
                    if isinstance(packet, Publish) and packet.qos:
                        acknowledge.append(packet.packet_id)
                    self._take(packet)
                self._writer.write(write_acks(Kind.PUBACK, acknowledge))
        except (ConnectionError, ssl.SSLError):
            pass
        finally:
            self.closed.set()
            self._connected.set()
            for _ in range(WINDOW):
                self._window.release()

    def _take(self, packet: Any) -> None:
        if isinstance(packet, Publish):
            self.messages.append((packet.topic, packet.payload))
        elif isinstance(packet, Connack):
            self.connack = packet
            self._connected.set()
        elif isinstance(packet, Suback):
            self._subacks.put_nowait(packet)
        elif isinstance(packet, Ack):
            payload = self._unacknowledged.pop(packet.packet_id)
            if packet.reason < 0x80:
                self.acknowledged.append(payload)
            else:
                self.refused.append((payload, packet.reason))
            self._window.release()
            if not self._unacknowledged:
                self._quiet.set()
