"""Milliseconds from an alarm to `alerts.v1` during a flood: one worker, source and agents in one process.

Telemetry comes at a given rate, or as fast as it takes to keep a given backlog in front of the agents, however fast
they work. Open loop: alarms are due at a fixed rate, and
an alarm's time counts from when it was due. Each is of another device, and triggers one alert. Prints
{"value": p99 in ms, …}.
"""

import argparse
import asyncio
import contextlib
import itertools
import json
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "scripts"))

import numpy as np
import orjson
from load import CHUNK, fill, messages
from local_kafka.cluster import Cluster

from headrace.cli.agents import GROUP, build_agents
from headrace.cli.logs import topic_specs
from headrace.cli.settings import Settings
from headrace.engine import logging
from headrace.engine.app import App
from headrace.engine.clock import ManualClock
from headrace.engine.embedded.log import EmbeddedLog
from headrace.engine.intake import Intake
from headrace.engine.kafka.log import KafkaLog
from headrace.engine.ledger import lag
from headrace.engine.log import Append, Log, TopicPartition, Transaction
from headrace.engine.partitioner import Partitioner
from headrace.engine.records import Records
from headrace.schemas import topics
from headrace.schemas.rule import AlertRule
from headrace.tables.device_types import load_device_types

#: Telemetry is appended this often, seconds.
TICK = 0.02
#: Messages a second that are made beforehand to keep the backlog: more than the agents can do.
MOST_RATE = 80_000
#: The first seconds are not counted: the agents start.
WARM_UP = 3.0
#: Seconds that alarms of the ordinary lane get to come through.
PATIENCE = 200.0
RULE = AlertRule.model_validate({
    "rule_id": "hot", "name": "Hot", "severity": "critical", "cooldown_period": 0,
    "condition": {"metric": "temperature", "operator": ">", "threshold": 80, "duration": 0},
})  # fmt: skip


class Probe:
    """Notes when each device's alarm was due, and how long it took to `topic`, once that was durable."""

    def __init__(self, topic: str) -> None:
        self.topic = topic
        self.due: dict[bytes, float] = {}
        self.taken: dict[bytes, float] = {}

    def committed(self, transaction: Transaction) -> None:
        """Called right after a commit."""
        now = time.perf_counter()
        for append in transaction.appends:
            if append.target.topic == self.topic:
                for key in append.records.keys:
                    if key in self.due:
                        self.taken.setdefault(key, now - self.due[key])


def probed(log: Log, probes: list[Probe]) -> Log:
    """`log`, telling the probes of its commits."""
    commit = log.commit

    async def noted(transaction: Transaction) -> Mapping[TopicPartition, int]:
        lasts = await commit(transaction)
        for probe in probes:
            probe.committed(transaction)
        return lasts

    log.commit = noted  # type: ignore[method-assign]
    return log


async def flood(
    log: Log, clock: ManualClock, given: argparse.Namespace, telemetry: Iterator[tuple[bytes, int, bytes]]
) -> int:
    """Telemetry for the whole run, at a rate or to keep the backlog: how many messages."""
    intake, number = Intake(log, clock), 0
    began = time.perf_counter()
    while (passed := time.perf_counter() - began) < WARM_UP + given.seconds:
        if given.flood:
            missing = int(passed * given.flood) - number
        else:
            missing = given.backlog - await lag(log, GROUP, topics.RAW)
        if missing <= given.flood * TICK:
            await asyncio.sleep(TICK)
            continue
        sent = list(itertools.islice(telemetry, min(missing, CHUNK)))
        if not sent:
            raise SystemExit(f"the agents did more than {MOST_RATE:,} messages a second: no backlog was left")
        keys, stamps, payloads = (list(each) for each in zip(*sent, strict=True))
        clock.follow(stamps[-1])
        await intake.append(
            keys, payloads, device_type="environmental", profile="bench", sources=b"bench", timestamps=stamps
        )
        number += len(sent)
    return number


