"""The verifier of the cache, on a real Redis and a real PostgreSQL."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple
from uuid import uuid4

import asyncpg
import orjson
import pytest
import redis
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.connectors.postgres_server import PostgresServer
from headrace.connectors.redis.settings import RedisSettings
from headrace.connectors.redis.sink import RedisSink
from headrace.connectors.redis.verifier import CacheVerifier
from headrace.connectors.timescale.sink import TimescaleSink
from headrace.engine.clock import ManualClock
from headrace.engine.embedded.database import MEMORY
from headrace.engine.embedded.log import EmbeddedLog
from headrace.engine.errors import Disconnected
from headrace.engine.log import Append, Fetched, TopicPartition, TopicSpec, Transaction
from headrace.engine.metrics import Metrics
from headrace.engine.records import Records
from headrace.schemas import topics
from headrace.schemas.window import parse_window

pytestmark = pytest.mark.integration

NOW = 1_750_000_000_000
READINGS, ROLLUPS = TopicPartition(topics.READINGS, 0), TopicPartition(topics.ROLLUPS, 0)
#: Statuses younger than this are in the cache, seconds.
STATUS_TTL = 300


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """A database with headrace's tables, as arguments for `asyncpg.connect`."""
    server = PostgresServer(tmp_path_factory.mktemp("postgres"))
    address = asyncio.run(server.start()).connect_arguments()
    sink = TimescaleSink(address, [], ManualClock(NOW))
    asyncio.run(_migrate(sink))
    yield address
    asyncio.run(server.stop())


async def _migrate(sink: TimescaleSink) -> None:
    await sink.open()
    await sink.close()


class World(NamedTuple):
    """A database, a cache and their clock, emptied; the sink writes to the cache alone."""

    database: asyncpg.Connection
    cache: Any
    clock: ManualClock
    log: EmbeddedLog
    sink: RedisSink
    verifier: CacheVerifier
    dry: CacheVerifier
    metrics: Metrics

    async def stored(self, offset: int) -> None:
        """The database has stored the log up to here."""
        await self.database.execute(
            "INSERT INTO sink_positions VALUES ('timescale', $1, 0, $3), ('timescale', $2, 0, $3) "
            "ON CONFLICT (sink, topic, partition) DO UPDATE SET next_offset = EXCLUDED.next_offset",
            topics.READINGS,
            topics.ROLLUPS,
            offset,
        )

    async def store_status(self, device: str, ago: float, metrics: dict[str, Any]) -> None:
        """As the database's sink does: never back in time."""
        await self.database.execute(
            "INSERT INTO device_state VALUES ($1, 'air', $2, $2, $3, $4) ON CONFLICT (device_id) DO UPDATE "
            "SET time = EXCLUDED.time, metrics = EXCLUDED.metrics WHERE device_state.time <= EXCLUDED.time",
            device,
            at(ago),
            uuid4(),
            orjson.dumps(metrics).decode(),
        )

    async def store_rollup(self, start: float, end: float, offset: int = 0, **more: Any) -> None:
        """A rollup of device `a`."""
        found = {"revision": 0, "measures": {"co2": {"count": 1}}, "window": "1m", "kind": "closed", "retracted": False}
        found |= more
        await self.database.execute(
            'INSERT INTO rollups (device_type, device_id, start, revision, measures, details, "window", log_offset, '
            "retracted) VALUES ('air', 'a', $1, $2, $3, $4, $5, $6, $7)",
            at(start),
            found["revision"],
            orjson.dumps(found["measures"]).decode(),
            orjson.dumps({"end": milliseconds(end), "kind": found["kind"]}).decode(),
            found["window"],
            offset,
            found["retracted"],
        )

    async def write(self, value: bytes, offset: int, target: TopicPartition = READINGS) -> None:
        """Give the cache's sink one record."""
        records = Records([b"k"], [value], [self.clock.now_ms()])
        await self.sink.write([Fetched(target, offset, offset + 1, records)])

    def documents(self) -> dict[str, Any]:
        """All entries, without where they are from."""
        found = {}
        for key in self.cache.keys("headrace:[sr]*"):
            document = orjson.loads(self.cache.get(key))
            found[key.decode()] = {each: document[each] for each in document if each not in ("partition", "offset")}
        return found


