"""What ingest sends: readings and conflicts, encoded, from messages that were judged."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import orjson

from headrace.agents.derive import derive
from headrace.agents.enrich import Registered
from headrace.engine.batch import Batch
from headrace.engine.records import Header, Records
from headrace.schemas import topics
from headrace.schemas.conflict import Conflict, Origin, encode_conflict
from headrace.schemas.device_type import DeviceType
from headrace.schemas.readings import Floats, Readings, encode_readings
from headrace.tables.grouping import Flags
from headrace.tables.seen_block import Entry
from headrace.tables.seen_compare import Verdict
from headrace.tables.seen_devices import Judged, Messages


@dataclass(slots=True)
class Group:
    """The good messages of one device type, as columns; `rows` are their places in the batch."""

    device_type: DeviceType
    rows: list[int]
    message_ids: list[str]
    messages: Messages
    registered: Registered | None = None

    def accepted_as(self, chosen: Flags) -> dict[str, list[int]]:
        """Append times of the chosen messages, (n,), by the device type that they were appended with."""
        stamps, name = self.messages.append_times[chosen].tolist(), self.device_type.name
        others = appended_types([self])
        if others is None:
            return {name: stamps}
        by_type: dict[str, list[int]] = {}
        for place, stamp in zip(np.flatnonzero(chosen).tolist(), stamps, strict=True):
            other = others[self.rows[place]]
            by_type.setdefault(name if other is None else other.decode(errors="replace"), []).append(stamp)
        return by_type


def appended_types(groups: Sequence[Group]) -> list[bytes | None] | None:
    """See `Registered.appended_as`; groups of one batch have the same."""
    return groups[0].registered.appended_as if groups and groups[0].registered else None


def readings_of(group: Group, judged: Judged | None = None) -> tuple[list[int], list[bytes]]:
    """The readings to pass on, encoded, with their places in the batch; all of them if nobody judged."""
    messages, device_type = group.messages, group.device_type
    measures, others = dict(messages.measures), messages.extras
    repeats: list[list[str] | None] | None = None
    if judged is not None and judged.merged:
        repeats = [None] * len(group.rows)
        others = list(others or repeats)  # type: ignore[arg-type]
        for place, entry in judged.merged.items():
            others[place] = entry.extra
            repeats[place] = _said(device_type, judged.known[place])
        _complete(measures, judged.merged, len(group.rows))
    measures |= derive(device_type, measures)
    columns = Readings(
        device_type.name,
        np.array(group.rows, dtype=np.int64),
        list(messages.device_ids),
        messages.times if judged is None else judged.times,
        group.message_ids,
        {name: measures[name] for name in (*device_type.measures, *device_type.derived) if name in measures},
        None,
        repeats,
        group.registered.documents(group.rows) if group.registered else None,
    )
    passed = None if judged is None else judged.verdicts <= Verdict.COMPLETION
    if passed is not None and not passed.all():
        places = passed.nonzero()[0]
        columns = columns.take(places)
        others = [others[place] for place in places.tolist()] if others else None
    return columns.rows.tolist(), encode_readings(columns, extras_json=others)


def _complete(measures: dict[str, Floats], merged: Mapping[int, Entry], total: int) -> None:
    """Put what is known now into the columns, at the rows that complete an earlier reading."""
    for name in dict.fromkeys([*measures, *(name for entry in merged.values() for name in entry.measures)]):
        column = measures[name].copy() if name in measures else np.full(total, np.nan)
        for place, entry in merged.items():
            column[place] = entry.measures.get(name, np.nan)
        measures[name] = column


def _said(device_type: DeviceType, entry: Entry) -> list[str] | None:
    """Names of what a reading carried, derived metrics included."""
    columns = {name: np.array([value]) for name, value in entry.measures.items()}
    derived = [name for name, column in derive(device_type, columns).items() if not np.isnan(column[0])]
    return [name for name in device_type.measures if name in entry.measures] + derived or None


def conflicts_of(batch: Batch, group: Group, judged: Judged) -> dict[int, bytes]:
    """The conflicts, encoded, by their places in the batch."""
    messages, found = group.messages, {}
    for place in (judged.verdicts == Verdict.CONFLICT).nonzero()[0].tolist():
        row, accepted = group.rows[place], judged.known[place]
        said = messages.entry(place)
        found[row] = encode_conflict(
            Conflict(
                message_id=group.message_ids[place],
                device_id=messages.device_ids[place],
                device_type=group.device_type.name,
                time=int(judged.times[place]),
                measures=_ordered(group.device_type, said),
                accepted=_ordered(group.device_type, accepted),
                origin=Origin(batch.partition, batch.offset(row), batch.topic),
                extra=orjson.loads(said.extra) if said.extra else None,
                accepted_extra=orjson.loads(accepted.extra) if accepted.extra else None,
            )
        )
    return found


def _ordered(device_type: DeviceType, entry: Entry) -> dict[str, float]:
    """An entry's measures in the device type's order: the table keeps none, and bytes must not depend on batches."""
    return {name: entry.measures[name] for name in device_type.measures if name in entry.measures}


def in_order(parts: list[tuple[list[int], list[bytes]]]) -> tuple[list[int], list[bytes]]:
    """All parts as one, by place in the batch."""
    if len(parts) == 1 and parts[0][0] == sorted(parts[0][0]):
        return parts[0]
    pairs = sorted((row, value) for rows, values in parts for row, value in zip(rows, values, strict=True))
    return [row for row, _ in pairs], [value for _, value in pairs]


def send_rows(
    batch: Batch, topic: str, rows: list[int], values: list[bytes], appended_as: list[bytes | None] | None = None
) -> None:
    """Stage records for `topic` that come from these rows of the batch.

    Args:
        appended_as: see `headrace.agents.enrich.Registered`; of all messages of the batch.
    """
    records = batch.records if len(rows) == len(batch) else batch.records.take(rows)
    # Else no headers: the value says message id and device type too, and they would be a third of the cost on Kafka.
    headers: dict[str, Header] = {topics.DEVICE_TYPE: [appended_as[row] for row in rows]} if appended_as else {}
    sent = Records(records.keys, list(values), records.timestamps, headers)
    batch.send_records(topic, sent, partition=batch.partition)
