"""The cache sink on a real Redis: how long entries live, and what becomes of a cache that vanishes."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import orjson
import pytest
import redis

from headrace.connectors.redis.settings import RedisSettings
from headrace.connectors.redis.sink import RedisSink
from headrace.engine.clock import Clock, ManualClock, SystemClock, VirtualClock
from headrace.engine.embedded.database import MEMORY
from headrace.engine.embedded.log import EmbeddedLog
from headrace.engine.log import Append, TopicPartition, TopicSpec, Transaction
from headrace.engine.records import Records
from headrace.engine.sink_runner import SinkRunner
from headrace.schemas import topics
from tests.conftest import Require
from tests.loop_time import skip
from tests.redis_server import RedisServer, find_redis

pytestmark = pytest.mark.integration

NOW = 1_750_000_000_000
READINGS, ROLLUPS = TopicPartition(topics.READINGS, 0), TopicPartition(topics.ROLLUPS, 0)


@pytest.fixture
async def log() -> AsyncIterator[EmbeddedLog]:
    """A log with the topics of the cache, one partition each."""
    log = EmbeddedLog(MEMORY)
    names = [topics.READINGS, topics.ROLLUPS, topics.DEAD_LETTERS]
    await log.create_topics([*(TopicSpec(name, 1) for name in names), *SinkRunner.topic_specs()])
    yield log
    await log.close()


@pytest.fixture
def cache(redis_url: str) -> Iterator[Any]:
    """A client of an empty Redis."""
    with redis.Redis.from_url(redis_url) as client:
        client.flushall()
        yield client


@pytest.fixture
def server(require: Require, tmp_path: Path) -> Iterator[RedisServer]:
    """A Redis of the test's own."""
    require(find_redis(), "redis-server", "install the package `redis-server`")
    server = RedisServer(tmp_path).start()
    yield server
    server.stop()


def reading(device: str, ago: float, value: float = 1.0) -> bytes:
    """A reading of so many seconds before NOW."""
    document = {
        "message_id": "m",
        "device_id": device,
        "device_type": "air",
        "time": NOW - round(ago * 1000),
        "measures": {"co2": value},
    }
    return orjson.dumps(document)


def rollup(start: float, end: float, kind: str = "closed", revision: int = 0, window: str = "1m") -> bytes:
    """A rollup of device `a`; start and end in seconds before NOW."""
    document = {
        "device_id": "a",
        "device_type": "air",
        "window": window,
        "start": NOW - round(start * 1000),
        "end": NOW - round(end * 1000),
        "kind": kind,
        "revision": revision,
        "measures": {},
    }
    return orjson.dumps(document)


async def append(log: EmbeddedLog, *values: bytes, target: TopicPartition = READINGS, at: int = NOW) -> None:
    """Append values, at this time."""
    records = Records([b"k"] * len(values), list(values), [at] * len(values))
    await log.commit(Transaction(appends=[Append(target, records)]))


def sink_of(url: str, log: EmbeddedLog, clock: Clock | None = None, **settings: Any) -> RedisSink:
    """A sink that is patient with a server."""
    made = RedisSettings.model_validate({"url": url, "timeout": 30, **settings})
    return RedisSink(made, log, clock or ManualClock(NOW))


class Running:
    """A runner at work."""

    def __init__(self, log: EmbeddedLog, sink: RedisSink, max_records: int = 100) -> None:
        self.log = log
        self.runner = SinkRunner(
            log, sink, SystemClock(), linger=0.001, first_backoff=0.01, max_backoff=0.05, max_records=max_records
        )

    async def until_stored(self) -> None:
        """Wait until it has all of the log."""
        ends = await self.log.end_offsets(topics.READINGS) | await self.log.end_offsets(topics.ROLLUPS)
        async with asyncio.timeout(60):
            while self.runner.statistics().positions != ends:
                await asyncio.sleep(0.002)

    async def until_in_trouble(self) -> str:
        """Wait until it tries again; why."""
        async with asyncio.timeout(60):
            while not self.runner.trouble:
                await asyncio.sleep(0.002)
        return self.runner.trouble


