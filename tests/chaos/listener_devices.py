"""Devices that connect straight to a listener, and send again what has no acknowledgement."""

import asyncio
import random
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from typing import cast

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
)
from headrace.connectors.mqtt.codec.read import read
from headrace.connectors.mqtt.codec.reasons import Reason
from headrace.connectors.mqtt.codec.write import PINGREQ, write, write_acks
from headrace.engine.cancel import cancel_and_wait
from tests.chaos.bridge_world import PATIENCE, RATE, clock

#: Connections that send, half of them at QoS 1 and half at QoS 2, and that only ping.
SENDING, PINGING = 200, 20
#: Messages of a device without acknowledgement, as many clients have it.
WINDOW = 10
PAYLOAD_BYTES = 100
#: Seconds between two rounds of sending, and between two pings of a device.
TICK, PING = 0.05, 1.0
#: Seconds: a process that stands still for some of them loses no connection, and the long outages are longer.
KEEP_ALIVE = 10


def port_below_ephemeral() -> int:
    """A free port that no outgoing connection gets: a device that tries it while nobody listens could meet itself."""
    while True:
        port = random.randrange(20_000, 32_000)
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


class Device(asyncio.Protocol):
    """One client with a session: sends in order, keeps what has no PUBACK or PUBREC, and connects again for ever.

    Its messages are its own number and a count, so that the log shows what is missing and what is out of order.

    Args:
        number: names it; decides QoS (1 and 2 by turns) and version of MQTT.
    """

    def __init__(self, number: int, port: int) -> None:
        self._number = number
        self._port = port
        self._qos = 1 + number % 2
        self._version = V5 if number % 4 < 2 else V3
        self._transport: asyncio.Transport | None = None
        self._frames = Frames()
        self._gone = asyncio.Event()
        self._unacknowledged: dict[int, Publish] = {}
        self._released: set[int] = set()
        self._last_id = 0
        self._let_in = False
        #: Messages sent, and of these acknowledged; connections lost and answers to pings.
        self.sent = self.acknowledged = self.lost = self.pongs = 0
        #: Packets that should not have come.
        self.surprises: list[Packet] = []

    @property
    def waiting(self) -> int:
        """Messages without acknowledgement."""
        return len(self._unacknowledged) + len(self._released)

    async def run(self) -> None:
        """Until cancelled."""
        loop = asyncio.get_running_loop()
        try:
            while True:
                self._gone.clear()
                try:
                    await loop.create_connection(lambda: self, "127.0.0.1", self._port)
                except OSError:
                    await clock.sleep(0.1)
                    continue
                await self._gone.wait()
                self.lost += 1
                await clock.sleep(0.05)
        finally:
            if self._transport is not None:
                self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport, self._frames = cast(asyncio.Transport, transport), Frames()
        more = {"session_expiry_interval": 600} if self._version == V5 else {}
        self._transport.write(
            write(Connect(f"d{self._number}", self._version, False, KEEP_ALIVE, properties=more), self._version)
        )

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport, self._let_in = None, False
        self._gone.set()

    def data_received(self, data: bytes) -> None:
        for frame in self._frames.feed(data):
            self._take(read(frame, self._version))

    def _take(self, packet: Packet) -> None:
        match packet:
            case Connack(reason=0):
                self._let_in = True
                again = [each._replace(duplicate=True) for each in self._unacknowledged.values()]
                self._write(b"".join(write(each, self._version) for each in again))
                self._write(write_acks(Kind.PUBREL, self._released))
            case Ack(Kind.PUBACK, packet_id, 0) if packet_id in self._unacknowledged:
                self._acknowledge(packet_id)
            case Ack(Kind.PUBREC, packet_id, 0) if self._qos == 2:
                if packet_id in self._unacknowledged:
                    self._acknowledge(packet_id)
                    self._released.add(packet_id)
                self._write(write_acks(Kind.PUBREL, [packet_id]))
            case Ack(Kind.PUBCOMP, packet_id):
                self._released.discard(packet_id)
            case Ping(Kind.PINGRESP):
                self.pongs += 1
            case Connack() | Disconnect(Reason.SERVER_SHUTTING_DOWN):
                pass  # the connection ends, and it comes again
            case _:
                self.surprises.append(packet)

    def _acknowledge(self, packet_id: int) -> None:
        del self._unacknowledged[packet_id]
        self.acknowledged += 1

    def _write(self, data: bytes) -> None:
        if self._transport is not None:
            self._transport.write(data)

    def send(self) -> None:
        """Send the next message, if the window has room for it."""
        if self._let_in and self.waiting < WINDOW:
            self._last_id = self._last_id % 65_535 + 1
            payload = (b"%d %d" % (self._number, self.sent)).ljust(PAYLOAD_BYTES)
            message = Publish(f"dt/devices/d{self._number}/telemetry".encode(), payload, self._last_id, self._qos)
            self._unacknowledged[self._last_id] = message
            self.sent += 1
            self._write(write(message, self._version))

    def ping(self) -> None:
        """Say that it is still there."""
        if self._let_in:
            self._write(PINGREQ)


