"""Payload formats from a real broker, and from devices that connect straight to the listener, to readings."""

import asyncio
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cbor2
import orjson
import pytest

from headrace.cli.pipeline import Pipeline
from headrace.cli.settings import Settings
from headrace.connectors.mqtt.connection import BrokerAddress
from headrace.connectors.mqtt.listener import MqttListener
from headrace.connectors.mqtt.publisher import MqttPublisher
from headrace.connectors.mqtt.source import MqttSource
from headrace.connectors.routed_intake import RoutedIntake
from headrace.engine import dead_letters
from headrace.engine.clock import ManualClock, SystemClock
from headrace.engine.log import TopicPartition
from headrace.schemas import topics
from headrace.tables.device_types import load_device_types
from headrace.tables.rules import load_rules
from tests.cli.conftest import Headrace
from tests.cli.test_pipeline import NOW, fetch, records
from tests.conftest import Require
from tests.mosquitto import Mosquitto, find_mosquitto

pytestmark = pytest.mark.integration
#: Seconds; a limit for what hangs.
ARRIVAL = 120.0
TYPES = """
name = "soil"

[time]
missing = "append"

[fields]
temperature = { unit = "degC" }
moisture = { unit = "%" }
rssi = { unit = "dBm" }
snr = { unit = "dB" }
batteryLevel = { unit = "%" }
margin = { unit = "dB" }
current = { unit = "mA" }
"""
PROFILES = [
    {
        **{"name": "lorawan", "topic": "application/+/device/{device}/event/+"},
        **{"device_type": "soil", "format": "chirpstack"},
    },
    {"name": "senml-json", "topic": "senml/json", "device_type": "soil", "format": "senml-json"},
    {"name": "senml-cbor", "topic": "senml/cbor", "device_type": "soil", "format": "senml-cbor"},
    {"name": "thingsboard", "topic": "v1/devices/{device}/#", "device_type": "soil", "format": "thingsboard"},
]


def settings_of(folder: Path, **more: Any) -> Settings:
    """The profiles, and their device type."""
    (folder / "types").mkdir()
    (folder / "types" / "soil.toml").write_text(TYPES)
    return Settings.model_validate({"profiles": PROFILES, "device_types": folder / "types", **more})


def pipeline_of(folder: Path, settings: Settings) -> Pipeline:
    """What works on what comes; it is `NOW`."""
    types = load_device_types(settings.device_types)
    return Pipeline(folder / "data", settings, types, load_rules(), ManualClock(NOW))


def uplink(counter: int, seconds: int, **values: object) -> tuple[str, bytes]:
    """A frame of a sensor, as ChirpStack v4 sends it on."""
    event: dict[str, Any] = {
        "deduplicationId": f"3ac7e3c4-4401-4b8d-9386-{counter:012}",
        "time": f"2023-11-14T22:13:{seconds:02}.775023242+00:00",
        "deviceInfo": {"devEui": "0101010101010101", "deviceName": "bed 7"},
        "fPort": 1,
        "rxInfo": [{"gatewayId": "0016c001f153a14c", "rssi": -101, "snr": 6.5}],
    }
    event |= {"fCnt": counter} if counter else {}
    event |= {"object": values} if values else {"data": "qg=="}
    return "application/7/device/0101010101010101/event/up", orjson.dumps(event)


def event(kind: str, **values: object) -> tuple[str, bytes]:
    """Another event of the same sensor."""
    info = {"time": "2023-11-14T22:14:00+00:00", "deviceInfo": {"devEui": "0101010101010101"}}
    return f"application/7/device/0101010101010101/event/{kind}", orjson.dumps({**info, **values})


async def bridged(folder: Path, pipeline: Pipeline, settings: Settings, messages: Sequence[tuple[str, bytes]]) -> None:
    """Send messages through a real broker and a bridge, until all of them are worked on."""
    broker = Mosquitto(folder / "broker").start()
    chosen = settings.mqtt.model_copy(update={"host": broker.host, "port": broker.port})
    routed = RoutedIntake(pipeline.intake, settings.profiles, pipeline.monitoring.metrics, ManualClock(NOW))
    source = MqttSource(chosen, [each.topic_filter for each in settings.profiles], routed, SystemClock())

    async def publish(stop: asyncio.Event) -> None:
        leave = asyncio.Event()
        receiving = asyncio.create_task(source.run(leave))
        await source.wait_subscribed()
        async with MqttPublisher(BrokerAddress(broker.host, broker.port)) as publisher:
            for topic, payload in messages:
                await publisher.publish(topic, payload)
                await publisher.drain()
        async with asyncio.timeout(ARRIVAL):
            while source.statistics().appended < len(messages):
                await asyncio.sleep(0.005)
        leave.set()
        await receiving

    try:
        await pipeline.run(publish, asyncio.Event())
    finally:
        broker.stop()


