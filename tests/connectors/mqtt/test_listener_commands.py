"""Commands through the listener: what arrives is what was sent, as MQTT 5 asks for."""

import pytest

from headrace.connectors.mqtt.codec.packets import V3, Ack, Filter, Kind, Ping, Publish, Subscribe
from headrace.engine.log import Append, TopicPartition, Transaction
from headrace.engine.records import Records
from headrace.schemas import topics
from tests.connectors.mqtt.listening import HandClock, Listening
from tests.connectors.mqtt.raw_client import connected

OPS = [{"users": ["ops"], "publish": ["cmd/devices/+/#"], "subscribe": ["cmd/devices/+/#"]}]
TOPIC = b"cmd/devices/a/x"
KEPT = {"session_expiry_interval": 60}


@pytest.mark.parametrize("qos", [0, 1])
async def test_properties_go_with_the_command(qos: int) -> None:
    """Response topic, correlation data and the like arrive unaltered; user properties in their order."""
    properties = {
        "payload_format_indicator": 1,
        "content_type": "text/plain",
        "response_topic": "dt/devices/a/answers",
        "correlation_data": b"\0\xff",
        "user_property": [("k", "2"), ("k", "1")],
    }
    async with (
        Listening(grants=OPS) as listening,
        connected(listening.port, "ops") as ops,
        connected(listening.port, "a") as device,
        connected(listening.port, "old", V3, keep_alive=60) as old,
    ):
        await device.ask(Subscribe(1, (Filter("cmd/devices/a/#", qos),)))
        await old.ask(Subscribe(1, (Filter("cmd/devices/old/#", 1),)))
        await ops.ask(Publish(TOPIC, b"do", 1, 1, properties={**properties, "topic_alias": 1}))
        assert await device.receive() == Publish(TOPIC, b"do", qos, qos, properties=properties)
        await ops.ask(Publish(b"cmd/devices/old/x", b"do", 2, 1, properties=properties))
        assert await old.receive() == Publish(b"cmd/devices/old/x", b"do", 1, 1)


@pytest.mark.parametrize(("published", "granted", "arrives"), [(0, 1, 0), (1, 0, 0), (1, 1, 1), (2, 2, 1)])
async def test_the_lower_qos_counts(published: int, granted: int, arrives: int) -> None:
    """A command arrives with the QoS it was published with, or that of the subscription if that is lower (3.8.4)."""
    async with (
        Listening(grants=OPS) as listening,
        connected(listening.port, "ops") as ops,
        connected(listening.port, "a") as device,
    ):
        await device.ask(Subscribe(1, (Filter("cmd/devices/a/#", granted),)))
        ops.send(Publish(TOPIC, b"do", 7 if published else 0, published))
        message = await device.receive()
        assert isinstance(message, Publish)
        assert message.qos == arrives


async def test_commands_expire() -> None:
    """What has expired while the device was away does not arrive; what has not says how long it is still good for."""
    clock = HandClock()
    async with Listening(clock, grants=OPS) as listening, connected(listening.port, "ops") as ops:
        async with connected(listening.port, "a", clean=False, properties=KEPT) as device:
            await device.ask(Subscribe(1, (Filter("cmd/devices/a/#", 1),)))
        for number, seconds in enumerate((1, 60), 1):
            await ops.ask(Publish(TOPIC, b"%d" % seconds, number, 1, properties={"message_expiry_interval": seconds}))
        clock.advance(1_100)
        async with connected(listening.port, "a", clean=False, properties=KEPT) as device:
            message = await device.receive()
            assert isinstance(message, Publish)
            assert message.payload == b"60"
            assert message.properties["message_expiry_interval"] == 59


async def test_no_local() -> None:
    """Who asks not to hear itself does not; others hear it."""
    async with (
        Listening(grants=OPS) as listening,
        connected(listening.port, "ops") as ops,
        connected(listening.port, "a") as device,
    ):
        await ops.ask(Subscribe(1, (Filter("cmd/devices/+/#", 1, no_local=True),)))
        await device.ask(Subscribe(1, (Filter("cmd/devices/a/#", 0, no_local=True),)))
        assert await ops.ask(Publish(TOPIC, b"do", 7, 1)) == Ack(Kind.PUBACK, 7)
        assert await device.receive() == Publish(TOPIC, b"do")
        assert await ops.ask(Ping()) == Ping(Kind.PINGRESP)


async def test_commands_of_other_processes() -> None:
    """A record needs no more than its topic; what is no command is skipped."""
    sources: list[bytes | None] = [b"x", b"cmd/devices/#", b"\xff", b"", None, b"cmd/devices/a/x", b"x" * 70_000, TOPIC]
    values: list[bytes | None] = [b"wrong"] * (len(sources) - 1)
    records = Records([b"a"] * len(sources), [*values, b"do"], [1] * len(sources), {topics.SOURCE: sources})
    records.headers[topics.MQTT_PROPERTIES] = [b"\xff"] * (len(sources) - 1) + [None]
    async with Listening() as listening, connected(listening.port, "a") as device:
        await device.ask(Subscribe(1, (Filter("cmd/devices/a/#", 1),)))
        await listening.log.commit(Transaction([Append(TopicPartition(topics.COMMANDS, 0), records)]))
        assert await device.receive() == Publish(TOPIC, b"do", 1, 1)
