"""The window table: event-time windows per partition and device type, with a changelog entry per device × window.

Keys of the changelog, fields in network byte order:

    w <device type> NUL <device> NUL <size, ms: uint64> <start, ms: int64>     one window
    m <device type>                                                            names of its measures
    t                                                                          the partition's watermark

A window's value is int64 own clock, watermark at the device's last reading, revision, then eight float64 per measure
(see `aggregates`), little-endian. A device's clock is the largest of its windows': once it has no window left, no
reading can tell what its clock was.
"""

import struct
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import orjson

from headrace.schemas.readings import Ints
from headrace.tables.aggregates import COUNT, EMPTY, WIDTH
from headrace.tables.grouping import NEVER
from headrace.tables.window_columns import OPEN, WindowColumns

_TAIL = struct.Struct(">Qq")
_HEADER = 3
_WATERMARK = b"t"
#: Of each measure, in the order of a cell (see `aggregates`).
_AGGREGATES = ("count", "sum", "min", "max", "first", "last")


class PartitionWindows:
    """Everything a rollup remembers of one partition.

    Args:
        table: whose parameters to use.
    """

    def __init__(self, table: "WindowTable") -> None:
        self._table = table
        #: Largest event time over all devices, ms.
        self.watermark = NEVER
        self.types: dict[str, WindowColumns] = {}
        self._logged_watermark = NEVER
        self._logged_measures: dict[str, int] = {}
        self._swept_at = NEVER

    def of_type(self, device_type: str) -> WindowColumns | None:
        """The windows of a device type; None if all sizes are shorter than its cadence."""
        windows = self.types.get(device_type)
        if windows is None:
            sizes = self._table.sizes_of(device_type)
            if not len(sizes):
                return None
            windows = self.types[device_type] = WindowColumns(sizes, self._table.grace, self._table.keep)
        return windows

    def changes(self) -> dict[bytes, bytes | None]:
        entries: dict[bytes, bytes | None] = {}
        if self.watermark > self._logged_watermark:
            entries[_WATERMARK] = struct.pack("<q", self.watermark)
            self._logged_watermark = self.watermark
        sweep = self.watermark >= self._swept_at + int(self._table.sizes.min())
        for device_type, windows in self.types.items():
            if sweep:
                windows.sweep(self.watermark)
            self._changes_of(device_type, windows, entries)
        if sweep:
            self._swept_at = self.watermark
        return entries

    def _changes_of(self, device_type: str, windows: WindowColumns, entries: dict[bytes, bytes | None]) -> None:
        name = device_type.encode()
        if len(windows.measures) != self._logged_measures.get(device_type):
            entries[b"m" + name] = orjson.dumps(windows.measures.names)
            self._logged_measures[device_type] = len(windows.measures)
        prefix = b"w" + name + b"\0"
        for device, size, start in windows.dropped:
            entries[prefix + device.encode() + b"\0" + _TAIL.pack(size, start)] = None
        windows.dropped.clear()

        slots = np.flatnonzero(windows.dirty)
        if not len(slots):
            return
        windows.dirty[slots] = False
        devices = windows.device[slots]
        header = np.stack([windows.clocks[devices], windows.seen_at[devices], windows.revision[slots]], axis=1)
        cells = windows.cells[slots].reshape(len(slots), -1).view(np.int64)
        values = np.concatenate([header, cells], axis=1).astype("<i8", copy=False).tobytes()
        ends = np.stack([windows.sizes[windows.size[slots]], windows.start[slots]], axis=1).astype(">i8").tobytes()
        width, names = len(values) // len(slots), windows.devices.names
        for row, device in enumerate(devices.tolist()):
            key = prefix + names[device].encode() + b"\0" + ends[row * 16 : row * 16 + 16]
            entries[key] = values[row * width : row * width + width]

    def load(self, entries: Mapping[bytes, bytes]) -> None:
        """Become what the changelog says."""
        by_type: dict[str, list[tuple[str, bytes, bytes]]] = {}
        for key, value in entries.items():
            if key == _WATERMARK:
                self.watermark = self._logged_watermark = struct.unpack("<q", value)[0]
            elif key.startswith(b"m"):
                device_type = key[1:].decode()
                windows = self.of_type(device_type)
                if windows is not None:
                    windows.measures.add(orjson.loads(value))
                    self._logged_measures[device_type] = len(windows.measures)
            else:
                device_type, device = key[1 : -_TAIL.size - 1].decode().split("\0", 1)
                by_type.setdefault(device_type, []).append((device, key[-_TAIL.size :], value))
        for device_type, rows in by_type.items():
            windows = self.of_type(device_type)
            if windows is not None:
                _load_windows(windows, rows)


