"""The Mosquitto configuration that ships, in a real Mosquitto."""

import asyncio
import ssl
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from headrace.connectors.mqtt.codec.packets import V3, V5
from headrace.connectors.mqtt.codec.reasons import Reason
from tests.conftest import Require
from tests.deploy.mosquitto import PATIENCE, Broker, run_script
from tests.deploy.wire import Client
from tests.mosquitto import find_mosquitto

MESSAGES = 50_000


@contextmanager
def running() -> Iterator[Broker]:
    """A broker in a folder that its own user can read: pytest's are closed to others."""
    with tempfile.TemporaryDirectory() as folder:
        made = Broker(Path(folder))
        try:
            made.start()
            yield made
        finally:
            made.close()


@pytest.fixture
def broker(require: Require) -> Iterator[Broker]:
    """Running."""
    require(find_mosquitto(), "mosquitto", "install the package `mosquitto`")
    with running() as made:
        yield made


@pytest.mark.parametrize("version", [V5, V3])
async def test_a_device_publishes_below_its_own_name_only(broker: Broker, version: int) -> None:
    """What it sends elsewhere reaches nobody; MQTT 5 says `not authorised`, 3.1.1 has no way to say so."""
    elsewhere = [
        "dt/devices/other/telemetry",
        "dt/devices/roof/7/telemetry",
        "dt/devices",
        "cmd/devices/roof-7/set",
        "cmd/devices/other/set",
        "headrace/probe/headrace",
        "iot/data",
    ]
    async with broker.bridge() as bridge, broker.device("other") as other:
        await bridge.subscribe("dt/devices/#", "headrace/probe/#")
        await other.subscribe("#")
        async with broker.device("roof-7", version=version) as device:
            for topic in elsewhere:
                await device.publish(topic, topic.encode())
            await device.publish("dt/devices/roof-7/telemetry", b"own")
            await device.drain()
        await bridge.wait_messages(1)

    assert bridge.messages == [(b"dt/devices/roof-7/telemetry", b"own")]
    assert other.messages == []
    if version == V5:
        assert device.acknowledged == [b"own"]
        assert device.refused == [(topic.encode(), Reason.NOT_AUTHORIZED) for topic in elsewhere]


async def test_a_device_receives_its_own_commands_only(broker: Broker) -> None:
    """Whatever filter it subscribes with, Mosquitto hands out nothing of others: the SUBACK does not say so."""
    async with broker.device("roof-7") as device, broker.device("other") as other, broker.commander() as commander:
        await device.subscribe("#", "cmd/devices/#", "cmd/devices/other/#", "dt/devices/#", "+/devices/+/set")
        await device.subscribe("$share/spies/cmd/devices/other/#", "$share/spies/dt/devices/#")
        await other.subscribe("cmd/devices/other/#")
        await other.publish("dt/devices/other/telemetry", b"theirs")
        await commander.publish("cmd/devices/other/set", b"theirs")
        await other.drain()
        await commander.drain()
        await other.wait_messages(1)
        await commander.publish("cmd/devices/roof-7/set", b"mine")
        await device.wait_messages(1)

    assert {payload for _, payload in device.messages} == {b"mine"}
    assert (commander.refused, other.refused) == ([], [])


async def test_the_bridge_reads_by_a_shared_subscription_and_probes(broker: Broker) -> None:
    """It gets what devices send through `$share`, and its messages to itself."""
    async with broker.bridge("headrace-0") as bridge, broker.device("roof-7") as device:
        assert list(await bridge.subscribe("$share/headrace/dt/devices/+/telemetry", "headrace/probe/headrace-0")) == [
            1,
            1,
        ]
        await device.publish("dt/devices/roof-7/telemetry", b"reading")
        await bridge.publish("headrace/probe/headrace-0", b"probe")
        await bridge.publish("cmd/devices/roof-7/set", b"not the bridge's to send")
        await bridge.wait_messages(2)
        await bridge.drain()

    assert {payload for _, payload in bridge.messages} == {b"reading", b"probe"}
    assert [reason for _, reason in bridge.refused] == [Reason.NOT_AUTHORIZED]


async def test_without_a_certificate_of_ours_nobody_gets_in(broker: Broker, tmp_path: Path) -> None:
    """No certificate, or one of another authority: no handshake. On the other port: wrong or no password."""
    run_script(tmp_path / "strangers")
    run_script(tmp_path / "strangers", "device", "roof-7")
    stranger = broker.tls(None)
    stranger.load_cert_chain(tmp_path / "strangers/devices/roof-7.pem", tmp_path / "strangers/devices/roof-7.key")
    for context in (broker.tls(None), stranger):
        with pytest.raises((ssl.SSLError, ConnectionError, AssertionError)):
            async with Client(broker.tls_port, "x", tls=context) as client:
                assert client.connack is not None

    for username, password in ((None, None), ("headrace", b"wrong"), ("roof-7", None)):
        async with Client(broker.port, "x", username=username, password=password) as client:
            assert client.connack is not None
            assert client.connack.reason == Reason.NOT_AUTHORIZED