@pytest.fixture
async def world(database: dict[str, Any], redis_url: str) -> AsyncIterator[World]:
    """Everything, empty."""
    async with made(database, redis_url) as world:
        yield world


class made:
    """A world, as a context."""

    def __init__(self, database: dict[str, Any], url: str) -> None:
        self._database, self._url = database, url

    async def __aenter__(self) -> World:
        connection = await asyncpg.connect(**self._database)
        await connection.execute("TRUNCATE device_state, rollups, sink_positions")
        cache = redis.Redis.from_url(self._url)
        cache.flushall()
        log = EmbeddedLog(MEMORY)
        await log.create_topics([TopicSpec(topics.READINGS, 1), TopicSpec(topics.ROLLUPS, 1)])
        clock, found = ManualClock(NOW), RedisSettings.model_validate({"url": self._url})
        sink, metrics, windows = RedisSink(found, log, clock), Metrics(), [parse_window("1m"), parse_window("1h")]
        await sink.open()
        await sink.positions([READINGS, ROLLUPS])
        dry = CacheVerifier(found, self._database, windows, clock, dry_run=True)
        verifier = CacheVerifier(found, self._database, windows, clock, metrics=metrics)
        self._world = World(connection, cache, clock, log, sink, verifier, dry, metrics)
        return self._world

    async def __aexit__(self, *_: object) -> None:
        await self._world.sink.close()
        await self._world.log.close()
        await self._world.database.close()
        self._world.cache.close()


def at(ago: float) -> datetime:
    """So many seconds before NOW."""
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=milliseconds(ago))


def milliseconds(ago: float) -> int:
    """So many seconds before NOW, ms since 1970 UTC."""
    return NOW - round(ago * 1000)


def reading(device: str, ago: float, metrics: dict[str, Any]) -> bytes:
    """A record of `telemetry.readings`."""
    about = {"message_id": "m", "device_id": device, "device_type": "air", "time": milliseconds(ago)}
    numbers = {name: value for name, value in metrics.items() if isinstance(value, float)}
    texts = {name: value for name, value in metrics.items() if name not in numbers}
    return orjson.dumps(about | {"measures": numbers} | ({"extra": texts} if texts else {}))


def status(device: str, ago: float, metrics: dict[str, Any]) -> dict[str, Any]:
    """What should be in the cache."""
    return {"asOf": milliseconds(ago), "deviceId": device, "deviceType": "air", "metrics": metrics}


async def test_a_lost_cache_is_made_again(world: World) -> None:
    """What the database has and is fresh is added, for the life left to it; nothing old, no retracted window."""
    await world.store_status("a", 100, {"co2": 1.5, "door": "open"})
    await world.store_status("old", 301, {})
    await world.store_rollup(120, 60)
    await world.store_rollup(180, 120)
    await world.store_rollup(60, 0, retracted=True)
    await world.store_rollup(7_000, 3_400, window="1h")

    report = await world.verifier.verify()

    found = world.documents()
    assert found.keys() == {"headrace:status:a", "headrace:rollup:a:1m"}
    assert found["headrace:status:a"] == status("a", 100, {"co2": 1.5, "door": "open"})
    assert (found["headrace:rollup:a:1m"]["start"], found["headrace:rollup:a:1m"]["asOf"]) == (
        NOW - 120_000,
        NOW - 60_000,
    )
    assert 190 < world.cache.ttl("headrace:status:a") <= 200
    assert (report.findings["missing"], report.added, report.complete) == (2, 2, True)
    assert (await world.verifier.verify()).findings == {"equal": 2}
    assert world.metrics.value("headrace_cache_keys_total", finding="missing") == 2


