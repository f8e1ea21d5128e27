"""Resident memory of one run of the pipeline. Prints {"value": the largest in MB, "bytes_per_million": …, …}.

As fast as the agents go, or `--rate` messages a second for as long as `--messages` last: a soak. The slope is that of
a line through the medians of ten stretches of the second half, with its 95 % confidence interval: stretches, because
one sample says what the one before it said.
"""

import argparse
import asyncio
import json
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import numpy as np
import psutil
from load import CHUNK, fill

from headrace.cli.pipeline import Pipeline
from headrace.cli.settings import Settings
from headrace.engine import logging
from headrace.engine.clock import ManualClock
from headrace.schemas import topics
from headrace.tables.device_types import load_device_types
from headrace.tables.rules import load_rules

SAMPLE_EVERY = 0.25
#: The replay waits while the agents are this far behind, as `headrace replay` does.
MOST_BEHIND = 50_000
STRETCHES = 10
#: Student's t, 97.5 %, for a line through that many points.
T_975 = 2.306


def slope(x: Sequence[float], y: Sequence[float]) -> tuple[float, float]:
    """Of a line through the medians of ten stretches, and half the width of its 95 % confidence interval."""
    stretches = [
        (float(np.median(one)), float(np.median(other)))
        for one, other in zip(np.array_split(x, STRETCHES), np.array_split(y, STRETCHES), strict=True)
    ]
    places, values = np.array(stretches).T
    away = places - places.mean()
    squares = float((away**2).sum())
    found = float((away * values).sum()) / squares
    left = values - values.mean() - found * away
    return found, T_975 * float(np.sqrt((left**2).sum() / (STRETCHES - 2) / squares))


def paced(rate: float) -> Callable[[], Awaitable[None]]:
    """Waits until a piece of messages is due."""
    began, pieces = time.perf_counter(), 0

    async def wait() -> None:
        nonlocal pieces
        await asyncio.sleep(max(0.0, began + pieces * CHUNK / rate - time.perf_counter()))
        pieces += 1

    return wait


async def measure(total: int, rate: float, folder: Path) -> dict[str, object]:
    """Fill and process at the same time, looking at this process's resident memory all the while."""
    clock = ManualClock()
    samples: list[tuple[float, float, float]] = []

    async def watch(pipeline: Pipeline) -> None:
        process = psutil.Process()
        while True:
            accepted = sum((await pipeline.log.end_offsets(topics.RAW)).values())
            samples.append((time.perf_counter(), accepted, process.memory_info().rss / 1e6))
            await asyncio.sleep(SAMPLE_EVERY)

    async with Pipeline(folder, Settings(), load_device_types(), load_rules(), clock) as pipeline:
        watching = asyncio.create_task(watch(pipeline))

        async def feed(stop: asyncio.Event) -> None:
            wait = paced(rate) if rate else lambda: pipeline.wait_capacity(MOST_BEHIND)
            await fill(pipeline.intake, clock, total, wait)

        await pipeline.run(feed, asyncio.Event())
        watching.cancel()
    times, accepted, sizes = (np.array(column) for column in zip(*samples, strict=True))
    half, step = len(samples) // 2, max(1, len(samples) // 10)
    found: dict[str, object] = {
        "value": float(sizes.max()),
        "end_mb": float(np.median(sizes[-len(sizes) // 10 :])),
        "series_mb": [round(size) for size in sizes[::step].tolist()],
        "seconds": float(times[-1] - times[0]),
    }
    if half >= STRETCHES:
        a_second, wide = slope((times[half:] - times[0]).tolist(), sizes[half:].tolist())
        found |= {
            "mb_per_hour": a_second * 3600,
            "mb_per_hour_least": (a_second - wide) * 3600,
            "mb_per_hour_most": (a_second + wide) * 3600,
        }
    # At the end nothing comes in: time goes on, messages do not.
    last = int(np.argmax(accepted)) + 1
    coming = slice(last // 2, last)
    if last - last // 2 >= STRETCHES:
        found["bytes_per_million"] = slope(accepted[coming].tolist(), sizes[coming].tolist())[0] * 1e12
    return found


def main() -> None:
    """Parse arguments, run, print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--messages", type=int, default=250_000)
    parser.add_argument("--rate", type=float, default=0, help="messages per second; as fast as it goes if left out")
    parser.add_argument("--minutes", type=float, help="so long at that rate, instead of --messages")
    arguments = parser.parse_args()
    if arguments.minutes and not arguments.rate:
        parser.error("--minutes needs --rate")
    total = int(arguments.minutes * 60 * arguments.rate) if arguments.minutes else arguments.messages
    logging.configure("warning")
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps(asyncio.run(measure(total, arguments.rate, Path(folder)))))


if __name__ == "__main__":
    main()
