"""Stage of ingest: what the device registry says of a message's device, as of the message's append time."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import partial
from shlex import quote
from typing import Literal

import orjson

from headrace.agents.decode import Reasons
from headrace.engine.batch import Batch
from headrace.engine.metrics import Metrics
from headrace.engine.records import Header, Records
from headrace.schemas import topics
from headrace.schemas.device import Device, decode_device
from headrace.tables.replicated import Replicated

#: What a reading can be given; the names that it has there.
EnrichField = Literal[
    "organisation", "name", "location", "gateway", "type", "status", "firmware_version", "tags", "metadata",
    "connectivity",
]  # fmt: skip
#: Moments of the registry of which look-ups are remembered, and devices without an entry, at each.
MOST_MOMENTS, MOST_STRANGERS = 8, 200_000


@dataclass(slots=True, eq=False)
class Entry:
    """What ingest needs to know of a registered device.

    Args:
        document: what its readings are given, as JSON; None for nothing.
        device_type: what the registry says it is, as a header has it; None for what its messages say.
    """

    document: bytes | None = None
    device_type: bytes | None = None
    retired: bool = False


_STRANGER = Entry()


def registry_table(fields: Sequence[EnrichField]) -> Replicated[Entry]:
    """The device registry as a table, with `fields` of each device encoded once and for all."""
    wanted: set[str] = set(fields)

    def decode(value: bytes) -> Entry:
        device: Device = decode_device(value)
        known = device.model_dump(mode="json", include=wanted, exclude_none=True, exclude_defaults=True)
        if "status" in wanted:
            known["status"] = device.status
        ordered = {name: known[name] for name in fields if name in known}
        return Entry(
            orjson.dumps(ordered) if ordered else None,
            device.type.encode() if device.type else None,
            device.status == "retired",
        )

    return Replicated(topics.DEVICES, decode)


class Registered:
    """What is known of the devices of a batch's messages.

    Args:
        entries: one per message.
        distinct: each of them once.
        said: device type that each message was appended with; one for all, or None.
    """

    def __init__(self, entries: Sequence[Entry], distinct: Collection[Entry], said: Header | None) -> None:
        self._entries = entries
        types = {entry.device_type for entry in distinct} - {None}
        #: Per message the type that it is read with; as `said` where the registry says nothing else.
        self.types: Header | None = said
        #: Per message the type that it was appended with, where the registry says another; None if it nowhere does.
        self.appended_as: list[bytes | None] | None = None
        if types and (isinstance(said, list) or types != {said}):
            headers = said if isinstance(said, list) else [said] * len(entries)
            self.types = [entry.device_type or header for entry, header in zip(entries, headers, strict=True)]
            if self.types != headers:
                pairs = zip(self.types, headers, strict=True)
                self.appended_as = [None if kind == header else header or b"unknown" for kind, header in pairs]

    def documents(self, rows: Sequence[int]) -> list[bytes | None] | None:
        """What the readings of these messages are given; None if nothing, all of them."""
        found = [self._entries[row].document for row in rows]
        return found if any(found) else None


class Enrich:
    """Looks up the devices of messages. A dictionary look-up per message while the registry does not change.

    The registry is asked as of the append time; for what comes back from `telemetry.dlq`, as of when it was sent back.

    A device's own type wins over that of its messages, and messages of a retired device are refused.

    Args:
        table: as `registry_table` makes it; None for no registry.
        quarantine: refuse messages of devices that are not registered.
        metrics: told of what is refused.
    """

    def __init__(self, table: Replicated[Entry] | None, *, quarantine: bool, metrics: Metrics | None = None) -> None:
        self._table = table
        self._quarantine = quarantine
        self._metrics = metrics or Metrics()
        self._known: dict[int, _AsOf] = {}
        self._revision = -1

    def look_up(self, batch: Batch, device_ids: Sequence[str], reasons: Reasons) -> Registered | None:
        """What is known of the devices, by the messages' append times; None if nobody is registered.

        Args:
            device_ids: one per message.
            reasons: gets an entry for each message that is refused.
        """
        table = self._table
        if table is None or not (table.revision or self._quarantine):
            return None
        spans = table.spans(_asked_at(batch.records))
        if len(spans) == 1:
            entries = list(map(self._as_of(table, spans[0].at_ms).__getitem__, device_ids))
        else:
            entries = [_STRANGER] * len(device_ids)
            for span in spans:
                known = self._as_of(table, span.at_ms)
                for row in span.rows:
                    entries[row] = known[device_ids[row]]
        distinct = set(entries)
        if any(each.retired for each in distinct) or (self._quarantine and _STRANGER in distinct):
            self._refuse(batch, entries, device_ids, reasons)
        return Registered(entries, distinct, _header(batch))

    def _as_of(self, table: Replicated[Entry], at_ms: int) -> "_AsOf":
        if self._revision != table.revision or len(self._known) >= MOST_MOMENTS:
            self._known.clear()
            self._revision = table.revision
        known = self._known.get(at_ms)
        if known is None or len(known) > table.entries + MOST_STRANGERS:
            known = self._known[at_ms] = _AsOf(table, at_ms)
        return known

    def _refuse(self, batch: Batch, entries: Sequence[Entry], device_ids: Sequence[str], reasons: Reasons) -> None:
        counts = {"unregistered": 0, "retired": 0}
        for row, (entry, device_id) in enumerate(zip(entries, device_ids, strict=True)):
            if row in reasons:
                continue
            if entry.retired:
                counts["retired"] += 1
                reasons[row] = f"device {device_id!r} is retired; if it is not: {_command(device_id, 'status=active')}"
            elif entry is _STRANGER and self._quarantine:
                counts["unregistered"] += 1
                reasons[row] = (
                    f"device {device_id!r} is not in the registry; {_command(device_id, '--add name=NAME')}, or "
                    "headrace devices import FILE; then headrace dlq replay sends this through again"
                )
        for reason, count in counts.items():
            if count:
                count_it = partial(self._metrics.count, "headrace_quarantined_total", count, reason=reason)
                batch.on_finish(count_it)


class _AsOf(dict[str, Entry]):
    """The entries of the devices at one moment of the registry, as they are asked for."""

    def __init__(self, table: Replicated[Entry], at_ms: int) -> None:
        super().__init__()
        self._table = table
        self._at_ms = at_ms

    def __missing__(self, device_id: str) -> Entry:
        entry = self[device_id] = self._table.get(device_id, self._at_ms) or _STRANGER
        return entry


def _asked_at(records: Records) -> list[int]:
    """As of when the registry is asked, ms: of what was sent back from the dead letters, when that was."""
    if topics.REDRIVEN_AT not in records.headers:
        return records.timestamps
    pairs = zip(records.header(topics.REDRIVEN_AT), records.timestamps, strict=True)
    return [int(time) if time and time.isdigit() else stamp for time, stamp in pairs]


def _header(batch: Batch) -> Header | None:
    """The device types in the header, as one where they are all the same."""
    header = batch.records.headers.get(topics.DEVICE_TYPE)
    return header[0] if isinstance(header, list) and len(set(header)) == 1 else header


def _command(device_id: str, what: str) -> str:
    return f"headrace devices set {quote(device_id)} {what}"
