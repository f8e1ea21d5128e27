"""The commands that look into the log, on a real Kafka with a real worker."""

import asyncio
import json
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import orjson
import pytest
from local_kafka.cluster import Cluster

from headrace.cli.agents import GROUP
from headrace.cli.moments import iso_ms
from headrace.cli.opened_log import opened_log
from headrace.cli.settings import LogSettings, Settings
from headrace.engine.clock import ManualClock
from headrace.engine.dead_letters import dead_letter_records
from headrace.engine.intake import Intake
from headrace.engine.kafka.log import KafkaLog
from headrace.engine.kafka.settings import KafkaSettings
from headrace.engine.log import Append, TopicPartition, Transaction
from headrace.engine.log_range import first_offsets, read_range, reading
from headrace.engine.records import Records
from headrace.engine.redrive import REDRIVES, redriven
from headrace.schemas import topics
from tests.cli.conftest import Done, Headrace

pytestmark = pytest.mark.integration

START = 1_750_003_200_000
MINUTE = 60_000
DEVICES = [b"device-%d" % number for number in range(6)]
#: Seconds that anything may take.
PATIENCE = 120.0
#: The `headrace` command, which is killed while it commits the eighth part of what it sends back.
DYING = """
import asyncio, os, signal
from headrace.cli.main import main
from headrace.engine.redrive import Redrive
send, parts = Redrive._send, []
async def send_and_die(self, chunk):
    parts.append(chunk)
    if len(parts) == 8:
        asyncio.get_running_loop().call_soon(os.kill, os.getpid(), signal.SIGKILL)
    await send(self, chunk)
Redrive._send = send_and_die
main()
"""


class World:
    """A cluster, and settings for commands on it."""

    def __init__(self, cluster: Cluster, config: Path) -> None:
        self.url = f"kafka://{cluster.bootstrap}"
        self.config = config
        config.write_text(
            f'[log]\nurl = "{self.url}"\npartitions = 2\n[rollup]\nwindows = [60]\n'
            # Some tests wait until a process that was killed, or a topic as it was, is forgotten.
            "[kafka]\nsession_timeout = 3\nheartbeat_interval = 1\nmetadata_max_age = 1\n"
        )

    @asynccontextmanager
    async def log(self) -> AsyncIterator[KafkaLog]:
        log = KafkaLog(self.url, KafkaSettings(), role="test")
        await log.start()
        try:
            yield log
        finally:
            await log.close()

    async def feed(self, first: int, last: int) -> None:
        """A good message of each device, and a bad one, for every minute."""
        async with self.log() as log:
            clock = ManualClock(START)
            intake = Intake(log, clock)
            for minute in range(first, last):
                time = START + minute * MINUTE
                clock.follow(time)
                payloads = [orjson.dumps({"timestamp": time, "temp": 20}) for _ in DEVICES]
                payloads.append(orjson.dumps({"timestamp": time, "temp": 999}))
                await intake.append([*DEVICES, b"hot"], payloads, device_type="environmental", profile="test")

    async def values(self, topic: str) -> list[bytes | None]:
        """Every value in a topic, partition by partition."""
        found: list[bytes | None] = []
        async with self.log() as log, reading(log) as reader:
            ends, starts = await log.end_offsets(topic), await first_offsets(log, topic)
            for target, end in ends.items():
                async for fetched in read_range(reader, target, starts[target], end):
                    found += fetched.records.values
        return found

    async def lag(self) -> int:
        """Records that the agents have still to read."""
        async with self.log() as log:
            behind = 0
            for topic in (topics.RAW, topics.READINGS):
                ends, positions = await log.end_offsets(topic), await log.positions(GROUP, topic)
                behind += sum(end - positions[target] for target, end in ends.items())
            return behind

    @contextmanager
    def worker(self) -> Iterator[Path]:
        """A running worker; where it logs to."""
        path = self.config.with_suffix(".log")
        command = [sys.executable, "-m", "headrace.cli.main", "worker", "--config", str(self.config)]
        with path.open("w") as log, subprocess.Popen(command, stderr=log) as process:
            try:
                yield path
            finally:
                process.terminate()
                process.wait(PATIENCE)


async def until(condition: Callable[[], Any]) -> None:
    """Wait until `condition` returns, or its coroutine gives, something true."""
    async with asyncio.timeout(PATIENCE):
        while True:
            found = condition()
            if asyncio.iscoroutine(found):
                found = await found
            if found:
                return
            await asyncio.sleep(0.2)


@contextmanager
def worked_world(folder: Path) -> Iterator[World]:
    """A cluster on which a worker has worked through 90 minutes of messages."""

    async def work() -> None:
        await until(lambda: "worker" in log.read_text())
        await until(has_topics)
        await made.feed(0, 90)
        await until(caught_up)

    async def has_topics() -> bool:
        async with made.log() as log:
            return topics.RAW in {spec.name for spec in await log.topics()}

    async def caught_up() -> bool:
        return not await made.lag()

    with Cluster() as cluster:
        made = World(cluster, folder / "headrace.toml")
        with made.worker() as log:
            asyncio.run(work())
        yield made


