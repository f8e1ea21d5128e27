"""The listener: what it takes, when it acknowledges, what it remembers of a client."""

import aiomqtt
import pytest

from headrace.connectors.mqtt.codec.packets import (
    V3,
    V5,
    Ack,
    Connack,
    Disconnect,
    Filter,
    Kind,
    Ping,
    Publish,
    Suback,
    Subscribe,
    Unsubscribe,
    Will,
)
from headrace.connectors.mqtt.codec.reasons import Reason
from headrace.engine.errors import LogError
from tests.connectors.mqtt.listening import HandClock, Listening, until
from tests.connectors.mqtt.raw_client import connected, telemetry

BOTH = pytest.mark.parametrize("version", [V3, V5])
KEPT = {"session_expiry_interval": 60}


def kept(version: int) -> dict[str, int]:
    """Properties of a client whose session outlives the connection."""
    return KEPT if version == V5 else {}


@BOTH
async def test_a_visit(version: int) -> None:
    """A client comes, is told the limits, pings and goes; presence says so."""
    async with Listening(max_inflight=7) as listening:
        async with connected(listening.port, "a", version) as client:
            assert client.connack.reason == 0
            assert client.connack.properties.get("receive_maximum", 7) == 7
            assert client.connack.properties.get("retain_available", 0) == 0
            assert await client.ask(Ping()) == Ping(Kind.PINGRESP)
            client.send(Disconnect())
            assert await client.last_words() is None
        await until(lambda: listening.listener.statistics().connections == 0)
    assert await listening.presence() == [
        {"device_id": "a", "client_id": "a", "state": "connected"},
        {"device_id": "a", "client_id": "a", "state": "disconnected", "reason": "goodbye"},
    ]


@BOTH
async def test_acknowledged_when_appended(version: int) -> None:
    """No acknowledgement comes before the append has returned; then each in the order of its message."""
    async with Listening() as listening, connected(listening.port, "a", version) as client:
        listening.intake.gate.clear()
        client.send(telemetry(b"0"), telemetry(b"1", 1, 1), telemetry(b"2", 2, 2), telemetry(b"3", 3, 1))
        assert await client.ask(Ping()) == Ping(Kind.PINGRESP)
        await listening.intake.entered.wait()

        listening.intake.gate.set()
        answers = [await client.receive() for _ in range(3)]

        assert sorted(answers, key=lambda ack: getattr(ack, "packet_id", 0)) == [
            Ack(Kind.PUBACK, 1), Ack(Kind.PUBREC, 2), Ack(Kind.PUBACK, 3),
        ]  # fmt: skip
        assert await client.ask(Ack(Kind.PUBREL, 2)) == Ack(Kind.PUBCOMP, 2)
        assert listening.intake.payloads == [b"0", b"1", b"2", b"3"]


@BOTH
async def test_qos_2_is_appended_once(version: int) -> None:
    """Sent again before its release, on this connection or the next, a message is not appended again."""
    async with Listening() as listening:
        async with connected(listening.port, "a", version, clean=False, properties=kept(version)) as client:
            assert await client.ask(telemetry(b"x", 5, 2)) == Ack(Kind.PUBREC, 5)
            assert await client.ask(telemetry(b"x", 5, 2, duplicate=True)) == Ack(Kind.PUBREC, 5)
        async with connected(listening.port, "a", version, clean=False, properties=kept(version)) as client:
            assert client.connack.session_present
            assert await client.ask(telemetry(b"x", 5, 2, duplicate=True)) == Ack(Kind.PUBREC, 5)
            assert await client.ask(Ack(Kind.PUBREL, 5)) == Ack(Kind.PUBCOMP, 5)
            unknown = Reason.PACKET_IDENTIFIER_NOT_FOUND if version == V5 else 0
            assert await client.ask(Ack(Kind.PUBREL, 5)) == Ack(Kind.PUBCOMP, 5, unknown)
            assert await client.ask(telemetry(b"y", 5, 2)) == Ack(Kind.PUBREC, 5)
        assert listening.intake.payloads == [b"x", b"y"]


