"""The TimescaleDB sink on a real PostgreSQL: the embedded one, or the one that HEADRACE_TEST_POSTGRES names."""

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import numpy as np
import orjson
import pytest

from headrace.connectors.postgres_server import PostgresServer
from headrace.connectors.timescale.migrations import MIGRATIONS, Migration, migrate, packaged
from headrace.connectors.timescale.readings_table import TableSpec
from headrace.connectors.timescale.sink import TimescaleSink
from headrace.engine.clock import SystemClock
from headrace.engine.embedded.database import MEMORY
from headrace.engine.embedded.log import EmbeddedLog
from headrace.engine.errors import ConfigError, Disconnected, RetryLater
from headrace.engine.log import Append, TopicPartition, TopicSpec, Transaction
from headrace.engine.records import Records
from headrace.engine.sink import PositionMoved, Refused
from headrace.engine.sink_runner import SinkRunner
from headrace.engine.testkit import reading_records
from headrace.schemas import topics
from headrace.schemas.readings import Readings
from tests.connectors.timescale.storing import AIR, T0, air, batch, documents, opened, until
from tests.databases import Connect

MINUTE = datetime(2023, 11, 14, 22, 13, tzinfo=UTC)
NAN = float("nan")
#: Too long for an index, even compressed.
LONG_ID = np.random.default_rng(1).bytes(5000).hex().encode()


@pytest.fixture
async def sink(database: Connect) -> AsyncIterator[TimescaleSink]:
    """An open sink that knows the type `air`."""
    sink = await opened(database)
    yield sink
    await sink.close()


async def blocked(query: Callable[..., Any]) -> int:
    """Wait until a connection waits for a lock on a table; its process id."""
    waiting = """
        SELECT pid FROM pg_locks JOIN pg_database ON pg_database.oid = database
        WHERE NOT granted AND locktype = 'relation' AND datname = current_database()
    """
    while not (pids := await query(waiting)):
        await query("SELECT pg_sleep(0.01)")
    return int(pids[0][0])


READ_AIR = (
    'SELECT device_id, extract(epoch FROM time)::bigint - 1700000000, co2, temperature, extra FROM "readings_air"'
)


async def test_readings_are_stored(sink: TimescaleSink, query: Callable[..., Any]) -> None:
    """A reading becomes a row with its values, nulls, extra, ids and both times, and is counted as stored."""
    records = air(
        ("a", 0, 400.0, NAN), ("b ü", 1, NAN, 21.5), ("a", 2, 1.0, 2.0), extras=[None, {"door": "open"}, None]
    )

    await sink.write(batch(records))

    assert sorted(await query(READ_AIR)) == [
        ("a", 0, 400.0, None, None),
        ("a", 2, 1.0, 2.0, None),
        ("b ü", 1, None, 21.5, '{"door": "open"}'),
    ]
    ids = {orjson.loads(value or b"")["message_id"] for value in records.values}
    rows = await query("SELECT message_id, appended_at FROM readings_air")
    assert {str(row[0]) for row in rows} == ids
    assert {row[1] for row in rows} == {datetime.fromtimestamp(T0 / 1000, UTC)}
    assert await query("SELECT minute, device_type, term, count FROM ledger") == [(MINUTE, "air", "stored", 3)]


async def test_many_null_patterns(sink: TimescaleSink, query: Callable[..., Any]) -> None:
    """Rows with different measures missing keep their own values."""
    rows = [(f"d{i}", i, NAN if i % 2 else float(i), NAN if i % 3 else float(-i)) for i in range(200)]

    await sink.write(batch(air(*rows)))

    expected = {(f"d{i}", i, None if i % 2 else float(i), None if i % 3 else float(-i), None) for i in range(200)}
    assert set(await query(READ_AIR)) == expected


async def test_unknown_measures_and_types(sink: TimescaleSink, query: Callable[..., Any]) -> None:
    """A measure without a column goes into extra, and a type nobody announced gets a table of its own."""
    readings = Readings(
        'x"; DROP TABLE ledger; --', np.arange(1), ["a"], np.array([T0]), [str(uuid4())], {"noise": np.array([3.5])}
    )

    await sink.write(batch(reading_records(readings)))

    assert await query('SELECT device_id, extra FROM "readings_x""; DROP TABLE ledger; --"') == [
        ("a", '{"noise": 3.5}')
    ]
    assert (await sink.ledger())["stored"] == 1


