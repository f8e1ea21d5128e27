"""A bridge that is killed and started, devices that publish through its broker, and what is in its log."""

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import psutil
from local_kafka.cluster import Cluster

from headrace.connectors.mqtt.connection import BrokerAddress
from headrace.connectors.mqtt.publisher import MqttPublisher
from headrace.engine.clock import SystemClock
from headrace.engine.embedded.log import EmbeddedLog
from headrace.engine.errors import Disconnected
from headrace.engine.kafka.log import KafkaLog
from headrace.engine.kafka.settings import KafkaSettings
from headrace.engine.log import Log
from headrace.schemas import topics
from tests.mosquitto import Mosquitto

#: Messages a second, and devices that they are of.
RATE, DEVICES = 2000, 50
#: Seconds until everything has arrived after the last fault.
PATIENCE = 300.0
#: Seconds that the log is away, in the short and in the long form; the embedded one gives up on a lock after 30.
OUTAGE, LONG_OUTAGE, MOST_LOCKED = 5.0, 60.0, 20.0
#: From this many seconds of load on the tests take their long form.
LONG = 60.0

clock = SystemClock()


class Bridge:
    """One `headrace bridge` on a data folder, started again and again.

    Args:
        folder: for its settings, its output and the data folder `data`.
        inbound: settings of where messages come from.
        log: where to.
    """

    def __init__(self, folder: Path, inbound: str, log: str = "embedded://") -> None:
        self.data = folder / "data"
        self._output = folder / "bridge.log"
        config = folder / "headrace.toml"
        config.write_text(f'{inbound}[log]\nurl = "{log}"\n')
        arguments = ["bridge", "--config", str(config), "--data", str(self.data)]
        self._command = [sys.executable, "-m", "headrace.cli.main", *arguments]
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it."""
        with self._output.open("ab") as output:
            self._process = subprocess.Popen(self._command, stdout=output, stderr=subprocess.STDOUT)

    def kill(self) -> None:
        """End it at once: kill -9."""
        if self._process is not None:
            assert self._process.poll() is None, self.said()
            self._process.kill()
            self._process.wait()

    def stop(self) -> int:
        """Its exit code after SIGTERM."""
        assert self._process is not None
        self._process.terminate()
        return self._process.wait(PATIENCE)

    def end(self) -> None:
        """Leave nothing behind."""
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait()

    def resident(self) -> int:
        """Its resident memory, bytes."""
        assert self._process is not None
        return int(psutil.Process(self._process.pid).memory_info().rss)

    def said(self) -> str:
        """The end of its output."""
        return self._output.read_text(errors="replace")[-3000:]


async def watch(bridge: Bridge, seconds: float) -> int:
    """Its largest resident memory over some time, bytes."""
    most = 0
    for _ in range(round(seconds * 2)):
        await clock.sleep(0.5)
        most = max(most, bridge.resident())
    return most


def from_broker(broker: Mosquitto) -> str:
    """Settings of a bridge that takes messages from this one.

    A process that stands still for some seconds keeps its connection; the long outages are longer than that.
    """
    return f'[mqtt]\nhost = "{broker.host}"\nport = {broker.port}\nkeepalive = 10\n'


class Devices:
    """Publish at `RATE` with QoS 1, each message until the broker has acknowledged it."""

    def __init__(self, broker: Mosquitto) -> None:
        self._address = BrokerAddress(broker.host, broker.port)
        self._next = 0
        #: Messages that the broker has acknowledged.
        self.acknowledged: set[int] = set()

    @asynccontextmanager
    async def publishing(self) -> AsyncIterator[None]:
        """Publish for as long as the `async with` lasts."""
        stop = asyncio.Event()
        task = asyncio.create_task(self._run(stop))
        try:
            yield
        finally:
            stop.set()
            await task

    async def _run(self, stop: asyncio.Event) -> None:
        batch: list[int] = []
        while not stop.is_set() or batch:
            if not batch:
                batch = list(range(self._next, self._next + RATE // 20))
                self._next += len(batch)
            try:
                async with MqttPublisher(self._address) as publisher:
                    while batch:
                        began = clock.monotonic()
                        for number in batch:
                            await publisher.publish(f"dt/devices/d{number % DEVICES}/telemetry", b"%d" % number)
                        await publisher.drain()
                        self.acknowledged.update(batch)
                        batch = [] if stop.is_set() else list(range(self._next, self._next + RATE // 20))
                        self._next += len(batch)
                        await clock.sleep(max(0.0, 0.05 - (clock.monotonic() - began)))
            except* Disconnected:
                await clock.sleep(0.1)  # the broker restarts: the batch again


async def read_folder(folder: Path) -> list[bytes]:
    """Every payload in the embedded log."""
    log = EmbeddedLog(folder)
    try:
        await log.topics()
        return await read_all(log)
    finally:
        await log.close()


async def read_kafka(cluster: Cluster) -> list[bytes]:
    """Every payload in the log on Kafka."""
    log = KafkaLog(f"kafka://{cluster.bootstrap}", KafkaSettings(), role="test")
    await log.start()
    try:
        return await read_all(log)
    finally:
        await log.close()


async def read_all(log: Log) -> list[bytes]:
    """Every payload of the raw messages."""
    reader, found = log.reader(), list[bytes]()
    try:
        for target, end in (await log.end_offsets(topics.RAW)).items():
            position = 0
            while position < end:
                piece = await reader.read(target, position, 100_000)
                if piece is None:
                    await reader.wait({target: position}, 1.0)
                    continue
                found += [value for value in piece.records.values if value is not None]
                position = piece.next_offset
    finally:
        await reader.close()
    return found
