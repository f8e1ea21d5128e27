"""Seconds from the start of a worker process to the first commit of its work. Prints {"value": seconds, …}.

A message waits in the log. Variants: `imports`, an interpreter that imports what headrace stands on and nothing of
headrace, and ends; `cold`, a log in which nothing else ever was; `stopped`, after `--messages` that a worker went
through before it was stopped; `killed`, a worker that was killed with -9 in the middle of them: until the next commit.
"""

import argparse
import asyncio
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "scripts"))

from load import fill
from local_kafka.cluster import Cluster

from headrace.cli.agents import GROUP
from headrace.cli.logs import topic_specs
from headrace.cli.settings import Settings
from headrace.engine import logging
from headrace.engine.clock import ManualClock
from headrace.engine.embedded.log import EmbeddedLog
from headrace.engine.intake import Intake
from headrace.engine.kafka.log import KafkaLog
from headrace.engine.ledger import lag
from headrace.engine.log import Log
from headrace.schemas import topics

IMPORTS = "import faust, aiokafka, asyncpg, click, msgspec, numpy, orjson, pydantic, pydantic_settings, rich, structlog"
POLL = 0.002
#: Seconds that a worker gets to commit.
PATIENCE = 60.0


class World:
    """A log, and how a worker on it is started."""

    def __init__(self, log: Log, options: list[str]) -> None:
        self.log = log
        self._command = [sys.executable, "-m", "headrace.cli.main", "worker", *options]
        self._clock = ManualClock()
        self._count = 0

    def start(self) -> subprocess.Popen[bytes]:
        """A worker."""
        return subprocess.Popen(self._command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    async def append(self, count: int) -> None:
        """So many messages, after those that are there."""
        await fill(Intake(self.log, self._clock), self._clock, count, first=self._count)
        self._count += count

    async def left(self) -> int:
        """Messages that are not committed."""
        return await lag(self.log, GROUP, topics.RAW)

    async def until(self, worker: subprocess.Popen[bytes], most: int) -> float:
        """When at most so many messages are left, as `time.perf_counter`."""
        patience = time.perf_counter() + PATIENCE
        while await self.left() > most:
            if worker.poll() is not None:
                raise SystemExit(f"the worker ended with {worker.returncode}")
            if time.perf_counter() > patience:
                raise SystemExit(f"{await self.left()} messages left after {PATIENCE:g} s, not {most}")
            await asyncio.sleep(POLL)
        return time.perf_counter()


@asynccontextmanager
async def opened(on_kafka: bool, folder: Path) -> AsyncIterator[World]:
    """An empty log, in a folder or on a Kafka of its own."""
    config = folder / "headrace.toml"
    if on_kafka:
        with Cluster() as cluster:
            url = f"kafka://{cluster.bootstrap}"
            config.write_text(f'log_level = "error"\n[log]\nurl = "{url}"\n[kafka]\ninstance = "bench"\n')
            log = KafkaLog(url, Settings().kafka)
            await log.start()
            await log.create_topics(topic_specs(Settings()))
            yield World(log, ["--config", str(config)])
            await log.close()
    else:
        config.write_text('log_level = "error"\n')
        embedded = EmbeddedLog(folder / "data")
        await embedded.create_topics(topic_specs(Settings()))
        yield World(embedded, ["--config", str(config), "--data", str(folder / "data")])
        await embedded.close()


def imports() -> float:
    """An interpreter that imports what headrace stands on."""
    began = time.perf_counter()
    subprocess.run([sys.executable, "-c", IMPORTS], check=True)
    return time.perf_counter() - began


async def first_commit(world: World, variant: str, total: int) -> float:
    """Seconds from the start of the measured worker to its first commit."""
    if variant in ("stopped", "killed"):
        await world.append(total)
        worker = world.start()
        await world.until(worker, 0 if variant == "stopped" else total // 2)
        worker.terminate() if variant == "stopped" else worker.kill()
        worker.wait()
    left = await world.left()
    if not left:
        await world.append(1)
        left = 1
    began = time.perf_counter()
    worker = world.start()
    try:
        return await world.until(worker, left - 1) - began
    finally:
        worker.kill()
        worker.wait()


async def measure(arguments: argparse.Namespace) -> dict[str, float]:
    """One run."""
    if arguments.variant == "imports":
        return {"value": imports()}
    with tempfile.TemporaryDirectory() as folder:
        async with opened(arguments.kafka, Path(folder)) as world:
            return {"value": await first_commit(world, arguments.variant, arguments.messages)}


def main() -> None:
    """Parse arguments, run, print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--variant", choices=["imports", "cold", "stopped", "killed"], default="cold")
    parser.add_argument("--messages", type=int, default=100_000)
    parser.add_argument("--kafka", action="store_true", help="on a Kafka of its own; else on the embedded log")
    arguments = parser.parse_args()
    logging.configure("error")
    print(json.dumps(asyncio.run(measure(arguments))))


if __name__ == "__main__":
    main()