@asynccontextmanager
async def running(log: EmbeddedLog, sink: RedisSink, max_records: int = 100) -> AsyncIterator[Running]:
    """Run the sink for as long as the `async with` lasts."""
    stop, run = asyncio.Event(), Running(log, sink, max_records)
    async with asyncio.TaskGroup() as group:
        group.create_task(run.runner.run(stop))
        yield run
        stop.set()


async def run_once(log: EmbeddedLog, sink: RedisSink, max_records: int = 100) -> SinkRunner:
    """Run until the sink has all of the log."""
    async with running(log, sink, max_records) as run:
        await run.until_stored()
    return run.runner


def status(cache: Any, device: str) -> Any:
    """Status of a device, or None."""
    value = cache.get(f"headrace:status:{device}")
    return None if value is None else orjson.loads(value)


async def test_entries(log: EmbeddedLog, cache: Any, redis_url: str) -> None:
    """A status and a rollup are documents under keys of their own, with the time that they are true of."""
    await append(log, reading("a:ü", 10, 2.5))
    await append(log, rollup(120, 60), target=ROLLUPS)

    await run_once(log, sink_of(redis_url, log, prefix="own"))

    assert sorted(cache.keys()) == sorted(["own:status:a:ü".encode(), b"own:rollup:a:1m", b"own:positions:redis"])
    assert orjson.loads(cache.get("own:status:a:ü")) == {
        "asOf": NOW - 10_000,
        "partition": 0,
        "offset": 0,
        "deviceId": "a:ü",
        "deviceType": "air",
        "metrics": {"co2": 2.5},
    }
    found = orjson.loads(cache.get("own:rollup:a:1m"))
    assert (found["asOf"], found["start"], found["window"]) == (NOW - 60_000, NOW - 120_000, "1m")


async def test_entries_live_from_the_time_of_their_data(log: EmbeddedLog, cache: Any, redis_url: str) -> None:
    """A status five minutes, a rollup ten from its window's end; what is older is not written."""
    await append(log, reading("a", 100), reading("old", 300))
    await append(log, rollup(120, 60), rollup(4_200, 600, window="1h"), target=ROLLUPS)

    await run_once(log, sink_of(redis_url, log))

    assert 190 < cache.pttl("headrace:status:a") / 1000 <= 200
    assert 530 < cache.pttl("headrace:rollup:a:1m") / 1000 <= 540
    assert not cache.exists("headrace:status:old", "headrace:rollup:a:1h")
    assert cache.ttl("headrace:positions:redis") == -1


async def test_an_open_window_is_as_old_as_its_record(log: EmbeddedLog, cache: Any, redis_url: str) -> None:
    """Its end is to come; until its record was sent readings are in it."""
    await append(log, rollup(600, -3_000, "update", -1, "1h"), target=ROLLUPS, at=NOW - 50_000)

    await run_once(log, sink_of(redis_url, log))

    assert orjson.loads(cache.get("headrace:rollup:a:1h"))["asOf"] == NOW - 50_000
    assert 540 < cache.pttl("headrace:rollup:a:1h") / 1000 <= 550


async def test_virtual_time_passes_faster(log: EmbeddedLog, cache: Any, redis_url: str) -> None:
    """On a clock of sixtyfold speed the five minutes of a status are five seconds of the server's."""
    await append(log, reading("a", 0))

    await run_once(log, sink_of(redis_url, log, VirtualClock(NOW, 60.0)))

    assert 0 < cache.pttl("headrace:status:a") <= 5_000