async def alarm(log: Log, clock: ManualClock, probes: list[Probe], rate: int, seconds: float, lanes: list[str]) -> None:
    """An alarm of another device `rate` times a second, into these topics."""
    partitioner = Partitioner(log.partitions(topics.RAW))
    headers = {topics.DEVICE_TYPE: b"environmental", topics.PROFILE: b"bench", topics.SOURCE: b"bench"}
    began = time.perf_counter() + WARM_UP
    async with asyncio.TaskGroup() as group:
        for number in range(int(rate * seconds)):
            due = began + number / rate
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            key, stamp = b"alarm-%d" % number, clock.now_ms()
            for probe in probes:
                probe.due[key] = due
            payload = orjson.dumps({"timestamp": stamp, "temp": 84.0, "humidity": 50.0})
            records = Records([key], [payload], [stamp], {**headers, topics.MESSAGE_ID: [b"id-" + key]})
            partition = partitioner.partition(key)
            appends = [Append(TopicPartition(topic, partition), records) for topic in lanes]
            group.create_task(log.commit(Transaction(appends)))


@contextlib.asynccontextmanager
async def opened(on_kafka: bool) -> AsyncIterator[Log]:
    """An empty log, in a folder or on a Kafka of its own."""
    if on_kafka:
        with Cluster() as cluster:
            log = KafkaLog(f"kafka://{cluster.bootstrap}", Settings().kafka)
            await log.start()
            yield log
            await log.close()
    else:
        with tempfile.TemporaryDirectory() as folder:
            embedded = EmbeddedLog(Path(folder))
            yield embedded
            await embedded.close()


async def measure(arguments: argparse.Namespace) -> dict[str, float]:
    """Run everything, and the percentiles."""
    settings, clock, priority = Settings(), ManualClock(), arguments.variant == "priority"
    readings = Probe(topics.READINGS_PRIORITY if priority else topics.READINGS)
    probes = [readings, Probe(topics.ALERTS)]
    async with opened(arguments.kafka) as plain:
        log = probed(plain, probes)
        app = App(GROUP, log, clock=clock, runtime=settings.runtime)
        app.add(build_agents(settings, load_device_types(), [RULE]))
        await app.create_topics(topic_specs(settings), partitions=settings.log.partitions)
        waiting = 0 if arguments.flood else arguments.backlog
        await fill(Intake(log, clock), clock, waiting)
        made = int((WARM_UP + arguments.seconds) * (arguments.flood or MOST_RATE))
        telemetry = iter(list(messages(made, first=waiting)))
        stop = asyncio.Event()
        running = asyncio.create_task(app.run(stop))
        while not app.assigned or app.rebalancing:
            await asyncio.sleep(0.05)
        lanes = [topics.RAW, topics.RAW_PRIORITY] if priority else [topics.RAW]
        began = time.perf_counter()
        async with asyncio.TaskGroup() as group:
            flooding = group.create_task(flood(log, clock, arguments, telemetry))
            group.create_task(alarm(log, clock, probes, arguments.rate, arguments.seconds, lanes))
        seconds, left = time.perf_counter() - began, await lag(log, GROUP, topics.RAW)
        done = waiting + flooding.result() - left
        until = time.perf_counter() + PATIENCE
        while any(len(probe.taken) < len(probe.due) for probe in probes) and time.perf_counter() < until:
            await asyncio.sleep(0.1)
        stop.set()
        await running
    if any(len(probe.taken) < len(probe.due) for probe in probes):
        raise SystemExit(f"{len(probes[1].taken)} of {len(probes[1].due)} alarms became alerts")
    to_readings, to_alerts = (np.array(list(probe.taken.values())) * 1000 for probe in probes)
    return {
        "value": float(np.percentile(to_alerts, 99)),
        "p50_ms": float(np.percentile(to_alerts, 50)),
        "longest_ms": float(to_alerts.max()),
        "readings_p99_ms": float(np.percentile(to_readings, 99)),
        "alarms": len(to_alerts),
        "telemetry_per_second": done / seconds,
        "backlog": left,
    }


def main() -> None:
    """Parse arguments, run, print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--variant", choices=["priority", "ordinary"], default="priority")
    parser.add_argument("--kafka", action="store_true", help="on a Kafka of its own; else on the embedded log")
    telemetry = parser.add_mutually_exclusive_group()
    telemetry.add_argument(
        "--backlog", type=int, default=200_000, help="messages that wait for the agents all the time"
    )
    telemetry.add_argument("--flood", type=int, default=0, help="messages a second instead, come what may")
    parser.add_argument("--rate", type=int, default=100, help="alarms per second")
    parser.add_argument("--seconds", type=float, default=8)
    arguments = parser.parse_args()
    logging.configure("error")
    print(json.dumps(asyncio.run(measure(arguments))))


if __name__ == "__main__":
    main()
