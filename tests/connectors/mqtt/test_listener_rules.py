"""The listener: rules of MQTT that clients seldom touch."""

import asyncio

import pytest

from headrace.connectors.mqtt.codec.packets import (
    V3,
    V5,
    Ack,
    Connack,
    Connect,
    Disconnect,
    Filter,
    Kind,
    Ping,
    Publish,
    Subscribe,
)
from headrace.connectors.mqtt.codec.reasons import Reason
from headrace.connectors.mqtt.codec.write import write
from tests.connectors.mqtt.listening import HandClock, Listening, until
from tests.connectors.mqtt.raw_client import RawClient, connected, telemetry

BOTH = pytest.mark.parametrize("version", [V3, V5])
KEPT = {"session_expiry_interval": 60}
OPS = [{"users": ["ops"], "publish": ["cmd/devices/+/#"]}]


async def test_more_qos_2_than_may_be_in_flight_in_the_old_version() -> None:
    """3.1.1: a client that publishes many before it releases the first gets every PUBREC and every PUBCOMP."""
    async with Listening(max_inflight=3) as listening, connected(listening.port, "a", V3) as client:
        client.send(*(telemetry(b"x", packet_id, 2) for packet_id in range(1, 21)))
        assert [await client.receive() for _ in range(20)] == [Ack(Kind.PUBREC, each) for each in range(1, 21)]
        client.send(*(Ack(Kind.PUBREL, packet_id) for packet_id in range(1, 21)))
        assert [await client.receive() for _ in range(20)] == [Ack(Kind.PUBCOMP, each) for each in range(1, 21)]


@BOTH
async def test_released_before_it_is_in_the_log(version: int) -> None:
    """A PUBREL that does not wait for its PUBREC is answered behind it, and not before the append."""
    async with Listening() as listening, connected(listening.port, "a", version) as client:
        listening.intake.gate.clear()
        client.send(telemetry(b"x", 5, 2), Ack(Kind.PUBREL, 5))
        assert await client.ask(Ping()) == Ping(Kind.PINGRESP)
        listening.intake.gate.set()
        assert [await client.receive() for _ in range(2)] == [Ack(Kind.PUBREC, 5), Ack(Kind.PUBCOMP, 5)]
        assert await client.ask(telemetry(b"y", 5, 2)) == Ack(Kind.PUBREC, 5)
        assert listening.intake.payloads == [b"x", b"y"]


@BOTH
async def test_keep_alive_is_not_cut_short(version: int) -> None:
    """Nobody is ended for silence before one and a half times its keep-alive (3.1.2.10)."""
    clock = HandClock()
    async with (
        Listening(clock) as listening,
        connected(listening.port, "a", version, keep_alive=1) as client,
        connected(listening.port, "other", version) as other,
    ):
        clock.advance(300)
        await client.ask(Ping())
        for _ in range(15):
            clock.advance(100)
            await other.ask(Ping())
        assert listening.listener.statistics().connections == 2
        for _ in range(14):
            clock.advance(100)
            await other.ask(Ping())
        assert await client.last_words() == (Disconnect(Reason.KEEP_ALIVE_TIMEOUT) if version == V5 else None)


@BOTH
async def test_a_listener_that_stood_still(version: int) -> None:
    """Holds it against nobody: while its machine was stopped it could hear no client."""
    clock = HandClock()
    async with Listening(clock) as listening, connected(listening.port, "a", version, keep_alive=1) as client:
        stranger = await RawClient.open(listening.port, version)
        await client.ask(Ping())
        clock.advance(100_000)
        assert await client.ask(Ping()) == Ping(Kind.PINGRESP)
        assert isinstance(await stranger.ask(Connect("b", version)), Connack)
        await stranger.close()


async def test_connect_one_byte_at_a_time() -> None:
    """Who dribbles has no longer for its CONNECT than others."""
    clock = HandClock()
    async with Listening(clock, connect_timeout=0.3) as listening:
        client = await RawClient.open(listening.port)
        for byte in write(Connect("a" * 100), V5):
            client.send_bytes(bytes([byte]))
            clock.advance(10)
            await asyncio.sleep(0)
        assert await client.last_words() is None


