"""Every payload format from a real broker through `headrace bridge`, Kafka and `headrace worker` to readings."""

import asyncio
import subprocess
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple, get_args

import cbor2
import orjson
import pytest
from local_kafka.cluster import Cluster

from headrace.connectors.formats.profile_format import FormatName
from headrace.connectors.mqtt.connection import BrokerAddress
from headrace.connectors.mqtt.publisher import MqttPublisher
from headrace.engine import dead_letters
from headrace.engine.kafka.log import KafkaLog
from headrace.engine.kafka.settings import KafkaSettings
from headrace.engine.log import TopicPartition
from headrace.engine.records import Record
from headrace.schemas import topics
from tests.conftest import Require
from tests.connectors.sparkplug.edge_node import EdgeNode
from tests.mosquitto import Mosquitto, find_mosquitto

pytestmark = pytest.mark.integration

#: Seconds; a limit for what hangs.
PATIENCE = 300.0
T0 = 1_750_000_000_000
TYPE = 'name = "soil"\n[fields]\ntemperature = { unit = "degC" }\n'
#: A device's id, event time and temperature.
Value = tuple[str, int, float]


class Case(NamedTuple):
    """What is published under a profile, and what becomes of it; each has one message more that cannot be read.

    Args:
        profile: settings beside name, device type and format.
        sent: topics and payloads.
        values: readings.
        event: of a message that is none.
    """

    profile: dict[str, Any]
    sent: Sequence[tuple[str, bytes]]
    values: Sequence[Value]
    wrong: tuple[str, bytes]
    event: bytes | None = None


def uplink(counter: int) -> tuple[str, bytes]:
    """A frame of a LoRaWAN sensor."""
    event = {"time": f"2025-06-15T15:06:40.{counter:03}Z", "fCnt": counter, "object": {"temperature": counter}}
    return "application/1/device/lora/event/up", orjson.dumps(event)


def edge_node() -> list[tuple[str, bytes]]:
    """The births of a node with a sensor, and two values by alias."""
    node = EdgeNode("plant", "edge", {"sensor": {"temperature": (7, "Double")}})
    data = [node.births(T0, {("sensor", "temperature"): 1.5})]
    data += [[node.data("sensor", T0 + place, {"temperature": place})] for place in (1, 2)]
    return [each for part in data for each in part]


PACK: list[dict[str, Any]] = [
    {"bn": "urn:dev:x:", "bt": T0 / 1000, "n": "temperature", "u": "K", "v": 300.15},
    {"n": "temperature", "u": "K", "t": 1, "v": 301.15},
]
LABELS = {"bn": -2, "bt": -3, "n": 0, "u": 1, "v": 2, "t": 6}
BOARD = [{"ts": T0 + n, "values": {"temperature": n}} for n in (1, 2)]
GATEWAY = {f"gw-{n}": [{"ts": T0, "values": {"temperature": n}}] for n in (1, 2)}
ENVELOPE = {"timestamp": T0, "readings": [{"id": f"e-{n}", "temperature": n} for n in (1, 2)]}
CASES: dict[str, Case] = {
    "json": Case(
        {"topic": "plain/{device}", "sequence": {"field": "seq"}},
        [("plain/json", orjson.dumps({"timestamp": T0 + n, "temperature": n, "seq": n})) for n in (1, 2, 5)],
        [("json", T0 + n, n) for n in (1, 2, 5)],
        ("plain/json", b"{"),
    ),
    "thingsboard": Case(
        {"topic": "v1/devices/{device}/#"},
        [
            (
                "v1/devices/board/telemetry",
                orjson.dumps(BOARD),
            ),
            ("v1/devices/board/attributes", b'{"firmware": "1.2"}'),
        ],
        [("board", T0 + n, n) for n in (1, 2)],
        ("v1/devices/board/telemetry", b"[7]"),
        b"attributes",
    ),
    "thingsboard-gateway": Case(
        {"topic": "v1/gateway/#"},
        [("v1/gateway/telemetry", orjson.dumps(GATEWAY))],
        [(f"gw-{n}", T0, n) for n in (1, 2)],
        ("v1/gateway/telemetry", b"[]"),
    ),
    "chirpstack": Case(
        {"topic": "application/+/device/{device}/event/+"},
        [uplink(1), uplink(1), uplink(4), ("application/1/device/lora/event/join", b"{}")],
        [("lora", T0 + n, n) for n in (1, 4)],
        ("application/1/device/lora/event/up", b'{"time": "2025-06-15T15:06:41Z", "fCnt": 5}'),
        b"join",
    ),
    "senml-json": Case(
        {"topic": "senml/{device}"},
        [("senml/text", orjson.dumps(PACK))],
        [("text", T0, 27), ("text", T0 + 1000, 28)],
        ("senml/text", b"[{}, 1]"),
    ),
    "senml-cbor": Case(
        {"topic": "cbor"},
        [("cbor", cbor2.dumps([{LABELS[name]: value for name, value in each.items()} for each in PACK]))],
        [("urn:dev:x", T0, 27), ("urn:dev:x", T0 + 1000, 28)],
        ("cbor", b"\x9f"),
    ),
    "envelope": Case(
        {"topic": "envelopes", "device_field": "id"},
        [
            (
                "envelopes",
                orjson.dumps(ENVELOPE),
            )
        ],
        [(f"e-{n}", T0, n) for n in (1, 2)],
        ("envelopes", b'{"readings": 1}'),
    ),
    "sparkplug": Case(
        {"topic": "spBv1.0/#"},
        edge_node(),
        [("plant/edge/sensor", T0, 1.5), ("plant/edge/sensor", T0 + 1, 1), ("plant/edge/sensor", T0 + 2, 2)],
        ("spBv1.0/plant/NDATA/other", b"\x00\x01"),
    ),
}