@BOTH
async def test_what_lost_its_acknowledgement_is_not_appended_again(version: int) -> None:
    """Appended after its connection was gone, and sent again with the same identifier and bytes: only acknowledged."""
    async with Listening() as listening:
        listening.intake.gate.clear()
        async with connected(listening.port, "a", version, clean=False, properties=kept(version)) as client:
            client.send(telemetry(b"1", 1, 1), telemetry(b"2", 2, 1), telemetry(b"3", 3, 2))
            await listening.intake.entered.wait()
        await until(lambda: listening.listener.statistics().connections == 0)
        listening.intake.gate.set()
        await until(lambda: len(listening.intake.payloads) == 3)
        async with connected(listening.port, "a", version, clean=False, properties=kept(version)) as client:
            again = telemetry(b"1", 1, 1, duplicate=True), telemetry(b"other", 2, 1, duplicate=True)
            assert await client.ask(again[0]) == Ack(Kind.PUBACK, 1)
            assert await client.ask(again[1]) == Ack(Kind.PUBACK, 2)
            assert await client.ask(telemetry(b"3", 3, 2, duplicate=True)) == Ack(Kind.PUBREC, 3)
            assert await client.ask(telemetry(b"1", 1, 1, duplicate=True)) == Ack(Kind.PUBACK, 1)

        assert listening.intake.payloads == [b"1", b"2", b"3", b"other", b"1"]


async def test_a_log_that_fails_acknowledges_nothing() -> None:
    """The listener ends with the log's error."""
    async with Listening() as listening, connected(listening.port) as client:
        listening.intake.fail = True
        client.send(telemetry(b"1", 1, 1))
        assert await client.last_words() is None
        with pytest.raises(LogError, match="disk is full"):
            await listening.task
        assert listening.intake.payloads == []


@pytest.mark.parametrize(
    ("version", "qos", "answer"),
    [
        (V3, 0, None),
        (V3, 1, None),
        (V3, 2, None),
        (V5, 0, Disconnect),
        (V5, 1, Ack(Kind.PUBACK, 9, Reason.NOT_AUTHORIZED)),
        (V5, 2, Ack(Kind.PUBREC, 9, Reason.NOT_AUTHORIZED)),
    ],
)
async def test_a_device_publishes_below_its_own_prefix_only(version: int, qos: int, answer: object) -> None:
    """Whatever goes elsewhere is refused by the means of the version, and is not appended."""
    async with Listening() as listening, connected(listening.port, "a", version) as client:
        client.send(telemetry(b"spoof", 9 if qos else 0, qos, device="b"))
        if isinstance(answer, Ack):
            assert await client.receive() == answer
            assert await client.ask(telemetry(b"own", 10, 1)) == Ack(Kind.PUBACK, 10)
        else:
            said = await client.last_words()
            assert said is None if answer is None else getattr(said, "reason", 0) == Reason.NOT_AUTHORIZED
        assert b"spoof" not in listening.intake.payloads


@pytest.mark.parametrize(
    ("name", "granted"),
    [
        ("cmd/devices/a/#", 1),
        ("cmd/devices/a/reboot", 1),
        ("cmd/devices/a/+/x", 1),
        ("cmd/devices/b/#", Reason.NOT_AUTHORIZED),
        ("cmd/devices/+/reboot", Reason.NOT_AUTHORIZED),
        ("cmd/#", Reason.NOT_AUTHORIZED),
        ("#", Reason.NOT_AUTHORIZED),
        ("$SYS/#", Reason.NOT_AUTHORIZED),
        ("dt/devices/a/telemetry", Reason.NOT_AUTHORIZED),
        ("$share/g/cmd/devices/a/#", Reason.SHARED_SUBSCRIPTIONS_NOT_SUPPORTED),
    ],
)
@BOTH
async def test_subscriptions_to_own_commands_only(name: str, granted: int, version: int) -> None:
    """Everything else is refused in the SUBACK."""
    async with Listening() as listening, connected(listening.port, "a", version) as client:
        refused = granted if version == V5 else min(granted, Reason.UNSPECIFIED)
        assert await client.ask(Subscribe(3, (Filter(name, 2),))) == Suback(Kind.SUBACK, 3, (refused,))