@pytest.mark.parametrize("max_records", [1, 100])
async def test_merged_sessions(log: EmbeddedLog, cache: Any, redis_url: str, max_records: int) -> None:
    """Of two sessions that a late reading joins the joined one is left, though it began earlier; in any batches."""
    early, late = (300, 200), (100, 50)
    for value in (
        rollup(*early, window="session 1m"),
        rollup(*late, window="session 1m"),
        rollup(*early, "retraction", 1, "session 1m"),
        rollup(*late, "retraction", 1, "session 1m"),
        rollup(300, 50, revision=2, window="session 1m"),
    ):
        await append(log, value, target=ROLLUPS)

    await run_once(log, sink_of(redis_url, log), max_records)

    found = orjson.loads(cache.get("headrace:rollup:a:session 1m"))
    assert (found["start"], found["revision"]) == (NOW - 300_000, 2)


async def test_history_is_not_replayed(log: EmbeddedLog, cache: Any, redis_url: str) -> None:
    """A new cache begins where data may still be in it, and not at the beginning of the log."""
    for hours in range(50, 0, -1):
        await append(log, reading("a", hours * 3600), at=NOW - hours * 3_600_000)
    await append(log, reading("a", 10))

    runner = await run_once(log, sink_of(redis_url, log))

    assert runner.statistics().written == 1
    assert status(cache, "a")["asOf"] == NOW - 10_000


async def test_the_log_need_not_wait_for_it(log: EmbeddedLog) -> None:
    """While Redis is away the group's position goes on to where the cache would begin: retention may drop the rest."""
    await append(log, *(reading("a", 3_600) for _ in range(10)), at=NOW - 3_600_000)
    await append(log, reading("a", 10))

    async with running(log, sink_of("unix:///nonexistent", log)) as run:
        await run.until_in_trouble()

    assert await log.positions("redis", topics.READINGS) == {READINGS: 10}


async def test_flushed_in_the_middle(log: EmbeddedLog, cache: Any, redis_url: str) -> None:
    """After FLUSHALL the next write finds the positions gone; everything that is fresh comes back from the log."""
    await append(log, reading("a", 20), reading("b", 20), at=NOW - 20_000)
    async with running(log, sink_of(redis_url, log)) as run:
        await run.until_stored()
        cache.flushall()
        await append(log, reading("c", 10))
        await run.until_stored()

    assert [status(cache, device)["asOf"] for device in "abc"] == [NOW - 20_000, NOW - 20_000, NOW - 10_000]


async def test_positions_evicted(log: EmbeddedLog, cache: Any, redis_url: str) -> None:
    """Without its positions, but with newer entries than those that come again, nothing goes back in time."""
    await append(log, reading("a", 20), reading("a", 10), reading("b", 30))
    async with running(log, sink_of(redis_url, log), 1) as run:
        await run.until_stored()
        cache.delete("headrace:positions:redis")
        await append(log, reading("b", 25))
        await run.until_stored()

    assert (status(cache, "a")["asOf"], status(cache, "b")["asOf"]) == (NOW - 10_000, NOW - 25_000)


async def test_killed_and_back_empty(log: EmbeddedLog, server: RedisServer) -> None:
    """A server that was killed and comes back without anything is filled again, scripts included."""
    await append(log, reading("a", 20))
    async with running(log, sink_of(server.url, log)) as run:
        await run.until_stored()
        server.kill()
        await append(log, reading("b", 15))
        trouble = await run.until_in_trouble()
        server.start()
        await run.until_stored()
        with server.client() as cache:
            assert (status(cache, "a")["asOf"], status(cache, "b")["asOf"]) == (NOW - 20_000, NOW - 15_000)
    assert "Redis" in trouble


async def test_back_with_an_old_dump(log: EmbeddedLog, server: RedisServer) -> None:
    """A server that comes back as it was earlier gets what came since."""
    await append(log, reading("a", 20))
    async with running(log, sink_of(server.url, log)) as run:
        await run.until_stored()
        server.save()
        await append(log, reading("a", 15), reading("b", 15))
        await run.until_stored()
        server.kill()
        server.start()
        with server.client() as cache:
            assert (status(cache, "a")["asOf"], status(cache, "b")) == (NOW - 20_000, None)
        await append(log, reading("c", 5))
        await run.until_stored()
        with server.client() as cache:
            assert [status(cache, device)["asOf"] for device in "abc"] == [NOW - 15_000, NOW - 15_000, NOW - 5_000]


