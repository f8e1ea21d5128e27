"""The window table: event-time windows per partition and device type, with a changelog entry per device × window.

Keys of the changelog, fields in network byte order:

    w <device type> NUL <device> NUL <size, step, ms: uint64> <start, ms: int64>   one window; see `grid.step`
    m <device type>                                                                names of its measures
    t                                                                              the partition's watermark

What a window's value is, says `headrace.tables.window_values`. A device's clock is the largest of its windows': once
it has no window left, no reading can tell what its clock was.
"""

import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import orjson

from headrace.schemas.readings import Ints
from headrace.schemas.window import Hopping, Tumbling
from headrace.tables import window_values
from headrace.tables.aggregates import Aggregation
from headrace.tables.grid import Grid, OnGrid
from headrace.tables.grouping import NEVER
from headrace.tables.window_columns import FOREVER, OPEN, WindowColumns

_TAIL = struct.Struct(">QQq")
#: Of the first version, which had tumbling windows alone.
_TAIL_1 = struct.Struct(">Qq")
_WATERMARK = b"t"
#: int64 before a value's layout.
_HEADER = 3


class PartitionWindows:
    """Everything a rollup remembers of one partition.

    Args:
        table: whose parameters to use.
    """

    def __init__(self, table: "WindowTable") -> None:
        self._table = table
        #: Largest event time over all devices, ms, moved on while no reading comes.
        self.watermark = NEVER
        #: Append time of the last record, ms.
        self.appended_at = 0
        self.types: dict[str, WindowColumns] = {}
        self._logged_watermark = NEVER
        self._logged_measures: dict[str, int] = {}
        self._swept_at = NEVER

    def of_type(self, device_type: str) -> WindowColumns | None:
        """The windows of a device type; None if all sizes are shorter than its cadence."""
        windows = self.types.get(device_type)
        if windows is None:
            table, grid = self._table, self._table.grid_of(device_type)
            if not len(grid):
                return None
            windows = self.types[device_type] = WindowColumns(grid, table.aggregation, table.grace, table.keep)
        return windows

    def is_open(self) -> bool:
        """Whether a window is open; may be True for a while after the last one closed."""
        return any(windows.quiet_until < FOREVER for windows in self.types.values())

    def take_changed(self) -> Iterator[tuple[WindowColumns, str, Ints, Ints]]:
        """Open windows that changed since the last call: of each type its windows, its name, slots, as many zeros."""
        for device_type, windows in self.types.items():
            slots = windows.take_changed()
            if len(slots):
                yield windows, device_type, slots, np.zeros(len(slots), dtype=np.int64)

    def changes(self) -> dict[bytes, bytes | None]:
        entries: dict[bytes, bytes | None] = {}
        if self.watermark > self._logged_watermark:
            entries[_WATERMARK] = struct.pack("<q", self.watermark)
            self._logged_watermark = self.watermark
        sweep = self.watermark >= self._swept_at + self._table.sweep_interval
        for device_type, windows in self.types.items():
            if sweep:
                windows.sweep(self.watermark)
            self._changes_of(device_type, windows, entries)
        if sweep:
            self._swept_at = self.watermark
        return entries

    def _changes_of(self, device_type: str, windows: WindowColumns, entries: dict[bytes, bytes | None]) -> None:
        name, grid = device_type.encode(), windows.grid
        if len(windows.measures) != self._logged_measures.get(device_type):
            entries[b"m" + name] = orjson.dumps(windows.measures.names)
            self._logged_measures[device_type] = len(windows.measures)
        prefix = b"w" + name + b"\0"
        for device, series, start in windows.dropped:
            tail = _TAIL.pack(grid.lengths[series], grid.steps[series], start)
            entries[prefix + device.encode() + b"\0" + tail] = None
        windows.dropped.clear()

        slots = np.flatnonzero(windows.dirty)
        windows.dirty[slots] = False
        self._encode(prefix, windows, slots, entries)

    @staticmethod
    def _encode(prefix: bytes, windows: WindowColumns, slots: Ints, entries: dict[bytes, bytes | None]) -> None:
        """Add the entries of the windows in these slots."""
        if not len(slots):
            return
        grid = windows.grid
        devices, kinds = windows.device[slots], windows.series[slots]
        header = (windows.clocks[devices], windows.seen_at[devices], windows.revision[slots])
        values = window_values.encode(header, windows.cells[slots])
        tails = np.stack([grid.lengths[kinds], grid.steps[kinds], windows.start[slots]], axis=1).astype(">i8")
        names = windows.devices.names
        entries.update(
            zip(
                [
                    b"%b%b\0%b" % (prefix, names[device].encode(), tail)
                    for device, tail in zip(devices.tolist(), window_values.rows_of(tails), strict=True)
                ],
                values,
                strict=True,
            )
        )

    def entries_of(self, device: str) -> dict[bytes, bytes]:
        """What the changelog says, or will, about a device."""
        entries: dict[bytes, bytes | None] = {}
        for device_type, windows in self.types.items():
            number = windows.devices.number(device)
            if number is not None:
                name = device_type.encode()
                entries[b"m" + name] = orjson.dumps(windows.measures.names)
                self._encode(b"w" + name + b"\0", windows, np.flatnonzero(windows.device == number), entries)
        return {key: value for key, value in entries.items() if value is not None}

    def load(self, entries: Sequence[tuple[bytes, bytes]]) -> None:
        """Become what the changelog says."""
        device_types = []
        for key, value in (entry for entry in entries if not entry[0].startswith(b"w")):
            if key == _WATERMARK:
                self.watermark = self._logged_watermark = struct.unpack("<q", value)[0]
            else:
                device_types.append(device_type := key[1:].decode())
                windows = self.of_type(device_type)
                if windows is not None:
                    windows.measures.add(orjson.loads(value))
                    self._logged_measures[device_type] = len(windows.measures)
        for device_type in device_types:
            windows, prefix = self.of_type(device_type), b"w" + device_type.encode() + b"\0"
            rows = [entry for entry in entries if entry[0].startswith(prefix)]
            if windows is not None and rows:
                keys, values = zip(*rows, strict=True)
                _load_windows(windows, len(prefix), keys, values)


