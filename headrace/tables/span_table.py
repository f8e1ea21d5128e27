"""The table of windows that are not on a grid: per partition, device type and device, a changelog entry per window.

Keys of the changelog, fields in network byte order:

    s <device type> NUL <device> NUL <kind: uint8> <its size: uint64> <key: 2 × int64>    see `Spans.entries`
    m <device type>                                                                       names of its measures

A value is as in `headrace.tables.window_values`, its header: own clock of the device, watermark at its last reading,
start, end, whether it is open, revision, number. Of sliding windows the entries are readings, with one value each
measure.
"""

import heapq
import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import orjson

from headrace.schemas.window import Count, Session, Sliding
from headrace.tables import window_values
from headrace.tables.aggregates import Aggregation, Cells
from headrace.tables.counts import Counts
from headrace.tables.grouping import NEVER, Numbering
from headrace.tables.sessions import Sessions
from headrace.tables.sliding import SlidingSpans
from headrace.tables.spans import Content, Entry, Key, OffGrid, Rules, Spans

_TAIL = struct.Struct(">BQqq")
_HEADER = 7
#: Least time of the watermark between two looks for entries that are past, ms.
_SWEEP_MS = 60_000
#: By kind, as keys say it.
_KINDS: tuple[tuple[type[OffGrid], type[Spans]], ...] = ((Session, Sessions), (Sliding, SlidingSpans), (Count, Counts))


def _identity(window: OffGrid) -> tuple[int, int]:
    """Kind and size, as keys say them."""
    match window:
        case Session():
            return 0, window.gap_ms
        case Sliding():
            return 1, window.size_ms
        case Count():
            return 2, window.size


@dataclass(slots=True)
class DeviceSpans:
    """What is remembered of one device: its own clock, the watermark at its last reading (ms), its windows by kind."""

    kinds: list[Spans]
    clock: int = NEVER
    seen_at: int = NEVER

    def copy(self) -> "DeviceSpans":
        """To be changed instead of this one."""
        return DeviceSpans([spans.copy() for spans in self.kinds], self.clock, self.seen_at)

    def deadline(self) -> int | None:
        """The watermark at which silence closes the first of its windows; None if none is open."""
        return min(
            (spans.rules.deadline(e.end, self.seen_at) for spans in self.kinds for _, e in spans.open_entries()),
            default=None,
        )


@dataclass(slots=True)
class TypeSpans:
    """The devices of one type in one partition."""

    measures: Numbering = field(default_factory=Numbering)
    devices: dict[str, DeviceSpans] = field(default_factory=dict)
    #: Watermarks at which silence closes something, at the earliest, and whose.
    due: list[tuple[int, str]] = field(default_factory=list)
    #: What was changed since the last commit: device, place of the kind, key.
    dirty: set[tuple[str, int, Key]] = field(default_factory=set)
    #: The same since the last look, of windows that are open.
    changed: set[tuple[str, int, Key]] = field(default_factory=set)
    logged_measures: int = 0

    def replace(self, device: str, state: DeviceSpans) -> None:
        """Make a device what a batch made of it."""
        before = self.devices.get(device)
        self.devices[device] = state
        for place, spans in enumerate(state.kinds):
            old = before.kinds[place].entries if before is not None else {}
            keys = {key for key, entry in spans.entries.items() if old.get(key) is not entry}
            self.changed.update((device, place, key) for key in keys)
            # The newest entry carries the device's clock into the changelog.
            keys |= {*(old.keys() - spans.entries.keys()), *([max(spans.entries)] if spans.entries else ())}
            self.dirty.update((device, place, key) for key in keys)
        line = state.deadline()
        if line is not None:
            heapq.heappush(self.due, (line, device))

    def due_at(self, mark: int) -> set[str]:
        """Devices that silence may close something of."""
        return {device for line, device in self.due if line <= mark} if self.due and self.due[0][0] <= mark else set()

    def looked_at(self, mark: int) -> None:
        """What was due was done."""
        while self.due and self.due[0][0] <= mark:
            heapq.heappop(self.due)


