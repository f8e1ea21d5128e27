"""Messages without a time in an app on a log: workers that die at every step give each the same millisecond."""

import asyncio
from pathlib import Path
from typing import Any

import orjson

from headrace.agents.ingest import Ingest
from headrace.engine.app import App
from headrace.engine.batch import Batch
from headrace.engine.embedded.log import EmbeddedLog
from headrace.engine.log import Append, TopicPartition, TopicSpec, Transaction
from headrace.engine.records import Records
from headrace.engine.runtime.settings import RuntimeSettings
from headrace.engine.testkit import drive
from headrace.schemas import topics
from tests.agents.test_sequences import METER, T0, ingest
from tests.engine.runtime.lives import Life
from tests.engine.runtime.running import values

FAST = RuntimeSettings(linger=0, linger_records=0, commit_interval=0.001, poll_timeout=0.02, max_batch_records=10)
DEATHS = 8
#: Messages that are appended at once; every millisecond another such burst.
BURST = 40


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


def bursts(count: int) -> Records:
    """Messages of three devices; those of one say when they were sent."""
    payloads = [
        orjson.dumps({"kwh": place // 6} | ({"timestamp": T0 + place} if place % 3 == 0 else {}))
        for place in range(count)
    ]
    headers = {topics.DEVICE_TYPE: METER.name.encode()}
    keys = [b"abc"[place % 3 :][:1] for place in range(count)]
    return Records([*keys], [*payloads], [T0 + 1000 + place // BURST for place in range(count)], {**headers})


def told(found: list[bytes | None]) -> list[dict[str, Any]]:
    """Readings without the message ids, which are made of places in the log."""
    return [{**orjson.loads(value or b""), "message_id": None} for value in found]


def test_death_at_every_step_changes_no_time(tmp_path: Path) -> None:
    """Workers die a few steps of their event loop after some batch: the readings are there once, as if nobody had."""
    records = bursts(400)
    for death in range(DEATHS):
        part = records.slice(death * len(records) // DEATHS, (death + 1) * len(records) // DEATHS)

        async def prepare(log: EmbeddedLog, part: Records = part) -> None:
            await log.create_topics(specs())
            for place in range(0, len(part), 10):
                append = Append(TopicPartition(topics.RAW, 0), part.slice(place, place + 10))
                await log.commit(Transaction([append]))

        least = Counting.batches + 1 + death % 3
        Life(tmp_path, prepare, app_of, topics.RAW).run(1 + death * 5 % 24, lambda: Counting.batches >= least)  # noqa: B023

    async def nothing(log: EmbeddedLog) -> None:
        await log.create_topics(specs())

    Life(tmp_path, nothing, app_of, topics.RAW).run()
    found = told(asyncio.run(read(tmp_path, topics.READINGS)))

    expected = drive(ingest(), records)
    assert found == told([record.value for record in expected.sent[topics.READINGS]])
    assert len({(each["device_id"], each["time"]) for each in found}) == len(records)
    assert asyncio.run(read(tmp_path, topics.CONFLICTS)) == []


async def read(folder: Path, topic: str) -> list[bytes | None]:
    """The values of a topic."""
    log = EmbeddedLog(folder)
    await log.create_topics(specs())
    found = await values(log, topic)
    await log.close()
    return found
