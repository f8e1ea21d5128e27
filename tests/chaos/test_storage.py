"""The sink is killed and its database fails: exactly what the log accepted is stored, and alerts never wait."""

import random
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from local_kafka.cluster import Cluster

from headrace.cli.logs import open_log, topic_specs
from headrace.cli.settings import LogSettings, Settings
from headrace.engine.log import Log
from headrace.schemas import topics
from tests.chaos.storage_world import PATIENCE, Command, Database, Fleet, check, clock, contents, wait_stored
from tests.conftest import ChaosSize

pytestmark = [pytest.mark.chaos, pytest.mark.integration, pytest.mark.timeout(3600)]

#: Messages a second of the ordinary load: 10,000 in 5 minutes; and ten times that.
RATE = 10_000 / 300
#: From this many seconds of load on the tests take their long form.
LONG = 60.0
#: Seconds that the database is away, in the short and in the long form.
AWAY, LONG_AWAY = 8.0, 600.0
#: Kills of the sink in the long form.
LONG_KILLS = 20
#: Messages after which the sink has loaded all that it needs, so that its memory can be compared.
WARM_UP = 1_000
#: How much the sink may grow while the database is away.
GROWTH = 1.25


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    """A database that runs."""
    found = Database(tmp_path / "database")
    await found.start()
    yield found
    await found.stop()


@pytest.fixture
def kafka(kafka_tools: None) -> Iterator[str]:
    """URL of a Kafka of its own: topics have the names that commands give them."""
    with Cluster() as cluster:
        yield f"kafka://{cluster.bootstrap}"


@pytest.fixture
def url(request: pytest.FixtureRequest) -> str:
    """Of the log: the embedded one, unless the test asks for another."""
    kind = getattr(request, "param", "embedded")
    return "embedded://" if kind == "embedded" else str(request.getfixturevalue(kind))


@pytest.fixture
async def log(tmp_path: Path, url: str) -> AsyncIterator[Log]:
    """The log that worker and sink work on."""
    settings = Settings(log=LogSettings(url=url))
    found = await open_log(settings, tmp_path / "data", "test")
    await found.create_topics(topic_specs(settings))
    yield found
    await found.close()


@pytest.fixture
def commands(tmp_path: Path, database: Database, log: Log, url: str) -> Iterator[tuple[Command, Command]]:
    """A worker and a sink, started."""
    config = tmp_path / "headrace.toml"
    config.write_text(f'[database]\ndsn = "{database.dsn}"\n[log]\nurl = "{url}"\n')
    where = ["--config", str(config), "--data", str(tmp_path / "data")]
    worker, sink = Command(tmp_path, "worker", *where), Command(tmp_path, "sink", *where)
    worker.start()
    sink.start()
    yield worker, sink
    sink.end()
    worker.end()


@pytest.mark.parametrize("url", ["embedded", "kafka"], indirect=True)
async def test_killed_sink(
    commands: tuple[Command, Command], database: Database, log: Log, chaos_size: ChaosSize, chaos_seed: int
) -> None:
    """kill -9 of the sink at random points: every accepted reading is stored, once."""
    _, sink = commands
    rng, fleet = random.Random(chaos_seed), Fleet(log)
    kills = LONG_KILLS if chaos_size.seconds >= LONG else chaos_size.kills
    async with fleet.reporting(40 * RATE):
        await clock.sleep(2)
        await wait_stored(fleet, database, sink)
        for _ in range(kills):
            await clock.sleep(rng.uniform(0.5, 4.0))  # a start takes a second or two: some kills hit it
            sink.kill()
            sink.start()
    await check(fleet, database, sink)


async def test_database_away(
    commands: tuple[Command, Command], database: Database, log: Log, chaos_size: ChaosSize
) -> None:
    """While the database is down, alerts go on and the sink does not grow; then everything is stored."""
    worker, sink = commands
    long = chaos_size.seconds >= LONG
    fleet = Fleet(log)
    for rate in (RATE, 10 * RATE) if long else (10 * RATE,):
        async with fleet.reporting(rate):
            await fleet.wait_accepted(WARM_UP)
            await wait_stored(fleet, database, sink)
            before = most = sink.resident()
            await database.stop()
            read_before, alerts_before = await ends(log, topics.READINGS), await ends(log, topics.ALERTS)
            for _ in range(round(LONG_AWAY if long else AWAY) * 2):
                await clock.sleep(0.5)
                most = max(most, sink.resident())
            await wait_beyond(log, topics.READINGS, read_before, worker)
            await wait_beyond(log, topics.ALERTS, alerts_before, worker)
            most = max(most, sink.resident())
            await database.start()
        assert most < before * GROWTH, f"{before:,} bytes before, {most:,} while the database was away"
        await check(fleet, database, sink)


async def test_killed_database(
    commands: tuple[Command, Command], database: Database, log: Log, chaos_size: ChaosSize, chaos_seed: int
) -> None:
    """kill -9 of PostgreSQL at random points: what it had confirmed is there, the rest is written again."""
    _, sink = commands
    rng, fleet = random.Random(chaos_seed), Fleet(log)
    async with fleet.reporting(10 * RATE):
        await clock.sleep(2)
        await wait_stored(fleet, database, sink)
        for _ in range(min(chaos_size.kills, LONG_KILLS)):
            await clock.sleep(rng.uniform(0.2, 3.0))
            database.kill()
            await database.start()
    await check(fleet, database, sink)


async def test_log_read_again(commands: tuple[Command, Command], database: Database, log: Log) -> None:
    """The whole log read again, twice, changes no row."""
    worker, sink = commands
    fleet = Fleet(log)
    await fleet.report(6_000)
    await check(fleet, database, sink)
    worker.stop()
    await wait_read(log, database)
    for _ in range(2):
        sink.stop()
        before = await contents(database)
        await database.fetch("UPDATE sink_positions SET next_offset = 0")

        sink.start()
        await wait_read(log, database)

        assert await contents(database) == before


async def test_restored_database(commands: tuple[Command, Command], database: Database, log: Log) -> None:
    """A database set back to an earlier state gets everything since then, from the log."""
    _, sink = commands
    fleet = Fleet(log)
    async with fleet.reporting(10 * RATE):
        await clock.sleep(2)
        await wait_stored(fleet, database, sink)
        await database.stop()
        database.back_up()
        await database.start()
        await clock.sleep(3)
        await wait_stored(fleet, database, sink)
        await database.stop()

        database.restore()
        await database.start()
    await check(fleet, database, sink)


async def ends(log: Log, topic: str) -> int:
    """Records ever appended to a topic."""
    return sum((await log.end_offsets(topic)).values())


async def wait_beyond(log: Log, topic: str, before: int, worker: Command) -> None:
    """Wait until more is in a topic than before."""
    deadline = clock.monotonic() + PATIENCE
    while await ends(log, topic) <= before:
        assert clock.monotonic() < deadline, worker.said()
        await clock.sleep(0.1)


async def wait_read(log: Log, database: Database) -> None:
    """Wait until the sink's positions are at the end of the log."""
    behind = 1
    while behind:
        await clock.sleep(0.1)
        rows = await database.fetch("SELECT topic, partition, next_offset FROM sink_positions")
        stored = {(row["topic"], row["partition"]): row["next_offset"] for row in rows}
        behind = 0
        for topic in {topic for topic, _ in stored}:
            found = await log.end_offsets(topic)
            behind += sum(end - stored[topic, target.partition] for target, end in found.items())
