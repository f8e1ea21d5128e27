"""The whole path in one process, on a real log and a real PostgreSQL."""

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import asyncpg
import orjson
import pytest

from headrace.cli.pipeline import Pipeline
from headrace.cli.settings import Settings
from headrace.engine import dead_letters
from headrace.engine.clock import ManualClock
from headrace.engine.errors import LogInUse
from headrace.engine.log import TopicPartition
from headrace.engine.records import Record
from headrace.schemas import topics
from headrace.schemas.catch_all import CATCH_ALL
from headrace.tables.device_types import load_device_types
from headrace.tables.rules import load_rules

pytestmark = pytest.mark.integration
NOW = 1_750_000_000_000
GOOD = orjson.dumps({"timestamp": NOW, "temp": 21.5, "humidity": 40, "co2": 500, "pm25": 3.5})

#: The bad input of all kinds; each is dead-lettered, alone.
BAD = {
    "empty": b"",
    "not JSON": b"temp=21.5",
    "truncated": GOOD[:-5],
    "a list": b"[1, 2]",
    "wrong type": orjson.dumps({"timestamp": NOW, "temp": "hot"}),
    "boolean": orjson.dumps({"timestamp": NOW, "temp": True}),
    "NaN": b'{"timestamp": 1750000000000, "temp": NaN}',
    "Infinity": b'{"timestamp": 1750000000000, "temp": Infinity}',
    "overflow": b'{"timestamp": 1750000000000, "temp": 1e400}',
    "out of range": orjson.dumps({"timestamp": NOW, "temp": 1000}),
    "1 MB of nesting": b"[" * 500_000 + b"]" * 500_000,
    "nesting in an unknown field": b'{"timestamp": 1750000000000, "temp": 1, "x": ' + b"[" * 2000 + b"]" * 2000 + b"}",
    "lone surrogate": b'{"timestamp": 1750000000000, "temp": 1, "note": "\\ud800"}',
    "invalid UTF-8": b'{"timestamp": 1750000000000, "temp": 1, "note": "\xff\xfe"}',
    "NUL in text": b'{"timestamp": 1750000000000, "temp": 1, "note": "a\\u0000b"}',
    "somebody else's id": orjson.dumps({"timestamp": NOW, "temp": 1, "device_id": "other"}),
    "from 1970": orjson.dumps({"timestamp": 0, "temp": 1}),
    "from next year": orjson.dumps({"timestamp": NOW + 365 * 86_400_000, "temp": 1}),
    "no time": orjson.dumps({"temp": 1}),
    "nothing measured": orjson.dumps({"timestamp": NOW}),
    "too large": b'{"timestamp": 1750000000000, "note": "' + b"x" * (1 << 20) + b'"}',
}


def pipeline_in(folder: Path) -> Pipeline:
    return Pipeline(folder, Settings(), load_device_types(), load_rules(), ManualClock(NOW))


async def feed(pipeline: Pipeline, device_ids: Sequence[bytes], payloads: Sequence[bytes]) -> None:
    await pipeline.intake.append(device_ids, payloads, device_type="environmental", profile="test", sources=b"test")


async def nothing(stop: asyncio.Event) -> None:
    """The messages are in the log already."""


async def records(pipeline: Pipeline, topic: str) -> list[Record]:
    found: list[Record] = []
    for partition in range(pipeline.log.partitions(topic)):
        fetched = await pipeline.log.reader().read(TopicPartition(topic, partition), 0, 100_000)
        found += list(fetched.records) if fetched else []
    return found


async def fetch(pipeline: Pipeline, query: str) -> list[Any]:
    connection = await asyncpg.connect(**pipeline.database)
    try:
        return list(await connection.fetch(query))
    finally:
        await connection.close()


async def test_bad_input_never_stops_the_pipeline_and_never_vanishes(tmp_path: Path) -> None:
    """Each bad payload is in telemetry.dlq with its own bytes, a reason and its origin; the good ones are stored."""
    payloads: list[bytes] = []
    devices: list[bytes] = []
    for number, payload in enumerate(BAD.values()):
        devices += [b"bad-%d" % number, b"good-%d" % number]
        payloads += [payload, GOOD]
    async with pipeline_in(tmp_path) as pipeline:
        await feed(pipeline, devices, payloads)

        await pipeline.run(nothing, asyncio.Event())

        letters = await records(pipeline, topics.DEAD_LETTERS)
        ledger = await pipeline.ledger()
        stored = await fetch(pipeline, "SELECT device_id FROM readings_environmental")
        raw = {(r.key, r.value): r for r in await records(pipeline, topics.RAW)}
    assert {letter.key: letter.value for letter in letters} == dict(zip(devices[::2], BAD.values(), strict=True))
    for letter in letters:
        assert letter.headers[dead_letters.REASON]
        assert letter.headers[dead_letters.ORIGIN_TOPIC] == b"telemetry.raw"
        assert int(letter.headers[dead_letters.ORIGIN_OFFSET]) >= 0
        assert letter.headers[topics.MESSAGE_ID] == raw[letter.key, letter.value].headers[topics.MESSAGE_ID]
    assert {row["device_id"] for row in stored} == {device.decode() for device in devices[1::2]}
    assert ledger == (2 * len(BAD), len(BAD), 0, 0, len(BAD), 0)


