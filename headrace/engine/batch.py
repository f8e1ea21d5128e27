"""A batch: records of one partition read together, and what an agent wants to happen when it is done with them."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Any, NamedTuple

import numpy as np

from headrace.engine.log import Fetched, Tally
from headrace.engine.records import Record, Records
from headrace.schemas.readings import Readings, decode_readings

_ORDERS = count(1)


class Reading(NamedTuple):
    """One reading, for agents that go record by record.

    `row` is its place in the batch, `time` the event time in ms since 1970 UTC, `device` what the registry said.
    """

    row: int
    device_id: str
    device_type: str
    time: int
    message_id: str
    measures: dict[str, float]
    extra: dict[str, Any]
    device: dict[str, Any]


@dataclass(slots=True)
class Send:
    """Records for a topic; `partition` None means by key. `tallies` as in `Append`.

    `order` grows from batch to batch of the process, as they are finished: an agent of two topics sends in the order in
    which it changes its tables.
    """

    topic: str
    records: Records
    partition: int | None = None
    tallies: Mapping[Tally, int] = field(default_factory=dict)
    order: int = 0


class Shared:
    """What all agents that read one fetch share: the records and their decoded columns."""

    def __init__(self, fetched: Fetched) -> None:
        self.fetched = fetched
        self._columns: list[Readings] | None = None

    def columns(self) -> list[Readings]:
        if self._columns is None:
            self._columns = decode_readings(self.fetched.records.values)
        return self._columns


class Idle(NamedTuple):
    """Nothing came from the partition for `elapsed_ms` more, as fast as the clock runs; now it is `now_ms`."""

    elapsed_ms: int
    now_ms: int


class Batch:
    """Records of one partition, in log order, for one agent.

    Everything an agent does with a batch is staged: `send`, table writes and `on_finish` take effect together when the
    agent asks for its next batch, and none of them when it raises (the batch is then offered again).

    Iterate for records, or take `columns()` for speed. Operators that are `Idling` also get batches without records,
    with `idle` set.
    """

    def __init__(self, shared: Shared, idle: Idle | None = None) -> None:
        self._shared = shared
        self.idle = idle
        fetched = shared.fetched
        self.topic = fetched.target.topic
        self.partition = fetched.target.partition
        self.base_offset = fetched.base_offset
        self.next_offset = fetched.next_offset
        self.records = fetched.records
        self.sends: list[Send] = []
        self.dead_letters: list[tuple[int, str]] = []
        self.finishers: list[Callable[[], None]] = []

    def __len__(self) -> int:
        return len(self.records)

    def offset(self, index: int) -> int:
        """Offset in the log of record `index` of the batch."""
        return self._shared.fetched.offset(index)

    def __iter__(self) -> Iterator[Record]:
        return iter(self.records)

    def columns(self) -> list[Readings]:
        """The readings as columns, one `Readings` per device type; decoded once for all agents of the topic."""
        return self._shared.columns()

    def readings(
        self, metric: str | None = None, *, above: float | None = None, below: float | None = None
    ) -> Iterator[Reading]:
        """The readings one by one, in log order within a device type.

        Args:
            metric: only readings that have this measure.
            above, below: only where the metric is greater, or less, than this (its unit).
        """
        for columns in self.columns():
            chosen: Sequence[int] = range(len(columns))
            if metric is not None:
                column = columns.measures.get(metric)
                if column is None:
                    continue
                mask = ~np.isnan(column)
                if above is not None:
                    mask &= column > above
                if below is not None:
                    mask &= column < below
                chosen = mask.nonzero()[0].tolist()
            for index in chosen:
                yield Reading(
                    int(columns.rows[index]),
                    columns.device_ids[index],
                    columns.device_type,
                    int(columns.times[index]),
                    columns.message_ids[index],
                    columns.measures_of(index),
                    (columns.extras[index] if columns.extras else None) or {},
                    columns.device(index),
                )

    def send(
        self, topic: str, key: bytes, value: bytes, *, row: int = -1, headers: Mapping[str, bytes] | None = None
    ) -> None:
        """Stage one record for `topic`.

        Args:
            row: place in the batch of the record that caused it, whose append time it gets. Left out it is the last
                one's, which depends on where batches end.
        """
        stamp = self.records.timestamps[row]
        self.sends.append(Send(topic, Records([key], [value], [stamp], dict(headers or {}))))

    def send_records(self, topic: str, records: Records, *, partition: int | None = None) -> None:
        """Stage many records at once. Give `partition` when the keys are those of this batch: it saves hashing them."""
        if len(records):
            self.sends.append(Send(topic, records, partition))

    def dead_letter(self, index: int, reason: str) -> None:
        """Stage record `index` of the batch for `telemetry.dlq`, with the reason for a person."""
        self.dead_letters.append((index, reason))

    def finish(self) -> None:
        """Run what `on_finish` was given, once, and let go of it: it often refers to the batch."""
        for apply in self.finishers:
            apply()
        self.finishers.clear()
        order = next(_ORDERS)
        for send in self.sends:
            send.order = order

    def on_finish(self, apply: Callable[[], None]) -> None:
        """Run `apply` when the batch is finished. It changes state that was computed before, and must not raise."""
        self.finishers.append(apply)
