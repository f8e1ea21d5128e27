"""Messages without a time in an app on a log: workers that die at every step give each the same millisecond."""

import asyncio
from pathlib import Path
from typing import Any

import orjson

from headrace.engine.records import Records
from headrace.engine.testkit import drive
from headrace.schemas import topics
from tests.agents.ingest_lives import reopened, work_through
from tests.agents.test_sequences import METER, T0, ingest
from tests.engine.runtime.running import values

DEATHS = 8
#: Messages that are appended at once; every millisecond another such burst.
BURST = 40


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

    work_through(tmp_path, records, DEATHS)
    found = told(asyncio.run(read(tmp_path, topics.READINGS)))

    expected = drive(ingest(), records)
    assert found == told([record.value for record in expected.sent[topics.READINGS]])
    assert len({(each["device_id"], each["time"]) for each in found}) == len(records)
    assert asyncio.run(read(tmp_path, topics.CONFLICTS)) == []


async def read(folder: Path, topic: str) -> list[bytes | None]:
    """The values of a topic."""
    async with reopened(folder) as log:
        return await values(log, topic)
