"""Compares what workers on Kafka left in the log with one run of fresh agents over what the log accepted."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from headrace.cli.agents import GROUP, Agents, build_agents
from headrace.cli.running import Setup
from headrace.connectors.fleet_faults import FleetTruth
from headrace.engine import dead_letters
from headrace.engine.changelog import changelog_topic
from headrace.engine.kafka.log import KafkaLog
from headrace.engine.log import Fetched, TopicPartition
from headrace.engine.operator import Operator
from headrace.engine.records import Record
from headrace.engine.testkit import Driven, run_batch
from headrace.schemas import topics
from headrace.schemas.readings import decode_readings
from headrace.tables.counters import Counters

#: Written by one agent each, to the partition that it read.
FROM_RAW = (topics.READINGS, topics.CONFLICTS)
FROM_READINGS = (topics.ROLLUPS, topics.LATE, topics.ANOMALIES, topics.ALERTS)
READ_AT_ONCE = 5_000
WAIT = 5.0

#: What makes two records the same: key, value, append time, message id.
Row = tuple[bytes | None, bytes | None, int, bytes | None]
#: Read pieces by partition.
Pieces = Mapping[TopicPartition, Sequence[Fetched]]


async def read_topic(log: KafkaLog, topic: str) -> dict[TopicPartition, list[Fetched]]:
    """Everything committed in a topic."""
    reader = log.reader()
    ends = await log.end_offsets(topic)
    found: dict[TopicPartition, list[Fetched]] = {target: [] for target in ends}
    left = dict.fromkeys(ends, 0)
    while left := {target: position for target, position in left.items() if position < ends[target]}:
        assert await reader.wait(left, WAIT), f"{topic} cannot be read beyond {left}"
        for target, position in left.items():
            piece = await reader.read(target, position, READ_AT_ONCE)
            if piece is not None:
                assert piece.base_offset >= position
                left[target] = piece.next_offset
                found[target].append(piece)
    await reader.close()
    return found


def rows(records: Sequence[Record]) -> list[Row]:
    """What is compared of records."""
    return [(r.key, r.value, r.timestamp, r.headers.get(topics.MESSAGE_ID)) for r in records]


def rows_of(pieces: Sequence[Fetched]) -> list[Row]:
    """What is compared of what was read."""
    return rows([record for piece in pieces for record in piece.records])


async def check_log(log: KafkaLog, setup: Setup, truth: FleetTruth, appended: int) -> dict[str, int]:
    """Nothing lost, nothing twice, order kept, ledger exact. The terms of the ledger.

    Args:
        setup: what the workers ran with.
        truth: what the fleet sent.
        appended: messages whose append returned.
    """
    agents = build_agents(setup.settings, setup.device_types, setup.rules)
    raw = await read_topic(log, topics.RAW)
    accepted_ids = [id for pieces in raw.values() for _, _, _, id in rows_of(pieces)]
    assert len(accepted_ids) == appended == truth.total
    assert len(set(accepted_ids)) == appended, "a message was appended twice"

    readings = await read_topic(log, topics.READINGS)
    ingested = await _compare(log, [agents.ingest], raw, {topics.READINGS: readings}, FROM_RAW)
    driven = await _compare(log, [agents.rollup, agents.detect, agents.alert], readings, {}, FROM_READINGS)
    for topic in (topics.ROLLUPS, topics.ANOMALIES, topics.ALERTS):
        assert any(each.sent.get(topic) for each in driven.values()), f"the load was too short for {topic}"
    await _compare_dead_letters(log, ingested)

    reading_ids = Counter(
        message_id
        for pieces in readings.values()
        for piece in pieces
        for columns in decode_readings(piece.records.values)
        for message_id in columns.message_ids
    )
    assert set(reading_ids.values()) == {1}, "a reading is there twice"
    terms = await _ledger(log, agents, len(reading_ids))
    assert terms == {
        "accepted": truth.total,
        "readings": truth.normal + truth.late,
        "duplicate": truth.duplicate,
        "conflict": truth.conflicting,
        "dead_lettered": truth.malformed + truth.spoofed,
    }
    return terms


async def _compare(
    log: KafkaLog, operators: Sequence[Operator], inputs: Pieces, known: Mapping[str, Pieces], outputs: Sequence[str]
) -> dict[TopicPartition, Driven]:
    """Run `operators` over `inputs`; what they send is, byte for byte and in order, what is in `outputs`."""
    driven = {target: Driven({}, []) for target in inputs}
    for target, pieces in inputs.items():
        for operator in operators:
            for piece in pieces:
                if len(piece.records):
                    run_batch(operator, piece, driven[target])
    for topic in outputs:
        written = known.get(topic) or await read_topic(log, topic)
        for target, each in driven.items():
            found = rows_of(written[TopicPartition(topic, target.partition)])
            expected = rows(each.sent.get(topic, []))
            assert found == expected, _difference(topic, target.partition, found, expected)
    return driven


def _difference(topic: str, partition: int, found: Sequence[Row], expected: Sequence[Row]) -> str:
    """Short, as both may have a hundred thousand rows."""
    extra, missing = Counter(found) - Counter(expected), Counter(expected) - Counter(found)
    return (
        f"{topic}[{partition}]: {len(found)} records, {len(expected)} expected; {extra.total()} too many, "
        f"{missing.total()} missing; first {list(extra)[:2]}, {list(missing)[:2]}"
    )


async def _compare_dead_letters(log: KafkaLog, ingested: Mapping[TopicPartition, Driven]) -> None:
    found: Counter[tuple[Any, ...]] = Counter()
    for pieces in (await read_topic(log, topics.DEAD_LETTERS)).values():
        for piece in pieces:
            for record in piece.records:
                headers = record.headers
                found[
                    headers[dead_letters.ORIGIN_PARTITION],
                    headers[dead_letters.ORIGIN_OFFSET],
                    headers[dead_letters.REASON],
                ] += 1
    expected = Counter(
        (str(target.partition).encode(), str(offset).encode(), reason.encode()[: dead_letters.MAX_REASON])
        for target, driven in ingested.items()
        for offset, reason in driven.dead_letters
    )
    assert found == expected


async def _ledger(log: KafkaLog, agents: Agents, readings: int) -> dict[str, int]:
    """The terms, each from where it is counted; those of ingest are those of one run, by minute and device type."""
    counters = Counters()
    changelog = changelog_topic(GROUP, Counters.name)
    for number in range(log.partitions(changelog)):
        async for entries in log.restore(TopicPartition(changelog, number)):
            counters.restore(number, entries)
    assert counters.totals() == agents.ingest.counters.totals()
    decided: Counter[str] = Counter()
    for outcomes in counters.totals().values():
        decided.update(outcomes)
    return {
        "accepted": sum((await log.tallies(topics.RAW)).values()),
        "readings": readings,
        "duplicate": decided["duplicate"],
        "conflict": decided["conflict"],
        "dead_lettered": sum((await log.tallies(topics.DEAD_LETTERS)).values()),
    }
