"""Every record of every public topic that the whole path writes, against what is published of it."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pytest

from headrace.cli.alert_answers import send_commands
from headrace.cli.alerts_silences import encode_silence
from headrace.cli.pipeline import Pipeline
from headrace.cli.settings import Settings
from headrace.connectors.mqtt.codec.packets import Publish, Will
from headrace.connectors.mqtt.commands import Commands
from headrace.connectors.mqtt.presence import PresenceLog
from headrace.connectors.routed_intake import RoutedIntake
from headrace.connectors.topic_profile import TopicProfile
from headrace.engine.clock import ManualClock, SteppedClock, SystemClock
from headrace.engine.log_range import read_range, reading
from headrace.engine.records import Record
from headrace.schemas import topics
from headrace.schemas.alert import Alert, AlertEvent
from headrace.schemas.alert_command import ALERT_COMMAND
from headrace.schemas.device import Device, Location
from headrace.schemas.public_topics import BY_NAME, PUBLIC_TOPICS
from headrace.schemas.rule import AlertRule
from headrace.schemas.silence import Silence
from headrace.schemas.topic_schemas import examples
from headrace.schemas.user import Preferences, User
from headrace.tables.device_types import load_device_types
from headrace.tables.devices import DeviceRegistry
from headrace.tables.known_rules import RuleRegistry
from headrace.tables.live_registry import LiveRegistry
from headrace.tables.users import UserRegistry
from tests.connectors.notifications.outbox import Receiver, deliverer, delivering
from tests.contract_check import mistakes

pytestmark = pytest.mark.integration
NOW = 1_750_003_200_000
SECOND, MINUTE = 1_000, 60_000
DEVICES = [f"d-{number}" for number in range(8)]
#: What people do with alerts; of the third it is refused, as nobody has acknowledged it.
COMMANDS: list[tuple[str, dict[str, Any]]] = [
    ("d-0", {"command": "acknowledge", "comment": "on my way"}),
    ("d-0", {"command": "comment", "comment": "the fan stands still", "userName": "Ada"}),
    ("d-0", {"command": "resolve", "resolution": "fan replaced", "preventionNotes": "look at the others"}),
    ("d-1", {"command": "resolve", "resolution": "by magic"}),
    ("d-2", {"command": "snooze", "until": NOW + 86_400_000}),
]
HAPPENED = {
    "triggered", "acknowledged", "resolved", "commented", "snoozed", "suppressed", "unsuppressed", "refused",
    "updated",
}  # fmt: skip
#: Seconds that anything may take.
PATIENCE = 120.0


class World:
    """A pipeline, and people and devices around it."""

    def __init__(self, pipeline: Pipeline, clock: ManualClock) -> None:
        self.pipeline = pipeline
        self.log = pipeline.log
        self.clock = clock

    async def send(self, devices: list[str], *, alarms: tuple[int, ...] = (), ago: int = 0, **fields: Any) -> None:
        """A message of each device, of now or `ago` ms before."""
        payload = orjson.dumps({"timestamp": self.clock.now_ms() - ago, **fields})
        await self.pipeline.intake.append(
            [device.encode() for device in devices], [payload] * len(devices),
            device_type="environmental", profile="test", sources=b"dt/test", alarms=alarms,
        )  # fmt: skip

    async def minutes(self, count: int, devices: list[str], **fields: Any) -> None:
        """Messages every ten seconds for so many minutes."""
        for _ in range(count * 6):
            self.clock.advance(10 * SECOND)
            await self.send(devices, **fields)

    async def records(self, topic: str) -> list[Record]:
        """Every record of a topic."""
        found: list[Record] = []
        async with reading(self.log) as reader:
            for target, end in (await self.log.end_offsets(topic)).items():
                async for fetched in read_range(reader, target, 0, end):
                    found += list(fetched.records)
        return found

    async def events(self) -> list[AlertEvent]:
        return [AlertEvent.model_validate_json(each.value or b"") for each in await self.records(topics.ALERTS)]

    async def until(self, enough: Callable[[list[AlertEvent]], bool]) -> list[AlertEvent]:
        """The events, once there are enough."""
        async with asyncio.timeout(PATIENCE):
            while not enough(found := await self.events()):
                await asyncio.sleep(0.02)
        return found

    async def command(self, alerts: dict[str, Alert]) -> None:
        """What people want done."""
        commands = [
            ALERT_COMMAND.validate_python(
                {"commandId": f"c-{number}", "alertId": alerts[device].alertId, "deviceId": device, "userId": "ada"}
                | command
            )
            for number, (device, command) in enumerate(COMMANDS)
        ]
        await send_commands(self.log, commands, self.clock, PATIENCE)

    async def silence(self) -> None:
        """Of one device, for half an hour."""
        now = self.clock.now_ms()
        silence = Silence(
            id="works", device_ids=("d-3",), starts_at=now, ends_at=now + 30 * MINUTE, comment="new wiring",
            created_by="ada",
        )  # fmt: skip
        silences: LiveRegistry[Silence] = LiveRegistry(self.log, topics.SILENCES, encode_silence, SystemClock())
        await silences.change({silence.id: silence})

    async def register(self) -> None:
        """The registry, by which readings are enriched."""
        known = {
            device: Device(
                id=device, name=f"Device {device}", organisation="acme", gateway="gw", tags=("roof",),
                location=Location(lat=48.1, lon=11.5),
            )
            for device in DEVICES[:4]
        }  # fmt: skip
        await DeviceRegistry(self.log, SystemClock()).change(known)
        users = [User.model_validate(each["value"]) for each in examples(BY_NAME[topics.USERS])]
        everything = Preferences(subscribed_devices=("*",))
        users.append(User(user_id="ada", email="ada@example.com", organization_id="acme", preferences=everything))
        await UserRegistry(self.log, SystemClock()).change({user.user_id: user for user in users})

    async def beside(self) -> None:
        """What the MQTT listener writes of connections and commands."""
        await self.log.create_topics(Commands.topic_specs(2))
        send = Publish(b"dt/devices/d-0/commands", b"\xff reboot", qos=1, properties={"content_type": "text"})
        await Commands(self.log, self.clock).append(["d-0"], [send], ["desk"])
        presence = PresenceLog(self.log, self.clock)
        presence.connected("d-0", "client", "1")
        presence.disconnected("d-0", "client", "1", "connection lost")
        presence.will("d-0", "client", "1", Will(b"last", b"\xff"))
        presence.queue.close()
        await presence.queue.run()

    async def deliver(self) -> None:
        """Send to webhooks until an alert says so; mail, for which there is no channel, is given up."""
        delivery = deliverer(self.log, Receiver("webhook"), clock=SteppedClock(self.clock.now_ms()))
        async with delivering(delivery):
            await self.until(lambda found: any(each.type.endswith(".updated") for each in found))
            async with asyncio.timeout(PATIENCE):
                while not await self.records(topics.NOTIFICATION_DEAD_LETTERS):
                    await asyncio.sleep(0.02)

    async def uplinks(self) -> None:
        """A frame of a LoRaWAN sensor, which is counted, and its joining, which is no reading."""
        profile = TopicProfile(
            name="lorawan", topic="application/+/device/{device}/event/+", device_type="environmental",
            format="chirpstack",
        )  # fmt: skip
        said = {"time": "2025-06-15T16:00:00+00:00", "deviceInfo": {"devEui": "0101"}}
        events = {"join": said, "up": {**said, "fCnt": 7, "fPort": 1, "object": {"temperature": 20.5}}}
        await RoutedIntake(self.pipeline.intake, [profile], clock=self.clock).append(
            [f"application/7/device/0101/event/{kind}".encode() for kind in events],
            [orjson.dumps(event) for event in events.values()],
        )


async def test_everything_that_is_written_keeps_its_contract(tmp_path: Path) -> None:
    """Alerts of all kinds of ends, people who work on them, bad and late messages, alarms, anomalies, registries."""
    clock = ManualClock(NOW)
    settings = Settings(rollup={"variance": True, "percentiles": [50, 95]})
    async with Pipeline(tmp_path, settings, load_device_types(), [], clock) as pipeline:
        world = World(pipeline, clock)
        rules = RuleRegistry(pipeline.log, SystemClock())
        hot = AlertRule.model_validate({
            "ruleId": "hot", "name": "Hot", "condition": {"metric": "temperature", "operator": ">", "threshold": 40},
            "actions": {"notifications": ["email"], "webhooks": ["https://example.com/alerts"]},
        })  # fmt: skip
        await rules.change({"hot": hot})
        await world.register()

        async def feed(stop: asyncio.Event) -> None:
            await world.beside()
            await world.uplinks()
            await world.minutes(6, DEVICES, temp=20, humidity=40, note="fine")
            await world.send(["d-7"], temp=999)
            await world.send(["d-7"], temp=21)
            await world.send(["d-7"], temp=20, humidity=40, ago=10 * MINUTE)
            await world.send(["d-6"], temp=60, ago=-SECOND, alarms=(0,))
            clock.advance(10 * SECOND)
            await world.send(DEVICES, temp=50)
            events = await world.until(lambda found: len(found) >= len(DEVICES))
            alerts = {each.subject: each.data for each in events if isinstance(each.data, Alert)}
            await world.command(alerts)
            await world.silence()
            await world.minutes(3, DEVICES[1:4], temp=50)
            await world.deliver()
            await world.minutes(40, DEVICES[3:5], temp=51)
            await world.minutes(1, ["d-4"], temp=20)
            await rules.change({"hot": hot.model_copy(update={"status": "inactive"})})
            clock.advance(10 * MINUTE)
            await world.send(DEVICES, temp=52)

        await pipeline.run(feed, asyncio.Event())

        found = {topic.name: await world.records(topic.name) for topic in PUBLIC_TOPICS}
        events = await world.events()
    wrong = [mistake for name, records in found.items() for mistake in mistakes(name, records)]
    assert wrong == []
    assert [name for name, records in found.items() if not records] == []
    assert {event.type.rpartition(".")[2] for event in events} == HAPPENED
    ends = {each.data.resolved.by for each in events if isinstance(each.data, Alert) and each.data.resolved}
    assert ends == {"condition", "person", "rule"}


def test_what_breaks_a_contract_is_found() -> None:
    """A field that is not described or missing, a header likewise, no key, no value."""
    example = examples(BY_NAME[topics.ALERTS])[0]
    headers = {name: value.encode() for name, value in example["headers"].items()}

    def said(key: bytes | None = b"d", headers: dict[str, bytes] = headers, **fields: Any) -> list[str]:
        value = orjson.dumps({**example["value"], **fields})
        return [each.split(": ", 1)[1] for each in mistakes(topics.ALERTS, [Record(key, value, 0, headers)])]

    assert said() == []
    assert said(mood="grim") == ["$: Additional properties are not allowed ('mood' was unexpected)"]
    assert said(time=1) == ["$.time: 1 is not of type 'string'"]
    assert said(headers={}) == ["'content-type' is a required property"]
    assert said(headers={**headers, "x": b"1"}) == ["Additional properties are not allowed ('x' was unexpected)"]
    assert said(key=None) == ["no key"]
    assert mistakes(topics.ALERTS, [Record(b"d", None, 0, headers)]) == ["alerts.v1 b'd': no value"]
    assert mistakes(topics.ALERT_STATES, [Record(b"d", None, 0, {})]) == []
