"""The MQTT source with a schedule: virtual time, a real Mosquitto."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest
import structlog

from headrace.connectors.mqtt.codec.packets import Packet, Subscribe
from headrace.connectors.mqtt.connection import BrokerAddress
from headrace.connectors.mqtt.publisher import MqttPublisher
from headrace.connectors.mqtt.settings import MqttSettings
from headrace.connectors.mqtt.source import MqttSource
from headrace.engine.clock import SteppedClock
from headrace.engine.health import Health
from headrace.engine.metrics import Metrics
from tests.conftest import Require
from tests.connectors.mqtt.at_work import FILTER, Cable, RecordingIntake, publish, until
from tests.connectors.mqtt.scripted_broker import ScriptedBroker
from tests.loop_time import skip
from tests.mosquitto import ROOMY, Mosquitto, find_mosquitto

pytestmark = pytest.mark.integration
START_MS = 1_750_000_000_000
FIVE_MINUTES = 300.0


class Waits(SteppedClock):
    """Time passes only in the source's waits; a test says what happens in each of them, with its length in seconds."""

    def __init__(self, happens: Callable[[float], Awaitable[object]]) -> None:
        super().__init__(START_MS)
        self._happens = happens

    async def sleep(self, delay: float) -> None:
        await self._happens(delay)
        await super().sleep(delay)


class Pulling:
    """A source with a schedule; leaving the block stops it. It stands in each wait until `go` lets it on."""

    def __init__(self, broker: Mosquitto | BrokerAddress, intake: RecordingIntake, **settings: object) -> None:
        given = {"host": broker.host, "port": broker.port, "schedule": "rate(5 minutes)", "linger": 0.001, **settings}
        self.clock = Waits(self._wait)
        self.metrics, self.health = Metrics(), Health(self.clock, expects=["mqtt"])
        self.source = MqttSource(
            MqttSettings.model_validate(given), [FILTER], intake, self.clock, metrics=self.metrics, health=self.health
        )
        self.waits: list[float] = []
        self._gate = asyncio.Event()
        self.stop = asyncio.Event()

    async def __aenter__(self) -> "Pulling":
        self.task = asyncio.create_task(self.source.run(self.stop))
        await self.until_waiting(1)
        return self

    async def __aexit__(self, *error: object) -> None:
        self.stop.set()
        await self.task

    async def until_waiting(self, count: int) -> None:
        """Wait until it waits for the `count`-th time."""
        await until(lambda: len(self.waits) >= count or self.task.done())
        if self.task.done():
            self.task.result()

    async def go(self) -> None:
        """Let it on until it waits again."""
        count = len(self.waits)
        self._gate.set()
        await self.until_waiting(count + 1)

    async def _wait(self, delay: float) -> None:
        self.waits.append(delay)
        self._gate.clear()
        await self._gate.wait()


@pytest.fixture
def broker(require: Require, tmp_path: Path) -> Iterator[Mosquitto]:
    """A Mosquitto; started."""
    require(find_mosquitto(), "mosquitto", "install the package `mosquitto`")
    broker = Mosquitto(tmp_path / "mosquitto")
    yield broker.start()
    broker.stop()


def at(broker: Mosquitto) -> BrokerAddress:
    """Its address."""
    return BrokerAddress(broker.host, broker.port)


async def test_a_day_of_ticks(broker: Mosquitto, intake: RecordingIntake) -> None:
    """288 runs, 5 minutes apart to the millisecond, each taking what was published before it and nothing twice."""
    taken = []
    async with Pulling(broker, intake) as pulling, MqttPublisher(at(broker)) as publisher:
        for tick in range(1, 288):
            for device in range(3):
                await publisher.publish(f"dt/devices/d{device}/telemetry", b"%d" % tick)
            await publisher.drain()
            await pulling.go()
            taken.append(len(intake.messages))
        passed_ms = pulling.clock.now_ms() - START_MS
        runs = pulling.source.statistics().runs

    assert (runs, passed_ms) == (288, 287 * 300_000)
    assert taken == [3 * tick for tick in range(1, 288)]
    assert pulling.waits == [FIVE_MINUTES] * 288
    assert pulling.metrics.value("headrace_source_runs_total", source="mqtt") == 288
    assert pulling.metrics.value("headrace_source_run_messages", source="mqtt") == 3


async def test_between_runs_nobody_is_connected(broker: Mosquitto, intake: RecordingIntake) -> None:
    """It says goodbye, and the broker keeps the session."""
    async with Pulling(broker, intake) as pulling:
        await until(lambda: "Client headrace disconnected." in broker.said())
        await publish(at(broker), [b"1", b"2"])
        assert intake.messages == []
        await pulling.go()

    assert intake.payloads == [b"1", b"2"]


@pytest.mark.parametrize("probe", ["headrace/probe", ""])
@pytest.mark.parametrize("qos", [1, 2])
async def test_a_run_takes_everything_however_little_the_broker_sends_at_a_time(
    require: Require, tmp_path: Path, intake: RecordingIntake, version: str, qos: int, probe: str
) -> None:
    """Two at a time without acknowledgement, and probes that overtake what waits: one run drains the session."""
    require(find_mosquitto(), "mosquitto", "install the package `mosquitto`")
    broker = Mosquitto(tmp_path / "narrow", settings=(*ROOMY[:1], "max_inflight_messages 2", *ROOMY[2:])).start()
    expected = [b"%d" % number for number in range(200)]
    async with Pulling(broker, intake, version=version, qos=qos, probe=probe) as pulling:
        async with MqttPublisher(at(broker), window=1) as publisher:
            for payload in expected:
                await publisher.publish("dt/devices/a/telemetry", payload, qos=qos)
            await publisher.drain()
        await pulling.go()
        drained = list(intake.payloads)
    broker.stop()

    assert drained == expected


