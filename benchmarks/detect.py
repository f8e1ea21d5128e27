"""One run of detection on readings of 1,000 devices × 4 measures. Prints {"value": measures per second, …}.

`ship` is what ships (ensemble, stuck, cadence), `ensemble` the default detector alone, both with their changelog every
five batches; `loop` is a plain Python loop over readings with a running mean and deviation per series.
"""

import argparse
import json
import time
from collections.abc import Callable, Iterator
from math import sqrt

import numpy as np

from headrace.agents.detect import DEFAULT, build_detect
from headrace.engine.batch import Batch, Shared
from headrace.engine.testkit import fetched, reading_records
from headrace.schemas import topics
from headrace.schemas.readings import Readings
from headrace.tables.device_types import load_device_types

START_MS, INTERVAL_MS = 1_750_000_000_000, 60_000
BATCH = 5_000
BATCHES_PER_COMMIT = 5
MEASURES = ("temperature", "humidity", "co2", "pm25")


def batches(total: int, devices: int) -> Iterator[Batch]:
    """Readings in time order, every device once a minute, decoded as other agents of the topic have them already."""
    random = np.random.default_rng(7)
    names = [f"sensor-{number:05d}" for number in range(devices)]
    for start in range(0, total, BATCH):
        number = np.arange(start, min(start + BATCH, total))
        readings = Readings(
            "environmental",
            np.arange(len(number)),
            [names[device] for device in (number % devices).tolist()],
            START_MS + number // devices * INTERVAL_MS,
            [str(each) for each in number.tolist()],
            {name: 20 + np.sin(number / devices / 60) + random.normal(0, 0.3, len(number)) for name in MEASURES},
        )
        batch = Batch(Shared(fetched(reading_records(readings), topics.READINGS, base_offset=start)))
        batch.columns()
        yield batch


def headrace(names: tuple[str, ...]) -> Callable[[Batch], None]:
    """The agent, with a commit every few batches."""
    detect, done = build_detect(names, {}, load_device_types()), [0]

    def run(batch: Batch) -> None:
        detect.process(batch)
        batch.finish()
        done[0] += 1
        if done[0] % BATCHES_PER_COMMIT == 0:
            for table in detect.tables:
                table.changes(0)

    return run


def loop() -> Callable[[Batch], None]:
    """The baseline: 3 sigma over all readings so far, one after the other."""
    series: dict[tuple[str, str], list[float]] = {}

    def run(batch: Batch) -> None:
        for reading in batch.readings():
            for name, value in reading.measures.items():
                state = series.setdefault((reading.device_id, name), [0.0, 0.0, 0.0])
                count, mean, squares = state
                if count > 50 and abs(value - mean) > 3 * sqrt(squares / count):
                    batch.send("anomalies", reading.device_id.encode(), b"{}", row=reading.row)
                distance = value - mean
                mean += distance / (count + 1)
                state[:] = [count + 1, mean, squares + distance * (value - mean)]

    return run


def main() -> None:
    """Parse arguments, run, print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--variant", choices=["ship", "ensemble", "loop"], default="ship")
    parser.add_argument("--readings", type=int, default=200_000)
    parser.add_argument("--devices", type=int, default=1_000)
    arguments = parser.parse_args()
    run = {"ship": lambda: headrace(DEFAULT), "ensemble": lambda: headrace(("ensemble",)), "loop": loop}[
        arguments.variant
    ]()
    spent = 0.0
    for batch in batches(arguments.readings, arguments.devices):
        began = time.process_time()
        run(batch)
        spent += time.process_time() - began
    print(json.dumps({"value": len(MEASURES) * arguments.readings / spent, "cpu_seconds": spent}))


if __name__ == "__main__":
    main()
