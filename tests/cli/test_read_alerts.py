"""docs/guides/read-alerts.md on a real Kafka: its own programs and commands, while a worker writes alerts."""

import asyncio
import json
import re
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import orjson
import pytest
from local_kafka.cluster import Cluster

from headrace.consume import Alert, AlertEvent, read_alerts, read_states
from headrace.engine.clock import ManualClock, SystemClock
from headrace.engine.intake import Intake
from headrace.engine.kafka.log import KafkaLog
from headrace.engine.kafka.settings import KafkaSettings
from headrace.engine.log_range import first_offsets, read_range, reading
from headrace.engine.records import Record
from headrace.schemas import topics
from tests.cli.conftest import Headrace
from tests.conftest import Require
from tests.contract_check import mistakes

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parent.parent.parent
GUIDE = (ROOT / "docs" / "guides" / "read-alerts.md").read_text()
READ, PLAIN, STATES = re.findall(r"```python\n(.*?)```", GUIDE, re.DOTALL)
ALL, GROUP, NOW_OPEN, ANSWER = re.findall(r"```sh\n(.*?)```", GUIDE, re.DOTALL)
MINUTE = 60_000
DEVICES = [f"device-{number}" for number in range(6)]
#: Those that stay hot.
STILL_HOT = DEVICES[:2]
#: Of each device that an alert began, and of four that it ended.
EVENTS = len(DEVICES) + len(DEVICES) - len(STILL_HOT)
#: Seconds that anything may take.
PATIENCE = 120.0


