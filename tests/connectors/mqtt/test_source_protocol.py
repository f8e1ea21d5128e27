"""What the MQTT source makes of what a broker says: limits, refusals, repeats, probes that do not come back."""

from collections.abc import AsyncIterator
from functools import partial
from typing import Any

import pytest
import structlog

from headrace.connectors.mqtt import probe
from headrace.connectors.mqtt.codec.packets import (
    V3,
    V5,
    Ack,
    Connack,
    Connect,
    Disconnect,
    Kind,
    Ping,
    Publish,
    Subscribe,
)
from headrace.connectors.mqtt.connection import BrokerAddress
from headrace.engine.errors import ConfigError
from tests.connectors.mqtt.at_work import TOPIC, RecordingIntake, Running, until
from tests.connectors.mqtt.scripted_broker import ScriptedBroker, scripted_broker
from tests.loop_time import skip

Place = tuple[ScriptedBroker, BrokerAddress]


@pytest.fixture
async def place() -> AsyncIterator[Place]:
    """A broker that does what it is told, and where it is."""
    async with scripted_broker() as found:
        yield found


def message(payload: bytes, packet_id: int, qos: int = 1, *, duplicate: bool = False) -> Publish:
    """A device's message."""
    return Publish(TOPIC.encode(), payload, packet_id, qos, duplicate)


async def test_an_older_broker_is_spoken_to_in_its_own_version(place: Place, intake: RecordingIntake) -> None:
    """A broker that does not know MQTT 5 is logged in to with 3.1.1, at once."""
    broker, address = place
    broker.refuses_5 = True

    async with Running(address, intake):
        broker.send(message(b"1", 1))
        await until(lambda: intake.payloads == [b"1"])

    versions = [packet.version for packet in broker.heard if isinstance(packet, Connect)]
    assert versions == [V5, V3]


async def test_a_fixed_version_is_not_changed(place: Place, intake: RecordingIntake) -> None:
    """Who asks for MQTT 5 is told that the broker does not speak it."""
    broker, address = place
    broker.refuses_5 = True

    with pytest.raises(ConfigError, match="does not speak this version"):
        await Running(address, intake, version="5").__aenter__()


@pytest.mark.parametrize(
    ("limits", "settings", "mistake"),
    [
        ({"maximum_qos": 0}, {}, "qos = 0"),
        ({"shared_subscription_available": 0}, {"share": "g"}, "no shared subscriptions"),
        ({"wildcard_subscription_available": 0}, {}, "wildcards"),
    ],
)
async def test_what_the_broker_cannot_do_is_a_mistake(
    place: Place, intake: RecordingIntake, limits: dict[str, int], settings: dict[str, Any], mistake: str
) -> None:
    """Limits of the CONNACK are told with what to do, and not run into."""
    broker, address = place
    broker.welcome = Connack(False, 0, limits)

    with pytest.raises(ConfigError, match=mistake):
        await Running(address, intake, **settings).__aenter__()

    assert not broker.heard_of(Subscribe)


@pytest.mark.parametrize(("granted", "mistake"), [(0, "grants QoS 0"), (0x87, "refuses to let us subscribe")])
async def test_less_than_was_asked_for_is_a_mistake(
    place: Place, intake: RecordingIntake, granted: int, mistake: str
) -> None:
    """A subscription with QoS 0 instead of 1 would lose messages without a word."""
    broker, address = place
    broker.granted = [granted]

    with pytest.raises(ConfigError, match=mistake):
        await Running(address, intake).__aenter__()


async def test_the_broker_says_how_often_to_show_life(place: Place, intake: RecordingIntake) -> None:
    """Server keep alive of MQTT 5 takes the place of ours."""
    broker, address = place
    broker.welcome = Connack(False, 0, {"server_keep_alive": 3600})

    async with Running(address, intake, keepalive=65_535, probe="") as running:
        connection = running.source._connection
        assert connection is not None

        def answered(count: int) -> bool:
            return len(broker.heard_of(Ping)) == count and not connection._pinged

        for pings in range(1, 4):
            await until(partial(answered, pings))
            skip(1800)

    assert running.source.statistics().reconnects == 0


async def test_refused_after_a_sound_start_is_tried_again(place: Place, intake: RecordingIntake) -> None:
    """A broker that refuses a source which it had let in may come to its senses: no end of the process."""
    broker, address = place
    async with Running(address, intake) as running:
        broker.welcome = Connack(False, 0x87)
        broker.drop()
        with structlog.testing.capture_logs() as logs:
            await until(lambda: any("not authorised" in entry.get("reason", "") for entry in logs))
        broker.welcome = Connack(False)
        await until(lambda: len(broker.heard_of(Subscribe)) == 2)

    assert running.source.statistics().reconnects >= 1


async def test_the_reason_of_a_goodbye_is_told(place: Place, intake: RecordingIntake) -> None:
    """Two bridges with one client id put each other out; the log says so."""
    broker, address = place
    async with Running(address, intake):
        with structlog.testing.capture_logs() as logs:
            broker.send(Disconnect(0x8E))
            await until(lambda: bool(logs))

    assert "same client id" in logs[0]["reason"]