@BOTH
async def test_commands(version: int) -> None:
    """A service publishes a command; the device gets it, now or when it comes back, until it has acknowledged it."""
    grants = [{"users": ["ops"], "publish": ["cmd/devices/+/#"]}]
    command = Publish(b"cmd/devices/a/reboot", b"now", 1, 1)
    async with Listening(grants=grants) as listening, connected(listening.port, "ops", version) as ops:
        async with connected(listening.port, "a", version, clean=False, properties=kept(version)) as device:
            await device.ask(Subscribe(1, (Filter("cmd/devices/a/#", 1),)))
            assert await ops.ask(command) == Ack(Kind.PUBACK, 1)
            assert await device.receive() == command
            assert await ops.ask(command._replace(payload=b"later", packet_id=2)) == Ack(Kind.PUBACK, 2)
            assert await device.receive() == command._replace(payload=b"later", packet_id=2)
            device.send(Ack(Kind.PUBACK, 1))
            await device.ask(Ping())
        await ops.ask(command._replace(payload=b"away", packet_id=3))
        async with connected(listening.port, "a", version, clean=False, properties=kept(version)) as device:
            assert await device.receive() == command._replace(payload=b"later", packet_id=2, duplicate=True)
            assert await device.receive() == command._replace(payload=b"away", packet_id=3)
            device.send(Ack(Kind.PUBACK, 2), Ack(Kind.PUBACK, 3))
            reasons = (0,) if version == V5 else ()
            answer = await device.ask(Unsubscribe(4, ("cmd/devices/a/#",)))
            assert answer == Suback(Kind.UNSUBACK, 4, reasons)
            await ops.ask(command._replace(packet_id=4))
            assert await device.ask(Ping()) == Ping(Kind.PINGRESP)
        assert listening.intake.payloads == []


@BOTH
async def test_taking_over(version: int) -> None:
    """Who connects under the same client id has the session; the other connection ends."""
    async with (
        Listening() as listening,
        connected(listening.port, "a", version, clean=False, properties=kept(version)) as first,
        connected(listening.port, "a", version, clean=False, properties=kept(version)) as second,
    ):
        words = await first.last_words()
        assert words == (Disconnect(Reason.SESSION_TAKEN_OVER) if version == V5 else None)
        assert second.connack.session_present
        assert await second.ask(telemetry(b"x", 1, 1)) == Ack(Kind.PUBACK, 1)
        assert listening.listener.statistics().taken_over == 1


async def test_somebody_elses_client_id() -> None:
    """A client id belongs to who had it first."""
    async with Listening(anonymous=True) as listening, connected(listening.port, "a"):
        session = listening.listener._sessions.find("a", "a")
        assert session is not None
        session.owner = "b"
        async with connected(listening.port, "a") as intruder:
            assert intruder.connack.reason == Reason.CLIENT_IDENTIFIER_NOT_VALID


@BOTH
async def test_keep_alive(version: int) -> None:
    """A client that is silent for one and a half times its keep-alive is gone; one that pings is not."""
    clock = HandClock()
    async with (
        Listening(clock) as listening,
        connected(listening.port, "silent", version, keep_alive=1) as silent,
        connected(listening.port, "a", version, keep_alive=1) as client,
    ):
        for _ in range(15):
            clock.advance(200)
            assert await client.ask(Ping()) == Ping(Kind.PINGRESP)
        assert await silent.last_words() == (Disconnect(Reason.KEEP_ALIVE_TIMEOUT) if version == V5 else None)
        await until(lambda: listening.listener.statistics().connections == 1)


@BOTH
async def test_will(version: int) -> None:
    """The will of a client that goes without goodbye is a presence event, and a message if its topic is known."""
    async with Listening() as listening:
        for topic, payload in ((b"dt/devices/a/telemetry", b"{}"), (b"dt/devices/a/state", b"gone")):
            async with connected(listening.port, "a", version, will=Will(topic, payload, 1)):
                pass
            await until(lambda: listening.listener.statistics().connections == 0)
        async with connected(listening.port, "a", version, will=Will(b"dt/devices/a/state", b"never")) as client:
            client.send(Disconnect())
            await client.last_words()
    events = [event for event in await listening.presence() if event["state"] == "will"]
    assert [event["will"] for event in events] == [
        {"topic": "dt/devices/a/telemetry", "payload": "{}"},
        {"topic": "dt/devices/a/state", "payload": "gone"},
    ]
    assert listening.intake.payloads == [b"{}"]


@BOTH
async def test_a_level_for_whoever_publishes(version: int) -> None:
    """With `own_level` it becomes the client's name before its rights are asked; in its will too."""
    async with Listening(own_level="me", publish=["v1/{device}/telemetry"]) as listening:
        async with connected(listening.port, "a", version, will=Will(b"v1/me/telemetry", b"gone")) as client:
            await client.ask(Publish(b"v1/me/telemetry", b"{}", 1, 1))
        await until(lambda: len(listening.intake.messages) == 2)

    assert listening.intake.messages == [(b"v1/a/telemetry", b"{}"), (b"v1/a/telemetry", b"gone")]