async def test_a_run_ends_while_devices_publish(broker: Mosquitto, intake: RecordingIntake) -> None:
    """They publish all the time, faster than a round trip; what comes too late waits for the next run."""
    numbers = 0

    async def publish_on(publisher: MqttPublisher) -> None:
        nonlocal numbers
        while True:
            await publisher.publish("dt/devices/a/telemetry", b"%d" % numbers)
            numbers += 1
            if numbers % 20 == 0:
                await publisher.drain()

    async with Pulling(broker, intake) as pulling, MqttPublisher(at(broker)) as publisher:
        publishing = asyncio.create_task(publish_on(publisher))
        for _ in range(3):
            await pulling.go()
        publishing.cancel()
        await asyncio.wait([publishing])
        await publisher.drain()
        await pulling.go()

    assert pulling.source.statistics().failed_runs == 0
    assert list(map(int, intake.payloads[:numbers])) == list(range(numbers))


async def test_a_broker_that_is_away(broker: Mosquitto, intake: RecordingIntake) -> None:
    """Two retries after growing waits, then the next tick; health, metrics and log say so."""
    async with Pulling(broker, intake) as pulling:
        assert pulling.health.unready() == []
        broker.stop()
        with structlog.testing.capture_logs() as logs:
            for _ in range(3):
                await pulling.go()
        unready = pulling.health.unready()
        broker.start()
        await pulling.go()
        assert pulling.health.unready() == []

    first, second = pulling.waits[1:3]
    assert 5 <= first <= 10 <= second <= 20
    assert pulling.waits[3] == pytest.approx(FIVE_MINUTES - first - second, abs=0.002)
    assert "left to the next tick" in unready[0].why
    assert [each["tries_left"] for each in logs if each["event"] == "mqtt_run_failed"] == [2, 1, 0]
    assert pulling.source.statistics().failed_runs == 3
    assert pulling.source.statistics().runs == 2


async def test_a_run_that_takes_too_long_is_ended(broker: Mosquitto, intake: RecordingIntake) -> None:
    """The log takes nothing; what had come is appended when it does, and nothing is lost or there twice."""
    expected = [b"%d" % number for number in range(100)]
    async with Pulling(broker, intake, schedule_timeout=FIVE_MINUTES) as pulling:
        await publish(at(broker), expected)
        intake.gate.clear()
        going = asyncio.create_task(pulling.go())
        await until(lambda: pulling.source.statistics().received == 100)
        skip(FIVE_MINUTES)
        await going
        assert pulling.source.statistics().failed_runs == 1
        intake.gate.set()
        await pulling.go()
        await publish(at(broker), [b"after"])
        await pulling.go()

    assert intake.payloads == [*expected, b"after"]


async def test_a_connection_that_breaks_in_a_run(broker: Mosquitto, intake: RecordingIntake) -> None:
    """The run fails at once, while its append goes on; what the broker sends again in the next try is dropped."""
    cable, expected = Cable(at(broker)), [b"%d" % number for number in range(50)]
    async with Pulling(await cable.lay(), intake) as pulling:
        await publish(at(broker), expected)
        intake.gate.clear()
        going = asyncio.create_task(pulling.go())
        await until(lambda: pulling.source.statistics().received == 50)
        cable.cut()
        await going
        assert (pulling.source.statistics().failed_runs, intake.payloads) == (1, [])
        intake.gate.set()
        await pulling.go()
    await cable.remove()

    assert intake.payloads == expected
    assert pulling.source.statistics().repeated == 50


async def test_a_broker_that_does_not_answer(intake: RecordingIntake) -> None:
    """A run that comes no further than the subscription is ended too, and leaves no connection behind."""

    class Silent(ScriptedBroker):
        def _answer(self, packet: Packet, writer: asyncio.StreamWriter) -> None:
            if not isinstance(packet, Subscribe):
                super()._answer(packet, writer)

    broker, gone = Silent(), asyncio.Event()
    serve = broker._serve

    async def served(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await serve(reader, writer)
        gone.set()

    async with await asyncio.start_server(served, "127.0.0.1", 0) as server:
        where = BrokerAddress("127.0.0.1", server.sockets[0].getsockname()[1])
        async with Pulling(where, intake, schedule_timeout=1) as pulling:
            await asyncio.wait_for(gone.wait(), 60)
            assert pulling.source.statistics().failed_runs == 1


@pytest.mark.usefixtures("goodbye_is_heard")
async def test_stopped_in_the_middle_of_a_run(broker: Mosquitto, intake: RecordingIntake) -> None:
    """What has come is appended and acknowledged: the next source gets only what came since."""
    async with Pulling(broker, intake) as pulling:
        await publish(at(broker), [b"1", b"2"])
        intake.gate.clear()
        going = asyncio.create_task(pulling.go())
        await until(lambda: pulling.source.statistics().received == 2)
        going.cancel()
        pulling.stop.set()
        intake.gate.set()
    await publish(at(broker), [b"3"])

    async with Pulling(broker, intake):
        pass
    assert intake.payloads == [b"1", b"2", b"3"]


async def test_a_session_that_the_broker_has_lost_is_said(broker: Mosquitto, intake: RecordingIntake) -> None:
    """A broker without persistence was restarted between two runs."""
    async with Pulling(broker, intake) as pulling:
        broker.stop()
        broker.start()
        with structlog.testing.capture_logs() as logs:
            await pulling.go()

    assert [each["event"] for each in logs if each["log_level"] == "warning"] == ["mqtt_session_gone"]
