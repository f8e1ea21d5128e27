"""The rollup agent in an app: time without messages, updates, and deaths at every step."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import orjson
import pytest

from headrace.agents.rollup import Rollup
from headrace.engine.app import App
from headrace.engine.clock import ManualClock
from headrace.engine.embedded.database import MEMORY
from headrace.engine.embedded.log import EmbeddedLog
from headrace.engine.errors import LogError
from headrace.engine.log import Append, TopicPartition, TopicSpec, Transaction
from headrace.engine.records import Record
from headrace.engine.runtime.settings import RuntimeSettings
from headrace.engine.testkit import drive, readings_log
from headrace.schemas import topics
from tests.engine.runtime.lives import Life
from tests.engine.runtime.running import HandClock, committed, everything, run_until

T0 = 1_700_000_000_000
FAST = RuntimeSettings(linger=0, linger_records=0, commit_interval=0.001, poll_timeout=0.02)
WINDOWS = ("10s", "20s every 10s", "session 5s", "sliding 8s", "count 3")

Row = tuple[str, str, int, dict[str, float]]


class AwayLog(EmbeddedLog):
    """A log whose ends cannot be asked for while it is `away`."""

    away = False

    async def end_offsets(self, topic: str) -> dict[TopicPartition, int]:
        if self.away:
            raise LogError("the log is away")
        return await super().end_offsets(topic)


@pytest.fixture
async def log() -> AsyncIterator[AwayLog]:
    log = AwayLog(MEMORY)
    await make_topics(log)
    yield log
    await log.close()


async def append(log: EmbeddedLog, *rows: Row) -> None:
    await log.commit(Transaction([Append(TopicPartition(topics.READINGS, 0), readings_log(rows, T0))]))


async def app_of(log: EmbeddedLog, clock: ManualClock | None = None, **options: Any) -> App:
    app = App("g", log, clock=clock, runtime=FAST)
    app.add([Rollup(options.pop("windows", WINDOWS), 30, **options)])
    await app.create_topics([], partitions=1)
    return app


def reading(second: float, device: str = "a", value: float = 1.0) -> Row:
    return device, "env", T0 + round(second * 1000), {"temperature": value}


async def rollups(log: EmbeddedLog) -> list[dict[str, Any]]:
    return [orjson.loads(record.value or b"") for record in await everything(log, topics.ROLLUPS)]


async def test_windows_close_when_nothing_comes_any_more(log: AwayLog) -> None:
    """Time alone closes the windows of a fleet that went silent, once, also over a restart."""
    await append(log, reading(1), reading(3, "b"))
    clock = HandClock(T0)

    async def passed() -> bool:
        clock.advance(1000)
        return len(await rollups(log)) == 2

    async def over() -> bool:
        return clock.now_ms() > T0 + 900_000

    await run_until(await app_of(log, clock, windows=("10s",), idle_timeout=5.0), passed)
    first = await everything(log, topics.ROLLUPS)
    await append(log, reading(4, "b"))
    clock.advance(800_000)
    await run_until(await app_of(log, clock, windows=("10s",), idle_timeout=5.0), committed(log, "g", topics.READINGS))

    found = await rollups(log)
    assert [(one["device_id"], one["kind"], one["measures"]["temperature"]["count"]) for one in found] == [
        ("a", "closed", 1),
        ("b", "closed", 1),
        ("b", "correction", 2),
    ]
    assert all(record.timestamp >= T0 + 30_000 for record in first)


async def test_a_log_that_is_away_is_not_silence(log: AwayLog) -> None:
    """While nobody can tell whether messages wait, time closes nothing."""
    await append(log, reading(1))
    clock = HandClock(T0)
    turns = 0

    async def waited() -> bool:
        nonlocal turns
        log.away = log.away or await committed(log, "g", topics.READINGS)()
        turns += log.away
        clock.advance(60_000 * log.away)
        return turns > 50

    await run_until(await app_of(log, clock, windows=("10s",), idle_timeout=5.0), waited)
    log.away = False

    assert await rollups(log) == []


async def test_a_clock_that_leaps_is_not_silence(log: AwayLog) -> None:
    """A replay's clock follows the data; while a partition waits for some, hours pass on it in no time."""
    await append(log, reading(1))
    clock, turns = ManualClock(T0), 0

    async def waited() -> bool:
        nonlocal turns
        turns += await committed(log, "g", topics.READINGS)()
        clock.advance(86_400_000)
        return turns > 50

    await run_until(await app_of(log, clock, windows=("10s",), idle_timeout=5.0), waited)

    assert await rollups(log) == []


async def test_updates_follow_the_commits(log: AwayLog) -> None:
    """Open windows are sent as they are with each commit; of a closed one the last update is what it holds."""
    app = await app_of(log, windows=("10s", "count 3"), emit="update")
    sent = 0

    async def one_by_one() -> bool:
        nonlocal sent
        if await committed(log, "g", topics.READINGS)():
            sent += 1
            await append(log, reading(sent * 3, value=float(sent)))
        return sent > 5

    await run_until(app, one_by_one)

    found = await rollups(log)
    assert {one["kind"] for one in found} == {"update"}
    counts = [(one["window"], one["start"] - T0, one["measures"]["temperature"]["count"]) for one in found]
    assert counts[:6] == [each for n in (1, 2, 3) for each in (("count 3", 3000, n), ("10s", 0, n))]


ROWS = [
    reading(second + shift, device, float(second))
    for second, shift in zip(range(60), [0, 0, -3, 7, 0, -60, 1] * 9, strict=False)
    for device in "ab"
]


def test_death_at_every_step_changes_nothing(tmp_path: Path, pytestconfig: pytest.Config) -> None:
    """Workers die one after the other, each a few steps of its event loop later: the records are those of one run."""
    deaths = max(25, pytestconfig.getoption("--examples") // 20)
    for death in range(deaths):
        part = ROWS[death * len(ROWS) // deaths : (death + 1) * len(ROWS) // deaths]
        life(tmp_path, part).run(steps=120 + death * 7 % 120)
    life(tmp_path, []).run()

    source, *found = asyncio.run(read(tmp_path, topics.READINGS, topics.ROLLUPS, topics.LATE))
    expected = drive(Rollup(WINDOWS, 30), readings_log(ROWS, T0))
    assert len(source) == len(ROWS)
    assert [untimed(records) for records in found] == [
        untimed(expected.sent[topic]) for topic in (topics.ROLLUPS, topics.LATE)
    ]


def life(folder: Path, rows: list[Row]) -> Life:
    """A worker that finds these rows appended."""

    async def prepare(log: EmbeddedLog) -> None:
        await make_topics(log)
        if rows:
            await append(log, *rows)

    return Life(folder, prepare, lambda log: app_of(log, idle_timeout=None), topics.READINGS)


async def make_topics(log: EmbeddedLog) -> None:
    names = (topics.READINGS, topics.ROLLUPS, topics.LATE, topics.DEAD_LETTERS)
    await log.create_topics([TopicSpec(name, 1) for name in names])


async def read(folder: Path, *names: str) -> list[list[Record]]:
    log = EmbeddedLog(folder)
    await make_topics(log)
    found = [await everything(log, name) for name in names]
    await log.close()
    return found


def untimed(records: list[Record]) -> list[tuple[bytes | None, bytes | None]]:
    """Append times were given in parts; message ids too."""
    return [(record.key, without_message(record.value)) for record in records]


def without_message(value: bytes | None) -> bytes:
    document: Mapping[str, Any] = orjson.loads(value or b"")
    return orjson.dumps({key: each for key, each in document.items() if key != "message_id"})
