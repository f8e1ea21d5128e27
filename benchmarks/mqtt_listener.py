"""Thousands of devices into a log: by headrace's own listener, or by a Mosquitto with the MQTT source behind it.

Prints {"value": …} and more. Without --rate the value is messages per second, from the first one sent until the last
one is in the log. With it messages are due at that rate (open loop), and the value is the 99th percentile of the time
from when a message was due until it is in the log for good, ms. Devices are a process of their own, on the same cores.
"""

import argparse
import asyncio
import json
import os
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))
sys.path.insert(0, str(Path(__file__).parent.parent / "scripts"))

import numpy as np
import psutil
from local_kafka.cluster import Cluster

from headrace.connectors.mqtt.descriptors import room
from headrace.connectors.mqtt.listener import MqttListener
from headrace.connectors.mqtt.listener_config import ListenerConfig
from headrace.connectors.mqtt.settings import MqttSettings
from headrace.connectors.mqtt.source import MqttSource
from headrace.connectors.routed_intake import RoutedIntake
from headrace.connectors.topic_profile import SHIPPED
from headrace.engine.cancel import cancel_and_wait
from headrace.engine.clock import SystemClock
from headrace.engine.embedded.log import EmbeddedLog
from headrace.engine.intake import Intake
from headrace.engine.kafka.log import KafkaLog
from headrace.engine.kafka.settings import KafkaSettings
from headrace.engine.log import Log
from headrace.schemas import topics
from tests.mosquitto import ANYBODY, Mosquitto

PARTITIONS = 4
FILTER = "dt/devices/+/telemetry"
#: It drops nothing, and sends without waiting for small packets to become large ones.
SETTINGS = (
    "max_queued_messages 0",
    "max_queued_bytes 0",
    "max_inflight_messages 20000",
    "queue_qos0_messages true",
    "set_tcp_nodelay true",
)
#: Seconds until everything is there, and that do not count at a given rate.
PATIENCE, WARM_UP = 300.0, 2.0


class Noting:
    """Appends, counts, and with `keep` remembers what was durable when."""

    def __init__(self, intake: RoutedIntake, total: int, keep: bool) -> None:
        self._intake = intake
        self._total = total
        self._keep = keep
        self.count = self.batches = 0
        self.all_there = asyncio.Event()
        self.noted: list[tuple[float, Sequence[bytes]]] = []

    def takes(self, topic: bytes) -> bool:
        """See `RoutedIntake`."""
        return self._intake.takes(topic)

    async def append(self, topics: Sequence[bytes], payloads: Sequence[bytes], again: Sequence[int] = ()) -> None:
        """See `RoutedIntake`."""
        await self._intake.append(topics, payloads, again)
        self.count += len(payloads)
        self.batches += 1
        if self._keep:
            self.noted.append((time.perf_counter(), payloads))
        if self.count >= self._total:
            self.all_there.set()


class Server:
    """Where devices connect.

    Args:
        port: on the loopback interface.
        pids: of the processes that it takes; the last has the connections.
    """

    def __init__(self, port: int, pids: Sequence[int]) -> None:
        self.port = port
        self._processes = [psutil.Process(pid) for pid in pids]

    def cpu(self) -> float:
        """Seconds of CPU so far."""
        return sum(sum(process.cpu_times()[:2]) for process in self._processes)

    def resident(self) -> int:
        """Bytes of memory of the process that has the connections."""
        return int(self._processes[-1].memory_info().rss)


@asynccontextmanager
async def opened_log(kind: str, folder: Path) -> AsyncIterator[Log]:
    """A log with its topics, on this machine."""
    async with AsyncExitStack() as stack:
        log: Any
        if kind == "kafka":
            cluster = stack.enter_context(Cluster())
            log = KafkaLog(f"kafka://{cluster.bootstrap}", KafkaSettings())
            await log.start()
        else:
            log = EmbeddedLog(folder / "data")
        stack.push_async_callback(log.close)
        await log.create_topics([*Intake.topic_specs(PARTITIONS), *MqttListener.topic_specs(PARTITIONS)])
        yield log


@asynccontextmanager
async def serving(variant: str, qos: int, intake: Noting, log: Log, folder: Path) -> AsyncIterator[Server]:
    """The listener, or Mosquitto with the source behind it; until the block ends."""
    stop, clock = asyncio.Event(), SystemClock()
    broker: Mosquitto | None = None
    if variant == "listener":
        config = ListenerConfig(port=0, anonymous=True, connect_rate=1e6)
        listener = MqttListener(config, intake, log, clock)
        running = asyncio.create_task(listener.run(stop))
        port, pids = (await listener.wait_listening())[0], [os.getpid()]
    else:
        broker = Mosquitto(folder / "mosquitto", ANYBODY, SETTINGS).start()
        settings = MqttSettings(host=broker.host, port=broker.port, qos=qos, probe="")
        running = asyncio.create_task(MqttSource(settings, [FILTER], intake, clock).run(stop))
        while FILTER not in broker.said():
            await asyncio.sleep(0.01)
        port, pids = broker.port, [os.getpid(), broker.pid]
    try:
        yield Server(port, pids)
        stop.set()
        await running
    finally:
        await cancel_and_wait(running)
        if broker is not None:
            broker.stop()


