"""One run of the pipeline over many messages; prints {"value": largest resident memory in MB, "series_mb": …}."""

import argparse
import asyncio
import json
import tempfile
from pathlib import Path

import psutil
from load import fill

from headrace.cli.pipeline import Pipeline
from headrace.cli.settings import Settings
from headrace.engine import logging
from headrace.engine.clock import ManualClock
from headrace.tables.device_types import load_device_types
from headrace.tables.rules import load_rules

SAMPLE_EVERY = 0.25
#: The replay waits while the agents are this far behind, as `headrace replay` does.
MOST_BEHIND = 50_000


async def measure(total: int, folder: Path) -> dict[str, object]:
    """Fill and process at the same time, looking at this process's resident memory all the while."""
    clock = ManualClock()
    samples: list[float] = []

    async def watch() -> None:
        process = psutil.Process()
        while True:
            samples.append(process.memory_info().rss / 1e6)
            await asyncio.sleep(SAMPLE_EVERY)

    async with Pipeline(folder, Settings(), load_device_types(), load_rules(), clock) as pipeline:
        watching = asyncio.create_task(watch())

        async def feed(stop: asyncio.Event) -> None:
            await fill(pipeline.intake, clock, total, lambda: pipeline.wait_capacity(MOST_BEHIND))

        await pipeline.run(feed, asyncio.Event())
        watching.cancel()
    step = max(1, len(samples) // 10)
    return {"value": max(samples), "series_mb": [round(sample) for sample in samples[::step]]}


def main() -> None:
    """Parse arguments, run, print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--messages", type=int, default=250_000)
    arguments = parser.parse_args()
    logging.configure("warning")
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps(asyncio.run(measure(arguments.messages, Path(folder)))))


if __name__ == "__main__":
    main()
