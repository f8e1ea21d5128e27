"""What the sink stores beside readings: device states, presence, notifications, dead letters; and reading all again."""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import numpy as np
import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from headrace.connectors.timescale.sink import TimescaleSink
from headrace.engine import dead_letters
from headrace.engine.clock import SystemClock
from headrace.engine.embedded.database import MEMORY
from headrace.engine.embedded.log import EmbeddedLog
from headrace.engine.log import Append, Changes, Fetched, TopicPartition, TopicSpec, Transaction
from headrace.engine.records import Records
from headrace.engine.sink_runner import SinkRunner
from headrace.engine.testkit import reading_records
from headrace.schemas import topics
from headrace.schemas.readings import Readings
from headrace.schemas.rule import AlertRule
from headrace.tables.known_rules import RuleRegistry
from tests.connectors.timescale.storing import T0, air, batch, documents, opened, running, until
from tests.databases import Connect

Query = Callable[..., Any]
NAN = float("nan")
READ_STATE = """
    SELECT device_id, device_type, extract(epoch FROM time)::bigint - 1700000000, metrics FROM device_state ORDER BY 1
"""
#: Every device's stored reading with the greatest time, as `device_state` should have it.
NEWEST_AIR = """
    SELECT DISTINCT ON (device_id) device_id, 'air', extract(epoch FROM time)::bigint - 1700000000, message_id,
        appended_at,
        jsonb_strip_nulls(jsonb_build_object('co2', co2, 'temperature', temperature)) || COALESCE(extra, '{}')
    FROM readings_air ORDER BY device_id, time DESC
"""
STATE_AIR = """
    SELECT device_id, device_type, extract(epoch FROM time)::bigint - 1700000000, message_id, appended_at, metrics
    FROM device_state ORDER BY device_id
"""


@pytest.fixture
async def sink(database: Connect) -> Any:
    """An open sink that knows the type `air`."""
    sink = await opened(database)
    yield sink
    await sink.close()


async def states(query: Query) -> list[tuple[Any, ...]]:
    """The device states, metrics decoded."""
    return [(*row[:3], orjson.loads(row[3])) for row in await query(READ_STATE)]


async def check_state(query: Query) -> None:
    """Every state is the newest row of the device."""
    assert decoded(await query(STATE_AIR)) == decoded(await query(NEWEST_AIR))