async def test_the_sink_writes_what_the_verifier_expects(world: World) -> None:
    """An entry that was written through is equal to the one that the database makes, rollups too."""
    measures = {"co2": {"count": 1, "sum": 2.0}}
    await world.write(reading("a", 10, {"co2": 2.0, "nested": {"x": [1, None]}}), 0)
    document = {"device_id": "a", "device_type": "air", "window": "1m", "window_seconds": 60, "kind": "closed"}
    document |= {"start": milliseconds(120), "end": milliseconds(60), "revision": 0, "measures": measures}
    await world.write(orjson.dumps(document), 0, ROLLUPS)
    await world.store_status("a", 10, {"nested": {"x": [1, None]}, "co2": 2})
    await world.store_rollup(120, 60, measures=measures)
    await world.stored(1)

    assert (await world.verifier.verify()).findings == {"equal": 2}


async def test_stale(world: World) -> None:
    """An entry older than the database's is given its content."""
    await world.write(reading("a", 20, {"co2": 1.0}), 0)
    await world.store_status("a", 10, {"co2": 2.0})

    report = await world.verifier.verify()

    assert (dict(report.findings), report.changed) == ({"stale": 1}, 1)
    assert world.documents() == {"headrace:status:a": status("a", 10, {"co2": 2.0})}


async def test_wrong(world: World) -> None:
    """Other content of the same time, a later time, a device that is not there: once the database is as far."""
    await world.write(reading("same", 10, {"co2": 1.0}), 0)
    await world.write(reading("later", 10, {"co2": 1.0}), 1)
    await world.write(reading("nowhere", 10, {"co2": 1.0}), 2)
    world.cache.set("headrace:status:garbage", "\xff")
    await world.store_status("same", 10, {"co2": 2.0})
    await world.store_status("later", 20, {"co2": 2.0})
    await world.stored(3)

    report = await world.verifier.verify()

    assert (dict(report.findings), report.changed, report.removed) == ({"wrong": 4}, 2, 2)
    expected = {"same": status("same", 10, {"co2": 2.0}), "later": status("later", 20, {"co2": 2.0})}
    assert world.documents() == {f"headrace:status:{name}": document for name, document in expected.items()}


async def test_ahead_of_the_database(world: World) -> None:
    """What the database has not stored yet is left alone: it will be."""
    await world.write(reading("a", 10, {"co2": 1.0}), 0)
    await world.write(reading("b", 10, {"co2": 1.0}), 1)
    await world.store_status("a", 20, {"co2": 2.0})
    await world.stored(0)

    report = await world.verifier.verify()

    assert dict(report.findings) == {"ahead": 2}
    assert world.documents()["headrace:status:a"] == status("a", 10, {"co2": 1.0})


async def test_older_than_entries_may_be(world: World) -> None:
    """An entry that should have expired, because somebody took its time to live, is removed (P3.2)."""
    await world.write(reading("a", 10, {"co2": 1.0}), 0)
    await world.store_status("a", 10, {"co2": 1.0})
    world.cache.persist("headrace:status:a")
    world.clock.advance(291_000)

    report = await world.verifier.verify()

    assert (dict(report.findings), report.removed) == ({"stale": 1}, 1)
    assert world.documents() == {}


async def test_dry_run(world: World) -> None:
    """It reports the same and changes nothing."""
    await world.write(reading("a", 20, {"co2": 1.0}), 0)
    await world.store_status("a", 10, {"co2": 2.0})
    await world.store_status("b", 10, {"co2": 2.0})
    before = world.documents()

    report = await world.dry.verify()

    assert dict(report.findings) == {"stale": 1, "missing": 1}
    assert report.as_json()["examples"] == {"stale": ["headrace:status:a"], "missing": ["headrace:status:b"]}
    assert (report.added, report.changed, report.removed) == (0, 0, 0)
    assert world.documents() == before


async def test_more_than_a_batch(world: World) -> None:
    """Thousands of entries are compared a batch at a time."""
    await world.database.execute(
        "INSERT INTO device_state SELECT 'd' || n, 'air', $1, $1, gen_random_uuid(), '{}' "
        "FROM generate_series(1, 2300) n",
        at(10),
    )

    assert (await world.verifier.verify()).added == 2_300
    assert (await world.verifier.verify()).findings == {"equal": 2_300}