class World:
    """A Kafka on which a worker has found six devices too hot, and four of them cool again."""

    def __init__(self, cluster: Cluster, config: Path) -> None:
        self.server = cluster.bootstrap
        self.url = f"kafka://{cluster.bootstrap}"
        self.config = config
        config.write_text(f'[log]\nurl = "{self.url}"\npartitions = 2\n')

    def adapted(self, sample: str) -> str:
        """A sample of the guide, for this Kafka."""
        assert "localhost:9092" in sample
        return sample.replace("localhost:9092", self.server)

    @asynccontextmanager
    async def log(self) -> AsyncIterator[KafkaLog]:
        log = KafkaLog(self.url, KafkaSettings(), role="test")
        await log.start()
        try:
            yield log
        finally:
            await log.close()

    async def records(self, topic: str) -> list[Record]:
        """Every record of a topic."""
        found: list[Record] = []
        async with self.log() as log, reading(log) as reader:
            ends = await log.end_offsets(topic)
            starts = await first_offsets(log, topic)
            for target, end in ends.items():
                async for fetched in read_range(reader, target, starts[target], end):
                    found += list(fetched.records)
        return found

    async def heat(self) -> None:
        """Five hot minutes of every device, then two cool ones of most."""
        async with self.log() as log:
            # Not long ago: the worker goes by the time of now when nothing comes.
            start = (SystemClock().now_ms() // MINUTE - 10) * MINUTE
            clock = ManualClock(start)
            intake = Intake(log, clock)
            for minute in range(7):
                time = start + minute * MINUTE
                clock.follow(time)
                hot = [minute < 5 or device in STILL_HOT for device in DEVICES]
                payloads = [orjson.dumps({"timestamp": time, "temp": 50 if each else 20}) for each in hot]
                keys = [device.encode() for device in DEVICES]
                await intake.append(keys, payloads, device_type="environmental", profile="test")

    async def events(self, least: int) -> list[AlertEvent]:
        """What is in `alerts.v1`, once there is as much."""
        async with asyncio.timeout(PATIENCE):
            while True:
                found = await self.records(topics.ALERTS)
                if len(found) >= least:
                    return [AlertEvent.model_validate_json(each.value or b"") for each in found]
                await asyncio.sleep(0.1)

    @contextmanager
    def worker(self) -> Iterator[None]:
        """A running worker."""
        command = [sys.executable, "-m", "headrace.cli.main", "worker", "--config", str(self.config)]
        with self.config.with_suffix(".log").open("w") as output, subprocess.Popen(command, stderr=output) as process:
            try:
                yield
            finally:
                process.terminate()
                process.wait(PATIENCE)


@pytest.fixture(scope="module")
def world(kafka_tools: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """One for all tests of this file, with a worker that runs on."""

    async def work() -> None:
        async with asyncio.timeout(PATIENCE), made.log() as log:
            while topics.ALERTS not in {spec.name for spec in await log.topics()}:
                await asyncio.sleep(0.1)
        await made.heat()
        await made.events(EVENTS)

    with Cluster() as cluster:
        made = World(cluster, tmp_path_factory.mktemp("kafka") / "headrace.toml")
        with made.worker():
            asyncio.run(work())
            yield made


@pytest.fixture(scope="module")
def kcat(require: Require) -> None:
    """The command, as Debian has it."""
    found = subprocess.run(["sh", "-c", "command -v kcat"], capture_output=True, check=False).returncode == 0
    require(found, "kcat", "apt-get install kcat")


def lines(command: list[str], count: int) -> list[str]:
    """The first lines that a command prints, which goes on for ever."""
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            found = [process.stdout.readline().rstrip() for _ in range(count)]
        finally:
            process.kill()
        assert all(found), process.stderr and process.stderr.read()
    return found


def shell(command: str) -> list[str]:
    """What a command prints that comes to an end."""
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, timeout=PATIENCE, check=True)
    return done.stdout.splitlines()


async def test_every_record_about_alerts_fits_its_contract(world: World) -> None:
    """Key, headers and value of all that a worker on Kafka has written."""
    events = await world.records(topics.ALERTS)
    states = await world.records(topics.ALERT_STATES)

    assert len(events) >= EVENTS
    assert len({each.key for each in states}) == len(DEVICES)
    assert mistakes(topics.ALERTS, events) + mistakes(topics.ALERT_STATES, states) == []


@pytest.mark.parametrize("program", [READ, PLAIN], ids=["headrace.consume", "aiokafka"])
def test_programs_of_the_guide_print_every_event(world: World, program: str) -> None:
    """As somebody would try them."""
    found = lines([sys.executable, "-c", world.adapted(program)], len(asyncio.run(world.records(topics.ALERTS))))

    kinds = [line.split()[0].rpartition(".")[2] for line in found]
    assert (kinds.count("triggered"), kinds.count("resolved")) == (len(DEVICES), EVENTS - len(DEVICES))
    assert all("Overheating" in line for line in found)
    assert len([line for line in READ.splitlines() if line]) <= 10


def test_program_of_the_guide_knows_what_is_open(world: World) -> None:
    """The two devices that are hot still."""
    done = subprocess.run(
        [sys.executable, "-c", world.adapted(STATES)], capture_output=True, text=True, timeout=PATIENCE, check=True
    )

    assert {line.split()[0] for line in done.stdout.splitlines()} == set(STILL_HOT)


def test_kcat_reads_events_and_states(kcat: None, world: World) -> None:
    """With the commands of the guide."""
    events = [line.split(" ", 1) for line in shell(world.adapted(ALL))]
    in_group = lines(["sh", "-c", f"exec {world.adapted(GROUP)}"], EVENTS)
    states = [json.loads(line) for line in shell(world.adapted(NOW_OPEN))]

    assert all(json.loads(event)["subject"] == device for device, event in events)
    assert {json.loads(line)["id"] for line in in_group} <= {json.loads(event)["id"] for _, event in events}
    assert {each["deviceId"] for each in states} == set(DEVICES)
    assert {each["deviceId"] for each in states if each["status"] != "resolved"} == set(STILL_HOT)


async def test_an_alert_is_acknowledged_with_kcat(kcat: None, world: World) -> None:
    """The command of the guide, twice: carried out once; the answer names it."""
    (alert,) = {
        event.data.alertId: event.data
        for event in await world.events(EVENTS)
        if isinstance(event.data, Alert) and event.data.deviceId == STILL_HOT[1]
    }.values()
    command = world.adapted(ANSWER).replace("ALERT", alert.alertId).replace("DEVICE", alert.deviceId)

    for _ in range(2):
        await asyncio.to_thread(shell, command)

    async with asyncio.timeout(PATIENCE), read_states(world.url) as states:
        async for _, now in states:
            if now is not None and now.status == "acknowledged":
                assert (now.alertId, now.revision) == (alert.alertId, 2)
                break
    answers = [event for event in await world.events(EVENTS + 1) if event.commandid == "my-1"]
    assert [event.type for event in answers] == ["io.headrace.alert.acknowledged"]
    commands = await world.records(topics.ALERT_COMMANDS)
    assert len(commands) == 2
    assert mistakes(topics.ALERT_COMMANDS, commands) == []


async def test_a_group_shares_the_events(world: World) -> None:
    """Two readers have all between them, also when one leaves: nothing is missing."""
    expected = {event.id for event in await world.events(EVENTS)}
    seen: list[str] = []

    async def read(until: Callable[[], bool]) -> None:
        async with read_alerts(world.url, group="two") as alerts:
            async for event in alerts:
                seen.append(event.id)
                if until():
                    return

    async with asyncio.timeout(PATIENCE):
        first = asyncio.create_task(read(lambda: len(seen) >= 2))
        second = asyncio.create_task(read(lambda: set(seen) >= expected))
        await asyncio.wait([first, second])
        first.result()
        second.result()

    assert set(seen) >= expected
    assert len(seen) <= len(expected) + 2, "only what a reader had in hand when it left may come again"


def test_a_group_may_begin_with_what_comes_now(headrace: Headrace, world: World) -> None:
    """With the command of the guide, before its first start."""
    (command,) = re.findall(r"`headrace (topics reset alerts\.v1 .*?)`", GUIDE)
    options = ("--config", world.config, "--yes", "--json")

    headrace(*command.replace("pager", "newcomer").split(), *options)

    async def positions() -> tuple[int, int]:
        async with world.log() as log:
            at, ends = await log.positions("newcomer", topics.ALERTS), await log.end_offsets(topics.ALERTS)
            return sum(at.values()), sum(ends.values())

    at, end = asyncio.run(positions())
    assert at == end
