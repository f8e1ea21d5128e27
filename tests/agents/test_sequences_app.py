"""Sequence numbers in an app on a log: workers that die at every step change no count."""

import asyncio
from pathlib import Path
from random import Random
from typing import Any

import orjson

from headrace.agents.ingest import Ingest
from headrace.engine.app import App
from headrace.engine.batch import Batch
from headrace.engine.embedded.log import EmbeddedLog
from headrace.engine.log import Append, TopicPartition, TopicSpec, Transaction
from headrace.engine.runtime.settings import RuntimeSettings
from headrace.engine.testkit import drive
from headrace.schemas import topics
from tests.agents.test_sequences import METER, T0, Row, ingest, log_of, newest
from tests.engine.runtime.lives import Life

FAST = RuntimeSettings(linger=0, linger_records=0, commit_interval=0.001, poll_timeout=0.02, max_batch_records=10)
DEATHS = 12


class Counting(Ingest):
    """Counts its batches."""

    batches = 0

    def process(self, batch: Batch) -> None:
        """As `Ingest`."""
        Counting.batches += 1
        super().process(batch)


async def app_of(log: EmbeddedLog) -> App:
    """With ingest."""
    app = App("g", log, runtime=FAST)
    app.add([Counting({METER.name: METER})])
    await app.create_topics(specs(), partitions=1)
    return app


def specs() -> list[TopicSpec]:
    """The topics that it needs."""
    plain = [TopicSpec(name, 1) for name in (topics.RAW, topics.READINGS, topics.CONFLICTS, topics.DEAD_LETTERS)]
    return [*plain, TopicSpec(topics.SEQUENCES, 1, compacted=True)]


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
    for death in range(DEATHS):
        part = records.slice(death * len(records) // DEATHS, (death + 1) * len(records) // DEATHS)

        async def prepare(log: EmbeddedLog, part: Any = part) -> None:
            await log.create_topics(specs())
            for place in range(0, len(part), 10):
                append = Append(TopicPartition(topics.RAW, 0), part.slice(place, place + 10))
                await log.commit(Transaction([append]))

        least = Counting.batches + 1 + death % 3
        Life(tmp_path, prepare, app_of, topics.RAW).run(1 + death * 5 % 24, lambda: Counting.batches >= least)  # noqa: B023

    async def nothing(log: EmbeddedLog) -> None:
        await log.create_topics(specs())

    Life(tmp_path, nothing, app_of, topics.RAW).run()

    assert asyncio.run(read(tmp_path)) == newest(drive(ingest(), records))


async def read(folder: Path) -> dict[str, Any]:
    """The streams of each device, as the compacted topic has them."""
    log = EmbeddedLog(folder)
    await log.create_topics(specs())
    found: dict[str, Any] = {}
    async for entries in log.restore(TopicPartition(topics.SEQUENCES, 0)):
        found |= {key.decode(): orjson.loads(value)["streams"] for key, value in entries}
    await log.close()
    return found
