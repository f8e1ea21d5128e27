"""One run of a benchmark on a real Kafka broker of its own. Prints {"value": messages per second, …}."""

import argparse
import asyncio
import json
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "scripts"))

import faust
import orjson
from aiokafka import AIOKafkaProducer
from load import fill, messages
from local_kafka.cluster import Cluster

from headrace.cli.agents import GROUP, build_agents
from headrace.cli.logs import topic_specs
from headrace.cli.settings import Settings
from headrace.engine import logging
from headrace.engine.app import App
from headrace.engine.clock import ManualClock
from headrace.engine.intake import Intake
from headrace.engine.kafka.log import KafkaLog
from headrace.engine.kafka.settings import KafkaSettings
from headrace.engine.ledger import lag
from headrace.engine.log import Append, TopicPartition, Transaction
from headrace.engine.partitioner import Partitioner
from headrace.engine.records import Records
from headrace.engine.runtime.garbage import rare_collections
from headrace.schemas import topics
from headrace.tables.device_types import load_device_types
from headrace.tables.rules import load_rules

POLL = 0.05
#: Messages per commit, and as many different ones.
TRANSACTION = 20_000


class Bench:
    """A log on a cluster, and what the variants share.

    Args:
        total: messages.
        partitions: per topic.
    """

    def __init__(self, bootstrap: str, total: int, partitions: int) -> None:
        self.bootstrap = bootstrap
        self.total = total
        #: Messages that are processed before the clock starts: brokers and topics are new, and slow at first.
        self.warm_up = total // 4
        self.settings = Settings.model_validate({"log": {"url": f"kafka://{bootstrap}", "partitions": partitions}})
        self.clock = ManualClock()
        self.log = KafkaLog(self.settings.log.url, KafkaSettings(), self.clock)

    async def __aenter__(self) -> "Bench":
        await self.log.start()
        await self.log.create_topics(topic_specs(self.settings))
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.log.close()

    async def filled(self) -> None:
        """Append the messages, before the clock starts."""
        await fill(Intake(self.log, self.clock), self.clock, self.warm_up + self.total)

    async def run(self, app: App, *passed: str) -> dict[str, float]:
        """Run `app` until it has passed all of these topics; the figures of what it committed since it was warm."""
        stop = asyncio.Event()
        running = asyncio.create_task(app.run(stop))
        while not running.done() and (left := await self.lag(app, passed[0])) > self.total:
            await asyncio.sleep(0.002)
        began, cpu = time.perf_counter(), time.process_time()
        while not running.done() and any([await self.lag(app, topic) for topic in passed]):
            await asyncio.sleep(POLL)
        found = figures(left, began, cpu)
        stop.set()
        await running
        return found

    async def lag(self, app: App, topic: str) -> int:
        """Records that `app` has not committed; all of them before it was given any."""
        return await lag(self.log, app.conf.id, topic)


def figures(messages: int, began: float, cpu: float) -> dict[str, float]:
    """What a variant prints, from its times at the start."""
    seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
    return {"value": messages / seconds, "cpu_us_per_message": cpu / messages * 1e6}


async def pipeline(bench: Bench) -> dict[str, float]:
    """All agents of the demo, in transactions, readings written back to Kafka."""
    await bench.filled()
    app = App(GROUP, bench.log, clock=bench.clock, runtime=bench.settings.runtime)
    app.add(build_agents(bench.settings, load_device_types(), load_rules()))
    await app.create_topics([], partitions=bench.settings.log.partitions)
    return await bench.run(app, topics.RAW, topics.READINGS)


async def count(bench: Bench) -> dict[str, float]:
    """A batch agent that decodes JSON and counts."""
    await bench.filled()
    app = App("count", bench.log, clock=bench.clock)
    counted = 0

    @app.agent(app.batches(topics.RAW))
    async def counting(batches):  # type: ignore[no-untyped-def]
        nonlocal counted
        loads = orjson.loads
        async for batch in batches:
            for value in batch.records.values:
                loads(value)
            counted += len(batch)

    found = await bench.run(app, topics.RAW)
    if counted != bench.warm_up + bench.total:
        raise SystemExit(f"{counted} of {bench.warm_up + bench.total} messages were counted")
    return found