@pytest.mark.parametrize("one_write", [True, False], ids=["one write", "a write each"])
async def test_repeats(sink: TimescaleSink, query: Callable[..., Any], one_write: bool) -> None:
    """Same values are a duplicate, new ones complete the row, others are a conflict: in log order, in any batches."""
    records = air(
        ("a", 0, 400.0, NAN),  # stored
        ("a", 0, 400.0, NAN),  # duplicate
        ("a", 0, NAN, 20.0),  # completes
        ("a", 0, 400.0, 20.0),  # duplicate now
        ("a", 0, 400.0, 21.0),  # conflict
        ("a", 0, NAN, 20.0),  # duplicate
        ("b", 0, 1.0, 1.0),  # stored
        ("a", 0, NAN, NAN),  # completes by its extra
        ("a", 0, NAN, NAN),  # conflict in its extra
        extras=[None] * 7 + [{"door": "open"}, {"door": "shut", "more": 1}],
    )
    parts = [batch(records)] if one_write else [batch(records.slice(i, i + 1), i) for i in range(len(records))]

    for part in parts:
        await sink.write(part)

    assert sorted(await query(READ_AIR)) == [("a", 0, 400.0, 20.0, '{"door": "open"}'), ("b", 0, 1.0, 1.0, None)]
    assert await sink.ledger() == {"stored": 4, "duplicate": 3, "conflict": 2}
    conflicts = await query("SELECT message_id, device_id, document FROM conflicts ORDER BY message_id")
    expected = sorted((UUID(orjson.loads(records.values[i] or b"")["message_id"]), "a") for i in (4, 8))
    assert [row[:2] for row in conflicts] == expected
    accepted = [orjson.loads(row[2])["accepted"] for row in conflicts]
    assert {"co2": 400.0, "temperature": 20.0} in accepted
    assert {"co2": 400.0, "temperature": 20.0, "door": "open"} in accepted


@pytest.mark.parametrize("one_write", [True, False], ids=["straight", "staged"])
async def test_organisation(sink: TimescaleSink, query: Callable[..., Any], one_write: bool) -> None:
    """A row has the organisation that the registry named; whose a device is makes no message another one."""
    lab, nobody = b'{"organisation":"Lab \xc3\xa4","name":"one"}', b'{"name":"two"}'
    n = 4
    readings = Readings(
        "air",
        np.arange(n),
        ["a", "b", "c", "a"],
        np.array([T0, T0, T0, T0 if not one_write else T0 + 1]),
        [str(uuid4()) for _ in range(n)],
        {"co2": np.ones(n)},
        devices=[lab, nobody, None, nobody],
    )

    await sink.write(batch(reading_records(readings)))

    found = await query("SELECT device_id, organisation FROM readings_air ORDER BY device_id, time")
    later = [("a", None)] if one_write else []
    assert found == [("a", "Lab ä"), *later, ("b", None), ("c", None)]
    assert (await sink.ledger())["duplicate"] == (0 if one_write else 1)


async def test_true_is_not_one(sink: TimescaleSink, query: Callable[..., Any]) -> None:
    """A boolean contradicts the number that Python takes for the same, at any depth."""
    said: list[dict[str, Any] | None] = [{"x": 1, "y": [0]}, {"x": 1.0}, {"x": True}, {"y": [False]}, {"y": [0]}]

    await sink.write(batch(air(*[("a", 0, NAN, NAN)] * len(said), extras=said)))

    assert await sink.ledger() == {"stored": 1, "duplicate": 2, "conflict": 2}
    assert await query("SELECT extra::text FROM readings_air") == [('{"x": 1, "y": [0]}',)]


async def test_replay_counts_nothing(sink: TimescaleSink, query: Callable[..., Any]) -> None:
    """The same messages again, their positions lost, are stored and counted only once, and new ones among them are."""
    records = air(("a", 0, 1.0, 1.0), ("b", 0, 1.0, 1.0), ("a", 1, 1.0, 1.0))
    await sink.write(batch(records.slice(0, 2)))

    await sink.write(batch(Records.concat([records, records]), 2))

    assert len(await query(READ_AIR)) == 3
    assert await sink.ledger() == {"stored": 3, "duplicate": 0, "conflict": 0}