def _load_windows(windows: WindowColumns, prefix: int, keys: Sequence[bytes], values: Sequence[bytes]) -> None:
    tail = _TAIL.size
    tails = np.frombuffer(b"".join([key[-tail:] for key in keys]), ">i8").reshape(-1, 3).astype(np.int64)
    series = windows.grid.find(*tails.T)
    # A kind of window that is not configured any more is left alone.
    known = np.flatnonzero(series >= 0)
    if not len(known):
        return
    if len(known) < len(keys):
        keys, values = [keys[row] for row in known.tolist()], [values[row] for row in known.tolist()]
    series, starts = series[known], tails[known, 2]
    names = [key[prefix : -tail - 1].decode() for key in keys]
    windows.devices.add(dict.fromkeys(names))
    devices = windows.devices.numbers(names)
    windows.reserve()
    (clocks, seen_at, revisions), cells = window_values.decode(
        values, _HEADER, len(windows.measures), windows.aggregation
    )
    np.maximum.at(windows.clocks, devices, clocks)
    np.maximum.at(windows.seen_at, devices, seen_at)

    order = np.lexsort((starts, devices, series))
    slots = windows.open(series[order], devices[order], starts[order])
    windows.revision[slots] = revisions[order]
    windows.cells[slots] = cells[order]


