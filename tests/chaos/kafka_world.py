"""A Kafka of its own, workers on it and load: what the chaos tests on Kafka break."""

import asyncio
import contextlib
import logging
import os
import random
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from local_kafka.cluster import Cluster

from headrace.cli.agents import GROUP, build_agents
from headrace.cli.logs import topic_specs
from headrace.cli.running import Setup, set_up
from headrace.cli.settings import Settings
from headrace.connectors import die_with_parent
from headrace.engine.clock import SystemClock
from headrace.engine.kafka.log import KafkaLog
from headrace.engine.ledger import lag
from headrace.engine.log import TopicPartition
from headrace.engine.operator import topics_of
from headrace.schemas import topics
from tests.chaos import tells_what_hangs
from tests.chaos.kafka_check import check_log
from tests.chaos.kafka_load import Load

PARTITIONS = 8
#: Topics that the agents read.
READ = len({topic for agent in build_agents(Settings(), {}, ()) for topic in topics_of(agent)})
#: Seconds until there is nothing left to do after the last fault: includes session timeouts and starts of workers.
DRAIN_TIMEOUT = 300.0
#: Seconds; catches hangs: under a load of 40 a worker took more than 30 to hear the signal while it imported.
STOP_TIMEOUT = 120.0
#: Seconds for a worker that hangs to say where.
TELL_TIMEOUT = 20.0
#: Seconds; as short as the tests' Kafka allows, so that a worker that was killed is given up soon.
SHORT_SESSION = {"session_timeout": 3.0, "heartbeat_interval": 1.0}
#: As in production.
LONG_SESSION: dict[str, float] = {}
#: From this many seconds of load on the tests take their long form.
LONG = 60.0

clock = SystemClock()


class Worker:
    """One `headrace worker`, ended with this process.

    Args:
        config: its settings.
        output: file that what it says is appended to.
        options: more of them.
    """

    def __init__(self, config: Path, output: Path, *options: str) -> None:
        self.output = output
        self._asked = False
        command = [sys.executable, tells_what_hangs.__file__, "worker", "--config", str(config), *options]
        with output.open("ab") as file:
            self._process = subprocess.Popen(
                [sys.executable, die_with_parent.__file__, str(os.getpid()), *command],
                stdout=file,
                stderr=subprocess.STDOUT,
            )

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether it has not ended."""
        return self._process.poll() is None

    def kill(self) -> None:
        """End it at once: kill -9."""
        self._process.kill()
        self._process.wait()

    def pause(self) -> None:
        """Stop it from running until `resume`."""
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on."""
        self._process.send_signal(signal.SIGCONT)

    def ask_to_stop(self) -> None:
        """SIGTERM, as an operator does. Only once: the second ends it at once."""
        if not self._asked:
            self._asked = True
            self._process.terminate()

    def wait(self) -> int:
        """Its exit code, once it has ended; 0 if it was asked to before it could hear: the signal itself ended it."""
        try:
            code = self._process.wait(STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"a worker does not stop:\n{self._tell()}") from None
        unheard = self._asked and code == -signal.SIGTERM and not self.everything_said()
        return 0 if unheard else code

    def _tell(self) -> str:
        """All that a worker that hangs said, and where it does; ends it."""
        self._process.send_signal(signal.SIGUSR1)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(TELL_TIMEOUT)  # that it ends meanwhile is worth knowing, too
        code = self._process.poll()
        self.kill()
        return f"{self.everything_said()}\nexit code {TELL_TIMEOUT:.0f} s later: {code}"

    def everything_said(self) -> str:
        """All its output."""
        return self.output.read_text(errors="replace")

    def end_of_output(self) -> str:
        """The last it said."""
        return self.everything_said()[-3000:]


