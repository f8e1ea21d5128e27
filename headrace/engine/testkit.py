"""Runs operators on virtual time without Faust and without a log: for tests, and for trying an agent in a shell."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from headrace.engine.batch import Batch, Send, Shared
from headrace.engine.log import Fetched, TopicPartition
from headrace.engine.operator import Operator
from headrace.engine.records import Record, Records
from headrace.schemas.readings import Readings, encode_readings


class Driven(NamedTuple):
    """What came of driving an operator: records by topic, and dead letters as (offset, reason)."""

    sent: dict[str, list[Record]]
    dead_letters: list[tuple[int, str]]


def fetched(records: Records, topic: str, partition: int = 0, base_offset: int = 0) -> Fetched:
    """`records` as if read from a log."""
    return Fetched(TopicPartition(topic, partition), base_offset, base_offset + len(records), records)


def reading_records(readings: Readings, timestamps: Sequence[int] | None = None) -> Records:
    """Records of `telemetry.readings`; append time is the event time unless given."""
    return Records(
        [device_id.encode() for device_id in readings.device_ids],
        list(encode_readings(readings)),
        list(readings.times.tolist() if timestamps is None else timestamps),
    )


def drive(
    operator: Operator, records: Records, *, batch_sizes: Iterable[int] = (), partition: int = 0, base_offset: int = 0
) -> Driven:
    """Give `records` to `operator`, cut into batches of these sizes (the rest in one), and collect what it sent."""
    sent: dict[str, list[Record]] = {}
    dead: list[tuple[int, str]] = []
    start = 0
    for size in [*batch_sizes, len(records)]:
        part = records.slice(start, start + size)
        if not len(part):
            break
        batch = Batch(Shared(fetched(part, operator.topic, partition, base_offset + start)))
        operator.process(batch)
        for finish in batch.finishers:
            finish()
        for send in batch.sends:
            _collect(sent, send)
        dead += [(batch.base_offset + index, reason) for index, reason in batch.dead_letters]
        start += len(part)
    return Driven(sent, dead)


def crash_and_restore(before: Operator, after: Operator, partition: int = 0) -> None:
    """Move all changelog-backed state of `before` into the fresh `after`, as a restart would."""
    for old, new in zip(before.tables, after.tables, strict=True):
        entries = [(key, value) for key, value in old.changes(partition).items() if value is not None]
        new.restore(partition, entries)
        new.restored(partition)


def _collect(sent: dict[str, list[Record]], send: Send) -> None:
    sent.setdefault(send.topic, []).extend(send.records)