def decoded(rows: Sequence[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    """Rows whose last column is JSON."""
    return [(*row[:-1], orjson.loads(row[-1])) for row in rows]


async def test_state_is_the_newest_reading(sink: TimescaleSink, query: Query) -> None:
    """The newest reading by event time, of whatever write; late ones change nothing."""
    await sink.write(batch(air(("a", 5, 1.0, NAN), ("a", 3, 2.0, 2.0), ("b", 1, NAN, 7.5))))
    await sink.write(batch(air(("a", 4, 9.0, 9.0), ("b", 2, 8.0, NAN), extras=[None, {"door": "open"}]), 3))

    assert await states(query) == [("a", "air", 5, {"co2": 1.0}), ("b", "air", 2, {"co2": 8.0, "door": "open"})]
    await check_state(query)


@pytest.mark.parametrize("one_write", [True, False], ids=["one write", "a write each"])
async def test_state_of_completed_readings(sink: TimescaleSink, query: Query, one_write: bool) -> None:
    """What completes the newest reading is in the state; what repeats or contradicts it, or completes others, not."""
    records = air(
        ("a", 5, 1.0, NAN), ("a", 5, NAN, 2.0), ("a", 5, 9.0, NAN), ("a", 5, 1.0, 2.0), ("a", 4, 4.0, NAN),
        ("a", 4, NAN, 4.0), ("b", 1, 1.0, NAN), ("b", 1, NAN, NAN),
        extras=[None] * 7 + [{"door": "open"}],
    )  # fmt: skip
    parts = [batch(records)] if one_write else [batch(records.slice(i, i + 1), i) for i in range(len(records))]

    for part in parts:
        await sink.write(part)

    assert await states(query) == [
        ("a", "air", 5, {"co2": 1.0, "temperature": 2.0}),
        ("b", "air", 1, {"co2": 1.0, "door": "open"}),
    ]
    await check_state(query)


@pytest.mark.parametrize("order", [("air", "soil"), ("soil", "air")])
@pytest.mark.parametrize("one_write", [True, False], ids=["one write", "a write each"])
async def test_state_of_a_device_with_two_types(
    sink: TimescaleSink, query: Query, order: tuple[str, str], one_write: bool
) -> None:
    """At the same time the type that sorts first wins, in whatever order they come."""
    records = [
        reading_records(Readings(name, np.arange(1), ["a"], np.array([T0]), [str(uuid4())], {"co2": np.array([1.0])}))
        for name in order
    ]
    parts = [batch(Records.concat(records))] if one_write else [batch(each, i) for i, each in enumerate(records)]

    for part in parts:
        await sink.write(part)

    assert await states(query) == [("a", "air", 0, {"co2": 1.0})]


async def test_numbers_of_any_length(sink: TimescaleSink, query: Query) -> None:
    """An integer that no machine has a type for is stored, in the row and in the state, and compared exactly."""
    numbers = [10**30, 10**30, 10**30 + 1]
    values: list[bytes | None] = [
        b'{"message_id":"%s","device_id":"a","device_type":"air","time":1,"measures":{},"extra":{"n":%d}}'
        % (str(uuid4()).encode(), number)
        for number in numbers
    ]

    await sink.write(batch(Records([b"a"] * 3, values, [T0] * 3)))

    assert await query("SELECT extra->>'n' FROM readings_air") == [(str(10**30),)]
    assert await query("SELECT metrics->>'n' FROM device_state") == [(str(10**30),)]
    assert await query("SELECT document->'measures'->>'n' FROM conflicts") == [(str(10**30 + 1),)]
    assert await sink.ledger() == {"stored": 1, "duplicate": 1, "conflict": 1}


READINGS = st.lists(
    st.tuples(
        st.sampled_from(["a", "b"]), st.integers(0, 2), st.sampled_from([1.0, 2.0, NAN]), st.sampled_from([1.0, NAN])
    ),
    min_size=1,
    max_size=12,
)


@settings(max_examples=15, suppress_health_check=list(HealthCheck))
@given(rows=READINGS, cut=st.integers(0, 12))
async def test_state_equals_the_newest_row(sink: TimescaleSink, query: Query, rows: Any, cut: int) -> None:
    """In any order, cut anywhere; and the same log again changes nothing."""
    await query("TRUNCATE readings_air, device_state, ledger, conflicts, repeats, sink_positions")
    records = air(*rows)
    parts = [each for each in (records.slice(0, cut), records.slice(cut, len(records))) if len(each)]
    await sink.positions([TopicPartition(topics.READINGS, 0)])
    base = 0
    for part in parts:
        await sink.write(batch(part, base))
        base += len(part)
    await check_state(query)
    before = await everything(query)

    await sink.write(batch(records, base))

    assert await everything(query) == before


async def test_presence(sink: TimescaleSink, query: Query) -> None:
    """The newest change of the connection; a will is none, and what is older changes nothing."""

    def change(device: str, state: str, seconds: int) -> dict[str, Any]:
        return {"device_id": device, "client_id": "c", "state": state, "time": T0 + seconds, "connection_id": "1"}

    log = [
        change("a", "connected", 1),
        change("a", "disconnected", 1),
        change("a", "will", 2),
        change("b", "connected", 5),
        change("b", "disconnected", 4),
    ]
    await sink.write(batch(documents(*log[:3]), topic=topics.PRESENCE))
    await sink.write(batch(documents(*log[3:]), 3, topic=topics.PRESENCE))
    rows = await query("SELECT device_id, state, log_offset FROM device_presence ORDER BY 1")

    await sink.write(batch(documents(log[0]), 5, topic=topics.PRESENCE))
    assert rows == [("a", "disconnected", 1), ("b", "connected", 3)]
    assert (await query("SELECT state FROM device_presence WHERE device_id = 'a'")) == [("connected",)]


def rule(rule_id: str, **fields: Any) -> dict[str, Any]:
    """A rule's document."""
    condition = {"metric": "co2", "operator": ">", "threshold": 1000}
    return {"ruleId": rule_id, "name": rule_id, "organizationId": "acme", "condition": condition, **fields}


def rule_records(*changes: tuple[str, dict[str, Any] | None]) -> Records:
    """Records of `rules` under these ids; None purges."""
    values = [None if value is None else orjson.dumps(value) for _, value in changes]
    return Records([name.encode() for name, _ in changes], values, [T0 + 1000 * n for n in range(len(changes))])


async def test_rules(sink: TimescaleSink, query: Query) -> None:
    """One row per id, as the newest record has it; of a purged rule the id is left."""
    log = rule_records(
        ("hot", rule("hot")),
        ("gone", rule("gone")),
        ("hot", rule("hot", severity="critical", deviceType="air", createdAt=T0, updatedAt=T0 + 5)),
        ("off", rule("off", status="deleted")),
        ("gone", None),
        ("key", rule("another", status="inactive")),
        ("never", None),
    )
    await sink.write(batch(log, topic=topics.RULES))

    read = """
        SELECT rule_id, organization_id, status, device_type, severity, document->>'ruleId', created_at,
            (extract(epoch FROM updated_at) * 1000)::bigint - 1700000000000,
            extract(epoch FROM applies_from)::bigint - 1700000000,
            log_offset
        FROM alert_rules ORDER BY log_offset
    """
    at = datetime.fromtimestamp(T0 / 1000, UTC)
    assert await query(read) == [
        ("hot", "acme", "active", "air", "critical", "hot", at, 5, 2, 2),
        ("off", "acme", "deleted", "all", "warning", "off", None, 3000, 3, 3),
        ("gone", None, "deleted", None, None, None, None, 4000, 4, 4),
        ("key", "acme", "inactive", "all", "warning", "another", None, 5000, 5, 5),
        ("never", None, "deleted", None, None, None, None, 6000, 6, 6),
    ]


async def test_what_is_no_rule_is_dead_lettered_and_deletions_arrive(database: Connect, query: Query) -> None:
    """From the compacted topic that commands write, which keeps its order; the rules around it are stored."""
    log = EmbeddedLog(MEMORY)
    ordinary = [name for name in TimescaleSink.topics if name != topics.RULES]
    await log.create_topics([*(TopicSpec(name, 1) for name in ordinary), *SinkRunner.topic_specs()])
    registry = RuleRegistry(log, SystemClock())
    for name in ("hot", "gone"):
        await registry.change({name: AlertRule.model_validate(rule(name))})
    target = TopicPartition(topics.RULES, 0)
    await log.commit(Transaction(changes=[Changes(target, {b"bad": b'{"ruleId": "bad"}'}, T0)]))
    await registry.change({"gone": None})
    runner = SinkRunner(log, await opened(database, partitions=1), SystemClock(), linger=0.001)

    async with running(runner):
        await until(lambda: runner.statistics().positions.get(target) == 4 and not runner.trouble)

    stored = await query("SELECT rule_id, status, document IS NULL FROM alert_rules ORDER BY 1")
    assert stored == [("gone", "deleted", True), ("hot", "active", False)]
    assert runner.statistics().dead_lettered == 1
    await log.close()


async def test_notifications(sink: TimescaleSink, query: Query) -> None:
    """One row per notification, as its newest event says by time."""

    def event(status: str, second: int) -> dict[str, Any]:
        data = {"notificationId": "n", "alertId": "x", "userId": "u", "channel": "email", "status": status}
        return {"specversion": "1.0", "time": f"2025-01-01T00:00:0{second}Z", "data": data}

    events = documents(event("sent", 1), event("delivered", 3), event("queued", 0))
    await sink.write(batch(events, topic=topics.NOTIFICATIONS))

    rows = await query(
        "SELECT notification_id, alert_id, user_id, channel, status, changed_at, log_offset FROM notifications"
    )
    assert rows == [("n", "x", "u", "email", "delivered", datetime(2025, 1, 1, 0, 0, 3, tzinfo=UTC), 1)]


def alert_event(revision: int | None, status: str, second: int, **data: Any) -> dict[str, Any]:
    """An event of alert `x`; without a revision as it was before there were some."""
    numbered = {} if revision is None else {"revision": revision}
    event = {"specversion": "1.0", "type": f"io.headrace.alert.{status}", "time": f"2025-01-01T00:00:0{second}Z"}
    named = {} if revision is None else {"id": f"x/{revision}", "subject": "a"}
    return {**event, **named, "data": {"alertId": "x", "status": status, **numbered, **data}}


async def test_alerts_without_revisions_go_by_their_time(sink: TimescaleSink, query: Query) -> None:
    """An older event of an alert changes nothing, wherever it is in the log."""
    await sink.write(batch(documents(alert_event(None, "resolved", 2)), topic=topics.ALERTS))
    await sink.write(batch(documents(alert_event(None, "triggered", 1)), 1, topic=topics.ALERTS))

    assert await query("SELECT status, log_offset FROM alerts") == [("resolved", 0)]


async def test_an_alerts_revision_never_goes_back(sink: TimescaleSink, query: Query) -> None:
    """The row is the newest revision's, although its time was earlier; every event is kept once, by its id."""
    triggered, resolved = alert_event(1, "triggered", 2), alert_event(3, "resolved", 1, gatewayId="g")
    commented = alert_event(2, "commented", 5, suppressed={"by": "silence", "id": "s"})
    await sink.write(batch(documents(triggered, resolved), topic=topics.ALERTS))
    await sink.write(batch(documents(commented, triggered), 2, topic=topics.ALERTS))

    assert await query("SELECT revision, status, gateway_id, suppressed_by, log_offset FROM alerts") == [
        (3, "resolved", "g", None, 1)
    ]
    rows = await query("SELECT event_id, alert_id, revision, type, device_id FROM alert_events ORDER BY 1")
    assert rows == [
        (f"x/{number}", "x", number, change, "a")
        for number, change in enumerate(("triggered", "commented", "resolved"), 1)
    ]


async def test_refused_commands_are_events_alone(sink: TimescaleSink, query: Query) -> None:
    """What nobody carried out is kept as an event, and neither makes an alert nor changes one."""
    said = {"commandId": "c", "command": "resolve", "alertId": "x", "deviceId": "a", "reason": "acknowledge it first"}
    refused = {
        **alert_event(9, "refused", 9), "id": "c/refused", "commandid": "c", "data": said,
    }  # fmt: skip
    nameless = {**refused, "id": "d/refused", "data": {**said, "alertId": None}}
    await sink.write(batch(documents(alert_event(1, "triggered", 1), refused, nameless), topic=topics.ALERTS))

    assert await query("SELECT alert_id, status, revision FROM alerts") == [("x", "triggered", 1)]
    rows = await query("SELECT event_id, alert_id, revision, type, command_id FROM alert_events ORDER BY 1")
    assert rows == [
        ("c/refused", "x", None, "refused", "c"),
        ("d/refused", None, None, "refused", "c"),
        ("x/1", "x", 1, "triggered", None),
    ]


async def test_dead_letters(sink: TimescaleSink, query: Query) -> None:
    """Bytes exactly, whatever they are; headers that are no text are escaped; where it came from."""
    payload = bytes(range(256))
    headers: dict[str, Any] = {
        dead_letters.REASON: b"no JSON \xff\0",
        dead_letters.AGENT: b"ingest",
        dead_letters.ORIGIN_TOPIC: b"telemetry.raw",
        dead_letters.ORIGIN_PARTITION: b"3",
        dead_letters.ORIGIN_OFFSET: b"77",
        topics.MESSAGE_ID: b"m-1",
        "od\0d": b"\xc3\x28",
    }
    await sink.write(batch(Records([b"dev\0"], [payload], [T0], headers), 7, 1, topics.DEAD_LETTERS))

    (row,) = await query("SELECT * FROM dead_letters")
    when = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=T0)
    head = (1, 7, when, r"dev\x00", "ingest", r"no JSON \xff\x00", "m-1", "telemetry.raw", 3, 77)
    assert (*row[:10], row[11]) == (*head, payload)
    assert orjson.loads(row[10])[r"od\x00d"] == r"\xc3("


@pytest.mark.parametrize(
    "records",
    [
        Records([None], [None], [T0]),
        Records([b"x" * 10_000], [b""], [-(2**63)], {dead_letters.ORIGIN_PARTITION: b"9" * 400}),
        Records([b"\xff" * 10_000], [b"v"], [2**63 - 1], {dead_letters.ORIGIN_OFFSET: "٣".encode(), "": b""}),
        Records([b""], [b"v"], [0], {topics.MESSAGE_ID: b"\0" * 5000, dead_letters.ORIGIN_PARTITION: b"2147483648"}),
        Records([np.random.default_rng(1).bytes(9000)], [b"v"], [1], {"\udcff": b"\xed\xa0\x80"}),
    ],
)
async def test_no_dead_letter_is_refused(sink: TimescaleSink, query: Query, records: Records) -> None:
    """Whatever somebody writes there is a row."""
    await sink.write(batch(records, topic=topics.DEAD_LETTERS))

    assert await query("SELECT value FROM dead_letters") == [(records.values[0],)]


TABLES = """
    SELECT table_name FROM information_schema.tables WHERE table_schema = 'public' AND table_type = 'BASE TABLE'
        AND table_name <> 'sink_positions' ORDER BY 1
"""


async def everything(query: Query) -> dict[str, list[tuple[Any, ...]]]:
    """Every row of every table with the transaction that wrote it last, but for the positions."""
    names = [name for (name,) in await query(TABLES)]
    return {
        name: await query(f'SELECT xmin::text, t::text FROM "{name}" AS t ORDER BY t::text COLLATE "C"')
        for name in names
    }


def whole_log(extra: int = 0) -> list[Fetched]:
    """Something of everything, with repeats, completions, contradictions and retractions among it."""
    rollup = {"device_id": "a", "device_type": "air", "window": "1m", "start": T0, "measures": {"co2": {"count": 1}}}
    alert = {"time": "2025-01-01T00:00:00Z", "data": {"alertId": "x", "status": "triggered"}}
    presence = {"device_id": "a", "state": "connected", "time": T0}
    conflict = {"message_id": str(UUID(int=5)), "device_id": "a", "device_type": "air", "time": T0, "measures": {}}
    notification = {"time": "2025-01-01T00:00:00Z", "data": {"notificationId": "n", "status": "sent"}}
    values: dict[str, list[dict[str, Any]]] = {
        topics.ROLLUPS: [
            {**rollup, "kind": "update", "revision": -1},
            {**rollup, "kind": "closed", "revision": 0},
            {**rollup, "kind": "update", "revision": 0, "measures": {}},
            {**rollup, "start": T0 + 1, "kind": "closed", "revision": 0},
            {**rollup, "start": T0 + 1, "kind": "retraction", "revision": 1},
        ],
        topics.ANOMALIES: [{"device_id": "a", "metric": "co2", "time": T0, "detector": "d", "n": n} for n in range(3)],
        topics.ALERTS: [
            *(alert, {**alert, "time": "2025-01-01T00:01:00Z"}, {**alert, "time": "2025-01-01T00:00:30Z"}),
            *(alert_event(number, "commented", number) for number in (1, 3, 2, 2)),
            {**alert_event(4, "refused", 4), "data": {"commandId": "c", "deviceId": "a"}},
        ],
        topics.PRESENCE: [presence, {**presence, "state": "disconnected"}, {**presence, "time": T0 - 1}],
        topics.NOTIFICATIONS: [notification, notification],
        topics.CONFLICTS: [conflict],
        topics.DEAD_LETTERS: [{"bad": 1}, {"bad": 2}],
    }
    readings = air(
        ("a", 0, 1.0, NAN), ("b", 0, 1.0, 1.0), ("a", 0, 1.0, NAN), ("a", 0, NAN, 2.0), ("a", 0, 5.0, 2.0),
        ("a", 0, 1.0, 2.0), ("a", 1, 1.0, 2.0), ("b", 0, 1.0, 1.0), *((f"d{n}", 0, 1.0, 1.0) for n in range(extra)),
    )  # fmt: skip
    parts = batch(readings)
    for topic, found in values.items():
        parts += batch(documents(*found), topic=topic)
    rules = rule_records(
        ("hot", rule("hot")), ("hot", rule("hot", status="deleted")), ("cold", rule("cold")), ("cold", None)
    )
    return [*parts, *batch(rules, topic=topics.RULES)]


async def test_the_log_read_again_changes_nothing(sink: TimescaleSink, query: Query) -> None:
    """All of it twice, then from the middle of each partition, in one write or one each: no row is touched."""
    log = whole_log()
    await sink.write(log)
    before = await everything(query)
    assert await query("SELECT term, sum(count)::int FROM ledger GROUP BY 1 ORDER BY 1") == [
        ("conflict", 1), ("duplicate", 3), ("stored", 4)
    ]  # fmt: skip

    halves = [part.part(len(part.records) // 2, len(part.records)) for part in log]
    singles = [[part.part(i, i + 1)] for part in log for i in range(len(part.records))]
    for again in ([log], [log], [halves], singles):
        await rewind(sink, query, again[0])
        for part in again:
            await sink.write(part)

    assert await everything(query) == before


async def rewind(sink: TimescaleSink, query: Query, parts: Sequence[Fetched]) -> None:
    """Set the positions back to where these begin."""
    await query("UPDATE sink_positions SET next_offset = 0")
    for part in parts:
        where = (part.target.topic, part.target.partition, part.base_offset)
        await query("UPDATE sink_positions SET next_offset = $3 WHERE topic = $1 AND partition = $2", *where)
    await sink.positions([TopicPartition(topic, partition) for topic in sink.topics for partition in range(2)])


async def test_refused_dead_letter_is_passed_over(database: Connect, query: Query) -> None:
    """It is not dead-lettered again, and the others are stored."""
    log = EmbeddedLog(MEMORY)
    await log.create_topics([*(TopicSpec(name, 1) for name in TimescaleSink.topics), *SinkRunner.topic_specs()])
    sink = await opened(database, partitions=1)
    await query("ALTER TABLE dead_letters ADD CHECK (value <> 'bad')")
    letters = Records([b"k"] * 3, [b"1", b"bad", b"3"], [T0] * 3)
    await log.commit(Transaction([Append(TopicPartition(topics.DEAD_LETTERS, 0), letters)]))
    runner = SinkRunner(log, sink, SystemClock(), linger=0.001)

    async with running(runner):
        await until(lambda: sum(runner.statistics().positions.values()) == 3)

    assert (runner.statistics().passed_over, runner.statistics().dead_lettered) == (1, 0)
    assert await query("SELECT value FROM dead_letters ORDER BY 1") == [(b"1",), (b"3",)]
    assert sum((await log.end_offsets(topics.DEAD_LETTERS)).values()) == 3
    await log.close()
