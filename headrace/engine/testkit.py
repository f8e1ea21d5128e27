"""Runs operators on virtual time without Faust and without a log: for tests, and for trying an agent in a shell."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from headrace.engine.batch import Batch, Idle, Shared
from headrace.engine.errors import CutBatch
from headrace.engine.log import Fetched, TopicPartition
from headrace.engine.operator import Operator, Viewed
from headrace.engine.records import Record, Records
from headrace.schemas.readings import Readings, encode_readings


class Driven(NamedTuple):
    """What came of driving an operator: records by topic, and dead letters as (offset, reason)."""

    sent: dict[str, list[Record]]
    dead_letters: list[tuple[int, str]]


class Changelog:
    """What the changelogs of an operator's tables hold for one partition: the newest value per key.

    Args:
        partition: of the topic the operator reads.
    """

    def __init__(self, partition: int = 0) -> None:
        self.partition = partition
        self.tables: dict[str, dict[bytes, bytes]] = {}

    def commit(self, operator: Operator) -> None:
        """Take the changes of all batches finished since the last commit."""
        for table in operator.tables:
            entries = self.tables.setdefault(table.name, {})
            for key, value in table.changes(self.partition).items():
                if value is None:
                    entries.pop(key, None)
                else:
                    entries[key] = value

    def restore(self, operator: Operator) -> None:
        """Give a fresh operator the state that was committed, in an order that nothing may depend on."""
        for table in operator.tables:
            entries = sorted(self.tables.get(table.name, {}).items(), reverse=True)
            table.restore(self.partition, entries[::2])
            table.restore(self.partition, entries[1::2])
            table.restored(self.partition)


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


def readings_log(rows: Iterable[tuple[str, str, int, Mapping[str, float]]], first_append: int = 0) -> Records:
    """Records of `telemetry.readings` from rows of device, device type, event time (ms) and measures.

    The append time is `first_append` ms, one more for each record; message ids are "message-0" and so on.
    """
    parts = [
        reading_records(
            Readings(
                device_type,
                np.zeros(1, dtype=np.int64),
                [device_id],
                np.array([time], dtype=np.int64),
                [f"message-{place}"],
                {name: np.array([value]) for name, value in measures.items()},
            ),
            [first_append + place],
        )
        for place, (device_id, device_type, time, measures) in enumerate(rows)
    ]
    return Records.concat(parts) if parts else Records([], [], [])


def drive(
    operator: Operator,
    records: Records,
    *,
    batch_sizes: Iterable[int] = (),
    partition: int = 0,
    base_offset: int = 0,
    restart: Callable[[], Operator] | None = None,
) -> Driven:
    """Give `records` to `operator`, cut into batches of these sizes (the rest in one), and collect what it sent.

    With `restart`, the operator crashes after every batch: its state is committed, and the fresh operator that
    `restart` makes goes on from the changelog alone.
    """
    driven = Driven({}, [])
    changelog = Changelog(partition)
    start = 0
    for size in [*batch_sizes, len(records)]:
        part = records.slice(start, start + size)
        if not len(part):
            continue
        run_batch(operator, fetched(part, operator.topic, partition, base_offset + start), driven)
        start += len(part)
        view(operator, driven, partition)
        if restart is not None:
            changelog.commit(operator)
            operator = restart()
            changelog.restore(operator)
    return driven


def view(operator: Operator, driven: Driven, partition: int = 0) -> None:
    """Add to `driven` what `operator` sends with a commit."""
    for send in operator.view(partition) if isinstance(operator, Viewed) else ():
        driven.sent.setdefault(send.topic, []).extend(send.records)


def pass_time(
    operator: Operator, driven: Driven, seconds: float, now_ms: int, *, partition: int = 0, topic: str | None = None
) -> None:
    """Let nothing come for so long, until `now_ms` (ms since 1970 UTC), and add what it sent to `driven`.

    Args:
        topic: from which nothing comes; the operator's first if left out.
    """
    nothing = fetched(Records([], [], []), topic or operator.topic, partition)
    run_batch(operator, nothing, driven, Idle(round(seconds * 1000), now_ms))


def run_batch(operator: Operator, fetched: Fetched, driven: Driven, idle: Idle | None = None) -> Batch:
    """Give one batch to `operator`, finish it, and add what it sent to `driven`.

    If the operator raises `CutBatch` it gets the parts; the last of them is returned.
    """
    parts = [fetched]
    while True:
        part = parts.pop()
        batch = Batch(Shared(part), idle)
        try:
            operator.process(batch)
        except CutBatch as cut:
            if not cut.is_within(len(batch)):
                raise
            parts += [part.part(cut.row, len(batch)), part.part(0, cut.row)]
            continue
        batch.finish()
        for send in batch.sends:
            driven.sent.setdefault(send.topic, []).extend(send.records)
        driven.dead_letters.extend((batch.offset(index), reason) for index, reason in batch.dead_letters)
        if not parts:
            return batch


def crash_and_restore(before: Operator, after: Operator, partition: int = 0) -> None:
    """Move all changelog-backed state of `before`, which never committed, into the fresh `after`."""
    changelog = Changelog(partition)
    changelog.commit(before)
    changelog.restore(after)