@pytest.fixture(scope="module")
def world(kafka_tools: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """One for all tests of this file that only look, or write beside the rest."""
    with worked_world(tmp_path_factory.mktemp("kafka")) as made:
        yield made


@pytest.fixture
def own_world(kafka_tools: None, tmp_path: Path) -> Iterator[World]:
    """One for a test alone."""
    with worked_world(tmp_path) as made:
        yield made


def document(done: Done) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_dead_letters_are_listed_and_sent_back_once(headrace: Headrace, world: World) -> None:
    """Offsets with gaps, transactions and compaction notwithstanding."""
    options = ("--device", "hot", "--config", world.config, "--json")
    letters = [json.loads(line) for line in headrace("dlq", "list", *options).stdout.splitlines()]
    assert len(letters) == 90
    assert b"999" in headrace("dlq", "show", letters[7]["id"], "--config", world.config, "--raw").stdout

    first = document(headrace("dlq", "replay", *options, "--yes"))
    second = document(headrace("dlq", "replay", *options, "--yes"))

    assert (first["sent"], second["sent"], second["sent_before"]) == (90, 0, 90)
    hot = [value for value in asyncio.run(world.values(topics.RAW)) if value and b'"temp":999' in value]
    assert len(hot) == 180
    assert hot[90:] == hot[:90]


async def test_killed_while_sending_back_nothing_comes_twice(headrace_process: Headrace, world: World) -> None:
    """`kill -9` in the middle, then the same command: each record once, in order."""
    total = 20_000
    values = [b"victim %d" % number for number in range(total)]
    refused = Records([b"victim"] * total, list(values), [START] * total)
    send = dead_letter_records(topics.RAW, 0, range(total), refused, ["killed"] * total, "ingest", counted=True)
    options = ["dlq", "replay", "--device", "victim", "--config", str(world.config), "--yes", "--json"]
    async with world.log() as log:
        await log.commit(Transaction([Append(TopicPartition(topics.DEAD_LETTERS, 1), send.records, send.tallies)]))
        before = len(await redriven(log))
        process = await asyncio.create_subprocess_exec(sys.executable, "-c", DYING, *options)
        assert await process.wait() == -signal.SIGKILL
        assert before < len(await redriven(log)) < before + total
        await asyncio.to_thread(headrace_process, *options)

    sent = [value for value in await world.values(topics.RAW) if value and value.startswith(b"victim")]
    assert sent == values


async def test_only_one_process_sends_back(headrace_process: Headrace, world: World) -> None:
    """The group gives the turn to one; the other is told."""
    settings = Settings(log=LogSettings(url=world.url))

    async with opened_log(settings, None) as opened, opened.turn("dlq-replay", REDRIVES):
        done = await asyncio.to_thread(
            headrace_process, "dlq", "replay", "--again", "--config", world.config, "--yes", code=1
        )

    assert "Wait until that is done" in done.stderr


def test_an_agent_replayed_sends_the_same_again(headrace: Headrace, world: World) -> None:
    """Byte for byte; and shows it to nobody before it is committed."""
    before = asyncio.run(world.values(topics.ROLLUPS))
    start = iso_ms(START + 45 * MINUTE)

    done = document(headrace("replay", "--agent", "rollup", "--from", start, "--config", world.config, "--json"))

    after = asyncio.run(world.values(topics.ROLLUPS))
    assert done["finished"]
    assert done["sent"] == {topics.ROLLUPS: len(after) - len(before)}
    assert len(after) - len(before) == len(DEVICES) * 45
    assert set(after) == set(before)


def test_partitions_added_and_started_over(headrace: Headrace, own_world: World) -> None:
    """The worker stops with the name of the command, which needs the worker stopped; then everything arrives."""

    async def extend() -> None:
        async with own_world.log() as log:
            await log.extend_topic(topics.RAW, 3)

    async def caught_up() -> bool:
        return not await own_world.lag()

    def owners() -> list[str]:
        found = document(headrace("topics", topics.RAW, "--config", own_world.config, "--json"))
        names: list[str] = found["groups"][GROUP]["owners"]
        return names

    with own_world.worker() as log:
        while not owners():
            pass
        asyncio.run(extend())
        asyncio.run(until(lambda: f"headrace topics reset {topics.RAW}" in log.read_text()))
        refused = headrace("topics", "reset", topics.RAW, "--config", own_world.config, "--yes", code=1)
    assert "Stop its workers first" in refused.stderr

    done = document(headrace("topics", "reset", topics.RAW, "--config", own_world.config, "--yes", "--json"))
    asyncio.run(own_world.feed(90, 100))
    before = len(asyncio.run(own_world.values(topics.ROLLUPS)))
    with own_world.worker() as log:
        asyncio.run(until(caught_up))

    assert {growth["topic"] for growth in done["grown"]} >= {topics.READINGS, topics.ROLLUPS}
    assert "headrace-seen-changelog" in done["emptied"]
    assert "headrace-outcomes-changelog" not in done["emptied"]
    assert "stopped" not in log.read_text()
    assert len(asyncio.run(own_world.values(topics.ROLLUPS))) - before == len(DEVICES) * 9