class SpanTable:
    """Changelog-backed sessions, sliding and count windows of all device types, per partition.

    Args:
        name: name of the table.
        windows: which.
        aggregation: what is kept of each measure.
        grace, keep: as of `headrace.tables.windows.WindowTable`, seconds.
    """

    def __init__(
        self, name: str, windows: Iterable[OffGrid], aggregation: Aggregation, grace: float, keep: float
    ) -> None:
        self.name = name
        self.windows = sorted(set(windows), key=_identity)
        self.aggregation = aggregation
        self.rules = Rules(round(grace * 1000), round(keep * 1000))
        self._partitions: dict[int, dict[str, TypeSpans]] = {}
        self._swept_at: dict[int, int] = {}
        self._restoring: dict[int, dict[bytes, bytes]] = {}

    def types(self, partition: int) -> dict[str, TypeSpans]:
        """The state of a partition, by device type."""
        return self._partitions.setdefault(partition, {})

    def new_device(self) -> DeviceSpans:
        """Without any windows."""
        made = {window: cls for window in self.windows for kind, cls in _KINDS if isinstance(window, kind)}
        return DeviceSpans([cls(window, self.aggregation, self.rules) for window, cls in made.items()])

    def is_open(self, partition: int) -> bool:
        """Whether a window is open that time would close."""
        return any(state.due for state in self.types(partition).values())

    def sweep(self, partition: int, watermark: int) -> None:
        """Forget what is past, every now and then. When this runs changes no output."""
        if watermark < self._swept_at.get(partition, NEVER) + _SWEEP_MS:
            return
        self._swept_at[partition] = watermark
        for state in self.types(partition).values():
            for device, spans_of in list(state.devices.items()):
                for place, spans in enumerate(spans_of.kinds):
                    before = set(spans.entries)
                    spans.drop_final(spans_of.clock, watermark)
                    state.dirty.update((device, place, key) for key in before - spans.entries.keys())
                if not any(spans.entries for spans in spans_of.kinds):
                    del state.devices[device]

    def changes(self, partition: int) -> dict[bytes, bytes | None]:
        """Newest value per key changed since the last call; None deletes."""
        entries: dict[bytes, bytes | None] = {}
        for device_type, state in self.types(partition).items():
            name = device_type.encode()
            if len(state.measures) != state.logged_measures:
                entries[b"m" + name] = orjson.dumps(state.measures.names)
                state.logged_measures = len(state.measures)
            for device, place, key in state.dirty:
                raw = self._raw(name, device, place, key)
                known = state.devices.get(device)
                entry = known.kinds[place].entries.get(key) if known is not None else None
                entries[raw] = _encoded(known, entry) if known is not None and entry is not None else None
            state.dirty.clear()
        return entries

    def _raw(self, device_type: bytes, device: str, place: int, key: Key) -> bytes:
        return b"s%b\0%b\0%b" % (device_type, device.encode(), _TAIL.pack(*_identity(self.windows[place]), *key))

    def entries_of(self, partition: int, device: str) -> dict[bytes, bytes]:
        """See `headrace.engine.queries.Queryable`."""
        entries: dict[bytes, bytes] = {}
        for device_type, state in self.types(partition).items():
            known, name = state.devices.get(device), device_type.encode()
            if known is not None:
                entries[b"m" + name] = orjson.dumps(state.measures.names)
                for place, spans in enumerate(known.kinds):
                    for key, entry in spans.entries.items():
                        entries[self._raw(name, device, place, key)] = _encoded(known, entry)
        return entries

    def restore(self, partition: int, entries: Sequence[tuple[bytes, bytes]]) -> None:
        """Take entries of the changelog, in any order and any number of calls."""
        self._restoring.setdefault(partition, {}).update(entries)

    def restored(self, partition: int) -> None:
        """All entries were given."""
        types = self.types(partition)
        places = {_identity(window): place for place, window in enumerate(self.windows)}
        for raw, value in self._restoring.pop(partition, {}).items():
            if raw.startswith(b"m"):
                state = types.setdefault(raw[1:].decode(), TypeSpans())
                state.measures.add(orjson.loads(value))
                state.logged_measures = len(state.measures)
                continue
            device_type, device, kind, size, key = _parsed(raw)
            place = places.get((kind, size))
            if place is None:
                continue  # not configured any more
            state = types.setdefault(device_type, TypeSpans())
            spans_of = state.devices.setdefault(device, self.new_device())
            header, values, sketches = window_values.decode_one(value, _HEADER, self.aggregation.sketch_width)
            clock, seen_at, start, end, is_open, revision, number = header
            spans_of.clock, spans_of.seen_at = max(spans_of.clock, clock), max(spans_of.seen_at, seen_at)
            content = Content(values, sketches[:, :0])
            if kind != _identity(Sliding(1))[0]:
                empty = self.aggregation.empty
                content = Content([[*cell, *empty[len(cell) :]][: len(empty)] for cell in values], sketches)
            spans_of.kinds[place].entries[key] = Entry(start, end, bool(is_open), revision, number, content)
        for state in types.values():
            lines = ((spans_of.deadline(), device) for device, spans_of in state.devices.items())
            state.due = sorted((line, device) for line, device in lines if line is not None)

    def rows(self, entries: Mapping[bytes, bytes]) -> Iterator[dict[str, Any]]:
        """See `headrace.engine.operator.Readable`: sessions and count windows; of sliding windows the readings."""
        names = {raw[1:].decode(): orjson.loads(value) for raw, value in entries.items() if raw.startswith(b"m")}
        for raw in sorted(raw for raw in entries if raw.startswith(b"s")):
            device_type, device, kind, size, _ = _parsed(raw)
            (clock, seen_at, start, end, is_open, revision, _), values, _ = window_values.decode_one(
                entries[raw], _HEADER, 0
            )
            window = _KINDS[kind][0](size)
            row = {
                "device_type": device_type,
                "device_id": device,
                "window": str(window),
                "start": start,
                "end": end,
                "open": bool(is_open) or isinstance(window, Count),
                "revision": max(revision, 0),
                "clock": clock,
                "watermark_at_last_reading": seen_at,
            }
            if isinstance(window, Sliding):
                cells = {name: value for name, (value,) in zip(names[device_type], values, strict=False)}
                yield {**row, "reading": {name: value for name, value in cells.items() if value == value}}
            else:
                yield {**row, "measures": window_values.shown(entries[raw], _HEADER, names[device_type])[1]}

    def forget(self, partition: int) -> None:
        """Drop the partition's state."""
        self._partitions.pop(partition, None)
        self._swept_at.pop(partition, None)
        self._restoring.pop(partition, None)


def _encoded(device: DeviceSpans, entry: Entry) -> bytes:
    header = (device.clock, device.seen_at, entry.start, entry.end, entry.is_open, entry.revision, entry.number)
    cells = Cells(np.array([entry.content.values], dtype=np.float64), entry.content.sketches[np.newaxis])
    if not entry.content.values:
        cells = Cells(np.zeros((1, 0, 1)), entry.content.sketches[np.newaxis])
    (value,) = window_values.encode([np.array([each], dtype=np.int64) for each in header], cells)
    return value


def _parsed(raw: bytes) -> tuple[str, str, int, int, Key]:
    device_type, device = raw[1 : -_TAIL.size - 1].decode().split("\0", 1)
    kind, size, first, second = _TAIL.unpack(raw[-_TAIL.size :])
    return device_type, device, kind, size, (first, second)