async def test_measure_that_gets_a_column_later(database: Connect, query: Callable[..., Any]) -> None:
    """A type that gains a measure gains a column; what was in extra before still counts as stored."""
    old = await opened(database, TableSpec("air", ("co2",)))
    records = air(("a", 0, 400.0, 20.0), ("a", 0, 400.0, 20.0), ("a", 1, 1.0, 2.0))
    await old.write(batch(records.slice(0, 1)))
    await old.close()

    new = await opened(database, AIR)
    await new.write(batch(records.slice(1, 3), 1))
    await new.close()

    assert sorted(await query(READ_AIR)) == [("a", 0, 400.0, None, '{"temperature": 20.0}'), ("a", 1, 1.0, 2.0, None)]
    assert await query("SELECT term, count FROM ledger ORDER BY term") == [("duplicate", 1), ("stored", 2)]


async def test_stale_positions(sink: TimescaleSink, database: Connect, query: Callable[..., Any]) -> None:
    """The same batches written by a second sink with positions from before are refused, and nothing changes."""
    other = await opened(database)
    parts = batch(air(("a", 0, 1.0, 1.0))) + batch(air(("b", 0, 1.0, 1.0)), partition=1)
    await sink.write(parts)

    with pytest.raises(PositionMoved, match="another sink"):
        await other.write(parts)

    assert await other.ledger() == {"stored": 2, "duplicate": 0, "conflict": 0}
    assert (await other.positions([part.target for part in parts])) == {part.target: 1 for part in parts}
    await other.write(batch(air(("a", 1, 1.0, 1.0)), 1))
    assert len(await query(READ_AIR)) == 3
    await other.close()


async def test_one_stale_partition_stops_the_write(sink: TimescaleSink, database: Connect) -> None:
    """A write of several partitions is stored whole or not at all."""
    other = await opened(database)
    await sink.write(batch(air(("a", 0, 1.0, 1.0))))

    with pytest.raises(PositionMoved):
        await other.write(batch(air(("b", 0, 1.0, 1.0)), partition=1) + batch(air(("a", 0, 1.0, 1.0))))

    assert (await other.ledger())["stored"] == 1
    await other.close()


@pytest.mark.parametrize("step", ["readings_air", "ledger"])
async def test_killed_in_the_transaction(sink: TimescaleSink, query: Callable[..., Any], step: str) -> None:
    """A connection killed while it waits inside the transaction leaves nothing; the retry stores everything once."""
    part = batch(air(("a", 0, 1.0, 1.0), ("b", 0, 1.0, 1.0)))
    await query("BEGIN")
    await query(f"LOCK TABLE {step} IN EXCLUSIVE MODE")
    writing = asyncio.create_task(sink.write(part))
    pid = await blocked(query)

    await query("SELECT pg_terminate_backend($1)", pid)
    with pytest.raises(Disconnected):
        await writing
    await query("ROLLBACK")
    assert await query(READ_AIR) == []

    await sink.open()
    assert (await sink.positions([part[0].target]))[part[0].target] == 0
    await sink.write(part)
    assert len(await query(READ_AIR)) == 2
    assert await sink.ledger() == {"stored": 2, "duplicate": 0, "conflict": 0}


@pytest.mark.parametrize(
    "value",
    [
        b"no JSON",
        b'{"message_id":"not-a-uuid","device_id":"a","device_type":"air","time":1,"measures":{}}',
        b'{"message_id":"%s","device_id":"a\\u0000","device_type":"air","time":1,"measures":{}}',
        b'{"message_id":"%s","device_id":"a","device_type":"air","time":1,"measures":{},"extra":{"t":"\\u0000"}}',
        b'{"message_id":"%s","device_id":"a","device_type":"air","time":9000000000000000000,"measures":{}}',
        b'{"message_id":"%s","device_id":"a","device_type":"air","time":9e99,"measures":{}}',
        b'{"message_id":"%s","device_id":"' + LONG_ID + b'","device_type":"air","time":1,"measures":{}}',
        None,
    ],
)
async def test_refused(sink: TimescaleSink, query: Callable[..., Any], value: bytes | None) -> None:
    """A reading that cannot be stored refuses the whole write, without a trace of it."""
    records = air(("good", 0, 1.0, 1.0))
    records.keys.append(b"a")
    records.values.append(value.replace(b"%s", str(uuid4()).encode()) if value else None)
    records.timestamps.append(T0)

    with pytest.raises(Refused):
        await sink.write(batch(records))

    assert await query(READ_AIR) == []
    await sink.write(batch(records.slice(0, 1)))
    assert len(await query(READ_AIR)) == 1


