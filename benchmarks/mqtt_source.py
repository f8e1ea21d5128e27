"""One run of a way to take messages from a Mosquitto of its own. Prints {"value": messages per second, …}.

The broker's queue is filled while the subscriber is away, and the clock runs from its login until everything has come:
so nobody else takes its cores, and a slow subscriber loses nothing, which at QoS 0 it otherwise would.
"""

import argparse
import asyncio
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))
sys.path.insert(0, str(Path(__file__).parent.parent / "scripts"))

import aiomqtt
from local_kafka.cluster import Cluster

from headrace.connectors.mqtt.codec.packets import V3, Connect, Filter, Publish
from headrace.connectors.mqtt.codec.write import PINGREQ, write
from headrace.connectors.mqtt.connection import BrokerAddress, Login, MqttConnection
from headrace.connectors.mqtt.settings import MqttSettings
from headrace.connectors.mqtt.source import MqttSource
from headrace.connectors.mqtt.topic_intake import TopicIntake
from headrace.connectors.routed_intake import RoutedIntake
from headrace.connectors.topic_profile import TopicProfile
from headrace.engine.clock import SystemClock
from headrace.engine.embedded.log import EmbeddedLog
from headrace.engine.intake import Intake
from headrace.engine.kafka.log import KafkaLog
from headrace.engine.kafka.settings import KafkaSettings
from headrace.engine.log import Log
from headrace.engine.runtime.garbage import rare_collections
from headrace.engine.runtime.settings import RuntimeSettings
from tests.mosquitto import ANYBODY, Mosquitto

PROFILE = TopicProfile(name="devices", topic="dt/devices/{device}/telemetry", device_type="environmental")
FILTER, CLIENT = "dt/devices/+/telemetry", "headrace"
PAYLOAD = b'{"timestamp": %d, "temp": 21.5, "humidity": 40.25, "co2": 512, "battery": 3.6}'
DEVICES = 1000
PARTITIONS = 4
#: Messages of one write.
CHUNK = 1000
SETTINGS = ("max_queued_messages 0", "max_inflight_messages 20000", "queue_qos0_messages true", "set_tcp_nodelay true")


class Counting:
    """Counts what is appended; what it hands it on to takes it for good."""

    def __init__(self, intake: TopicIntake | None = None) -> None:
        self._intake = intake
        self.count = 0

    async def append(self, topics: Sequence[bytes], payloads: Sequence[bytes], again: Sequence[int] = ()) -> None:
        """See `TopicIntake`."""
        if self._intake is not None:
            await self._intake.append(topics, payloads, again)
        self.count += len(payloads)


async def fill(address: BrokerAddress, total: int, qos: int) -> int:
    """Have the broker queue `total` messages for us; how many bytes it will send at least."""
    connection = await MqttConnection.open(address, Login(CLIENT, V3))
    await connection.subscribe([Filter(FILTER, qos)])
    await connection.disconnect()
    reader, writer = await asyncio.open_connection(address.host, address.port)
    writer.write(write(Connect("filler", V3), V3))
    await reader.readexactly(4)
    size = 0
    for start in range(0, total, CHUNK):
        places = range(start, min(start + CHUNK, total))
        packets = [_message(place, qos) for place in places]
        size += sum(map(len, packets))
        writer.write(b"".join(packets))
        await writer.drain()
        if qos:
            await reader.readexactly(4 * len(places))
    writer.write(PINGREQ)
    await reader.readexactly(2)
    writer.close()
    return size


def _message(place: int, qos: int) -> bytes:
    topic = b"dt/devices/device-%04d/telemetry" % (place % DEVICES)
    return write(Publish(topic, PAYLOAD % (1_750_000_000_000 + place), place % 65_535 + 1, qos), V3)


async def drain_source(address: BrokerAddress, total: int, qos: int, intake: TopicIntake | None = None) -> None:
    """Our source, into an intake that counts."""
    counting, stop = Counting(intake), asyncio.Event()
    settings = MqttSettings(host=address.host, port=address.port, qos=qos, probe="")
    source = MqttSource(settings, [FILTER], counting, SystemClock())
    with rare_collections(RuntimeSettings().collect_after):  # as `headrace bridge` does
        running = asyncio.create_task(source.run(stop))
        while counting.count < total:
            await asyncio.sleep(0.002)
        stop.set()
        await running


async def drain_aiomqtt(address: BrokerAddress, total: int, qos: int) -> None:
    """An aiomqtt loop that counts."""
    count = 0
    client = aiomqtt.Client(
        address.host,
        address.port,
        identifier=CLIENT,
        clean_session=False,
        protocol=aiomqtt.ProtocolVersion.V311,
    )
    async with client:
        await client.subscribe(FILTER, qos)
        async for _ in client.messages:
            count += 1
            if count >= total:
                return


class RawReader(asyncio.Protocol):
    """Counts bytes and looks at none."""

    def __init__(self, size: int) -> None:
        self._left = size
        self.done = asyncio.get_running_loop().create_future()

    def data_received(self, data: bytes) -> None:
        self._left -= len(data)
        if self._left <= 0 and not self.done.done():
            self.done.set_result(None)


async def drain_raw(address: BrokerAddress, size: int) -> None:
    """A socket reader that counts the bytes of PUBLISH packets."""
    loop = asyncio.get_running_loop()
    transport, reader = await loop.create_connection(lambda: RawReader(size), address.host, address.port)
    transport.write(write(Connect(CLIENT, V3, False), V3))
    await reader.done
    transport.close()


async def drain_into(log: Log, address: BrokerAddress, total: int) -> None:
    """Our source at QoS 1 into a log: a message is acknowledged when it is durable."""
    await drain_source(address, total, 1, RoutedIntake(Intake(log, SystemClock()), [PROFILE]))


async def run(variant: str, total: int, qos: int, folder: Path) -> dict[str, float]:
    """The figures of one variant."""
    broker = Mosquitto(folder / "mosquitto", ANYBODY, SETTINGS).start()
    cluster: Cluster | None = None
    log: Log | None = None
    try:
        if variant == "kafka":
            cluster = Cluster()
            cluster.start()
            kafka = KafkaLog(f"kafka://{cluster.bootstrap}", KafkaSettings())
            await kafka.start()
            log = kafka
        elif variant == "embedded":
            log = EmbeddedLog(folder / "data")
        if log is not None:
            await log.create_topics(Intake.topic_specs(PARTITIONS))
            await Intake(log, SystemClock()).append([b"warm"], [b"up"], device_type="environmental", profile="devices")
        address = BrokerAddress(broker.host, broker.port)
        size = await fill(address, total, qos)
        began, cpu = time.perf_counter(), time.process_time()
        if log is not None:
            await drain_into(log, address, total)
        elif variant == "raw":
            await drain_raw(address, size)
        elif variant == "aiomqtt":
            await drain_aiomqtt(address, total, qos)
        else:
            await drain_source(address, total, qos)
        seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
    finally:
        if log is not None:
            await log.close()
        if cluster is not None:
            cluster.stop()
        broker.stop()
    return {"value": total / seconds, "cpu_us_per_message": cpu / total * 1e6}


def main() -> None:
    """Run one variant."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--variant", choices=["source", "aiomqtt", "raw", "embedded", "kafka"], required=True)
    parser.add_argument("--messages", type=int, default=200_000)
    parser.add_argument("--qos", type=int, choices=[0, 1, 2], default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps(asyncio.run(run(options.variant, options.messages, options.qos, Path(folder)))))


if __name__ == "__main__":
    main()