async def test_slow_but_in_time() -> None:
    """A CONNECT in pieces is one."""
    async with Listening() as listening:
        client = await RawClient.open(listening.port)
        for byte in write(Connect("a"), V5):
            client.send_bytes(bytes([byte]))
            await asyncio.sleep(0.001)
        assert isinstance(await client.receive(), Connack)
        await client.close()


@pytest.mark.parametrize(
    ("wire", "largest", "answer"),
    [
        ("c1 00", 2, ""),  # a malformed PINGREQ
        ("c1 00", 3, "e0 01 81"),
        ("c1 00", 20, "e0 01 81"),
    ],
)
async def test_last_words_that_a_client_takes(wire: str, largest: int, answer: str) -> None:
    """No DISCONNECT is larger than the client's Maximum Packet Size, nor is the CONNACK (3.1.2.11.4)."""
    async with Listening() as listening:
        client = await RawClient.open(listening.port)
        client.send(Connect("a", properties={"maximum_packet_size": max(largest, 16)}))
        assert len(write(await client.receive(), V5)) <= max(largest, 16)
        connection = next(iter(listening.listener._connections))
        connection.limits = {"maximum_packet_size": largest}
        client.send_bytes(bytes.fromhex(wire))
        words = await client.last_words()
        assert write(words, V5) == bytes.fromhex(answer) if words is not None else not answer
        await client.close()


async def test_a_client_that_takes_no_connack() -> None:
    """Is hung up on without a word, also when it is refused."""
    async with Listening() as listening:
        for client_id in ("a", "a/b"):
            client = await RawClient.open(listening.port)
            client.send(Connect(client_id, properties={"maximum_packet_size": 4}))
            assert await client.last_words() is None
            await client.close()
        await until(lambda: listening.listener.statistics().connections == 0)


@pytest.mark.parametrize(
    ("wire", "reason"),
    [
        ("62 03 0007 10", Reason.PROTOCOL_ERROR),
        ("40 03 0007 92", Reason.PROTOCOL_ERROR),
        ("e0 01 8b", Reason.PROTOCOL_ERROR),
        ("e0 01 01", Reason.PROTOCOL_ERROR),
        ("82 07 0001 00 0001 61 03", Reason.PROTOCOL_ERROR),
        ("82 07 0001 00 0001 61 30", Reason.PROTOCOL_ERROR),
        ("82 07 0001 00 0001 61 40", Reason.MALFORMED_PACKET),
        ("30 06 0001 61 02 0b 01", Reason.PROTOCOL_ERROR),  # a subscription identifier
        ("30 0a 0001 61 06 08 0003 61 2f 23", Reason.PROTOCOL_ERROR),  # response topic a/#
    ],
)
async def test_what_a_client_must_not_send(wire: str, reason: int) -> None:
    """Reason codes, options and properties that are not for it."""
    async with Listening() as listening, connected(listening.port) as client:
        client.send_bytes(bytes.fromhex(wire))
        words = await client.last_words()
        assert isinstance(words, Disconnect)
        assert words.reason == reason


async def test_a_bridge_is_answered_in_its_version() -> None:
    """Mosquitto's bridges set the upper bit of the protocol level: that of 3.1.1 gets its refusal."""
    async with Listening() as listening:
        client = await RawClient.open(listening.port, V3)
        client.send_bytes(bytes.fromhex("10 0d 0004 4d515454 84 02 000a 0001 61"))
        assert await client.receive() == Connack(False, Reason.UNSUPPORTED_PROTOCOL_VERSION)
        await client.close()


async def test_what_was_sent_again_is_not_taken_for_known_later() -> None:
    """Once a message that was in doubt is acknowledged, its identifier is free for another with the same bytes."""
    async with Listening() as listening:
        listening.intake.gate.clear()
        async with connected(listening.port, "a", V3, clean=False) as client:
            client.send(telemetry(b"on", 1, 1))
            await listening.intake.entered.wait()
        async with connected(listening.port, "a", V3, clean=False) as client:
            client.send(telemetry(b"on", 1, 1, duplicate=True))
            assert await client.ask(Ping()) == Ping(Kind.PINGRESP)
            listening.intake.gate.set()
            assert await client.receive() == Ack(Kind.PUBACK, 1)
        async with connected(listening.port, "a", V3, clean=False) as client:
            # Its first transmission was lost with the connection.
            assert await client.ask(telemetry(b"on", 1, 1, duplicate=True)) == Ack(Kind.PUBACK, 1)
        assert listening.intake.payloads == [b"on"] * 3