async def test_documents(sink: TimescaleSink, query: Callable[..., Any]) -> None:
    """Rollups keep the newest revision, alerts the newest state, anomalies and conflicts one row per key."""
    rollup = {"device_id": "a", "device_type": "air", "window_seconds": 60, "start": T0, "end": T0 + 60_000}
    alert = {"specversion": "1.0", "type": "alert", "data": {"alertId": "x", "ruleId": "hot", "deviceId": "a"}}
    anomaly = {"device_id": "a", "device_type": "air", "time": T0, "metric": "co2", "detector": "sigma", "sigma": 4.2}
    conflict = {"message_id": str(uuid4()), "device_id": "a", "device_type": "air", "time": T0, "measures": {"co2": 1}}
    parts = [
        *batch(
            documents(
                {**rollup, "revision": 1, "measures": {"co2": {"count": 2}}},
                {**rollup, "revision": 0, "measures": {"co2": {"count": 1}}},
            ),
            topic=topics.ROLLUPS,
        ),
        *batch(documents(anomaly, anomaly), topic=topics.ANOMALIES),
        *batch(documents(conflict), topic=topics.CONFLICTS),
        *batch(documents(*(with_state(alert, status) for status in ("open", "resolved"))), topic=topics.ALERTS),
    ]

    await sink.write(parts)
    await sink.write(batch(documents({**rollup, "revision": 0, "measures": {}}), 2, topic=topics.ROLLUPS))
    await sink.write(batch(documents(with_state(alert, "closed")), 2, topic=topics.ALERTS))

    assert await query("SELECT device_id, window_seconds, revision, measures->'co2'->>'count' FROM rollups") == [
        ("a", 60.0, 1, "2")
    ]
    assert await query("SELECT alert_id, rule_id, status, triggered_at FROM alerts") == [
        ("x", "hot", "closed", datetime.fromtimestamp(T0 / 1000, UTC))
    ]
    assert await query("SELECT metric, document->>'sigma' FROM anomalies") == [("co2", "4.2")]
    assert await query("SELECT device_id, document->'measures'->>'co2' FROM conflicts") == [("a", "1")]
    assert await sink.ledger() == {"stored": 0, "duplicate": 0, "conflict": 0}


async def test_retracted_windows_are_marked(sink: TimescaleSink, query: Callable[..., Any]) -> None:
    """A session that became part of another one counts no more, be it in the same batch or later; replays end alike."""
    one, other = ({"device_id": "a", "device_type": "air", "window": "session 1m", "start": T0 + s} for s in (0, 500))
    log = [
        {**one, "kind": "closed", "revision": 0, "measures": {}},
        {**other, "kind": "closed", "revision": 0, "measures": {}},
        {**other, "kind": "retraction", "revision": 1, "measures": {}},
        {**one, "kind": "retraction", "revision": 1, "measures": {}},
        {**one, "kind": "closed", "revision": 2, "measures": {}},
    ]
    rows = 'SELECT "window", window_seconds, revision, start FROM rollups WHERE NOT retracted'
    expected = [("session 1m", None, 2, datetime.fromtimestamp(T0 / 1000, UTC))]

    await sink.write(batch(documents(*log), topic=topics.ROLLUPS))
    assert await query(rows) == expected
    assert (await sink.counts())["rollups"] == 1
    for place, document in enumerate(log):
        await sink.write(batch(documents(document), 5 + place, topic=topics.ROLLUPS))
    assert await query(rows) == expected


def with_state(alert: dict[str, Any], status: str) -> dict[str, Any]:
    """The alert event in this state."""
    return {**alert, "data": {**alert["data"], "status": status, "triggeredAt": "2023-11-14T22:13:20Z"}}


async def test_committed_readings_are_announced(database: Connect) -> None:
    """The hook gets the readings of a write after its commit, and nothing of one that failed."""
    seen: list[Readings] = []
    sink = TimescaleSink(database, [AIR], SystemClock(), on_committed=seen.extend)
    await sink.open()
    await sink.positions([TopicPartition(topics.READINGS, 0)])

    await sink.write(batch(air(("a", 0, 1.0, 1.0))) + batch(air(("b", 0, 1.0, 1.0)), 1))
    with pytest.raises(Refused):
        await sink.write(batch(air(("nul\0", 0, 1.0, 1.0)), 2))
    await sink.close()

    assert [readings.device_ids for readings in seen] == [["a", "b"]]


