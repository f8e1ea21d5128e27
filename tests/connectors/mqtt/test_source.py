"""The MQTT source, against a real broker, in both versions of the protocol."""

import asyncio

import pytest
import structlog

from headrace.connectors.mqtt.connection import BrokerAddress
from headrace.connectors.mqtt.publisher import MqttPublisher
from headrace.connectors.mqtt.settings import MqttSettings
from headrace.engine.errors import LogError
from tests.connectors.mqtt.at_work import Cable, RecordingIntake, Running, publish, until
from tests.mosquitto import Mosquitto

pytestmark = pytest.mark.integration


async def test_nothing_is_lost_and_devices_keep_their_order(
    address: BrokerAddress, intake: RecordingIntake, version: str
) -> None:
    """5,000 messages of ten devices at QoS 1 are each appended once, in order per device, with their topic."""
    async with Running(address, intake, version=version) as running, MqttPublisher(address) as publisher:
        for number in range(5000):
            await publisher.publish(f"dt/devices/d{number % 10}/telemetry", b"%d" % number)
        await publisher.drain()
        await until(lambda: len(intake.messages) >= 5000)

    assert running.source.statistics().appended == 5000
    for device in range(10):
        own = [payload for topic, payload in intake.messages if topic == b"dt/devices/d%d/telemetry" % device]
        assert list(map(int, own)) == list(range(device, 5000, 10))


async def test_unacknowledged_messages_come_again(
    address: BrokerAddress, intake: RecordingIntake, version: str
) -> None:
    """PUBACK waits for the append: a source that dies before leaves its messages to the next one."""
    expected = [b"%d" % number for number in range(200)]
    intake.gate.clear()
    async with Running(address, intake, version=version) as running:
        await publish(address, expected)
        await until(lambda: running.source.statistics().received == 200)
        await running.kill()
        intake.gate.set()

    async with Running(address, intake, version=version):
        await until(lambda: len(intake.messages) >= 200)

    assert intake.payloads == expected


@pytest.mark.usefixtures("goodbye_is_heard")
async def test_acknowledged_messages_do_not_come_again(
    address: BrokerAddress, intake: RecordingIntake, version: str
) -> None:
    """What was appended is acknowledged, so the next source gets only what came since; the session keeps that."""
    async with Running(address, intake, version=version):
        await publish(address, [b"1", b"2"])
        await until(lambda: len(intake.messages) == 2)
    await publish(address, [b"3"])

    async with Running(address, intake, version=version):
        await until(lambda: len(intake.messages) == 3)

    assert intake.payloads == [b"1", b"2", b"3"]


async def test_a_redelivery_of_what_is_appended_is_dropped(
    address: BrokerAddress, intake: RecordingIntake, version: str
) -> None:
    """When the connection breaks between append and PUBACK, the repeats are acknowledged and not appended again."""
    cable = Cable(address)
    expected = [b"%d" % number for number in range(50)]
    intake.gate.clear()
    async with Running(await cable.lay(), intake, version=version) as running:
        await publish(address, expected)
        await intake.entered.wait()
        await until(lambda: running.source.statistics().received == 50)
        cable.cut()
        await until(lambda: running.source.statistics().reconnects == 1)
        intake.gate.set()
        await until(lambda: running.source.statistics().repeated == 50)
        await publish(address, [b"after"])
        await until(lambda: b"after" in intake.payloads)
    await cable.remove()

    assert intake.payloads == [*expected, b"after"]
    assert running.source.statistics().reconnects == 1


async def test_a_broken_connection_loses_nothing(address: BrokerAddress, intake: RecordingIntake) -> None:
    """Messages published while connections break again and again all arrive."""
    cable = Cable(address)
    async with Running(await cable.lay(), intake) as running:
        for cut in range(3):
            await publish(address, [b"%d-%d" % (cut, number) for number in range(100)])
            await until(lambda: cable.connected)
            cable.cut()
        await until(lambda: len(set(intake.payloads)) == 300)
    await cable.remove()

    assert running.source.statistics().reconnects >= 1


async def test_a_broker_that_restarts_with_its_sessions_loses_nothing(
    mosquitto: Mosquitto, address: BrokerAddress, intake: RecordingIntake, version: str
) -> None:
    """What the broker acknowledged and we had not appended comes again after its restart, and is appended once."""
    expected = [b"%d" % number for number in range(500)]
    intake.gate.clear()
    async with Running(address, intake, version=version) as running:
        await publish(address, expected)
        mosquitto.stop()
        await until(lambda: running.source.statistics().reconnects == 1)
        intake.gate.set()
        mosquitto.start()
        await publish(address, [b"after"])
        await until(lambda: b"after" in intake.payloads)

    assert intake.payloads == [*expected, b"after"]


async def test_two_with_one_client_id_are_told_what_to_look_for(
    address: BrokerAddress, intake: RecordingIntake, version: str
) -> None:
    """A broker gives the session to who came last, and does not always say so to the other."""
    with structlog.testing.capture_logs() as logs:
        one, other = (Running(address, intake, version=version, client_id="twin") for _ in range(2))
        async with one, other:
            await until(lambda: any(entry["event"] == "mqtt_disconnected" for entry in logs))

    assert "the same client id" in next(entry["reason"] for entry in logs if entry["event"] == "mqtt_disconnected")


