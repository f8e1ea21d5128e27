"""What changes of a compacted topic cost on the embedded log: one partition, keys at random, a commit at a time.

Prints {"value": µs of CPU per changed entry, …}: CPU of this process but for making the entries; wall time and bytes
written per entry; ms that a commit takes; entries restored a second, and a second of CPU; growth of resident memory.
"""

import argparse
import asyncio
import json
import os
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import psutil

from headrace.engine.embedded.log import EmbeddedLog
from headrace.engine.log import Changes, TopicPartition, TopicSpec, Transaction

TARGET = TopicPartition("state", 0)


def some_keys(count: int) -> list[bytes]:
    """Keys of no order."""
    return [os.urandom(8).hex().encode() + b"|device-%07d" % number for number in range(count)]


class Spent(NamedTuple):
    """Seconds: that each commit took, and of CPU for making entries."""

    commits: list[float]
    making: float


async def change(log: EmbeddedLog, keys: list[bytes], indices: np.ndarray, length: int, interval: float) -> Spent:
    """A commit per row of `indices`, `interval` seconds apart or more."""
    noise, times, making = os.urandom(length + (1 << 20)), list[float](), 0.0
    for number, row in enumerate(indices):
        cpu, start = time.thread_time(), number * 7919 % (1 << 19)
        entries = {keys[each]: noise[start + place : start + place + length] for place, each in enumerate(row.tolist())}
        making += time.thread_time() - cpu
        began = time.perf_counter()
        await log.commit(Transaction(changes=[Changes(TARGET, entries)]))
        times.append(time.perf_counter() - began)
        await asyncio.sleep(max(0.0, interval - times[-1]))
    return Spent(times, making)


async def measure(folder: Path, arguments: argparse.Namespace) -> dict[str, float]:
    """Every key once, then `commits` of some at random, then all read back."""
    log, process, rng = EmbeddedLog(folder), psutil.Process(), np.random.default_rng(1)
    await log.create_topics([TopicSpec(TARGET.topic, 1, compacted=True)])
    keys, size = some_keys(arguments.keys), arguments.entries
    await change(log, keys, np.arange(arguments.keys // size * size).reshape(-1, size), arguments.bytes, 0)
    indices = rng.integers(0, arguments.keys, (arguments.commits, size))
    changed = sum(len(set(row.tolist())) for row in indices)
    before, written = process.memory_info().rss, process.io_counters().write_chars
    began, cpu = time.perf_counter(), time.process_time()
    spent = await change(log, keys, indices, arguments.bytes, arguments.interval)
    cpu, seconds = time.process_time() - cpu - spent.making, time.perf_counter() - began
    written, memory = process.io_counters().write_chars - written, process.memory_info().rss - before
    for _ in range(arguments.settle):  # small commits, for the merge in hand to end
        await log.commit(Transaction(changes=[Changes(TARGET, {keys[0]: b""})]))
    began, restored, restore_cpu = time.perf_counter(), 0, time.process_time()
    async for chunk in log.restore(TARGET):
        restored += len(chunk)
    restoring, restore_cpu = time.perf_counter() - began, time.process_time() - restore_cpu
    await log.close()
    median, late, longest = np.percentile(spent.commits, [50, 99, 100]) * 1000
    return {
        "value": cpu / changed * 1e6, "wall_us": seconds / changed * 1e6, "bytes_written": written / changed,
        "commit_ms": median, "commit_p99_ms": late, "commit_longest_ms": longest,
        "restored_per_s": restored / restoring, "restored_per_cpu_s": restored / restore_cpu, "memory_mb": memory / 1e6,
    }  # fmt: skip


def main() -> None:
    """Parse arguments, run, print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--keys", type=int, default=200_000)
    parser.add_argument("--entries", type=int, default=10_000, help="per commit")
    parser.add_argument("--commits", type=int, default=100)
    parser.add_argument("--bytes", type=int, default=300, help="of a value")
    parser.add_argument("--interval", type=float, default=0.0, help="seconds between commits, at least")
    parser.add_argument("--settle", type=int, default=0, help="small commits before all is read back")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        figures = asyncio.run(measure(Path(folder), arguments))
    print(json.dumps({name: round(figure, 3) for name, figure in figures.items()}))


if __name__ == "__main__":
    main()