async def test_migrations_by_many_at_once(database: Connect, query: Callable[..., Any]) -> None:
    """Workers that start together, again and again, migrate once."""
    for _ in range(2):
        sinks = [TimescaleSink(database, [AIR, TableSpec("other", ("x",))], SystemClock()) for _ in range(5)]
        await asyncio.gather(*(sink.open() for sink in sinks))
        for sink in sinks:
            await sink.close()

    versions = [version for (version,) in await query("SELECT version FROM headrace_migrations")]
    packaged_here = {step.version for step in packaged(MIGRATIONS) if not step.extension}
    assert len(versions) == len(set(versions))
    assert {version for version in versions if not version.startswith("readings_")} == packaged_here
    assert sorted(version.split(".")[0] for version in versions if version not in packaged_here) == [
        "readings_air",
        "readings_other",
    ]


async def test_changed_migration(database: Connect) -> None:
    """A migration that differs from the applied one is refused, and a failing one leaves nothing."""
    connection = await asyncpg.connect(**database)
    await migrate(connection, [Migration("1", "CREATE TABLE one (x int)")])

    with pytest.raises(ConfigError, match="migration 1 was changed"):
        await migrate(connection, [Migration("1", "CREATE TABLE one (x bigint)")])
    with pytest.raises(asyncpg.PostgresError):
        await migrate(connection, [Migration("2", "CREATE TABLE two (x int); SELECT 1 / 0")])

    assert await connection.fetchval("SELECT to_regclass('two')") is None
    assert await migrate(connection, [Migration("2", "CREATE TABLE two (x int)")]) == ["2"]
    assert await migrate(connection, [Migration("3", "SELECT 1", extension="no_such_extension")]) == []
    await connection.close()


def test_names_that_cannot_be_columns() -> None:
    """Every measure that cannot be a column is named at once."""
    with pytest.raises(ConfigError) as raised:
        TableSpec("air", ("time", "ctid", "x" * 64, "fine"))

    assert len(raised.value.mistakes) == 3


async def test_long_names(database: Connect, query: Callable[..., Any]) -> None:
    """Device types whose names differ only beyond PostgreSQL's limit get tables of their own."""
    names = ["t" * 80 + end for end in ("1", "2")]
    sink = await opened(database, *(TableSpec(name, ("m",)) for name in names))
    for place, name in enumerate(names):
        readings = Readings(name, np.arange(1), [name[-1]], np.array([T0]), [str(uuid4())], {"m": np.array([1.0])})
        await sink.write(batch(reading_records(readings), place))
    await sink.close()

    tables = await query("SELECT tablename FROM pg_tables WHERE tablename LIKE 'readings_t%'")
    assert len(tables) == 2


@pytest.fixture
async def log() -> AsyncIterator[EmbeddedLog]:
    """A log in memory with all topics of the sink."""
    log = EmbeddedLog(MEMORY)
    names = [*TimescaleSink.topics, topics.DEAD_LETTERS]
    await log.create_topics([*(TopicSpec(name, 2) for name in names), *SinkRunner.topic_specs()])
    yield log
    await log.close()


async def append(log: EmbeddedLog, partition: int, rows: Sequence[tuple[str, int, float, float]]) -> None:
    """Append readings of type `air`."""
    await log.commit(Transaction(appends=[Append(TopicPartition(topics.READINGS, partition), air(*rows))]))


async def test_runner_isolates_a_refused_row(log: EmbeddedLog, database: Connect, query: Callable[..., Any]) -> None:
    """One row that the database refuses is dead-lettered alone; the rest of its batch is stored."""
    await append(log, 0, [("nul\0" if i == 37 else f"d{i}", 0, 1.0, 1.0) for i in range(100)])
    runner = SinkRunner(log, TimescaleSink(database, [AIR], SystemClock()), SystemClock(), linger=0.001)

    stop = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        group.create_task(runner.run(stop))
        await until(lambda: runner.statistics().written == 99)
        stop.set()

    assert (runner.statistics().dead_lettered, len(await query(READ_AIR))) == (1, 99)
    assert await log.positions("timescale", topics.READINGS) == {
        TopicPartition(topics.READINGS, 0): 100,
        TopicPartition(topics.READINGS, 1): 0,
    }


