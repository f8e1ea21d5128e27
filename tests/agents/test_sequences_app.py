"""Sequence numbers in an app on a log: workers that die at every step change no count."""

import asyncio
from pathlib import Path
from random import Random
from typing import Any

import orjson

from headrace.engine.log import TopicPartition
from headrace.engine.testkit import drive
from headrace.schemas import topics
from tests.agents.ingest_lives import reopened, work_through
from tests.agents.test_sequences import T0, Row, ingest, log_of, newest

DEATHS = 12


def history(count: int) -> list[Row]:
    """Numbers of three devices with losses, repeats, latecomers and new beginnings."""
    random = Random(7)
    rows: list[Row] = []
    numbers = {"a": 0, "b": 100, "c": 250}
    for place in range(count):
        device = random.choice("abc")
        step = random.choice([1, 1, 1, 2, 5, 0, -3, -40])
        numbers[device] = (numbers[device] + step) % 256
        rows.append((device, numbers[device], T0 + place if step > 0 or step == -40 else T0))
    return rows


def test_death_at_every_step_changes_no_count(tmp_path: Path) -> None:
    """Workers die a few steps of their event loop after some batch: the topic ends as if nobody had."""
    records = log_of(history(600))

    work_through(tmp_path, records, DEATHS)

    assert asyncio.run(read(tmp_path)) == newest(drive(ingest(), records))


async def read(folder: Path) -> dict[str, Any]:
    """The streams of each device, as the compacted topic has them."""
    found: dict[str, Any] = {}
    async with reopened(folder) as log:
        async for entries in log.restore(TopicPartition(topics.SEQUENCES, 0)):
            found |= {key.decode(): orjson.loads(value)["streams"] for key, value in entries}
    return found
