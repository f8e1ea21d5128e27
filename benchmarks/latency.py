"""Milliseconds from when a message was due to its committed row, at a share of capacity. Prints {"value": p99, …}.

The whole path in one process: embedded log, agents, PostgreSQL, and the source too. First the capacity is measured, by
a source that goes on as fast as it is let; then an open loop sends that share of it, and goes on however late things
are: a message's time counts from when it was due, so that a stall counts for all that were due meanwhile.
"""

import argparse
import asyncio
import json
import tempfile
import time
from pathlib import Path

import numpy as np
from kafka_latency import WARM_UP, Probe, produce
from load import fill

from headrace.cli.pipeline import Pipeline
from headrace.cli.settings import Settings
from headrace.engine import logging
from headrace.engine.clock import ManualClock
from headrace.tables.device_types import load_device_types
from headrace.tables.rules import load_rules

#: Messages before anything counts, of which connections, tables and caches are made.
FIRST = 20_000
#: The source waits while the agents are this far behind, where the capacity is measured.
MOST_BEHIND = 20_000


async def measure(load: float, total: int, seconds: float, folder: Path) -> dict[str, float]:
    """Capacity from `total` messages, then the percentiles."""
    clock, probe = ManualClock(), Probe()
    found: dict[str, float] = {}
    pipeline = Pipeline(
        folder, Settings(), load_device_types(), load_rules(), clock, on_committed=probe.committed
    )  # fmt: skip

    async def passed() -> None:
        while not await pipeline.arrived():
            await asyncio.sleep(0.02)

    async def feed(_stop: asyncio.Event) -> None:
        await fill(pipeline.intake, clock, FIRST)
        await passed()
        began = time.perf_counter()
        await fill(pipeline.intake, clock, total, lambda: pipeline.wait_capacity(MOST_BEHIND), first=FIRST)
        await passed()
        capacity = total / (time.perf_counter() - began)
        found.update(capacity=capacity, rate=load * capacity)
        await produce(
            pipeline.intake, clock, probe, int(load * capacity), WARM_UP + seconds, first=FIRST + total
        )  # fmt: skip

    async with pipeline:
        await pipeline.run(feed, asyncio.Event())
    if probe.due:
        raise SystemExit(f"{len(probe.due)} messages were not stored")
    p50, p90, p99, p999 = (float(each) * 1000 for each in np.percentile(probe.taken, [50, 90, 99, 99.9]))
    more = {"p50_ms": p50, "p90_ms": p90, "p999_ms": p999, "longest_ms": max(probe.taken) * 1000}
    return {"value": p99, **more, **found, "messages": len(probe.taken)}


def main() -> None:
    """Parse arguments, run, print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--load", type=float, default=50, help="percent of the capacity")
    parser.add_argument("--messages", type=int, default=100_000, help="to measure the capacity")
    parser.add_argument("--seconds", type=float, default=20)
    arguments = parser.parse_args()
    logging.configure("warning")
    with tempfile.TemporaryDirectory() as folder:
        found = measure(arguments.load / 100, arguments.messages, arguments.seconds, Path(folder))
        print(json.dumps(asyncio.run(found)))


if __name__ == "__main__":
    main()
