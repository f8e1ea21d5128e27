"""A source at work on a real broker, for the tests of the source."""

import asyncio
import contextlib
import time
from collections.abc import Callable, Sequence

from headrace.connectors.mqtt.connection import BrokerAddress
from headrace.connectors.mqtt.publisher import MqttPublisher
from headrace.connectors.mqtt.settings import MqttSettings
from headrace.connectors.mqtt.source import MqttSource
from headrace.engine.clock import SystemClock
from headrace.engine.errors import LogError, RetryLater

FILTER = "dt/devices/+/telemetry"
TOPIC = "dt/devices/a/telemetry"


class RecordingIntake:
    """Takes messages into memory; `gate` holds appends back, `fail` and `busy` make them raise."""

    def __init__(self) -> None:
        self.messages: list[tuple[bytes, bytes]] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.entered = asyncio.Event()
        self.fail = False
        self.busy = 0
        self.largest_batch = 0

    async def append(self, topics: Sequence[bytes], payloads: Sequence[bytes], again: Sequence[int] = ()) -> None:
        """As `headrace.connectors.mqtt.topic_intake.TopicIntake.append`."""
        self.entered.set()
        await self.gate.wait()
        if self.fail:
            raise LogError("the disk is full")
        if self.busy:
            self.busy -= 1
            raise RetryLater("throttled", 0.01)
        self.largest_batch = max(self.largest_batch, len(payloads))
        self.messages += zip(topics, payloads, strict=True)

    @property
    def payloads(self) -> list[bytes]:
        """What was appended, in order."""
        return [payload for _, payload in self.messages]

    def has(self, count: int) -> bool:
        """Whether so many different ones were appended."""
        return len(set(self.payloads)) >= count


class Cable:
    """A TCP connection to the broker that can be cut."""

    def __init__(self, address: BrokerAddress) -> None:
        self._broker = address
        self._writers: list[asyncio.StreamWriter] = []

    async def lay(self) -> BrokerAddress:
        """Listen; the address to connect to instead of the broker's."""
        self._server = await asyncio.start_server(self._join, "127.0.0.1", 0)
        port = self._server.sockets[0].getsockname()[1]
        return BrokerAddress("127.0.0.1", port, self._broker.username, self._broker.password)

    def cut(self) -> None:
        """End every connection at once; new ones may be made."""
        for writer in self._writers:
            writer.transport.abort()
        self._writers.clear()

    @property
    def connected(self) -> bool:
        """Whether somebody is connected."""
        return bool(self._writers)

    async def remove(self) -> None:
        """Stop listening."""
        self._server.close()
        self.cut()
        await self._server.wait_closed()

    async def _join(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection(self._broker.host, self._broker.port)
        self._writers += [writer, far_writer]
        async with asyncio.TaskGroup() as group:
            group.create_task(self._carry(reader, far_writer))
            group.create_task(self._carry(far_reader, writer))

    @staticmethod
    async def _carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(65_536):
                writer.write(data)
                await writer.drain()
        writer.close()


class Running:
    """A source at work; leaving the block stops it."""

    def __init__(self, address: BrokerAddress, intake: RecordingIntake, **settings: object) -> None:
        who = {"username": address.username, "password": address.password} if address.username else {}
        config = MqttSettings.model_validate({"host": address.host, "port": address.port, **who, **settings})
        self.source = MqttSource(config, [FILTER], intake, SystemClock())
        self.stop = asyncio.Event()

    async def __aenter__(self) -> "Running":
        self.task = asyncio.create_task(self.source.run(self.stop))
        subscribed = asyncio.create_task(self.source.wait_subscribed())
        await asyncio.wait([self.task, subscribed], return_when=asyncio.FIRST_COMPLETED)
        if not subscribed.done():
            subscribed.cancel()
            self.task.result()
        return self

    async def __aexit__(self, *error: object) -> None:
        self.stop.set()
        await self.task

    async def kill(self) -> None:
        """End it as a crash would: nothing more is appended or acknowledged."""
        self.task.cancel()
        await asyncio.wait([self.task])
        self.task = asyncio.create_task(asyncio.sleep(0))


async def until(condition: Callable[[], bool], seconds: float = 60.0) -> None:
    """Wait until `condition` holds; `skip` takes nothing of its time."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError
        await asyncio.sleep(0.002)


async def publish(address: BrokerAddress, payloads: Sequence[bytes], topic: str = TOPIC) -> None:
    """Publish and wait for every PUBACK."""
    async with MqttPublisher(address) as publisher:
        for payload in payloads:
            await publisher.publish(topic, payload)
        await publisher.drain()