async def test_tls_1_1_is_refused(broker: Broker) -> None:
    """The listener takes 1.2 and 1.3."""
    found = {}
    for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
        context = broker.tls("roof-7")
        context.minimum_version = context.maximum_version = version
        async with Client(broker.tls_port, "roof-7", tls=context) as client:
            found[version] = client.connack is not None and client.connack.reason
    old = openssl_with_tls_1_1(broker)

    assert set(found.values()) == {0}
    assert "alert protocol version" in old


def openssl_with_tls_1_1(broker: Broker) -> str:
    """What openssl says of a handshake with TLS 1.1; Python may be built without it."""
    command = [
        "openssl",
        "s_client",
        "-connect",
        f"127.0.0.1:{broker.tls_port}",
        "-tls1_1",
        "-cipher",
        "ALL:@SECLEVEL=0",
    ]
    done = subprocess.run(command, input="", capture_output=True, text=True, timeout=PATIENCE, check=False)
    return done.stdout + done.stderr


async def test_a_device_id_with_a_wildcard_gets_nowhere(broker: Broker) -> None:
    """secrets.sh gives none out."""
    for name in ("+", "#", "a/b", "", "a b"):
        assert run_script(broker.secrets, "device", name, check=False).returncode != 0


async def fill(broker: Broker, count: int) -> list[bytes]:
    """Publish to a bridge that is away; what was acknowledged."""
    async with broker.bridge() as bridge:
        await bridge.subscribe("dt/devices/#")
    async with broker.device("roof-7") as device:
        for number in range(count):
            await device.publish("dt/devices/roof-7/telemetry", b"%d " % number + bytes(100))
        await device.drain()
    return device.acknowledged


async def test_everything_waits_for_a_bridge_that_is_away(broker: Broker) -> None:
    """50,000 messages that Mosquitto acknowledged are all delivered when the bridge comes back, in order."""
    acknowledged = await fill(broker, MESSAGES)
    async with broker.bridge() as bridge:
        await bridge.wait_messages(MESSAGES)

    assert len(acknowledged) == MESSAGES
    assert [payload for _, payload in bridge.messages] == acknowledged


async def test_a_restart_keeps_what_waits(broker: Broker) -> None:
    """Stopped in order and started again, the session and its 50,000 messages are there."""
    acknowledged = await fill(broker, MESSAGES)
    broker.stop()
    broker.start()
    async with broker.bridge() as bridge:
        assert bridge.connack is not None
        assert bridge.connack.session_present
        await bridge.wait_messages(MESSAGES)

    assert [payload for _, payload in bridge.messages] == acknowledged


async def test_qos_0_waits_too(broker: Broker) -> None:
    """While the bridge is away, its session keeps what came with QoS 0."""
    async with broker.bridge() as bridge:
        await bridge.subscribe("dt/devices/#")
    async with broker.device("roof-7") as device:
        await device.publish("dt/devices/roof-7/telemetry", b"0", qos=0)
        await device.publish("dt/devices/roof-7/telemetry", b"1", qos=1)
        await device.drain()
    async with broker.bridge() as bridge:
        await bridge.wait_messages(2)

    assert [payload for _, payload in bridge.messages] == [b"0", b"1"]


async def test_too_large_a_message_is_not_acknowledged(broker: Broker) -> None:
    """1 MiB gets through; one larger than the limit ends the connection, and nobody believes it was taken."""
    async with broker.bridge() as bridge:
        await bridge.subscribe("dt/devices/#")
        for version in (V5, V3):
            async with broker.device("roof-7", version=version) as device:
                await device.publish("dt/devices/roof-7/telemetry", bytes(1 << 20))
                await device.publish("dt/devices/roof-7/telemetry", bytes(1_200_000))
                async with asyncio.timeout(PATIENCE):
                    await device.closed.wait()
            assert device.acknowledged == [bytes(1 << 20)]
        await bridge.wait_messages(2)
    assert len(bridge.messages) == 2


async def test_keepalive_is_limited(broker: Broker) -> None:
    """A device that asks for longer, or for none, is told 20 minutes in MQTT 5; in 3.1.1 it has its way."""
    for seconds in (0, 3600):
        async with broker.device("roof-7", keep_alive=seconds) as device:
            assert device.connack is not None
            assert device.connack.properties["server_keep_alive"] == 1200