async def test_chirpstack_through_a_broker(tmp_path: Path, require: Require, headrace_process: Headrace) -> None:
    """Uplinks and status are readings, a repeat is none, joins are aside, and lost frames are counted and shown."""
    require(find_mosquitto(), "mosquitto", "install the package `mosquitto`")
    settings = settings_of(tmp_path)
    messages = [
        event("join", devAddr="00189440"),
        uplink(0, 1, temperature=20.5, moisture=31),
        uplink(1, 2, temperature=20.6, moisture=31),
        uplink(1, 2, temperature=20.6, moisture=31),  # ChirpStack sends it again
        uplink(5, 3, temperature=20.7, moisture=30),
        uplink(6, 4),  # no codec
        event("status", margin=10, batteryLevel=88.3),
        event("txack", fCntDown=3),
    ]
    async with pipeline_of(tmp_path, settings) as pipeline:
        await bridged(tmp_path, pipeline, settings, messages)

        readings = [orjson.loads(each.value or b"") for each in await records(pipeline, topics.READINGS)]
        aside = await records(pipeline, topics.EVENTS)
        letters = await records(pipeline, topics.DEAD_LETTERS)
        sequences = await compacted(pipeline, topics.SEQUENCES)
        ledger = await pipeline.ledger()
        rows = await fetch(pipeline, 'SELECT temperature, rssi, "batteryLevel" FROM readings_soil ORDER BY time')

    assert [each["measures"] for each in readings] == [
        {"temperature": 20.5, "moisture": 31, "rssi": -101, "snr": 6.5},
        {"temperature": 20.6, "moisture": 31, "rssi": -101, "snr": 6.5},
        {"temperature": 20.7, "moisture": 30, "rssi": -101, "snr": 6.5},
        {"margin": 10, "batteryLevel": 88.3},
    ]
    assert {each["device_id"] for each in readings} == {"0101010101010101"}
    assert readings[0]["extra"] == {"dr": 0, "fPort": 1, "gateway": "0016c001f153a14c", "gateways": 1}
    stored = [(20.5, -101, None), (20.6, -101, None), (20.7, -101, None), (None, None, 88.3)]
    assert [tuple(row) for row in rows] == stored
    assert Counter(each.headers[topics.EVENT] for each in aside) == {b"join": 1, b"txack": 1}
    (letter,) = letters
    assert b"set a codec" in letter.headers[dead_letters.REASON]
    assert sequences["0101010101010101"]["streams"]["lorawan"] == {
        **{"last": 6, "modulo": 2**32, "received": 4, "lost": 3, "late": 0, "repeats": 0, "resets": 0},
        "time": 1_700_000_000_000 - 16_000 + 775,
    }
    shown = await asyncio.to_thread(
        headrace_process, "tables", "sequences", "--device", "0101010101010101", "--data", tmp_path / "data", "--json"
    )
    row = orjson.loads(shown.stdout)
    assert (row["device_id"], row["profile"], row["lost"], row["repeats"]) == ("0101010101010101", "lorawan", 3, 0)
    assert (ledger.accepted, ledger.stored, ledger.duplicate, ledger.dead_lettered) == (6, 4, 1, 1)
    assert (ledger.in_flight, ledger.difference) == (0, 0)