@BOTH
async def test_sent_again_within_the_window(version: int) -> None:
    """Commands that are sent again on a new connection are no more than its Receive Maximum, and come in order."""
    properties = KEPT if version == V5 else {}
    async with Listening(grants=OPS) as listening, connected(listening.port, "ops") as ops:
        async with connected(listening.port, "a", version, clean=False, properties=properties) as device:
            await device.ask(Subscribe(1, (Filter("cmd/devices/a/#", 1),)))
            for number in range(1, 31):
                await ops.ask(Publish(b"cmd/devices/a/x", b"%d" % number, number, 1))
            assert [getattr(await device.receive(), "payload", b"") for _ in range(20)][-1] == b"20"
        window = {"receive_maximum": 3} if version == V5 else {}
        async with connected(listening.port, "a", version, clean=False, properties={**properties, **window}) as device:
            expected = 3 if version == V5 else 20
            for number in range(1, expected + 1):
                assert await device.receive() == Publish(b"cmd/devices/a/x", b"%d" % number, number, 1, True)
            assert await device.ask(Ping()) == Ping(Kind.PINGRESP)
            for number in range(expected + 1, 31):
                message = await device.ask(Ack(Kind.PUBACK, number - expected))
                assert isinstance(message, Publish)
                assert (message.payload, message.packet_id) == (b"%d" % number, number)


async def test_commands_to_a_client_that_does_not_read() -> None:
    """What waits for it stays bounded; once it reads, it gets those of QoS 1 that wait."""
    async with (
        Listening(grants=OPS) as listening,
        connected(listening.port, "ops") as ops,
        connected(listening.port, "a") as device,
    ):
        await device.ask(Subscribe(1, (Filter("cmd/devices/a/zero", 0), Filter("cmd/devices/a/one", 1))))
        connection = next(c for c in listening.listener._connections if c.identity.name == "a")
        connection.pause_writing()
        for number in range(1, 31):
            await ops.ask(Publish(b"cmd/devices/a/zero", b"x" * 10_000, number, 1))
            await ops.ask(Publish(b"cmd/devices/a/one", b"%d" % number, number, 1))
        assert connection._transport.get_write_buffer_size() == 0
        connection.resume_writing()
        payloads = [getattr(await device.receive(), "payload", b"") for _ in range(30)]
        assert [each for each in payloads if len(each) < 3] == [b"%d" % each for each in range(1, 31)]


@BOTH
async def test_stopping_under_load(version: int) -> None:
    """Clients that go on publishing do not keep a listener from stopping; what it acknowledged is appended."""
    async with Listening(linger=0.0, max_inflight=50) as listening, connected(listening.port, "a", version) as client:
        acknowledged, sent = 0, 0

        async def publish() -> None:
            nonlocal sent, acknowledged
            try:
                while True:
                    sent += 1
                    client.send(telemetry(b"%d" % sent, sent % 65_535 + 1, 1))
                    if sent > 40:
                        acknowledged += isinstance(await client.receive(), Ack)
            except EOFError:
                return

        async def slow_log() -> None:
            while True:
                listening.intake.gate.clear()
                await asyncio.sleep(0.002)
                listening.intake.gate.set()
                await asyncio.sleep(0)

        slow = asyncio.create_task(slow_log())
        busy = asyncio.create_task(publish())
        await until(lambda: acknowledged > 200)
        listening.stop.set()
        async with asyncio.timeout(60):
            await listening.task
            await busy
        slow.cancel()
        assert listening.intake.payloads[:acknowledged] == [b"%d" % each for each in range(1, acknowledged + 1)]


async def test_long_topics_are_not_remembered() -> None:
    """Topics of 64 KiB, each other than the last, leave nothing behind."""
    async with Listening() as listening, connected(listening.port) as client:
        for number in range(1, 20):
            topic = b"dt/devices/a/%d/" % number + b"x" * 60_000
            assert await client.ask(Publish(topic, b"", number, 1)) == Ack(Kind.PUBACK, number)
        connection = next(iter(listening.listener._connections))
        assert sum(map(len, connection._known)) < 1_000
