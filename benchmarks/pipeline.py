"""One run of log → agents → PostgreSQL sink. Prints {"value": messages per second, …}."""

import argparse
import asyncio
import json
import resource
import tempfile
import time
from pathlib import Path

from faust_per_event import run_per_event
from load import fill

from headrace.cli.pipeline import Pipeline
from headrace.cli.settings import Settings
from headrace.engine import logging
from headrace.engine.clock import ManualClock
from headrace.tables.device_types import load_device_types
from headrace.tables.rules import load_rules


async def measure(variant: str, total: int, folder: Path) -> dict[str, float]:
    """Fill the log, then let the variant take everything to the database."""
    clock = ManualClock()
    pipeline = Pipeline(folder, Settings(), load_device_types(), load_rules(), clock)
    async with pipeline:
        await fill(pipeline.intake, clock, total)
        began, cpu = time.perf_counter(), time.process_time()
        if variant == "headrace":
            await pipeline.run(_nothing, asyncio.Event())
        else:
            await run_per_event(pipeline, total)
        seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
        stored = (await pipeline.sink.ledger())["stored"]
    if stored != total:
        raise SystemExit(f"{stored} of {total} messages were stored")
    return {
        "value": total / seconds,
        "cpu_us_per_message": cpu / total * 1e6,
        "rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


async def _nothing(stop: asyncio.Event) -> None:
    """The log is full already."""


def main() -> None:
    """Parse arguments, run, print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--variant", choices=["headrace", "faust"], default="headrace")
    parser.add_argument("--messages", type=int, default=100_000)
    arguments = parser.parse_args()
    logging.configure("warning")
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps(asyncio.run(measure(arguments.variant, arguments.messages, Path(folder)))))


if __name__ == "__main__":
    main()