async def test_out_of_time(world: World) -> None:
    """A run that takes longer than it may ends and says so; so does one that is told to stop."""
    await world.store_status("a", 10, {})
    stop = asyncio.Event()
    stop.set()

    report = await world.verifier.verify(stop)

    assert not report.complete
    assert world.metrics.value("headrace_cache_verified_timestamp_seconds") == 0


async def test_database_or_cache_away(database: dict[str, Any], redis_url: str) -> None:
    """A single run says so; the service tries again, and stops when told."""
    nowhere = {**database, "host": "/nonexistent"}
    for connect, url in ((nowhere, redis_url), (database, "unix:///nonexistent")):
        found = RedisSettings.model_validate({"url": url, "verify_interval": 1})
        verifier = CacheVerifier(found, connect, [], ManualClock(NOW))
        with pytest.raises(Disconnected):
            await verifier.verify()
        stop = asyncio.Event()
        task = asyncio.create_task(verifier.run(stop))
        await asyncio.sleep(0)
        stop.set()
        await asyncio.wait_for(task, 60)


DEVICES = st.sampled_from(["a", "b", "c:1", "ü"])
AGES = st.integers(0, 400)
VALUES = st.sampled_from([{"co2": 1.0}, {"co2": 2.0}, {"co2": 2.0, "door": "open"}, {}])
STEPS = st.one_of(
    st.tuples(st.just("both"), DEVICES, AGES, VALUES),
    st.tuples(st.just("database"), DEVICES, AGES, VALUES),
    st.tuples(st.just("cache"), DEVICES, AGES, VALUES),
    st.tuples(st.just("evict"), DEVICES),
    st.tuples(st.just("garbage"), DEVICES),
    st.tuples(st.just("flush")),
    st.tuples(st.just("pass"), st.integers(1, 120)),
)


@settings(max_examples=25)
@given(st.lists(STEPS, max_size=25))
def test_after_a_verification_cache_and_database_are_equal(
    database: dict[str, Any], redis_url: str, steps: list[tuple[Any, ...]]
) -> None:
    """Property 3.1, and 3.2: whatever was written, lost or forged before, and nothing in it is too old."""
    asyncio.run(_model(database, redis_url, steps))


async def _model(database: dict[str, Any], redis_url: str, steps: list[tuple[Any, ...]]) -> None:
    model: dict[str, tuple[float, dict[str, Any]]] = {}
    async with made(database, redis_url) as world:
        offset = 0
        for name, *arguments in steps:
            if name in ("both", "database"):
                device, ago, metrics = arguments
                await world.store_status(device, ago, metrics)
                if device not in model or model[device][0] >= ago:
                    model[device] = (ago, metrics)
            if name in ("both", "cache"):
                device, ago, metrics = arguments
                await world.sink.open()
                await append(world.log, reading(device, ago, metrics))
                await world.sink.positions([READINGS, ROLLUPS])
                await world.write(reading(device, ago, metrics), offset)
                offset += 1
            elif name == "evict":
                world.cache.delete(f"headrace:status:{arguments[0]}")
            elif name == "garbage":
                world.cache.set(f"headrace:status:{arguments[0]}", '{"asOf":9e99}')
            elif name == "flush":
                world.cache.flushall()
            elif name == "pass":
                world.clock.advance(arguments[0] * 1000)
        await world.stored(offset)

        await world.verifier.verify()

        passed = (world.clock.now_ms() - NOW) / 1000
        fresh = {device: each for device, each in model.items() if each[0] + passed < STATUS_TTL}
        expected = {f"headrace:status:{device}": status(device, *each) for device, each in fresh.items()}
        assert world.documents() == expected


async def append(log: EmbeddedLog, value: bytes) -> None:
    """The log has what the sink is given."""
    await log.commit(Transaction(appends=[Append(READINGS, Records([b"k"], [value], [NOW]))]))
