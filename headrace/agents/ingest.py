"""Ingest: raw messages to readings. Decode, identity, event time, validate and convert, repeats, derive."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Literal, TypeVar
from uuid import NAMESPACE_OID, uuid5

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from headrace.agents.decode import Reasons, decode
from headrace.agents.enrich import Enrich, EnrichField, Entry
from headrace.agents.exact_path import Limits
from headrace.agents.identify import DeviceIds, refuse_not_unpacked, refuse_unknown_topics
from headrace.agents.ingest_outputs import Group, appended_types, conflicts_of, in_order, readings_of, send_rows
from headrace.agents.read_payloads import PayloadReader
from headrace.agents.sequences import Sequences
from headrace.agents.strangers import Strangers, label
from headrace.engine.batch import Batch, Send
from headrace.engine.intake import tally
from headrace.engine.log import Tally
from headrace.engine.metrics import Metrics
from headrace.engine.records import Header, Records
from headrace.engine.replicas import Replica
from headrace.schemas import topics
from headrace.schemas.catch_all import CATCH_ALL
from headrace.schemas.device_type import DeviceType
from headrace.tables.counters import Counters, Outcome
from headrace.tables.replicated import Replicated
from headrace.tables.seen import Seen
from headrace.tables.seen_block import Bools
from headrace.tables.seen_compare import Verdict
from headrace.tables.seen_devices import Judged, Messages

T = TypeVar("T")


class IngestConfig(BaseModel):
    """How ingest judges messages.

    Args:
        dedup_horizon: how far behind its device's clock a message is still recognised as a repeat, seconds.
        max_payload_bytes: larger payloads are refused.
        max_ahead: how far an event time may be later than the append time, seconds; also of those that messages
            without a time are given.
        enrich: what a reading is given of its device in the registry.
        unregistered: what becomes of messages of devices that are not in the registry.
        unknown_types: dead-letter messages of device types that are not known (`quarantine`), or store them as
            `unknown` with all they say in `extra` (`keep`).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    dedup_horizon: float = Field(600.0, gt=0, le=86_400)
    max_payload_bytes: int = Field(1 << 20, gt=0)
    max_ahead: float = Field(300.0, ge=0)
    enrich: tuple[EnrichField, ...] = ("organisation", "name", "location", "gateway")
    unregistered: Literal["accept", "quarantine"] = "accept"
    unknown_types: Literal["quarantine", "keep"] = "quarantine"


