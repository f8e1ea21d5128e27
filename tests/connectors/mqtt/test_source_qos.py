"""Every quality of service, in both versions, on a real broker."""

from functools import partial

import pytest

from headrace.connectors.mqtt.connection import BrokerAddress
from headrace.connectors.mqtt.publisher import WINDOW, MqttPublisher
from tests.connectors.mqtt.at_work import Cable, RecordingIntake, Running, until

pytestmark = pytest.mark.integration
COUNT = 500


@pytest.mark.parametrize("qos", [0, 1, 2])
async def test_messages_arrive_once_and_in_order(
    address: BrokerAddress, intake: RecordingIntake, version: str, qos: int
) -> None:
    """On a connection that holds, every quality delivers each message once."""
    async with Running(address, intake, version=version, qos=qos) as running, MqttPublisher(address) as publisher:
        for number in range(COUNT):
            await publisher.publish("dt/devices/a/telemetry", b"%d" % number, qos=qos)
        await publisher.drain()
        await until(lambda: len(intake.messages) >= COUNT)

    assert list(map(int, intake.payloads)) == list(range(COUNT))
    assert running.source.statistics().reconnects == 0


@pytest.mark.parametrize("qos", [1, 2])
async def test_messages_arrive_once_over_broken_connections(
    address: BrokerAddress, intake: RecordingIntake, version: str, qos: int
) -> None:
    """Connections that break at any point, with the source alive: nothing lost, and at QoS 2 nothing twice.

    But once per session that is taken up: Mosquitto 2.0 forgets a PUBREL that it owes when the next connection breaks
    before it is sent, and publishes the message again.
    """
    cable = Cable(address)
    settings = {"version": version, "qos": qos, "max_batch": 20}
    async with Running(await cable.lay(), intake, **settings) as running, MqttPublisher(address) as publisher:
        for number in range(COUNT):
            await publisher.publish("dt/devices/a/telemetry", b"%d" % number, qos=qos)
            if number % 100 == 0:
                await until(partial(intake.has, number - WINDOW))
            if number % 100 == 50:
                cable.cut()
        await publisher.drain()
        await until(lambda: len(set(intake.payloads)) == COUNT)
    await cable.remove()

    assert running.source.statistics().reconnects >= 1
    if qos == 2:
        assert sorted(map(int, intake.payloads)) == list(range(COUNT))