def _load_windows(windows: WindowColumns, rows: Sequence[tuple[str, bytes, bytes]]) -> None:
    ends = np.frombuffer(b"".join(tail for _, tail, _ in rows), dtype=">i8").reshape(-1, 2).astype(np.int64)
    # A size that is not configured any more is left alone.
    known = np.flatnonzero(np.isin(ends[:, 0], windows.sizes))
    rows, ends = [rows[row] for row in known.tolist()], ends[known]
    devices = windows.devices.numbers([device for device, _, _ in rows])
    windows.reserve()
    size_order = np.argsort(windows.sizes)
    sizes = size_order[np.searchsorted(windows.sizes, ends[:, 0], sorter=size_order)]

    # A value written when the type had fewer measures is shorter: the rest is empty.
    measures = len(windows.measures)
    values = np.empty((len(rows), _HEADER + measures * WIDTH), dtype=np.int64)
    values[:, _HEADER:] = np.tile(np.array(EMPTY).view(np.int64), measures)
    for row, (_, _, value) in enumerate(rows):
        values[row, : len(value) // 8] = np.frombuffer(value, dtype="<i8")
    np.maximum.at(windows.clocks, devices, values[:, 0])
    np.maximum.at(windows.seen_at, devices, values[:, 1])

    order = np.lexsort((ends[:, 1], devices, sizes))
    slots = windows.open(sizes[order], devices[order], ends[order, 1])
    windows.revision[slots] = values[order, 2]
    windows.cells[slots] = values[order, _HEADER:].view(np.float64).reshape(len(rows), measures, WIDTH)


class WindowTable:
    """Changelog-backed tumbling windows of all device types, per partition.

    Args:
        name: name of the table.
        sizes: window lengths, seconds; each > 0.
        grace: how long a closed window takes late readings, by the device's own clock, seconds; > 0.
        keep: how far windows may be behind the partition's watermark, seconds.
        cadences: seconds between two readings, by device type; shorter windows are skipped.
    """

    def __init__(
        self, name: str, sizes: Sequence[float], grace: float, keep: float, cadences: Mapping[str, float]
    ) -> None:
        self.name = name
        self.sizes: Ints = np.array(sorted({round(size * 1000) for size in sizes}), dtype=np.int64)
        self.grace = round(grace * 1000)
        self.keep = round(keep * 1000)
        self._cadences = cadences
        self._partitions: dict[int, PartitionWindows] = {}
        self._restoring: dict[int, dict[bytes, bytes]] = {}

    def sizes_of(self, device_type: str) -> Ints:
        """Window lengths that make sense for a device type, ms."""
        return self.sizes[self.sizes >= self._cadences.get(device_type, 0) * 1000]

    def partition(self, partition: int) -> PartitionWindows:
        """The state of a partition; empty if it is new."""
        state = self._partitions.get(partition)
        if state is None:
            state = self._partitions[partition] = PartitionWindows(self)
        return state

    def watermarks(self) -> dict[int, int]:
        """By partition, the largest event time so far, ms since 1970 UTC."""
        return {number: state.watermark for number, state in self._partitions.items() if state.watermark > NEVER}

    def restore(self, partition: int, entries: Sequence[tuple[bytes, bytes]]) -> None:
        """Take entries of the changelog, in any order and any number of calls."""
        self._restoring.setdefault(partition, {}).update(entries)

    def restored(self, partition: int) -> None:
        """All entries were given."""
        self.partition(partition).load(self._restoring.pop(partition, {}))

    def rows(self, entries: Mapping[bytes, bytes]) -> Iterator[dict[str, Any]]:
        """See `headrace.engine.operator.Readable`: the windows; the partition's watermark first."""
        if _WATERMARK in entries:
            yield {"watermark": struct.unpack("<q", entries[_WATERMARK])[0]}
        names = {key[1:].decode(): orjson.loads(value) for key, value in entries.items() if key.startswith(b"m")}
        for key in sorted(key for key in entries if key.startswith(b"w")):
            device_type, device = key[1 : -_TAIL.size - 1].decode().split("\0", 1)
            size, start = _TAIL.unpack(key[-_TAIL.size :])
            clock, seen_at, revision = struct.unpack_from(f"<{_HEADER}q", entries[key])
            cells = np.frombuffer(entries[key], "<f8", offset=8 * _HEADER).reshape(-1, WIDTH).tolist()
            yield {
                "device_type": device_type,
                "device_id": device,
                "window_seconds": size / 1000,
                "start": start,
                "end": start + size,
                "open": revision == OPEN,
                "revision": max(revision, 0),
                "clock": clock,
                "watermark_at_last_reading": seen_at,
                "measures": {
                    name: dict(zip(_AGGREGATES, cell, strict=False))
                    for name, cell in zip(names[device_type], cells, strict=False)
                    if cell[COUNT]
                },
            }

    def changes(self, partition: int) -> dict[bytes, bytes | None]:
        """Newest value per key changed since the last call; None deletes. Drops windows that are past."""
        state = self._partitions.get(partition)
        return state.changes() if state is not None else {}

    def forget(self, partition: int) -> None:
        """Drop the partition's state."""
        self._partitions.pop(partition, None)
        self._restoring.pop(partition, None)