async def test_a_will_that_can_wait() -> None:
    """A will with delay is dropped when the client comes back in time, and comes when its session ends."""
    will = Will(b"dt/devices/a/state", b"gone", 0, False, {"will_delay_interval": 60})
    async with Listening() as listening:
        async with connected(listening.port, "a", clean=False, properties=KEPT, will=will):
            pass
        await until(lambda: listening.listener.statistics().connections == 0)
        async with connected(listening.port, "a", clean=False, properties=KEPT, will=will):
            pass
        await until(lambda: listening.listener.statistics().connections == 0)
        async with connected(listening.port, "a") as client:
            client.send(Disconnect())
            await client.last_words()
    assert [event["state"] for event in await listening.presence()].count("will") == 1


@BOTH
async def test_goodbye_from_the_listener(version: int) -> None:
    """When it is stopped, what has come is appended and acknowledged first."""
    async with Listening(linger=1.0) as listening, connected(listening.port, "a", version) as client:
        client.send(telemetry(b"x", 1, 1))
        await client.ask(Ping())
        listening.stop.set()
        assert await client.receive() == Ack(Kind.PUBACK, 1)
        words = await client.last_words()
        assert words == (Disconnect(Reason.SERVER_SHUTTING_DOWN) if version == V5 else None)
    assert (await listening.presence())[-1]["reason"] == "server shutting down"


async def test_stopping_while_the_log_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    """It ends all the same, and what was not appended has no acknowledgement."""
    monkeypatch.setattr("headrace.connectors.mqtt.listener.STOP_TIMEOUT", 0.1)
    async with Listening() as listening, connected(listening.port) as client:
        listening.intake.gate.clear()
        client.send(telemetry(b"x", 1, 1))
        await listening.intake.entered.wait()
        listening.stop.set()
        assert await client.last_words() == Disconnect(Reason.SERVER_SHUTTING_DOWN)
        await listening.task
    assert listening.intake.payloads == []


@pytest.mark.parametrize("protocol", [aiomqtt.ProtocolVersion.V311, aiomqtt.ProtocolVersion.V5])
async def test_a_client_of_others(protocol: aiomqtt.ProtocolVersion) -> None:
    """aiomqtt, on paho, publishes with every QoS and gets its commands."""
    async with (
        Listening(grants=[{"users": ["ops"], "publish": ["cmd/devices/+/#"]}]) as listening,
        aiomqtt.Client("127.0.0.1", listening.port, identifier="a", protocol=protocol) as device,
        aiomqtt.Client("127.0.0.1", listening.port, identifier="ops", protocol=protocol) as ops,
    ):
        await device.subscribe("cmd/devices/a/#", qos=1)
        for qos in (0, 1, 2):
            await device.publish("dt/devices/a/telemetry", b"%d" % qos, qos=qos)
        await ops.publish("cmd/devices/a/x", b"do", qos=2)
        message = await anext(aiter(device.messages))
        assert (str(message.topic), message.payload, message.qos) == ("cmd/devices/a/x", b"do", 1)
        assert listening.intake.payloads == [b"0", b"1", b"2"]


async def test_topic_aliases() -> None:
    """An alias stands for its topic; the next connection has none."""
    first = Publish(b"dt/devices/a/telemetry", b"1", 1, 1, properties={"topic_alias": 3})
    async with Listening() as listening:
        async with connected(listening.port) as client:
            assert await client.ask(first) == Ack(Kind.PUBACK, 1)
            again = Publish(b"", b"2", 2, 1, properties={"topic_alias": 3})
            assert await client.ask(again) == Ack(Kind.PUBACK, 2)
            assert {topic for topic, _ in listening.intake.messages} == {b"dt/devices/a/telemetry"}
        async with connected(listening.port) as client:
            words = await client.ask(again)
            assert isinstance(words, Disconnect)
            assert words.reason == Reason.PROTOCOL_ERROR


async def test_made_up_client_ids() -> None:
    """Without a client id a client of MQTT 5 is told what it is called."""
    async with Listening(publish=["dt/devices/#"]) as listening, connected(listening.port, "") as client:
        assert client.connack.properties["assigned_client_identifier"].startswith("auto-")
    async with Listening() as listening, connected(listening.port, "", V3, clean=False) as client:
        assert client.connack == Connack(False, Reason.CLIENT_IDENTIFIER_NOT_VALID)
