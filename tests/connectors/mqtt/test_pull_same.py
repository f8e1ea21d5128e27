"""One engine, two triggers: what is pulled every five minutes becomes the same readings as what is streamed."""

import asyncio
import tomllib
from pathlib import Path

import orjson
import pytest

from headrace.agents.ingest import Ingest
from headrace.connectors.mqtt.connection import BrokerAddress
from headrace.connectors.mqtt.publisher import MqttPublisher
from headrace.connectors.mqtt.settings import MqttSettings
from headrace.connectors.mqtt.source import MqttSource
from headrace.connectors.routed_intake import RoutedIntake
from headrace.connectors.topic_profile import TopicProfile
from headrace.engine.clock import SteppedClock
from headrace.engine.embedded.database import MEMORY
from headrace.engine.embedded.log import EmbeddedLog
from headrace.engine.intake import Intake
from headrace.engine.log import TopicPartition
from headrace.engine.testkit import drive
from headrace.schemas import topics
from headrace.tables.device_types import load_device_types
from tests.conftest import Require
from tests.connectors.mqtt.at_work import until
from tests.mosquitto import Mosquitto, find_mosquitto

pytestmark = pytest.mark.integration
START_MS = 1_768_732_200_000
TICKS, SENSORS = 48, 12
TILT = tomllib.loads((Path(__file__).parents[3] / "deploy" / "tilt.toml").read_text())
PROFILES = [TopicProfile.model_validate(each) for each in TILT["profiles"]]


class Ticking(SteppedClock):
    """A clock that goes on when a test lets it."""

    def __init__(self) -> None:
        super().__init__(START_MS)
        self.waiting = 0
        self._gate = asyncio.Event()

    async def sleep(self, delay: float) -> None:
        self.waiting += 1
        self._gate.clear()
        await self._gate.wait()
        await super().sleep(delay)

    async def go(self) -> None:
        """Let one wait pass, and come to the next."""
        waiting = self.waiting
        self._gate.set()
        await until(lambda: self.waiting > waiting)


class Way:
    """A source, and the log that it leads into."""

    def __init__(self, broker: Mosquitto, name: str, **schedule: object) -> None:
        self.clock, self.log = Ticking(), EmbeddedLog(MEMORY)
        given = {"host": broker.host, "port": broker.port, "client_id": name, **schedule}
        self._settings = MqttSettings.model_validate(given)
        self.stop = asyncio.Event()

    async def start(self) -> None:
        """Subscribe."""
        await self.log.create_topics(Intake.topic_specs(1))
        intake = RoutedIntake(Intake(self.log, self.clock), PROFILES)
        self.source = MqttSource(self._settings, [each.topic_filter for each in PROFILES], intake, self.clock)
        self.task = asyncio.create_task(self.source.run(self.stop))
        await self.source.wait_subscribed()

    async def readings(self) -> tuple[list[tuple[bytes | None, object]], list[str]]:
        """What ingest makes of it, without the ids that each append gives; and the reasons of dead letters."""
        self.stop.set()
        await self.task
        raw = await self.log.read(TopicPartition(topics.RAW, 0), 0, 1_000_000)
        await self.log.close()
        assert raw is not None
        driven = drive(Ingest(load_device_types()), raw.records)
        found = [(record.key, orjson.loads(record.value or b"")) for record in driven.sent[topics.READINGS]]
        for _, reading in found:
            del reading["message_id"]
        return found, [reason for _, reason in driven.dead_letters]


def payload(tick: int, sensor: int) -> bytes:
    """A reading; of one sensor an alarm, of one sometimes nothing that can be read."""
    if sensor == 3 and tick % 16 == 7:
        return b'{"tilt_angle": "steep"}'
    reading = {
        "timestamp": START_MS + tick * 300_000 + sensor,
        "tilt_angle": round(1.5 + sensor / 10 + tick / 100, 2),
        "status": "alarm" if sensor == 5 else "normal",
        "battery_level": 90 - tick // 10,
    }
    return orjson.dumps(reading)


async def test_pulled_and_streamed_become_the_same(require: Require, tmp_path: Path) -> None:
    """Four hours of sensors, with repeats and nonsense among them: the same readings in the same order per device."""
    require(find_mosquitto(), "mosquitto", "install the package `mosquitto`")
    broker = Mosquitto(tmp_path / "mosquitto").start()
    streamed = Way(broker, "streamed")
    pulled = Way(broker, "pulled", schedule=TILT["mqtt"]["schedule"])
    await streamed.start()
    await pulled.start()
    await until(lambda: pulled.clock.waiting == 1)
    async with MqttPublisher(BrokerAddress(broker.host, broker.port)) as publisher:
        for tick in range(TICKS):
            for sensor in range(SENSORS):
                for _ in range(2 if (tick + sensor) % 11 == 0 else 1):
                    await publisher.publish(f"tilt/s{sensor}/telemetry", payload(tick, sensor))
            await publisher.drain()
            await pulled.clock.go()
            streamed.clock.advance(300_000)
    await until(lambda: streamed.source.statistics().appended >= pulled.source.statistics().appended)
    one, other = await streamed.readings(), await pulled.readings()
    broker.stop()

    assert one == other
    assert len(one[0]) == TICKS * SENSORS - 3
    assert len(one[1]) == 3
    assert pulled.source.statistics().runs == TICKS + 1