async def test_qos_2_is_received_once(place: Place, intake: RecordingIntake, version: str) -> None:
    """PUBREC after the append; a repeat before PUBREL is not appended again; after PUBREL the packet id is free."""
    broker, address = place
    broker.granted = [2]
    intake.gate.clear()
    async with Running(address, intake, qos=2, version=version) as running:
        broker.send(message(b"1", 7, 2))
        await intake.entered.wait()
        assert not broker.acks(Kind.PUBREC)
        intake.gate.set()
        await until(lambda: broker.acks(Kind.PUBREC) == [7])
        broker.welcome = Connack(True)
        broker.drop()
        await until(lambda: len(broker.heard_of(Subscribe)) == 2)
        broker.send(message(b"1", 7, 2, duplicate=True))
        await until(lambda: broker.acks(Kind.PUBREC) == [7, 7])
        broker.send(Ack(Kind.PUBREL, 7))
        await until(lambda: broker.acks(Kind.PUBCOMP) == [7])
        broker.send(message(b"1", 7, 2))
        await until(lambda: broker.acks(Kind.PUBREC) == [7, 7, 7])

    assert intake.payloads == [b"1", b"1"]
    assert running.source.statistics().repeated == 1


async def test_a_broker_that_lost_its_memory_may_use_a_packet_id_again(place: Place, intake: RecordingIntake) -> None:
    """Another message under a packet id that we still hold is no repeat."""
    broker, address = place
    broker.granted = [2]
    broker.welcome = Connack(True)
    async with Running(address, intake, qos=2):
        broker.send(message(b"1", 7, 2))
        await until(lambda: broker.acks(Kind.PUBREC) == [7])
        broker.send(message(b"2", 7, 2, duplicate=True))
        await until(lambda: intake.payloads == [b"1", b"2"])


async def test_a_malformed_packet_ends_the_connection_with_its_reason(place: Place, intake: RecordingIntake) -> None:
    """MQTT 5 says why; the source connects again."""
    broker, address = place
    async with Running(address, intake):
        assert broker._writer is not None
        broker._writer.write(b"\x36\x03\x00\x00\x00")
        await until(lambda: bool(broker.heard_of(Disconnect)))
        await until(lambda: len(broker.heard_of(Subscribe)) == 2)

    assert broker.heard_of(Disconnect)[0] == Disconnect(0x81)


async def test_a_lost_subscription_is_noticed(place: Place, intake: RecordingIntake) -> None:
    """A probe that came back once and then does not: the source connects again, counts it, and is well again after."""
    broker, address = place
    async with Running(address, intake, keepalive=3600) as running:
        await until(lambda: running.source._probe._proven)
        broker.delivers = False
        skip(3600)
        await until(lambda: len(broker.heard_of(Publish)) == 2)
        skip(probe.PATIENCE)
        await until(lambda: running.source.statistics().probes_lost == 1)
        assert running.source._health.problems()[0].component == "mqtt"
        broker.delivers = True
        await until(lambda: not running.source._health.problems())

    assert running.source.statistics().reconnects >= 1


async def test_a_probe_that_never_comes_back_is_given_up(
    place: Place, intake: RecordingIntake, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Access control of 3.1.1 drops without a word: said once, and messages go on."""
    monkeypatch.setattr(probe, "PATIENCE", 0.05)
    broker, address = place
    broker.delivers = False
    with structlog.testing.capture_logs() as logs:
        async with Running(address, intake, version="3.1.1") as running:
            await until(lambda: "mqtt_probe_given_up" in [entry["event"] for entry in logs])
            broker.send(message(b"1", 1))
            await until(lambda: intake.payloads == [b"1"])

    assert running.source.statistics().probes_lost == 1
    assert [entry["event"] for entry in logs].count("mqtt_probe_given_up") == 1


@pytest.mark.parametrize("forbidden", ["subscribe", "publish"])
async def test_a_probe_that_is_forbidden_is_given_up_at_once(
    place: Place, intake: RecordingIntake, forbidden: str
) -> None:
    """The broker says no to the subscription or to the publish: said once, no reconnect."""
    broker, address = place
    if forbidden == "subscribe":
        broker.granted = [1, 0x87]
    else:
        broker.puback = 0x87
    with structlog.testing.capture_logs() as logs:
        async with Running(address, intake) as running:
            await until(lambda: "mqtt_probe_given_up" in [entry["event"] for entry in logs])
            broker.send(message(b"1", 1))
            await until(lambda: intake.payloads == [b"1"])

    assert running.source.statistics().reconnects == 0


async def test_pings_go_on_while_nothing_is_read(place: Place, intake: RecordingIntake) -> None:
    """While the log takes nothing the broker hears from us, its silence is not held against it, nothing is dropped."""
    broker, address = place
    intake.gate.clear()
    async with Running(address, intake, keepalive=3600, max_batch=1, probe="") as running:
        connection = running.source._connection
        assert connection is not None
        for number in range(1, 20):
            broker.send(message(b"%d" % number, number))
        await until(lambda: connection.paused and len(broker.heard_of(Ping)) == 1)
        for pings in range(2, 5):
            skip(1800)
            await until(partial(lambda count: len(broker.heard_of(Ping)) == count, pings))
        intake.gate.set()
        await until(lambda: len(intake.messages) == 19)
        await until(lambda: broker.acks(Kind.PUBACK) == list(range(1, 20)))

    assert running.source.statistics().reconnects == 0
