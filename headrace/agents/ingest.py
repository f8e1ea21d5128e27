"""Ingest: raw messages to readings. Decode, identity, event time, validate and convert, repeats, derive."""

from collections.abc import Mapping, Sequence
from typing import TypeVar
from uuid import NAMESPACE_OID, uuid5

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from headrace.agents.decode import Reasons
from headrace.agents.exact_path import Limits
from headrace.agents.identify import DeviceIds
from headrace.agents.ingest_outputs import Group, conflicts_of, readings_of
from headrace.agents.read_payloads import PayloadReader
from headrace.engine.batch import Batch
from headrace.engine.intake import tally
from headrace.engine.log import Tally
from headrace.engine.records import Records
from headrace.schemas import topics
from headrace.schemas.device_type import DeviceType
from headrace.tables.counters import Counters, Outcome
from headrace.tables.seen import Seen
from headrace.tables.seen_compare import Verdict
from headrace.tables.seen_devices import Judged, Messages

T = TypeVar("T")

#: Names of unknown fields that are counted one by one; further ones are counted together, as "...".
MAX_UNKNOWN_NAMES = 1000


class IngestConfig(BaseModel):
    """How ingest judges messages.

    Args:
        dedup_horizon: how far behind its device's clock a message is still recognised as a repeat, seconds.
        max_payload_bytes: larger payloads are refused.
        max_ahead: how far an event time may be later than the append time, seconds.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    dedup_horizon: float = Field(600.0, gt=0, le=86_400)
    max_payload_bytes: int = Field(1 << 20, gt=0)
    max_ahead: float = Field(300.0, ge=0)


class Ingest:
    """Turns `telemetry.raw` into `telemetry.readings`; what is wrong goes to `telemetry.dlq`, contradictions to
    `telemetry.conflicts`, repeats nowhere. In log order, the same for any batches.

    A message that completes an earlier one is passed on with what both say; `Readings.repeats` names what was said.

    Args:
        device_types: by name, as `load_device_types` returns them.
        config: see `IngestConfig`.
    """

    name = "ingest"
    topic = topics.RAW

    def __init__(self, device_types: Mapping[str, DeviceType], config: IngestConfig | None = None) -> None:
        config = config or IngestConfig()
        limits = Limits(config.max_payload_bytes, round(config.max_ahead * 1000))
        self._readers = {name.encode(): PayloadReader(each, limits) for name, each in device_types.items()}
        self._device_ids = DeviceIds()
        self.seen = Seen(config.dedup_horizon)
        self.counters = Counters()
        self.tables = (self.seen, self.counters)
        #: Messages since the start that had a field which their device type does not know, by (type, field).
        self.unknown_fields: dict[tuple[str, str], int] = {}

    def process(self, batch: Batch) -> None:
        """See `headrace.engine.operator.Operator`."""
        reasons: Reasons = {}
        groups = self.read(batch, reasons)
        for place in sorted(reasons):
            batch.dead_letter(place, reasons[place])
        readings: list[tuple[list[int], list[bytes]]] = []
        conflicts: dict[int, bytes] = {}
        for group in groups:
            judged = self.seen.judge(batch.partition, group.device_type.name, group.messages)
            batch.on_finish(judged.apply)
            self._count(batch, group, judged)
            readings.append(readings_of(group, judged))
            conflicts |= conflicts_of(batch, group, judged)
        _send(batch, topics.READINGS, *_in_order(readings))
        _send(batch, topics.CONFLICTS, *_in_order([(list(conflicts), list(conflicts.values()))]))

    def read(self, batch: Batch, reasons: Reasons) -> list[Group]:
        """The messages that are right, as columns of normalised values, by device type.

        Args:
            batch: of raw messages.
            reasons: gets an entry for each message that is refused.
        """
        _refuse_cut(batch.records, reasons)
        device_ids = self._device_ids.read(batch.records.keys, reasons)
        message_ids = _message_ids(batch)
        groups = []
        for name, rows in _by_type(batch.records).items():
            reader = self._readers.get(name or b"")
            if reader is None:
                known = ", ".join(sorted(known.decode() for known in self._readers))
                said = f"device type {name.decode(errors='replace')!r} is unknown" if name else "no device type"
                for row in rows:
                    reasons.setdefault(row, f"{said}; known are {known}")
                continue
            readable = [row for row in rows if row not in reasons] if reasons else rows
            groups.append(self._group(batch, reader, readable, device_ids, message_ids, reasons))
        return groups

    def _group(
        self,
        batch: Batch,
        reader: PayloadReader,
        rows: list[int],
        device_ids: list[str],
        message_ids: list[str],
        reasons: Reasons,
    ) -> Group:
        payloads = batch.records.values
        appended = np.array(batch.records.timestamps, dtype=np.int64)
        if len(rows) < len(batch):
            payloads, device_ids, message_ids = _each(rows, payloads), _each(rows, device_ids), _each(rows, message_ids)
            appended = appended[rows]
        wrong: Reasons = {}
        found, unknown = reader.read(payloads, device_ids, appended, wrong)
        for place, reason in wrong.items():
            reasons[rows[place]] = reason
        if unknown:
            batch.on_finish(lambda: self._count_unknown(reader.device_type.name, unknown))
        if len(found) < len(rows):
            chosen = found.rows.tolist()
            rows, device_ids, message_ids = _each(chosen, rows), _each(chosen, device_ids), _each(chosen, message_ids)
            appended = appended[found.rows]
        messages = Messages(device_ids, found.times, appended, found.measures, found.extras)
        return Group(reader.device_type, rows, message_ids, messages)

    def _count(self, batch: Batch, group: Group, judged: Judged) -> None:
        counts: dict[Tally, dict[Outcome, int]] = {}
        outcomes: tuple[tuple[Outcome, Verdict], ...] = (
            ("duplicate", Verdict.DUPLICATE),
            ("conflict", Verdict.CONFLICT),
        )
        for outcome, verdict in outcomes:
            stamps = group.messages.append_times[judged.verdicts == verdict].tolist()
            for key, count in tally(stamps, group.device_type.name).items():
                counts.setdefault(key, {})[outcome] = count
        if counts:
            batch.on_finish(lambda: self.counters.add(batch.partition, counts))

    def _count_unknown(self, device_type: str, unknown: Mapping[str, int]) -> None:
        counts = self.unknown_fields
        for field, count in unknown.items():
            key = (device_type, field)
            if key not in counts and len(counts) >= MAX_UNKNOWN_NAMES:
                key = (device_type, "...")
            counts[key] = counts.get(key, 0) + count


def _each(places: Sequence[int], column: Sequence[T]) -> list[T]:
    return [column[place] for place in places]


def _by_type(records: Records) -> dict[bytes | None, list[int]]:
    """Places of the records, by the device type that their header names."""
    header = records.headers.get(topics.DEVICE_TYPE)
    if isinstance(header, list) and len(set(header)) == 1:
        header = header[0]
    if header is None or isinstance(header, bytes):
        return {header: list(range(len(records)))}
    by_type: dict[bytes | None, list[int]] = {}
    for row, name in enumerate(header):
        by_type.setdefault(name, []).append(row)
    return by_type


def _message_ids(batch: Batch) -> list[str]:
    """The message ids; one made from the place in the log where a record has none that can be used."""
    column = batch.records.header(topics.MESSAGE_ID)
    try:
        return [value.decode("ascii") for value in column]  # type: ignore[union-attr]
    except (AttributeError, UnicodeDecodeError):
        return [
            value.decode("ascii")
            if value and value.isascii()
            else str(uuid5(NAMESPACE_OID, f"{batch.topic}/{batch.partition}/{batch.offset(place)}"))
            for place, value in enumerate(column)
        ]


def _refuse_cut(records: Records, reasons: Reasons) -> None:
    """Refuse what the intake cut, even if its beginning can be read."""
    if topics.PAYLOAD_BYTES in records.headers:
        for place, size in enumerate(records.header(topics.PAYLOAD_BYTES)):
            if size is not None:
                said = size.decode(errors="replace")
                reasons[place] = f"payload has {said} bytes, more than the log takes; the beginning is kept"


def _in_order(parts: list[tuple[list[int], list[bytes]]]) -> tuple[list[int], list[bytes]]:
    """All parts as one, by place in the batch."""
    if len(parts) == 1 and parts[0][0] == sorted(parts[0][0]):
        return parts[0]
    pairs = sorted((row, value) for rows, values in parts for row, value in zip(rows, values, strict=True))
    return [row for row, _ in pairs], [value for _, value in pairs]


def _send(batch: Batch, topic: str, rows: list[int], values: list[bytes]) -> None:
    """Stage records for `topic` that come from these rows of the batch."""
    records = batch.records if len(rows) == len(batch) else batch.records.take(rows)
    # No headers: the value says message id and device type too, and headers would be a third of the cost on Kafka.
    sent = Records(records.keys, list(values), records.timestamps)
    batch.send_records(topic, sent, partition=batch.partition)
