"""From MQTT into Kinesis: a real broker, the source, and a real HTTP server."""

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random

import pytest

from headrace.connectors.kinesis.sink import KinesisIntake, open_kinesis
from headrace.connectors.mqtt.connection import BrokerAddress
from headrace.connectors.mqtt.publisher import MqttPublisher
from headrace.connectors.mqtt.settings import MqttSettings
from headrace.connectors.mqtt.source import MqttSource
from headrace.connectors.routed_intake import RoutedIntake
from headrace.connectors.topic_profile import TopicProfile
from headrace.engine.clock import SystemClock
from tests.conftest import Require
from tests.connectors.kinesis.aws import Fault, FaultyWay, Stream, settings
from tests.mosquitto import Mosquitto, find_mosquitto

STANDARD = TopicProfile(name="standard", topic="dt/devices/{device}/telemetry", device_type="environmental")


@pytest.fixture
def address(require: Require, tmp_path: Path) -> Iterator[BrokerAddress]:
    """A Mosquitto."""
    require(find_mosquitto(), "mosquitto", "install the package `mosquitto`")
    broker = Mosquitto(tmp_path).start()
    yield BrokerAddress(broker.host, broker.port)
    broker.stop()


def source(address: BrokerAddress, intake: KinesisIntake) -> MqttSource:
    """A source from the broker into the stream."""
    config = MqttSettings(host=address.host, port=address.port)
    return MqttSource(config, [STANDARD.topic_filter], RoutedIntake(intake, [STANDARD]), SystemClock())


async def until(condition: Callable[[], bool]) -> None:
    """Wait until `condition` holds."""
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.005)


async def publish(address: BrokerAddress, sent: dict[str, list[bytes]]) -> None:
    """The messages of each device in order, devices in turn, each acknowledged by the broker."""
    async with MqttPublisher(address) as publisher:
        for place in range(max(map(len, sent.values()))):
            for device, payloads in sent.items():
                await publisher.publish(f"dt/devices/{device}/telemetry", payloads[place])
        await publisher.drain()


async def test_messages_arrive_byte_for_byte_in_order(address: BrokerAddress, kinesis_url: str, stream: Stream) -> None:
    """600 messages of 20 devices, any bytes in them, while Kinesis refuses a third of the records."""
    random = Random(7)
    sent = {f"d{device}": [random.randbytes(random.randrange(200)) for _ in range(30)] for device in range(20)}
    faults = [Fault("refuse", 0x9249 >> shift) for shift in range(3)] * 5
    stop = asyncio.Event()
    async with FaultyWay(kinesis_url, faults) as way, open_kinesis(settings(way.url), SystemClock()) as intake:
        bridge = source(address, intake)
        running = asyncio.create_task(bridge.run(stop))
        await bridge.wait_subscribed()
        await publish(address, sent)
        await until(lambda: bridge.statistics().appended >= 600)
        stop.set()
        await running

    assert await stream.devices() == sent
    assert way.wrong == []


async def test_nothing_is_acknowledged_before_kinesis_has_it(
    address: BrokerAddress, kinesis_url: str, stream: Stream
) -> None:
    """Killed while requests are held up, and while Kinesis is away: the next bridge gets every message again."""
    sent = {f"d{device}": [b"%d" % number for number in range(10)] for device in range(5)}
    async with FaultyWay(kinesis_url) as way, open_kinesis(settings(way.url), SystemClock()) as intake:
        bridge = source(address, intake)
        running = asyncio.create_task(bridge.run(asyncio.Event()))
        await bridge.wait_subscribed()
        way.gate.clear()
        await publish(address, sent)
        await until(lambda: bridge.statistics().received >= 50 and way.waiting > 0)
        running.cancel()
        await asyncio.wait([running])
    assert await stream.devices() == {}

    stop = asyncio.Event()
    async with open_kinesis(settings(kinesis_url), SystemClock()) as intake:
        bridge = source(address, intake)
        running = asyncio.create_task(bridge.run(stop))
        await until(lambda: bridge.statistics().appended >= 50)
        stop.set()
        await running
    assert await stream.devices() == sent


async def test_a_bridge_killed_at_any_time_loses_nothing(
    address: BrokerAddress, kinesis_url: str, stream: Stream
) -> None:
    """Killed ten times between receiving, putting and acknowledging: all arrive, a device's first copies in order."""
    random = Random(3)
    sent = {f"d{device}": [b"%d" % number for number in range(40)] for device in range(10)}
    publishing: asyncio.Task[None] | None = None
    for kill in range(11):
        async with FaultyWay(kinesis_url) as way, open_kinesis(settings(way.url), SystemClock()) as intake:
            bridge = source(address, intake)
            running = asyncio.create_task(bridge.run(asyncio.Event()))
            await bridge.wait_subscribed()
            publishing = publishing or asyncio.create_task(publish(address, sent))
            if kill < 10:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(way.wait_requests(random.randrange(1, 4)), 0.5)
            else:
                await publishing
                async with asyncio.timeout(60):
                    while sum(len(set(got)) for got in (await stream.devices()).values()) < 400:
                        await asyncio.sleep(0.05)
            running.cancel()
            await asyncio.wait([running])

    assert {device: list(dict.fromkeys(got)) for device, got in (await stream.devices()).items()} == sent