class World:
    """What a test breaks. Made by `running_world`."""

    def __init__(self, cluster: Cluster, log: KafkaLog, setup: Setup, config: Path, seed: int) -> None:
        self.cluster = cluster
        self.log = log
        self.rng = random.Random(seed)
        self.load = Load(log, seed)
        self.workers: list[Worker] = []
        self._setup = setup
        self._config = config
        self._started = 0

    def start_worker(self) -> Worker:
        """One more worker."""
        self._started += 1
        worker = Worker(self._config, self._config.parent / f"worker-{self._started}.log")
        self.workers.append(worker)
        return worker

    def kill_worker(self, worker: Worker) -> None:
        """End one with kill -9."""
        assert worker.running, f"a worker ended by itself:\n{worker.end_of_output()}"
        worker.kill()
        self.workers.remove(worker)

    def retire_worker(self, worker: Worker) -> None:
        """Ask one to stop; it has to, without an error."""
        worker.ask_to_stop()
        code = worker.wait()
        assert code == 0, f"a worker ended with {code}:\n{worker.end_of_output()}"
        self.workers.remove(worker)

    async def wait_working(self) -> None:
        """Wait until every partition has an owner, and every worker has some."""
        await self.wait_owned_by(len(self.workers))

    async def wait_owned_by(self, count: int) -> None:
        """Wait until `count` workers have all partitions."""

        async def owned() -> bool:
            owners = await self.log.owners(GROUP)
            return len(owners) == READ * PARTITIONS and len(set(owners.values())) == count

        await self._wait(owned, f"the partitions are not shared by {count}")

    async def wait_progress(self) -> None:
        """Wait until messages that are sent from now on have been ingested."""
        ends = await self.log.end_offsets(topics.RAW)

        async def passed() -> bool:
            committed = await self.log.positions(GROUP, topics.RAW)
            return all(committed[target] > end for target, end in ends.items())

        await self._wait(passed, "no progress")

    async def restart_broker(self, broker: int) -> None:
        """Start a broker again, and wait until it has caught up; the load goes on meanwhile."""
        await asyncio.to_thread(self.cluster.restart, broker)
        await asyncio.to_thread(self.cluster.wait_in_sync)

    async def wait_drained(self) -> float:
        """Wait until every record was read and committed; seconds that it took."""
        began = clock.monotonic()
        await self._wait(self._drained, "lag does not reach 0")
        return clock.monotonic() - began

    async def finish(self) -> dict[str, Any]:
        """Drain, stop the workers, and compare what they left in the log; a report."""
        drained = await self.wait_drained()
        for worker in list(self.workers):
            worker.ask_to_stop()
        for worker in list(self.workers):
            self.retire_worker(worker)
        terms = await check_log(self.log, self._setup, self.load.truth, self.load.appended)
        return {**terms, "drained_seconds": round(drained, 1), "longest_append": round(self.load.longest_append, 1)}

    async def _drained(self) -> bool:
        return not (await lag(self.log, GROUP, topics.RAW) or await lag(self.log, GROUP, topics.READINGS))

    async def _wait(self, condition: Any, otherwise: str) -> None:
        deadline = clock.monotonic() + DRAIN_TIMEOUT
        while not await condition():
            for worker in self.workers:
                assert worker.running, f"a worker ended by itself:\n{worker.end_of_output()}"
            assert clock.monotonic() < deadline, f"{otherwise}:\n{await self._state()}"
            await clock.sleep(0.2)

    async def _state(self) -> str:
        positions: dict[TopicPartition, Any] = {}
        for topic in (topics.RAW, topics.READINGS):
            ends, committed = await self.log.end_offsets(topic), await self.log.positions(GROUP, topic)
            positions |= {target: (committed[target], end) for target, end in ends.items() if committed[target] < end}
        outputs = "\n".join(f"-- {worker.output.name}\n{worker.end_of_output()}" for worker in self.workers)
        return f"(position, end) {positions}\nowners {await self.log.owners(GROUP)}\n{outputs}"


@asynccontextmanager
async def running_world(
    folder: Path, seed: int, *, brokers: int = 1, workers: int = 2, kafka: dict[str, float] | None = None
) -> AsyncIterator[World]:
    """A Kafka, its topics, and workers that have begun to work.

    Args:
        kafka: what goes into `[kafka]` of their settings.
    """
    with Cluster(brokers) as cluster:
        config = folder / "headrace.toml"
        options = "".join(f"{key} = {value}\n" for key, value in (kafka or {}).items())
        config.write_text(
            f'log_level = "info"\n[log]\nurl = "kafka://{cluster.bootstrap}"\npartitions = {PARTITIONS}\n'
            # A worker that waits for the others a while must not close windows by its own clock: the check has none.
            f"[kafka]\n{options}[runtime]\nstandbys = 1\n[rollup]\ngrace = 120\nidle_timeout = 0\n"
            "[detect]\npane = 60\nwarm_up = 20\n"
            # Not cadence: what time alone shows is not in the log, which the check runs over again.
            'detectors = ["ensemble", "stuck", "three-sigma"]\nparameters = { ensemble = { warm_up = 50 } }\n'
        )
        setup = set_up(config)
        # Ten lines a second while a broker is away, of which no test says anything.
        logging.getLogger("aiokafka").setLevel(logging.CRITICAL)
        log = KafkaLog(setup.settings.log.url, setup.settings.kafka, role="chaos")
        await log.start()
        world: World | None = None
        try:
            await log.create_topics(topic_specs(setup.settings))
            world = World(cluster, log, setup, config, seed)
            for _ in range(workers):
                world.start_worker()
            await world.wait_working()
            yield world
        finally:
            for worker in [] if world is None else world.workers:
                worker.kill()
            await log.close()
