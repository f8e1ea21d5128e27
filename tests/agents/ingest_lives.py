"""Ingest in an app on a log, in workers that die at every step."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from headrace.agents.ingest import Ingest
from headrace.engine.app import App
from headrace.engine.batch import Batch
from headrace.engine.embedded.log import EmbeddedLog
from headrace.engine.log import Append, TopicPartition, TopicSpec, Transaction
from headrace.engine.records import Records
from headrace.engine.runtime.settings import RuntimeSettings
from headrace.schemas import topics
from tests.agents.test_sequences import METER
from tests.engine.runtime.lives import Life

FAST = RuntimeSettings(linger=0, linger_records=0, commit_interval=0.001, poll_timeout=0.02, max_batch_records=10)


class Counting(Ingest):
    """Counts its batches."""

    batches = 0

    def process(self, batch: Batch) -> None:
        """As `Ingest`."""
        Counting.batches += 1
        super().process(batch)


def work_through(folder: Path, records: Records, deaths: int) -> None:
    """Append `records` in parts. After each a worker dies, a few steps of its loop after some batch; one more lives."""
    for death in range(deaths):
        part = records.slice(death * len(records) // deaths, (death + 1) * len(records) // deaths)

        async def prepare(log: EmbeddedLog, part: Records = part) -> None:
            await log.create_topics(_specs())
            for place in range(0, len(part), 10):
                append = Append(TopicPartition(topics.RAW, 0), part.slice(place, place + 10))
                await log.commit(Transaction([append]))

        least = Counting.batches + 1 + death % 3
        Life(folder, prepare, _app_of, topics.RAW).run(1 + death * 5 % 24, lambda: Counting.batches >= least)  # noqa: B023

    async def nothing(log: EmbeddedLog) -> None:
        await log.create_topics(_specs())

    Life(folder, nothing, _app_of, topics.RAW).run()


@asynccontextmanager
async def reopened(folder: Path) -> AsyncIterator[EmbeddedLog]:
    """The log, once no worker has it."""
    log = EmbeddedLog(folder)
    await log.create_topics(_specs())
    yield log
    await log.close()


async def _app_of(log: EmbeddedLog) -> App:
    app = App("g", log, runtime=FAST)
    app.add([Counting({METER.name: METER})])
    await app.create_topics(_specs(), partitions=1)
    return app


def _specs() -> list[TopicSpec]:
    plain = [TopicSpec(name, 1) for name in (topics.RAW, topics.READINGS, topics.CONFLICTS, topics.DEAD_LETTERS)]
    return [*plain, TopicSpec(topics.SEQUENCES, 1, compacted=True)]