async def test_messages_of_unknown_types_are_stored_where_they_are_kept(tmp_path: Path) -> None:
    """In a table of their own that has no measures, with all they say in extra."""
    types, settings = {**load_device_types(), CATCH_ALL.name: CATCH_ALL}, Settings(ingest={"unknown_types": "keep"})
    async with Pipeline(tmp_path, settings, types, load_rules(), ManualClock(NOW)) as pipeline:
        payload = orjson.dumps({"timestamp": NOW, "slots": 2})
        await pipeline.intake.append([b"t"], [payload], device_type="toaster", profile="test", sources=b"test")

        await pipeline.run(nothing, asyncio.Event())

        ledger = await pipeline.ledger()
        (row,) = await fetch(pipeline, "SELECT device_id, extra FROM readings_unknown")
        counted = pipeline.monitoring.metrics.value("headrace_unknown_types_total", device_type="toaster")
    assert (row["device_id"], orjson.loads(row["extra"])) == ("t", {"reported_type": "toaster", "slots": 2})
    assert (ledger.stored, ledger.dead_lettered, counted) == (1, 0, 1)


async def test_repeats_are_counted_and_contradictions_kept(tmp_path: Path) -> None:
    """The same again is a duplicate, other values a conflict that can be looked up, more values complete the row."""
    first = orjson.dumps({"timestamp": NOW, "temp": 20})
    more = orjson.dumps({"timestamp": NOW, "humidity": 50})
    other = orjson.dumps({"timestamp": NOW, "temp": 30, "humidity": 50})
    async with pipeline_in(tmp_path) as pipeline:
        await feed(pipeline, [b"d"] * 4, [first, first, more, other])

        await pipeline.run(nothing, asyncio.Event())

        ledger = await pipeline.ledger()
        rows = await fetch(pipeline, "SELECT temperature, humidity FROM readings_environmental")
        conflicts = await fetch(pipeline, "SELECT document FROM conflicts")
    assert [tuple(row) for row in rows] == [(20.0, 50.0)]
    assert ledger == (4, 2, 1, 1, 0, 0)
    assert json.loads(conflicts[0]["document"])["measures"]["temperature"] == 30.0


async def test_message_id_goes_from_source_to_row(tmp_path: Path) -> None:
    """The id that a message got when it was accepted is in its row."""
    async with pipeline_in(tmp_path) as pipeline:
        await feed(pipeline, [b"d"], [GOOD])

        await pipeline.run(nothing, asyncio.Event())

        (raw,) = await records(pipeline, topics.RAW)
        (row,) = await fetch(pipeline, "SELECT message_id FROM readings_environmental")
    assert str(row["message_id"]).encode() == raw.headers[topics.MESSAGE_ID]


async def test_second_worker_on_a_folder_is_refused(tmp_path: Path) -> None:
    """Two pipelines never share a data folder."""
    async with pipeline_in(tmp_path):
        with pytest.raises(LogInUse, match="--data"):
            await pipeline_in(tmp_path).__aenter__()


async def test_stop_reports_the_rest_as_in_flight_and_the_next_run_stores_it(tmp_path: Path) -> None:
    """What is not processed when the pipeline is told to stop stays in the log, and arrives later, once."""
    stop = asyncio.Event()
    stop.set()
    async with pipeline_in(tmp_path) as pipeline:
        await feed(pipeline, [b"d%d" % n for n in range(20_000)], [GOOD] * 20_000)
        await pipeline.run(nothing, stop)
        stopped = await pipeline.ledger()
    assert stopped.difference == 0
    assert stopped.in_flight > 0

    async with pipeline_in(tmp_path) as pipeline:
        await pipeline.run(nothing, asyncio.Event())
        ledger = await pipeline.ledger()
    assert ledger == (20_000, 20_000, 0, 0, 0, 0)