@asynccontextmanager
async def connected_devices(port: int, given: argparse.Namespace) -> AsyncIterator[asyncio.subprocess.Process]:
    """The process of the devices; all are connected, and wait for a line to begin."""
    script = str(Path(__file__).parent / "mqtt_devices.py")
    numbers = {"port": port, "devices": given.devices, "messages": given.messages, "qos": given.qos}
    numbers |= {"window": given.window, "rate": given.rate}
    arguments = [text for name, value in numbers.items() for text in (f"--{name}", str(value))]
    pipe = asyncio.subprocess.PIPE
    devices = await asyncio.create_subprocess_exec(sys.executable, script, *arguments, stdin=pipe, stdout=pipe)
    assert devices.stdout is not None
    try:
        if await devices.stdout.readline() != b"connected\n":
            sys.exit("the devices could not connect")
        yield devices
    finally:
        if devices.returncode is None:
            devices.kill()
        await devices.wait()


async def follow(log: Log, seen: list[tuple[float, Sequence[bytes]]]) -> None:
    """Read what comes, and note when."""
    reader = log.reader()
    positions = await log.end_offsets(topics.RAW)
    try:
        while True:
            await reader.wait(positions, 1.0)
            for target in list(positions):
                if fetched := await reader.read(target, positions[target], 5_000):
                    positions[target] = fetched.next_offset
                    seen.append((time.perf_counter(), [value or b"" for value in fetched.records.values]))
    finally:
        await reader.close()


def percentiles(noted: Sequence[tuple[float, Sequence[bytes]]], began: float, rate: float) -> tuple[float, float]:
    """Median and 99th percentile of the time since a message was due, ms; its number is at its end."""
    numbers = np.array([int(payload[-8:-1]) for _, payloads in noted for payload in payloads])
    times = np.repeat([when for when, _ in noted], [len(payloads) for _, payloads in noted])
    taken = (times - began - numbers / rate)[numbers >= WARM_UP * rate] * 1e3
    return float(np.percentile(taken, 50)), float(np.percentile(taken, 99))


async def run(given: argparse.Namespace, folder: Path) -> dict[str, float]:
    """The figures of one run."""
    room(2 * given.devices + 500)
    async with opened_log(given.log, folder) as log:
        intake = Noting(RoutedIntake(Intake(log, SystemClock()), SHIPPED), given.messages, bool(given.rate))
        async with serving(given.variant, given.qos, intake, log, folder) as server:
            idle, seen = server.resident(), list[tuple[float, Sequence[bytes]]]()
            following = [asyncio.create_task(follow(log, seen))] if given.rate else []
            async with connected_devices(server.port, given) as devices:
                assert devices.stdin is not None
                assert devices.stdout is not None
                await asyncio.sleep(1.0)  # that they came is recorded
                grown = server.resident() - idle
                began, cpu = time.perf_counter(), server.cpu()
                devices.stdin.write(b"\n")
                async with asyncio.timeout(PATIENCE):
                    await intake.all_there.wait()
                seconds, cpu = time.perf_counter() - began, server.cpu() - cpu
                said = json.loads(await devices.stdout.readline())
            await cancel_and_wait(*following)
    figures = {
        "value": given.messages / seconds,
        "cpu_us_per_message": cpu / given.messages * 1e6,
        "device_cpu_us_per_message": said["cpu"] / given.messages * 1e6,
        "kib_per_connection": grown / given.devices / 1024,
        "batches": intake.batches,
    }
    if given.rate:
        figures["messages_per_second"] = figures["value"]
        figures["p50_ms"], figures["value"] = percentiles(intake.noted, said["began"], given.rate)
        figures["readable_p50_ms"], figures["readable_p99_ms"] = percentiles(seen, said["began"], given.rate)
    return figures


def main() -> None:
    """Run one variant."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--variant", choices=["listener", "mosquitto"], required=True)
    parser.add_argument("--log", choices=["embedded", "kafka"], default="embedded")
    parser.add_argument("--devices", type=int, default=5_000)
    parser.add_argument("--messages", type=int, default=200_000)
    parser.add_argument("--qos", type=int, choices=[0, 1], default=1)
    parser.add_argument("--window", type=int, default=10)
    parser.add_argument("--rate", type=float, default=0.0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps(asyncio.run(run(options, Path(folder)))))


if __name__ == "__main__":
    main()
