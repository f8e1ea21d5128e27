"""`headrace worker --workers 2` on a real Kafka: processes that share the work, end together, and start again alone."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import orjson
import psutil
import pytest
from local_kafka.cluster import Cluster

from headrace.cli.agents import GROUP, build_agents
from headrace.cli.settings import Settings
from headrace.engine.clock import SystemClock
from headrace.engine.intake import Intake
from headrace.engine.kafka.log import KafkaLog
from headrace.engine.kafka.settings import KafkaSettings
from headrace.engine.ledger import lag
from headrace.engine.operator import topics_of
from headrace.schemas import topics

pytestmark = pytest.mark.integration
PARTITIONS = 4
#: Seconds; many times what anything here takes.
PATIENCE = 120.0
NOW = 1_750_000_000_000
#: What the agents read.
READ = {topic for agent in build_agents(Settings(), {}, []) for topic in topics_of(agent)}


@pytest.fixture
def cluster(kafka_tools: None) -> Iterator[Cluster]:
    """A Kafka of each test's own: topics, group and the names of workers are always the same ones."""
    with Cluster() as cluster:
        yield cluster


@pytest.fixture
def config(cluster: Cluster, tmp_path: Path) -> Path:
    """Settings on that Kafka."""
    path = tmp_path / "headrace.toml"
    path.write_text(
        f'[log]\nurl = "kafka://{cluster.bootstrap}"\npartitions = {PARTITIONS}\n'
        "[kafka]\nsession_timeout = 3\nheartbeat_interval = 1\n"
    )
    return path


@pytest.fixture
def start(config: Path, tmp_path: Path) -> Iterator[Callable[[], "subprocess.Popen[bytes]"]]:
    """Starts `headrace worker --workers 2`, and leaves nothing behind."""
    started: list[subprocess.Popen[bytes]] = []

    def start() -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "headrace.cli.main", "worker", "--workers", "2", "--config", str(config)]
        with (tmp_path / "output").open("ab") as output:
            started.append(subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT))
        return started[-1]

    yield start
    for process in started:
        workers = children(process) if process.poll() is None else []
        process.kill()
        process.wait()
        for worker in workers:
            worker.kill()


def children(process: "subprocess.Popen[bytes]") -> list[psutil.Process]:
    """The workers of a running parent."""
    return psutil.Process(process.pid).children()


class Kafka:
    """What the workers did, seen from outside."""

    def __init__(self, log: KafkaLog) -> None:
        self.log = log

    async def append(self, start: int, count: int) -> None:
        """Messages that make one reading each."""
        await self.log.create_topics(Intake.topic_specs(PARTITIONS))
        payloads = [orjson.dumps({"timestamp": NOW + start + n, "temp": 20.0}) for n in range(count)]
        devices = [b"device-%d" % (n % 16) for n in range(count)]
        await Intake(self.log, SystemClock()).append(
            devices, payloads, device_type="environmental", profile="test", timestamps=[NOW + start] * count
        )

    async def wait_shared(self) -> None:
        """Wait until two workers have all partitions between them; who was killed has them for a while longer."""

        async def shared() -> bool:
            owners = await self.log.owners(GROUP)
            return len(owners) == PARTITIONS * len(READ) and len(set(owners.values())) == 2

        await wait_until(shared, "two workers do not share the partitions")

    async def wait_done(self) -> None:
        """Wait until everything is committed."""

        async def done() -> bool:
            return not await lag(self.log, GROUP, topics.RAW) and not await lag(self.log, GROUP, topics.READINGS)

        await wait_until(done, "lag does not reach 0")

    async def readings(self) -> int:
        """Readings that are committed."""
        reader, count = self.log.reader(), 0
        for target, end in (await self.log.end_offsets(topics.READINGS)).items():
            position = 0
            while position < end:
                fetched = await reader.read(target, position, 10_000)
                if fetched is None:
                    await reader.wait({target: position}, 1)
                else:
                    count += len(fetched.records)
                    position = fetched.next_offset
        await reader.close()
        return count


@pytest.fixture
async def kafka_log(cluster: Cluster) -> Any:
    """A log of the test's own."""
    log = KafkaLog(f"kafka://{cluster.bootstrap}", KafkaSettings(), role="test")
    await log.start()
    yield Kafka(log)
    await log.close()


async def wait_until(condition: Callable[[], Any], otherwise: str) -> None:
    try:
        async with asyncio.timeout(PATIENCE):
            while not await condition():
                await asyncio.sleep(0.1)
    except TimeoutError:
        raise AssertionError(otherwise) from None


async def wait_gone(processes: list[psutil.Process]) -> None:
    async def gone() -> bool:
        return not any(each.is_running() and each.status() != psutil.STATUS_ZOMBIE for each in processes)

    await wait_until(gone, "a worker outlives its parent")


async def ended(process: "subprocess.Popen[bytes]") -> int:
    return await asyncio.to_thread(process.wait, PATIENCE)


async def test_workers_share_the_work_and_stop_clean(start: Any, kafka_log: Kafka, tmp_path: Path) -> None:
    """SIGTERM in the middle of the work ends both with exit code 0; the next two go on exactly where they stopped."""
    await kafka_log.append(0, 5_000)
    first = start()
    await kafka_log.wait_shared()
    await kafka_log.wait_done()
    await kafka_log.append(5_000, 20_000)

    first.send_signal(signal.SIGTERM)
    code = await ended(first)
    second = start()
    await kafka_log.wait_done()
    second.send_signal(signal.SIGTERM)

    assert [code, await ended(second)] == [0, 0], (tmp_path / "output").read_text()
    assert await kafka_log.readings() == 25_000


async def test_killed_worker_is_started_again(start: Any, kafka_log: Kafka, tmp_path: Path) -> None:
    """The other one goes on, and the parent puts a new one in the place of the dead."""
    parent = start()
    await kafka_log.wait_shared()
    killed, other = children(parent)

    killed.kill()

    async def replaced() -> bool:
        alive = {each.pid for each in children(parent) if each.status() != psutil.STATUS_ZOMBIE}
        return len(alive) == 2 and killed.pid not in alive and other.pid in alive

    await wait_until(replaced, "nobody takes its place")
    await kafka_log.append(100_000, 100)
    await kafka_log.wait_shared()
    await kafka_log.wait_done()
    parent.send_signal(signal.SIGTERM)
    assert await ended(parent) == 0, (tmp_path / "output").read_text()


async def test_workers_end_with_their_parent(start: Any, kafka_log: Kafka) -> None:
    """kill -9 of the parent: nobody is left who works unseen."""
    parent = start()
    await kafka_log.wait_shared()
    workers = children(parent)

    parent.kill()

    await wait_gone(workers)
    assert len(workers) == 2


@pytest.mark.parametrize(
    ("setting", "value", "reason"),
    [
        ("HEADRACE_KAFKA__HEARTBEAT_INTERVAL", "9", "at most half of session_timeout"),
        ("HEADRACE_LOG__URL", "kafka://127.0.0.1:1", "no Kafka at 127.0.0.1:1"),
    ],
)
def test_mistake_is_told_once(config: Path, setting: str, value: str, reason: str) -> None:
    """Not by every worker."""
    command = [sys.executable, "-m", "headrace.cli.main", "worker", "--workers", "2", "--config", str(config)]

    done = subprocess.run(
        command, capture_output=True, text=True, timeout=PATIENCE, check=False, env={**os.environ, setting: value}
    )

    assert done.returncode == 2
    assert done.stderr.count(reason) == 1, done.stderr