async def faust_count(bench: Bench) -> dict[str, float]:
    """A plain Faust agent that decodes the same JSON and counts, on Faust's own Kafka driver."""
    await bench.filled()
    app = faust.App(
        "faust-count", broker=f"kafka://{bench.bootstrap}", web_enabled=False, topic_disable_leader=True, datadir="."
    )
    app._create_directories = lambda: None  # type: ignore[method-assign]
    counted, began, cpu = 0, 0.0, 0.0

    @app.agent(app.topic(topics.RAW, value_serializer="raw", key_serializer="raw"))
    async def counting(stream):  # type: ignore[no-untyped-def]
        nonlocal counted, began, cpu
        loads = orjson.loads
        async for value in stream:
            if counted == bench.warm_up:
                began, cpu = time.perf_counter(), time.process_time()
            loads(value)
            counted += 1

    await app.start()
    while counted < bench.warm_up + bench.total:
        await asyncio.sleep(POLL)
    found = figures(bench.total, began, cpu)
    await app.stop()
    return found


async def send(bench: Bench) -> dict[str, float]:
    """`AIOKafkaProducer.send` for every message, idempotent, all replicas, compressed: its documented way to batch."""
    producer = AIOKafkaProducer(
        bootstrap_servers=bench.bootstrap,
        enable_idempotence=True,
        compression_type="zstd",
        linger_ms=5,
        max_batch_size=512 << 10,
    )
    await producer.start()
    sample = list(messages(TRANSACTION))
    began, cpu = time.perf_counter(), time.process_time()
    for _ in range(0, bench.total, TRANSACTION):
        sent = [await producer.send(topics.RAW, payload, key=key, timestamp_ms=stamp) for key, stamp, payload in sample]
    await asyncio.gather(*sent)
    found = figures(bench.total, began, cpu)
    await producer.stop()
    return found


async def commit(bench: Bench) -> dict[str, float]:
    """The same messages through `Log.commit`, in transactions, two under way: one written, one being prepared.

    With garbage collection as in every headrace process. `send` has Python's own; with ours it gains about a fifth.
    """
    keys, stamps, payloads = (list(column) for column in zip(*messages(TRANSACTION), strict=True))
    partitioner = Partitioner(bench.log.partitions(topics.RAW))
    await bench.log.commit(Transaction())
    began, cpu = time.perf_counter(), time.process_time()
    under_way = asyncio.Semaphore(2)

    async def write() -> None:
        async with under_way:
            records = Records(keys, payloads, stamps)
            rows = partitioner.split(keys)
            appends = [Append(TopicPartition(topics.RAW, number), records.take(mine)) for number, mine in rows.items()]
            await bench.log.commit(Transaction(appends=appends))

    with rare_collections(bench.settings.runtime.collect_after):
        await asyncio.gather(*(write() for _ in range(0, bench.total, TRANSACTION)))
    return figures(bench.total, began, cpu)


VARIANTS: dict[str, Callable[[Bench], Awaitable[dict[str, float]]]] = {
    "pipeline": pipeline,
    "count": count,
    "faust-count": faust_count,
    "send": send,
    "commit": commit,
}


async def measure(variant: str, bootstrap: str, total: int, partitions: int) -> dict[str, float]:
    """One figure."""
    async with Bench(bootstrap, total, partitions) as bench:
        return await VARIANTS[variant](bench)


def main() -> None:
    """Parse arguments, run, print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--variant", choices=list(VARIANTS), default="pipeline")
    parser.add_argument("--messages", type=int, default=100_000)
    parser.add_argument("--partitions", type=int, default=4)
    arguments = parser.parse_args()
    logging.configure("warning")
    with Cluster() as cluster:
        found = asyncio.run(measure(arguments.variant, cluster.bootstrap, arguments.messages, arguments.partitions))
    print(json.dumps(found))


if __name__ == "__main__":
    main()