class WindowTable:
    """Changelog-backed windows of all device types, per partition.

    Args:
        name: name of the table.
        windows: which, at least one.
        aggregation: what is kept of each measure.
        grace: how long a closed window takes late readings, by the device's own clock, seconds; > 0.
        keep: how far windows may be behind the partition's watermark, seconds.
        cadences: seconds between two readings, by device type; shorter windows are skipped.
    """

    #: 2: more kinds of windows, and what cells hold is said in each value.
    version = 2

    def __init__(
        self,
        name: str,
        windows: Iterable[OnGrid],
        aggregation: Aggregation,
        grace: float,
        keep: float,
        cadences: Mapping[str, float],
    ) -> None:
        self.name = name
        self.windows = list(windows)
        self.aggregation = aggregation
        self.grace = round(grace * 1000)
        self.keep = round(keep * 1000)
        #: How far the watermark moves between two looks for windows that are past, ms.
        self.sweep_interval = min((each.size_ms for each in self.windows), default=0)
        self._cadences = cadences
        self._grids: dict[str, Grid] = {}
        self._partitions: dict[int, PartitionWindows] = {}
        self._restoring: dict[int, list[tuple[bytes, bytes]]] = {}

    def grid_of(self, device_type: str) -> Grid:
        """The windows that make sense for a device type."""
        grid = self._grids.get(device_type)
        if grid is None:
            least = self._cadences.get(device_type, 0) * 1000
            grid = self._grids[device_type] = Grid(each for each in self.windows if each.size_ms >= least)
        return grid

    def partition(self, partition: int) -> PartitionWindows:
        """The state of a partition; empty if it is new."""
        state = self._partitions.get(partition)
        if state is None:
            state = self._partitions[partition] = PartitionWindows(self)
        return state

    def watermarks(self) -> dict[int, int]:
        """By partition, the watermark, ms since 1970 UTC."""
        return {number: state.watermark for number, state in self._partitions.items() if state.watermark > NEVER}

    def migrate(self, version: int, entries: Mapping[bytes, bytes]) -> dict[bytes, bytes]:
        """See `headrace.engine.operator.Versioned`."""
        migrated = {}
        for key, value in entries.items():
            if key.startswith(b"w"):
                size, start = _TAIL_1.unpack(key[-_TAIL_1.size :])
                migrated[key[: -_TAIL_1.size] + _TAIL.pack(size, size, start)] = window_values.from_first(value)
            else:
                migrated[key] = value
        return migrated

    def restore(self, partition: int, entries: Sequence[tuple[bytes, bytes]]) -> None:
        """Take entries of the changelog, in any order and any number of calls."""
        self._restoring.setdefault(partition, []).extend(entries)

    def restored(self, partition: int) -> None:
        """All entries were given."""
        self.partition(partition).load(self._restoring.pop(partition, []))

    def rows(self, entries: Mapping[bytes, bytes]) -> Iterator[dict[str, Any]]:
        """See `headrace.engine.operator.Readable`: the windows; the partition's watermark first."""
        if _WATERMARK in entries:
            yield {"watermark": struct.unpack("<q", entries[_WATERMARK])[0]}
        names = {key[1:].decode(): orjson.loads(value) for key, value in entries.items() if key.startswith(b"m")}
        for key in sorted(key for key in entries if key.startswith(b"w")):
            device_type, device = key[1 : -_TAIL.size - 1].decode().split("\0", 1)
            window, start, end = self._window(*_TAIL.unpack(key[-_TAIL.size :]))
            (clock, seen_at, revision), measures = window_values.shown(entries[key], _HEADER, names[device_type])
            yield {
                "device_type": device_type,
                "device_id": device,
                "window": str(window),
                "start": start,
                "end": end,
                "open": revision == OPEN,
                "revision": max(revision, 0),
                "clock": clock,
                "watermark_at_last_reading": seen_at,
                "measures": measures,
            }

    def _window(self, size: int, step_ms: int, start: int) -> tuple[OnGrid, int, int]:
        """Which window a key is about, its start and its end; of one that is not configured any more, about."""
        grid = Grid(self.windows)
        (series,) = grid.find(*np.array([[size], [step_ms], [start]]))
        if series >= 0:
            return grid.windows[series], start, int(grid.ends(series, np.array([start]))[0])
        return Tumbling(size) if step_ms in (0, size) else Hopping(size, step_ms), start, start + size

    def changes(self, partition: int) -> dict[bytes, bytes | None]:
        """Newest value per key changed since the last call; None deletes. Drops windows that are past."""
        state = self._partitions.get(partition)
        return state.changes() if state is not None else {}

    def entries_of(self, partition: int, device: str) -> dict[bytes, bytes]:
        """See `headrace.engine.queries.Queryable`."""
        return self.partition(partition).entries_of(device)

    def forget(self, partition: int) -> None:
        """Drop the partition's state."""
        self._partitions.pop(partition, None)
        self._restoring.pop(partition, None)