async def test_runner_survives_kills(log: EmbeddedLog, database: Connect, query: Callable[..., Any]) -> None:
    """With its connections killed again and again while it writes, every reading is stored once."""
    for start in range(0, 20_000, 500):
        await append(log, start // 500 % 2, [(f"d{i}", i, 1.0, 1.0) for i in range(start, start + 500)])
    sink = TimescaleSink(database, [AIR], SystemClock())
    runner = SinkRunner(log, sink, SystemClock(), max_records=1000, linger=0.0, first_backoff=0.001)
    kill = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'headrace timescale'"

    stop = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        group.create_task(runner.run(stop))
        for goal in (1, 4_000, 9_000, 15_000):
            await until(lambda goal=goal: runner.statistics().written >= goal)  # type: ignore[misc]
            await query(kill)
        await until(lambda: sum(runner.statistics().positions.values()) == 20_000)
        stop.set()

    assert await query("SELECT count(*), count(DISTINCT message_id) FROM readings_air") == [(20_000, 20_000)]
    assert await query("SELECT term, sum(count)::int FROM ledger GROUP BY term") == [("stored", 20_000)]


async def test_ledger_while_the_database_refuses(database: Connect) -> None:
    """Asking for the ledger of a database that is not there says so."""
    sink = TimescaleSink({**database, "database": "nowhere"}, [AIR], SystemClock())

    with pytest.raises(RetryLater, match="nowhere"):
        await sink.ledger()


async def test_cancelled_while_the_database_hangs(
    log: EmbeddedLog, database: Connect, query: Callable[..., Any]
) -> None:
    """A runner whose write hangs can be cancelled at once, and leaves nothing half done."""
    sink = await opened(database)
    await append(log, 0, [("a", 0, 1.0, 1.0)])
    await query("BEGIN")
    await query("LOCK TABLE readings_air IN EXCLUSIVE MODE")
    running = asyncio.create_task(SinkRunner(log, sink, SystemClock(), linger=0.001).run(asyncio.Event()))
    await blocked(query)

    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    await query("ROLLBACK")

    assert await query(READ_AIR) == []
    assert await query("SELECT count(*) FROM ledger") == [(0,)]


async def test_runner_survives_an_outage(tmp_path: Path, log: EmbeddedLog) -> None:
    """The server stops and comes back while the runner works: it waits, says so, and then stores everything once."""
    server = PostgresServer(tmp_path)
    database = (await server.start()).connect_arguments()
    sink = TimescaleSink(database, [AIR], SystemClock())
    runner = SinkRunner(log, sink, SystemClock(), linger=0.001, first_backoff=0.01, max_backoff=0.05)
    await append(log, 0, [(f"d{i}", 0, 1.0, 1.0) for i in range(100)])

    stop = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        group.create_task(runner.run(stop))
        await until(lambda: runner.statistics().written == 100)
        await server.stop()
        await append(log, 1, [(f"d{i}", 1, 1.0, 1.0) for i in range(100)])
        await until(lambda: runner.statistics().retries >= 2)
        down = runner.statistics()
        await server.start()
        await until(lambda: runner.statistics().written == 200)
        stop.set()

    assert (down.state, down.written) == ("retrying", 100)
    assert runner.statistics().state == "running"
    assert await sink.ledger() == {"stored": 200, "duplicate": 0, "conflict": 0}
    await sink.close()
    await server.stop()


@pytest.mark.timescaledb
async def test_hypertables() -> None:
    """With TimescaleDB readings, rollups and anomalies are hypertables, and repeats are sorted out all the same."""
    url = os.environ["HEADRACE_TEST_TIMESCALEDB_URL"]
    name = f"test_{uuid4().hex}"
    admin = await asyncpg.connect(url)
    await admin.execute(f"CREATE DATABASE {name}")
    sink = await opened({"dsn": url, "database": name})
    connection = await asyncpg.connect(url, database=name)

    await sink.write(batch(air(("a", 0, 1.0, NAN), ("a", 0, NAN, 2.0), ("a", 0, 3.0, 2.0))))

    names = {
        row[0] for row in await connection.fetch("SELECT hypertable_name FROM timescaledb_information.hypertables")
    }
    assert names == {"readings_air", "rollups", "anomalies"}
    assert await sink.ledger() == {"stored": 2, "duplicate": 0, "conflict": 1}
    await sink.close()
    await connection.close()
    await admin.execute(f"DROP DATABASE {name} WITH (FORCE)")
    await admin.close()