class ListenerDevices:
    """All of them; together they send `RATE` messages a second.

    Args:
        port: of the listener.
        seed: decides who sends when.
    """

    def __init__(self, port: int, seed: int) -> None:
        self.port = port
        self._random = random.Random(seed)
        self._sending = [Device(number, port) for number in range(SENDING)]
        self.pinging = [Device(number, port) for number in range(SENDING, SENDING + PINGING)]
        self.all: Sequence[Device] = [*self._sending, *self.pinging]

    @asynccontextmanager
    async def publishing(self, *, finish: bool = True) -> AsyncIterator[None]:
        """Publish for as long as the `async with` lasts; to finish is to wait until all of it is acknowledged."""
        tasks = [asyncio.create_task(device.run()) for device in self.all]
        rounds = asyncio.create_task(self._rounds())
        try:
            yield
            await cancel_and_wait(rounds)
            deadline = clock.monotonic() + PATIENCE
            while finish and any(device.waiting for device in self.all):
                assert clock.monotonic() < deadline, f"{sum(device.waiting for device in self.all)} messages wait"
                await clock.sleep(0.05)
        finally:
            await cancel_and_wait(rounds, *tasks)

    async def _rounds(self) -> None:
        number = 0
        while True:
            began = clock.monotonic()
            for device in self._random.sample(self._sending, round(RATE * TICK)):
                device.send()
            if number % round(PING / TICK) == 0:
                for device in self.all:
                    device.ping()
            number += 1
            await clock.sleep(max(0.0, TICK - (clock.monotonic() - began)))

    @property
    def acknowledged(self) -> int:
        """Messages of all of them."""
        return sum(device.acknowledged for device in self.all)

    @property
    def lost(self) -> int:
        """Connections that ended, of all of them."""
        return sum(device.lost for device in self.all)

    async def wait_connected(self) -> None:
        """Wait until every device has had something acknowledged, or an answer to its ping."""
        deadline = clock.monotonic() + PATIENCE
        while not all(device.acknowledged or device.pongs for device in self.all):
            assert clock.monotonic() < deadline, "devices are not let in"
            await clock.sleep(0.02)

    async def wait_acknowledged(self, count: int = 1) -> None:
        """Wait until so many messages are acknowledged from now on."""
        deadline, wanted = clock.monotonic() + PATIENCE, self.acknowledged + count
        while self.acknowledged < wanted:
            assert clock.monotonic() < deadline, f"{wanted - self.acknowledged} messages are not acknowledged"
            await clock.sleep(0.02)

    async def wait_answered(self) -> None:
        """Wait until every device that only pings has one answer more."""
        deadline, before = clock.monotonic() + PATIENCE, [device.pongs for device in self.pinging]
        while any(device.pongs == pongs for device, pongs in zip(self.pinging, before, strict=True)):
            assert clock.monotonic() < deadline, "pings are not answered"
            await clock.sleep(0.02)

    async def wait_quiet(self) -> None:
        """Wait until nothing more is acknowledged, while pings are answered."""
        deadline, before = clock.monotonic() + PATIENCE, -1
        while self.acknowledged != before:
            assert clock.monotonic() < deadline, "messages are acknowledged all the time"
            before = self.acknowledged
            await self.wait_answered()

    def check(self, found: Sequence[bytes]) -> int:
        """What was acknowledged is among `found`, and first copies are in the order of each device; how many twice."""
        there = [0] * len(self.all)
        twice = 0
        for payload in found:
            number, count = map(int, payload.split())
            assert count <= there[number], f"d{number}: {there[number]} is missing before {count}"
            twice += count < there[number]
            there[number] = max(there[number], count + 1)
        for device, count in zip(self.all, there, strict=True):
            assert not device.surprises, device.surprises[:3]
            assert device.acknowledged <= count <= device.sent
        return twice