async def test_a_broker_that_forgot_the_session_is_subscribed_to_again(
    mosquitto: Mosquitto, address: BrokerAddress, intake: RecordingIntake, version: str
) -> None:
    """After a broker that keeps nothing was killed, the source goes on with what is published then."""
    async with Running(address, intake, version=version) as running:
        mosquitto.kill()
        mosquitto.forget()
        mosquitto.start()
        await until(lambda: running.source.statistics().reconnects == 1)
        await until(lambda: mosquitto.said().count("dt/devices/+/telemetry") >= 2)
        await publish(address, [b"after"])
        await until(lambda: b"after" in intake.payloads)


async def test_what_is_retained_comes_once(address: BrokerAddress, intake: RecordingIntake, version: str) -> None:
    """A retained message is taken with the first subscription, not with that of every reconnect."""
    async with MqttPublisher(address) as publisher:
        await publisher.publish("dt/devices/a/telemetry", b"kept", retain=True)
        await publisher.drain()
    async with Running(address, intake, version=version):
        await until(lambda: intake.payloads == [b"kept"])

    async with Running(address, intake, version=version):
        await publish(address, [b"after"])
        await until(lambda: b"after" in intake.payloads)

    assert intake.payloads == [b"kept", b"after"]


async def test_a_log_error_ends_the_source_unacknowledged(address: BrokerAddress, intake: RecordingIntake) -> None:
    """If the log fails, `run` raises its error, and the next source gets the messages again."""
    intake.fail = True
    failing = Running(address, intake)
    task = asyncio.create_task(failing.source.run(failing.stop))
    await failing.source.wait_subscribed()
    await publish(address, [b"1", b"2"])
    with pytest.raises(LogError, match="disk is full"):
        await task
    intake.fail = False

    async with Running(address, intake):
        await until(lambda: len(intake.messages) == 2)

    assert intake.payloads == [b"1", b"2"]


async def test_a_log_that_is_busy_gets_the_same_again(address: BrokerAddress, intake: RecordingIntake) -> None:
    """Nothing is acknowledged, dropped or put out of order while an append has to be repeated."""
    intake.busy = 3
    with structlog.testing.capture_logs():
        async with Running(address, intake, max_batch=2) as running:
            await publish(address, [b"%d" % number for number in range(10)])
            await until(lambda: len(intake.messages) == 10)

    assert list(map(int, intake.payloads)) == list(range(10))
    assert running.source.statistics().reconnects == 0


@pytest.mark.usefixtures("goodbye_is_heard")
async def test_stopping_finishes_what_came_and_is_quick(
    address: BrokerAddress, intake: RecordingIntake, version: str
) -> None:
    """On `stop` the appends under way finish and are acknowledged, without waiting for more."""
    async with Running(address, intake, linger=1.0, version=version) as running:
        await publish(address, [b"%d" % number for number in range(100)])
        await until(lambda: running.source.statistics().received == 100)
        async with asyncio.timeout(60):
            running.stop.set()
            await running.task
    async with Running(address, intake, version=version) as again:
        await publish(address, [b"last"])
        await until(lambda: b"last" in intake.payloads)

    assert len(intake.messages) == 101
    assert again.source.statistics().received == 1


async def test_what_waits_in_memory_is_bounded(address: BrokerAddress, intake: RecordingIntake, version: str) -> None:
    """While the log does not take anything the source stops reading, and nothing is lost."""
    payloads = [b"%04d" % number + bytes(8192) for number in range(1000)]
    intake.gate.clear()
    async with Running(address, intake, max_batch=10, version=version) as running:
        await publish(address, payloads)
        blocked = running.source.statistics().received
        intake.gate.set()
        await until(lambda: len(intake.messages) == 1000)

    # Five batches, and what one read of the socket (at most 256 KiB) held beyond them.
    assert blocked <= 50 + 32
    assert intake.payloads == payloads
    assert intake.largest_batch == 10


async def test_the_receive_maximum_holds_the_broker_back(address: BrokerAddress, intake: RecordingIntake) -> None:
    """With MQTT 5 no more messages come than may be without acknowledgement."""
    intake.gate.clear()
    async with Running(address, intake, receive_maximum=7) as running:
        await publish(address, [b"%d" % number for number in range(100)])
        await until(lambda: running.source.statistics().received == 7)
        await publish(address, [b"more"])
        blocked = running.source.statistics().received
        intake.gate.set()
        await until(lambda: len(intake.messages) == 101)

    assert blocked == 7
    assert intake.payloads == [*(b"%d" % number for number in range(100)), b"more"]


def test_the_password_is_not_shown() -> None:
    """Neither the configuration nor the address prints the password."""
    config = MqttSettings.model_validate({"host": "b", "username": "me", "password": "hush"})

    assert "hush" not in f"{config!r} {config.address!r}"
    assert config.address.password == "hush"
