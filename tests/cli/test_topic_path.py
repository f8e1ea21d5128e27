"""From the topics of a real broker to rows and dead letters."""

import asyncio
from pathlib import Path

import orjson
import pytest

from headrace.cli.pipeline import Pipeline
from headrace.cli.settings import Settings
from headrace.connectors.mqtt.connection import BrokerAddress
from headrace.connectors.mqtt.publisher import MqttPublisher
from headrace.connectors.mqtt.settings import MqttSettings
from headrace.connectors.mqtt.source import MqttSource
from headrace.connectors.routed_intake import RoutedIntake
from headrace.connectors.topic_profile import SHIPPED
from headrace.engine import dead_letters
from headrace.engine.clock import ManualClock, SystemClock
from headrace.engine.log import Tally
from headrace.schemas import topics
from headrace.tables.device_types import load_device_types
from headrace.tables.rules import load_rules
from tests.cli.test_pipeline import GOOD, NOW, fetch, records
from tests.conftest import Require
from tests.mosquitto import Mosquitto, find_mosquitto

pytestmark = pytest.mark.integration
#: Seconds; a limit for what hangs.
ARRIVAL = 120.0


def row(device_id: str, sensor_type: str, value: float, unit: str, time_ms: int) -> bytes:
    """A row of a collector's table."""
    named = {"device_id": device_id, "sensor_type": sensor_type, "value": value, "unit": unit, "timestamp": time_ms}
    return orjson.dumps(named)


async def test_both_shipped_topics_end_to_end(tmp_path: Path, require: Require) -> None:
    """Narrow rows of iot/data become readings, nobody's messages dead letters that say so, and the ledger balances."""
    require(find_mosquitto(), "mosquitto", "install the package `mosquitto`")
    messages = [
        ("iot/data", row("c-1", "temp", 68, "F", NOW)),
        ("dt/devices/roof-7/telemetry", GOOD),
        ("dt/devices//telemetry", GOOD),
        ("iot/data", row("c-1", "humidity", 41, "%", NOW)),
        ("iot/data", b'{"sensor_type": "temp", "value": 20}'),
        ("iot/data", row("c-2", "temperature", 20, "C", NOW + 1)),
        ("iot/data", row("c-1", "temp", 69.8, "F", NOW + 1)),
    ]
    broker = Mosquitto(tmp_path / "broker").start()
    address = BrokerAddress(broker.host, broker.port)
    settings = MqttSettings(host=broker.host, port=broker.port)
    async with Pipeline(tmp_path, Settings(), load_device_types(), load_rules(), ManualClock(NOW)) as pipeline:
        metrics = pipeline.monitoring.metrics
        routed = RoutedIntake(pipeline.intake, SHIPPED, metrics)
        source = MqttSource(settings, [each.topic_filter for each in SHIPPED], routed, SystemClock(), metrics=metrics)

        async def publish(stop: asyncio.Event) -> None:
            leave = asyncio.Event()
            receiving = asyncio.create_task(source.run(leave))
            await source.wait_subscribed()
            async with MqttPublisher(address) as publisher:
                for topic, payload in messages:
                    await publisher.publish(topic, payload)
                    await publisher.drain()
            async with asyncio.timeout(ARRIVAL):
                while source.statistics().appended < len(messages):
                    await asyncio.sleep(0.005)
            leave.set()
            await receiving

        await pipeline.run(publish, asyncio.Event())

        letters = await records(pipeline, topics.DEAD_LETTERS)
        ledger = await pipeline.ledger()
        stored = await fetch(
            pipeline, "SELECT device_id, temperature, humidity FROM readings_collector ORDER BY device_id, time"
        )
        accepted = await pipeline.log.tallies(topics.RAW)
        refused = await pipeline.log.tallies(topics.DEAD_LETTERS)
        unknown = metrics.value("headrace_unknown_topics_total")
    broker.stop()
    assert [tuple(each) for each in stored] == [("c-1", 20, 41), ("c-1", 21, None), ("c-2", 20, None)]
    assert {letter.headers[dead_letters.REASON].decode() for letter in letters} == {
        "no topic profile takes the topic 'dt/devices//telemetry'",
        "the message names no device",
    }
    minute = NOW // 60_000 * 60_000
    assert accepted == {Tally(minute, "collector"): 5, Tally(minute, "environmental"): 1, Tally(minute, ""): 1}
    assert refused == {Tally(minute, "collector"): 1, Tally(minute, ""): 1}
    assert (ledger.accepted, ledger.dead_lettered, ledger.in_flight, ledger.difference) == (7, 2, 0, 0)
    assert unknown == 1