async def test_senml_through_a_broker(tmp_path: Path, require: Require) -> None:
    """Packs of several devices in JSON and CBOR become readings in the units of the device type, each once."""
    require(find_mosquitto(), "mosquitto", "install the package `mosquitto`")
    settings = settings_of(tmp_path)
    pack: list[dict[str, Any]] = [
        {"bn": "urn:dev:ow:a:", "bt": NOW / 1000, "n": "temperature", "u": "K", "v": 293.65},
        {"n": "moisture", "u": "%RH", "v": 31},
        {"n": "temperature", "u": "K", "t": -60, "v": 293.15},
        {"bn": "urn:dev:ow:b:", "n": "current", "u": "A", "v": 0.25},
        {"n": "label", "vs": "bed 7"},
    ]
    labels = {"bn": -2, "bt": -3, "n": 0, "u": 1, "v": 2, "vs": 3, "t": 6}
    binary = cbor2.dumps([{labels[name]: value for name, value in each.items()} for each in pack])
    relative = orjson.dumps([{"bn": "urn:dev:ow:c:", "n": "temperature", "t": -5, "v": 7}])
    messages = [
        ("senml/json", orjson.dumps(pack)),
        ("senml/cbor", binary),
        ("senml/json", relative),
        ("senml/json", b'[{"bn": "urn:dev:ow:a:", "n": "temperature", "u": "V", "v": 1}]'),
        ("senml/cbor", binary[:-1]),
    ]
    async with pipeline_of(tmp_path, settings) as pipeline:
        await bridged(tmp_path, pipeline, settings, messages)

        readings = [orjson.loads(each.value or b"") for each in await records(pipeline, topics.READINGS)]
        letters = await records(pipeline, topics.DEAD_LETTERS)
        ledger = await pipeline.ledger()

    found = sorted((each["device_id"], each["time"], each["measures"], each.get("extra")) for each in readings)
    assert found == [
        ("urn:dev:ow:a", NOW - 60_000, {"temperature": pytest.approx(20)}, None),
        ("urn:dev:ow:a", NOW, {"temperature": pytest.approx(20.5), "moisture": 31}, None),
        ("urn:dev:ow:b", NOW, {"current": 250}, {"label": "bed 7"}),
        ("urn:dev:ow:c", NOW - 5_000, {"temperature": 7}, None),
    ]
    reasons = sorted(each.headers[dead_letters.REASON].decode() for each in letters)
    assert [each[:60] for each in reasons] == [
        "profile senml-cbor: payload is no CBOR of a SenML pack: it e",
        "unit of temperature is 'V', which is none of K, degF, degC",
    ]
    assert (ledger.accepted, ledger.stored, ledger.duplicate, ledger.dead_lettered) == (9, 4, 3, 2)
    assert ledger.difference == 0


async def test_thingsboard_devices_at_the_listener(tmp_path: Path) -> None:
    """`me` is whoever is connected: in the rights, and in the log."""
    listener = {
        **{"port": 0, "anonymous": True, "own_level": "me"},
        **{"publish": ["v1/devices/{device}/#"], "subscribe": []},
    }
    settings = settings_of(tmp_path, listener=listener)
    async with pipeline_of(tmp_path, settings) as pipeline:
        log = pipeline.log
        await log.create_topics(MqttListener.topic_specs(settings.log.partitions))
        routed = RoutedIntake(pipeline.intake, settings.profiles, clock=ManualClock(NOW))

        async def publish(stop: asyncio.Event) -> None:
            served, leave = MqttListener(settings.listener, routed, log, SystemClock()), asyncio.Event()
            serving = asyncio.create_task(served.run(leave))
            (port,) = await served.wait_listening()
            for name, value in (("roof", 1), ("cellar", 2)):
                async with MqttPublisher(BrokerAddress("127.0.0.1", port), client_id=name) as publisher:
                    payload = {"ts": NOW - value, "values": {"temperature": value}}
                    await publisher.publish("v1/devices/me/telemetry", orjson.dumps(payload))
                    await publisher.publish("v1/devices/me/attributes", b'{"firmware": "1.2"}')
                    await publisher.drain()
            leave.set()
            await serving

        await pipeline.run(publish, asyncio.Event())

        readings = [orjson.loads(each.value or b"") for each in await records(pipeline, topics.READINGS)]
        aside = await records(pipeline, topics.EVENTS)
        raw = await records(pipeline, topics.RAW)

    assert {(each["device_id"], each["time"], each["measures"]["temperature"]) for each in readings} == {
        ("roof", NOW - 1, 1),
        ("cellar", NOW - 2, 2),
    }
    assert {(each.key, each.headers[topics.EVENT]) for each in aside} == {
        (b"roof", b"attributes"),
        (b"cellar", b"attributes"),
    }
    assert {each.headers[topics.SOURCE] for each in raw} == {
        b"v1/devices/roof/telemetry",
        b"v1/devices/cellar/telemetry",
    }


async def compacted(pipeline: Pipeline, topic: str) -> dict[str, Any]:
    """The newest value per key of a compacted topic."""
    found: dict[str, Any] = {}
    for partition in range(pipeline.log.partitions(topic)):
        async for entries in pipeline.log.restore(TopicPartition(topic, partition)):
            found |= {key.decode(): orjson.loads(value) for key, value in entries}
    return found