class Found(NamedTuple):
    """What is on Kafka in the end."""

    readings: list[dict[str, Any]]
    letters: list[Record]
    events: list[Record]
    sequences: dict[str, dict[str, Any]]


def settings(folder: Path, broker: Mosquitto, cluster: Cluster) -> Path:
    """The file of bridge and worker."""
    (folder / "types").mkdir()
    (folder / "types" / "soil.toml").write_text(TYPE)
    lines = [f'device_types = "{folder / "types"}"', "[log]", f'url = "kafka://{cluster.bootstrap}"', "partitions = 2"]
    lines += ["[mqtt]", f'host = "{broker.host}"', f"port = {broker.port}"]
    for name, case in CASES.items():
        lines += ["[[profiles]]", f'name = "{name}"', 'device_type = "soil"', f'format = "{name}"']
        for option, value in case.profile.items():
            inline = "{ field = 'seq' }" if isinstance(value, dict) else f'"{value}"'
            lines.append(f"{option} = {inline}")
    file = folder / "headrace.toml"
    file.write_text("\n".join(lines))
    return file


async def read_all(log: KafkaLog, topic: str, count: int) -> list[Record]:
    """The records of a topic, once there are so many."""
    reader, found = log.reader(), list[Record]()
    positions = dict.fromkeys(await log.end_offsets(topic), 0)
    while len(found) < count:
        await reader.wait(positions, 1.0)
        for target, position in positions.items():
            piece = await reader.read(target, position, 1_000)
            if piece is not None:
                found += piece.records
                positions[target] = piece.next_offset
    await reader.close()
    return found


async def publish(broker: Mosquitto) -> None:
    """Publish everything, once the bridge has subscribed."""
    while CASES["sparkplug"].profile["topic"] not in broker.said():
        await asyncio.sleep(0.02)
    async with MqttPublisher(BrokerAddress(broker.host, broker.port)) as publisher:
        for case in CASES.values():
            for topic, payload in [*case.sent, case.wrong]:
                await publisher.publish(topic, payload)
        await publisher.drain()


async def results(cluster: Cluster) -> Found:
    """What worker and bridge made of it."""
    log = KafkaLog(f"kafka://{cluster.bootstrap}", KafkaSettings(), role="test")
    await log.start()
    try:
        readings = await read_all(log, topics.READINGS, sum(len(case.values) for case in CASES.values()))
        letters = await read_all(log, topics.DEAD_LETTERS, len(CASES))
        events = await read_all(log, topics.EVENTS, sum(case.event is not None for case in CASES.values()))
        sequences: dict[str, dict[str, Any]] = {}
        for partition in range(2):
            async for entries in log.restore(TopicPartition(topics.SEQUENCES, partition)):
                sequences |= {key.decode(): orjson.loads(value)["streams"] for key, value in entries}
    finally:
        await log.close()
    return Found([orjson.loads(each.value or b"") for each in readings], letters, events, sequences)


def run(folder: Path) -> Found:
    """Publish everything into a bridge and a worker in processes of their own."""

    async def watch() -> Found:
        async with asyncio.timeout(PATIENCE):
            await publish(broker)
            return await results(cluster)

    with ExitStack() as stack:
        broker = Mosquitto(folder / "broker").start()
        stack.callback(broker.stop)
        cluster = stack.enter_context(Cluster())
        config = settings(folder, broker, cluster)
        for command in ("bridge", "worker"):
            output = stack.enter_context((folder / command).open("wb"))
            arguments = [sys.executable, "-m", "headrace.cli.main", command, "--config", str(config)]
            process = subprocess.Popen(arguments, stdout=output, stderr=output)
            stack.callback(process.wait)
            stack.callback(process.kill)
        return asyncio.run(watch())


def test_every_format_on_kafka(kafka_tools: None, require: Require, tmp_path: Path) -> None:
    """Readings come out with their times, once each; what cannot be read is a dead letter, the rest is aside.

    Of sequence numbers, what was lost is counted, one that came twice is not, and one that cannot be read came.
    """
    require(find_mosquitto(), "mosquitto", "install the package `mosquitto`")
    assert CASES.keys() == set(get_args(FormatName))

    found = run(tmp_path)

    readings = {(each["device_id"], each["time"]): each["measures"]["temperature"] for each in found.readings}
    assert len(found.readings) == len(readings)
    letters = {each.headers[topics.PROFILE].decode(): each for each in found.letters}
    events = {each.headers[topics.PROFILE].decode(): each.headers[topics.EVENT] for each in found.events}
    for name, case in CASES.items():
        for device, time, value in case.values:
            assert readings.pop((device, time)) == pytest.approx(value), name
        assert letters[name].value == case.wrong[1], name
        assert letters[name].headers[dead_letters.REASON], name
        assert events.get(name) == case.event, name
    assert not readings
    meter, sensor = found.sequences["json"]["json"], found.sequences["lora"]["chirpstack"]
    assert (meter["received"], meter["lost"], meter["repeats"]) == (3, 2, 0)
    assert (sensor["received"], sensor["lost"], sensor["repeats"]) == (3, 2, 0)
