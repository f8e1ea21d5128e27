"""Milliseconds from produce to committed row on Kafka: a worker process, and source and sink in this one.

Open loop: messages are due at a fixed rate, and a message's time counts from when it was due, however late the source
was. Prints {"value": p99 in ms, …}.
"""

import argparse
import asyncio
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "scripts"))

import numpy as np
from load import messages
from local_kafka.cluster import Cluster

from headrace.cli.agents import GROUP
from headrace.cli.logs import topic_specs
from headrace.cli.settings import Settings
from headrace.connectors.postgres_server import PostgresServer
from headrace.connectors.timescale.readings_table import TableSpec
from headrace.connectors.timescale.sink import TimescaleSink
from headrace.engine import logging
from headrace.engine.clock import ManualClock, SystemClock
from headrace.engine.intake import Intake
from headrace.engine.kafka.log import KafkaLog
from headrace.engine.sink_runner import SinkRunner
from headrace.schemas import topics
from headrace.schemas.readings import Readings
from headrace.tables.device_types import load_device_types

#: Messages are appended this often, seconds.
TICK = 0.02
#: The first seconds are not counted: connections, tables, caches.
WARM_UP = 5.0


class Probe:
    """Notes when each message was due, and how long it took until its row was committed."""

    def __init__(self) -> None:
        self.due: dict[tuple[str, int], float] = {}
        self.taken: list[float] = []

    def committed(self, readings: Sequence[Readings]) -> None:
        """Called by the sink right after its transaction."""
        now = time.perf_counter()
        for columns in readings:
            for device, stamp in zip(columns.device_ids, columns.times.tolist(), strict=True):
                due = self.due.pop((device, stamp), None)
                if due is not None:
                    self.taken.append(now - due)


async def produce(
    intake: Intake, clock: ManualClock, probe: Probe, rate: int, seconds: float, *, first: int = 0
) -> None:
    """`rate` messages a second from number `first` on, due evenly."""
    source = iter(list(messages(int(rate * seconds), first=first)))
    began, number = time.perf_counter(), 0
    async with asyncio.TaskGroup() as group:
        while chunk := [message for _, message in zip(range(int(rate * TICK)), source, strict=False)]:
            due = began + number / rate
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            keys, stamps, payloads = (list(column) for column in zip(*chunk, strict=True))
            if number / rate >= WARM_UP:
                probe.due |= {(key.decode(), stamp): due for key, stamp in zip(keys, stamps, strict=True)}
            clock.follow(stamps[-1])
            group.create_task(
                intake.append(
                    keys, payloads, device_type="environmental", profile="bench", sources=b"bench", timestamps=stamps
                )
            )
            number += len(chunk)


async def measure(bootstrap: str, folder: Path, rate: int, seconds: float) -> dict[str, float]:
    """Run everything, and the percentiles."""
    settings = Settings.model_validate({"log": {"url": f"kafka://{bootstrap}"}})
    config = folder / "headrace.toml"
    config.write_text(f'log_level = "warning"\n[log]\nurl = "kafka://{bootstrap}"\n')
    log, clock, probe, stop = KafkaLog(settings.log.url, settings.kafka), ManualClock(), Probe(), asyncio.Event()
    await log.start()
    await log.create_topics(topic_specs(settings))
    server = PostgresServer(folder)
    address = await server.start()
    types = load_device_types()
    tables = [TableSpec(name, tuple(each.units)) for name, each in types.items()]
    sink = TimescaleSink(address.connect_arguments(), tables, SystemClock(), on_committed=probe.committed)
    worker = subprocess.Popen([sys.executable, "-m", "headrace.cli.main", "worker", "--config", str(config)])
    try:
        while not await log.owners(GROUP):
            await asyncio.sleep(0.2)
        sinking = asyncio.create_task(SinkRunner(log, sink, SystemClock()).run(stop))
        await produce(Intake(log, clock), clock, probe, rate, WARM_UP + seconds)
        left = time.perf_counter() + 30
        while probe.due and time.perf_counter() < left:
            await asyncio.sleep(0.1)
        stop.set()
        await sinking
    finally:
        worker.terminate()
        worker.wait()
        await log.close()
        await server.stop()
    if probe.due:
        raise SystemExit(f"{len(probe.due)} messages were not stored in {topics.READINGS}")
    p50, p90, p99 = (float(value) * 1000 for value in np.percentile(probe.taken, [50, 90, 99]))
    return {"value": p99, "p50_ms": p50, "p90_ms": p90, "messages": len(probe.taken)}


def main() -> None:
    """Parse arguments, run, print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rate", type=int, default=2_000, help="messages per second")
    parser.add_argument("--seconds", type=float, default=20)
    arguments = parser.parse_args()
    logging.configure("warning")
    with Cluster() as cluster, tempfile.TemporaryDirectory() as folder:
        found = asyncio.run(measure(cluster.bootstrap, Path(folder), arguments.rate, arguments.seconds))
    print(json.dumps(found))


if __name__ == "__main__":
    main()
