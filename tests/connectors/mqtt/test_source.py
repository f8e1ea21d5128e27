"""The MQTT source and publisher, against real brokers."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path

import pytest
import structlog
from pydantic import ValidationError

from headrace.connectors.broker import BrokerKind, EmbeddedBroker, find_mosquitto
from headrace.connectors.mqtt.connection import BrokerAddress
from headrace.connectors.mqtt.publisher import MqttPublisher
from headrace.connectors.mqtt.source import MqttSource, MqttSourceConfig
from headrace.connectors.topic_profile import TopicProfile
from headrace.engine.clock import SystemClock
from headrace.engine.errors import ConfigError, Disconnected, LogError
from tests.conftest import Require

STANDARD = TopicProfile(name="standard", topic="dt/devices/{device}/telemetry", device_type="environmental")


class RecordingIntake:
    """Takes messages into memory; `gate` holds appends back, `fail` makes them raise."""

    def __init__(self) -> None:
        self.messages: list[tuple[bytes, bytes, str, str, bytes]] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.entered = asyncio.Event()
        self.fail = False
        self.largest_batch = 0

    async def append(
        self,
        device_ids: Sequence[bytes],
        payloads: Sequence[bytes],
        *,
        device_type: str | Sequence[str],
        profile: str | Sequence[str],
        sources: Sequence[bytes] | bytes = b"",
        alarms: Sequence[int] = (),
    ) -> None:
        """As `headrace.engine.intake.Intake.append`."""
        self.entered.set()
        await self.gate.wait()
        if self.fail:
            raise LogError("the disk is full")
        assert not isinstance(sources, bytes)
        self.largest_batch = max(self.largest_batch, len(payloads))
        types = [device_type] * len(payloads) if isinstance(device_type, str) else device_type
        profiles = [profile] * len(payloads) if isinstance(profile, str) else profile
        self.messages += zip(device_ids, payloads, types, profiles, sources, strict=True)

    @property
    def payloads(self) -> list[bytes]:
        """What was appended, in order."""
        return [message[1] for message in self.messages]


class Cable:
    """A TCP connection to the broker that can be cut."""

    def __init__(self, address: BrokerAddress) -> None:
        self._broker = address
        self._writers: list[asyncio.StreamWriter] = []

    async def lay(self) -> BrokerAddress:
        """Listen; the address to connect to instead of the broker's."""
        self._server = await asyncio.start_server(self._join, "127.0.0.1", 0)
        port = self._server.sockets[0].getsockname()[1]
        return BrokerAddress("127.0.0.1", port, self._broker.username, self._broker.password)

    def cut(self) -> None:
        """End every connection at once; new ones may be made."""
        for writer in self._writers:
            writer.transport.abort()
        self._writers.clear()

    @property
    def connected(self) -> bool:
        """Whether somebody is connected."""
        return bool(self._writers)

    async def remove(self) -> None:
        """Stop listening."""
        self._server.close()
        self.cut()
        await self._server.wait_closed()

    async def _join(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection(self._broker.host, self._broker.port)
        self._writers += [writer, far_writer]
        async with asyncio.TaskGroup() as group:
            group.create_task(self._carry(reader, far_writer))
            group.create_task(self._carry(far_reader, writer))

    @staticmethod
    async def _carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(65_536):
                writer.write(data)
                await writer.drain()
        writer.close()


class Running:
    """A source at work; leaving the block stops it."""

    def __init__(self, address: BrokerAddress, intake: RecordingIntake, **settings: object) -> None:
        config = MqttSourceConfig.model_validate(
            {
                "host": address.host,
                "port": address.port,
                "username": address.username,
                "password": address.password,
                "profiles": [STANDARD],
                **settings,
            }
        )
        self.source = MqttSource(config, intake, SystemClock())
        self.stop = asyncio.Event()

    async def __aenter__(self) -> "Running":
        self.task = asyncio.create_task(self.source.run(self.stop))
        await self.source.wait_subscribed()
        return self

    async def __aexit__(self, *error: object) -> None:
        self.stop.set()
        await self.task

    async def kill(self) -> None:
        """End it as a crash would: nothing more is appended or acknowledged."""
        self.task.cancel()
        await asyncio.wait([self.task])


async def until(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    """Wait until `condition` holds."""
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.002)


async def publish(address: BrokerAddress, payloads: Sequence[bytes], topic: str = "dt/devices/a/telemetry") -> None:
    """Publish and wait for every PUBACK."""
    async with MqttPublisher(address) as publisher:
        for payload in payloads:
            await publisher.publish(topic, payload)
        await publisher.drain()


@pytest.fixture(params=["mosquitto", "amqtt"])
async def broker(request: pytest.FixtureRequest, require: Require, tmp_path: Path) -> AsyncIterator[EmbeddedBroker]:
    """Each broker that can be embedded; not started."""
    kind: BrokerKind = request.param
    require(kind == "amqtt" or find_mosquitto(), "mosquitto", "install the package `mosquitto`")
    embedded = EmbeddedBroker(tmp_path, kind=kind)
    yield embedded
    await embedded.stop()


@pytest.fixture
async def address(broker: EmbeddedBroker) -> BrokerAddress:
    """The address of the broker, started."""
    return await broker.start()


@pytest.fixture
def intake() -> RecordingIntake:
    """Where the messages go."""
    return RecordingIntake()


async def test_nothing_is_lost_and_devices_keep_their_order(address: BrokerAddress, intake: RecordingIntake) -> None:
    """5,000 messages of ten devices at QoS 1 are each appended once, in order per device, with their origin."""
    async with Running(address, intake) as running, MqttPublisher(address) as publisher:
        for number in range(5000):
            await publisher.publish(f"dt/devices/d{number % 10}/telemetry", b"%d" % number)
        await publisher.drain()
        await until(lambda: len(intake.messages) >= 5000)

    assert running.source.statistics().appended == 5000
    for device in range(10):
        own = [message for message in intake.messages if message[0] == b"d%d" % device]
        assert [int(message[1]) for message in own] == list(range(device, 5000, 10))
        assert {message[2:] for message in own} == {("environmental", "standard", b"dt/devices/d%d/telemetry" % device)}


async def test_unacknowledged_messages_come_again(address: BrokerAddress, intake: RecordingIntake) -> None:
    """PUBACK waits for the append: a source that dies before leaves its messages to the next one."""
    expected = [b"%d" % number for number in range(200)]
    intake.gate.clear()
    async with Running(address, intake) as running:
        await publish(address, expected)
        await until(lambda: running.source.statistics().received == 200)
        await running.kill()
        intake.gate.set()
        running.task = asyncio.create_task(asyncio.sleep(0))

    async with Running(address, intake):
        await until(lambda: len(intake.messages) >= 200)

    assert intake.payloads == expected


async def test_acknowledged_messages_do_not_come_again(address: BrokerAddress, intake: RecordingIntake) -> None:
    """What was appended is acknowledged, so the next source gets only what came since; the session keeps that."""
    async with Running(address, intake):
        await publish(address, [b"1", b"2"])
        await until(lambda: len(intake.messages) == 2)
    await publish(address, [b"3"])

    async with Running(address, intake):
        await until(lambda: len(intake.messages) == 3)

    assert intake.payloads == [b"1", b"2", b"3"]


async def test_a_redelivery_of_what_is_appended_is_dropped(address: BrokerAddress, intake: RecordingIntake) -> None:
    """When the connection breaks between append and PUBACK, the repeats are acknowledged and not appended again."""
    cable = Cable(address)
    expected = [b"%d" % number for number in range(50)]
    intake.gate.clear()
    async with Running(await cable.lay(), intake) as running:
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


async def test_messages_without_a_profile_are_appended_and_counted(
    address: BrokerAddress, intake: RecordingIntake
) -> None:
    """An empty device id is nobody's message; it is logged once, and the broker does not send it again."""
    with structlog.testing.capture_logs() as logs:
        async with Running(address, intake) as running:
            await publish(address, [b"1", b"2"], topic="dt/devices//telemetry")
            await publish(address, [b"3"])
            await until(lambda: running.source.statistics().received == 3 and len(intake.messages) == 3)
    async with Running(address, intake) as again:
        await publish(address, [b"4"])
        await until(lambda: len(intake.messages) == 4)

    assert [message[0] for message in intake.messages] == [b"?", b"?", b"a", b"a"]
    assert running.source.statistics().unmatched == 2
    assert [entry["event"] for entry in logs] == ["unknown_topic"]
    assert again.source.statistics().received == 1


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


async def test_stopping_finishes_what_came_and_is_quick(address: BrokerAddress, intake: RecordingIntake) -> None:
    """On `stop` the appends under way finish and are acknowledged, in well under a second."""
    async with Running(address, intake, linger=1.0) as running:
        await publish(address, [b"%d" % number for number in range(100)])
        await until(lambda: running.source.statistics().received == 100)
        async with asyncio.timeout(0.5):
            running.stop.set()
            await running.task
    async with Running(address, intake) as again:
        await publish(address, [b"last"])
        await until(lambda: b"last" in intake.payloads)

    assert len(intake.messages) == 101
    assert again.source.statistics().received == 1


async def test_what_waits_in_memory_is_bounded(address: BrokerAddress, intake: RecordingIntake) -> None:
    """While the log does not take anything the source stops reading, and nothing is lost."""
    payloads = [b"%04d" % number + bytes(8192) for number in range(1000)]
    intake.gate.clear()
    async with Running(address, intake, max_batch=10) as running:
        await publish(address, payloads)
        blocked = running.source.statistics().received
        intake.gate.set()
        await until(lambda: len(intake.messages) == 1000)

    # Five batches, and what one read of the socket (at most 256 KiB) held beyond them.
    assert blocked <= 50 + 32
    assert intake.payloads == payloads
    assert intake.largest_batch == 10


async def test_a_refused_login_is_a_configuration_error(address: BrokerAddress, intake: RecordingIntake) -> None:
    """A wrong password ends the source with what to mend, instead of trying for ever."""
    stranger = BrokerAddress(address.host, address.port, address.username, "wrong")
    source = Running(stranger, intake).source

    with pytest.raises(ConfigError, match="refuses us"):
        await source.run(asyncio.Event())


async def test_a_broker_that_is_not_there_is_awaited(broker: EmbeddedBroker, intake: RecordingIntake) -> None:
    """A source whose broker is away keeps trying, and stops at once when asked to."""
    address = await broker.start()
    await broker.stop()
    source = Running(address, intake)
    task = asyncio.create_task(source.source.run(source.stop))
    with structlog.testing.capture_logs() as logs:
        await until(lambda: len(logs) >= 2)

    source.stop.set()
    async with asyncio.timeout(0.5):
        await task

    assert {entry["event"] for entry in logs} == {"mqtt_disconnected"}
    assert source.source.statistics().reconnects == 0


async def test_publishing_to_a_dead_broker_raises(broker: EmbeddedBroker) -> None:
    """When the broker goes away the publisher says so, instead of waiting for ever."""
    address = await broker.start()

    async def publish_for_ever(publisher: MqttPublisher) -> None:
        while True:
            await publisher.publish("dt/devices/a/telemetry", b"2")
            await publisher.drain()

    async with MqttPublisher(address) as publisher:
        await publisher.publish("dt/devices/a/telemetry", b"1")
        await publisher.drain()
        await broker.stop()
        with pytest.raises(Disconnected):
            await asyncio.wait_for(publish_for_ever(publisher), 5)

    with pytest.raises(Disconnected):
        await publish(address, [b"3"])


def test_profiles_that_take_the_same_topics_are_refused() -> None:
    """Overlapping filters would deliver a message twice; the mistake is found in the configuration."""
    other = TopicProfile(name="other", topic="dt/{device}/roof/telemetry", device_type="environmental")

    with pytest.raises(ValidationError, match="standard and other take the same topics"):
        MqttSourceConfig(profiles=(STANDARD, other))


def test_the_password_is_not_shown() -> None:
    """Neither the configuration nor the address prints the password."""
    config = MqttSourceConfig.model_validate({"username": "me", "password": "hush", "profiles": [STANDARD]})

    assert "hush" not in f"{config!r} {config.address!r}"
    assert config.address.password == "hush"