class Ingest:
    """Turns `telemetry.raw` into `telemetry.readings`; what is wrong goes to `telemetry.dlq`, contradictions to
    `telemetry.conflicts`, repeats nowhere. In log order, the same for any batches.

    Counts sequence numbers, see `headrace.agents.sequences`: it alone knows what was delivered again.

    A message that completes an earlier one is passed on with what both say; `Readings.repeats` names what was said.

    Args:
        device_types: by name, as `load_device_types` returns them.
        config: see `IngestConfig`.
        devices: the device registry, see `headrace.agents.enrich.registry_table`.
        metrics: told of what is quarantined, and of what no device type describes.
    """

    name = "ingest"
    topic = topics.RAW

    def __init__(
        self,
        device_types: Mapping[str, DeviceType],
        config: IngestConfig | None = None,
        devices: Replicated[Entry] | None = None,
        metrics: Metrics | None = None,
    ) -> None:
        config = config or IngestConfig()
        self._keep_unknown = config.unknown_types == "keep"
        if self._keep_unknown:
            device_types = {CATCH_ALL.name: CATCH_ALL} | dict(device_types)
        self._limits = limits = Limits(config.max_payload_bytes, round(config.max_ahead * 1000))
        self._readers = {name.encode(): PayloadReader(each, limits) for name, each in device_types.items()}
        self._device_ids = DeviceIds()
        self._enrich = Enrich(devices, quarantine=config.unregistered == "quarantine", metrics=metrics)
        self.replicas: Sequence[Replica] = () if devices is None else (devices,)
        self.seen = Seen(config.dedup_horizon, config.max_ahead)
        self.counters = Counters()
        self.sequences = Sequences(metrics)
        self.tables = (self.seen, self.counters, self.sequences.streams)
        self.strangers = Strangers(metrics)

    def process(self, batch: Batch) -> None:
        """See `headrace.engine.operator.Operator`."""
        reasons: Reasons = {}
        groups = self.read(batch, reasons)
        for place in sorted(reasons):
            batch.dead_letter(place, reasons[place])
        readings: list[tuple[list[int], list[bytes]]] = []
        conflicts: dict[int, bytes] = {}
        verdicts: list[tuple[Group, Judged]] = []
        for group in groups:
            judged = self.seen.judge(batch.partition, group.device_type.name, group.messages)
            batch.on_finish(judged.apply)
            self._count(batch, group, judged)
            readings.append(readings_of(group, judged))
            conflicts |= conflicts_of(batch, group, judged)
            verdicts.append((group, judged))
        self.sequences.count(batch, verdicts)
        send_rows(batch, topics.READINGS, *in_order(readings), appended_types(groups))
        send_rows(batch, topics.CONFLICTS, *in_order([(list(conflicts), list(conflicts.values()))]))

    def view(self, partition: int) -> list[Send]:
        """See `headrace.engine.operator.Viewed`."""
        return self.sequences.view(partition)

    def read(self, batch: Batch, reasons: Reasons) -> list[Group]:
        """The messages that are right, as columns of normalised values, by device type.

        Args:
            batch: of raw messages.
            reasons: gets an entry for each message that is refused.
        """
        _refuse_cut(batch.records, reasons)
        refuse_unknown_topics(batch.records, reasons)
        refuse_not_unpacked(batch.records, reasons)
        nameless: Reasons = {}
        device_ids = self._device_ids.read(batch.records.keys, nameless)
        for place, reason in nameless.items():
            # Whatever finds the device in a payload cannot, if nobody can read it.
            unreadable: Reasons = {}
            decode([batch.records.values[place]], self._limits.payload_bytes, unreadable)
            reasons.setdefault(place, unreadable.get(0, reason))
        message_ids = _message_ids(batch)
        registered = self._enrich.look_up(batch, device_ids, reasons)
        header = registered.types if registered else batch.records.headers.get(topics.DEVICE_TYPE)
        groups = []
        for name, rows in self._known(batch, _by_type(header, len(batch))).items():
            reader = self._readers.get(name or b"")
            if reader is None:
                known = ", ".join(sorted(known.decode() for known in self._readers))
                said = f"device type {name.decode(errors='replace')!r} is unknown" if name else "no device type"
                for row in rows:
                    reasons.setdefault(row, f"{said}; known are {known}")
                continue
            readable = [row for row in rows if row not in reasons] if reasons else rows
            group = self._group(batch, reader, readable, device_ids, message_ids, reasons)
            group.registered = registered
            if self._keep_unknown and name == CATCH_ALL.name.encode():
                label(group, batch.records)
            groups.append(group)
        return groups

    def _known(self, batch: Batch, by_type: dict[bytes | None, list[int]]) -> dict[bytes | None, list[int]]:
        """Places by type, those of unknown types under the catch-all where they are kept; they are counted."""
        known: dict[bytes | None, list[int]] = {}
        kept: list[int] = []
        for name, rows in by_type.items():
            if (name or b"") in self._readers:
                known[name] = rows
                continue
            said = (name or b"").decode(errors="replace")
            batch.on_finish(partial(self.strangers.count_type, said, len(rows)))
            if self._keep_unknown:
                kept += rows
            else:
                known[name] = rows
        if kept:
            catch_all = CATCH_ALL.name.encode()
            known[catch_all] = sorted([*known.get(catch_all, []), *kept])
        return known

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
            batch.on_finish(lambda: self.strangers.count_fields(reader.device_type.name, unknown))
        if len(found) < len(rows):
            chosen = found.rows.tolist()
            rows, device_ids, message_ids = _each(chosen, rows), _each(chosen, device_ids), _each(chosen, message_ids)
            appended = appended[found.rows]
        untimed = None if found.untimed is None else _not_redriven(batch.records, rows, found.untimed)
        messages = Messages(device_ids, found.times, appended, found.measures, found.extras, untimed)
        return Group(reader.device_type, rows, message_ids, messages)

    def _count(self, batch: Batch, group: Group, judged: Judged) -> None:
        counts: dict[Tally, dict[Outcome, int]] = {}
        outcomes: tuple[tuple[Outcome, Verdict], ...] = (
            ("duplicate", Verdict.DUPLICATE),
            ("conflict", Verdict.CONFLICT),
        )
        for outcome, verdict in outcomes:
            for name, stamps in group.accepted_as(judged.verdicts == verdict).items():
                for key, count in tally(stamps, name).items():
                    counts.setdefault(key, {})[outcome] = count
        if counts:
            batch.on_finish(lambda: self.counters.add(batch.partition, counts))


def _each(places: Sequence[int], column: Sequence[T]) -> list[T]:
    return [column[place] for place in places]


def _by_type(header: Header | None, total: int) -> dict[bytes | None, list[int]]:
    """Places of the records, by the device type that their header names."""
    if isinstance(header, list) and len(set(header)) == 1:
        header = header[0]
    if header is None or isinstance(header, bytes):
        return {header: list(range(total))}
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


def _not_redriven(records: Records, rows: list[int], untimed: Bools) -> Bools:
    """Those that came for the first time: a dead letter may be sent back twice, and is one reading at its append time.

    No other message comes twice under one id.
    """
    if topics.REDRIVEN_FROM not in records.headers:
        return untimed
    redriven = records.header(topics.REDRIVEN_FROM)
    return untimed & [redriven[row] is None for row in rows]


def _refuse_cut(records: Records, reasons: Reasons) -> None:
    """Refuse what the intake cut, even if its beginning can be read."""
    if topics.PAYLOAD_BYTES in records.headers:
        for place, size in enumerate(records.header(topics.PAYLOAD_BYTES)):
            if size is not None:
                said = size.decode(errors="replace")
                reasons[place] = f"payload has {said} bytes, more than the log takes; the beginning is kept"