async def test_scripts_flushed(log: EmbeddedLog, cache: Any, redis_url: str) -> None:
    """A server that forgot the script gets it again."""
    async with running(log, sink_of(redis_url, log)) as run:
        await append(log, reading("a", 20))
        await run.until_stored()
        cache.script_flush()
        await append(log, reading("a", 10))
        await run.until_stored()

    assert status(cache, "a")["asOf"] == NOW - 10_000


async def test_frozen(log: EmbeddedLog, server: RedisServer) -> None:
    """A server that answers nothing counts as gone after the timeout, and is used again when it answers."""
    async with running(log, sink_of(server.url, log)) as run:
        await append(log, reading("a", 20))
        await run.until_stored()
        server.freeze()
        await append(log, reading("a", 10))
        while not run.runner.trouble:
            skip(30)
            await asyncio.sleep(0.01)
        server.thaw()
        await run.until_stored()
        with server.client() as cache:
            assert status(cache, "a")["asOf"] == NOW - 10_000


async def test_evicting(log: EmbeddedLog, server: RedisServer) -> None:
    """With too little memory for all entries the sink goes on, and the server drops what it likes."""
    with server.client() as cache:
        cache.config_set("maxmemory-policy", "allkeys-lru")
        cache.config_set("maxmemory", cache.info("memory")["used_memory"] + (2 << 20))
        async with running(log, sink_of(server.url, log), 500) as run:
            for start in range(0, 20_000, 500):
                await append(log, *(reading(f"device-{number}", 10) for number in range(start, start + 500)))
            await run.until_stored()
        assert cache.info("stats")["evicted_keys"] > 0
        assert 0 < cache.dbsize() < 20_000


async def test_full(log: EmbeddedLog, server: RedisServer) -> None:
    """A server that is full and may drop nothing takes nothing of a write; with room again it goes on."""
    await append(log, reading("a", 20))
    with server.client() as cache:
        cache.config_set("maxmemory", 1)
        async with running(log, sink_of(server.url, log)) as run:
            trouble = await run.until_in_trouble()
            assert cache.dbsize() == 0
            cache.config_set("maxmemory", 0)
            await run.until_stored()
        assert status(cache, "a")["asOf"] == NOW - 20_000
    assert "maxmemory" in trouble


async def test_positions_of_another_log(log: EmbeddedLog, cache: Any, redis_url: str) -> None:
    """A Redis that was used with a longer log is no reason to stop."""
    cache.hset("headrace:positions:redis", mapping={f"{topics.READINGS}/0": 1_000, f"{topics.ROLLUPS}/0": "x"})
    await append(log, reading("a", 20))

    await run_once(log, sink_of(redis_url, log))

    assert status(cache, "a")["asOf"] == NOW - 20_000


async def test_foreign_values(log: EmbeddedLog, cache: Any, redis_url: str) -> None:
    """What is no entry gives way, of whatever kind it is."""
    cache.rpush("headrace:status:a", "x")
    cache.set("headrace:status:b", '{"asOf":"never"}')
    cache.set("headrace:positions:redis", "x")
    await append(log, reading("a", 20), reading("b", 20))

    await run_once(log, sink_of(redis_url, log))

    assert (status(cache, "a")["offset"], status(cache, "b")["offset"]) == (0, 1)


async def test_password(log: EmbeddedLog, server: RedisServer) -> None:
    """Without the right one the sink tries on, and says why; it stops nothing."""
    with server.client() as cache:
        cache.config_set("requirepass", "right")
        await append(log, reading("a", 20))
        async with running(log, sink_of(server.url, log)) as run:
            trouble = await run.until_in_trouble()
        await run_once(log, sink_of(f"unix://:right@{server.socket}", log))
        assert status(cache, "a")["asOf"] == NOW - 20_000
    assert "does not let us in" in trouble
