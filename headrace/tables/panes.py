"""The pane table: sums per device and pane of event time, with a changelog entry per device × pane.

Keys of the changelog, fields in network byte order:

    p <device type> NUL <device> NUL <pane number: int64>     one pane
    m <device type>                                           names of its measures

A pane's value is the device's own clock (int64, ms), then float64 per measure: reference, baseline (three), sums
(three), little-endian. Clock, references and baseline hold in the device's newest pane; older ones have
outdated ones.
"""

import math
import struct
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import orjson

from headrace.tables.grouping import NEVER
from headrace.tables.pane_columns import SUMS, PaneColumns

_TAIL = struct.Struct(">q")
_PER_MEASURE = 1 + 2 * SUMS


class PartitionPanes:
    """Everything a detector remembers of one partition.

    Args:
        panes: how many panes back are kept.
    """

    def __init__(self, panes: int) -> None:
        self._panes = panes
        self.types: dict[str, PaneColumns] = {}
        self._logged_measures: dict[str, int] = {}

    def of_type(self, device_type: str) -> PaneColumns:
        """The panes of a device type."""
        panes = self.types.get(device_type)
        if panes is None:
            panes = self.types[device_type] = PaneColumns(self._panes)
        return panes

    def changes(self) -> dict[bytes, bytes | None]:
        entries: dict[bytes, bytes | None] = {}
        for device_type, panes in self.types.items():
            self._changes_of(device_type, panes, entries)
        return entries

    def _changes_of(self, device_type: str, panes: PaneColumns, entries: dict[bytes, bytes | None]) -> None:
        name = device_type.encode()
        if len(panes.measures) != self._logged_measures.get(device_type):
            entries[b"m" + name] = orjson.dumps(panes.measures.names)
            self._logged_measures[device_type] = len(panes.measures)
        prefix = b"p" + name + b"\0"
        for device, number in panes.dropped:
            entries[prefix + device.encode() + b"\0" + _TAIL.pack(number)] = None
        panes.dropped.clear()

        devices, place = panes.take_dirty()
        if not len(devices):
            return
        columns = [
            panes.references[devices][:, :, np.newaxis], panes.baselines[devices], panes.sums[devices, place],
        ]  # fmt: skip
        measured = np.concatenate(columns, axis=2).reshape(len(devices), -1).view(np.int64)
        clocks = panes.clocks[devices][:, np.newaxis]
        values = np.concatenate([clocks, measured], axis=1).astype("<i8", copy=False).tobytes()
        tails = panes.numbers[devices, place].astype(">i8").tobytes()
        width, names = len(values) // len(devices), panes.devices.names
        for row, at in enumerate(devices.tolist()):
            key = prefix + names[at].encode() + b"\0" + tails[row * 8 : row * 8 + 8]
            entries[key] = values[row * width : row * width + width]

    def load(self, entries: Mapping[bytes, bytes]) -> None:
        """Become what the changelog says."""
        by_type: dict[str, list[tuple[str, bytes, bytes]]] = {}
        for key, value in entries.items():
            if key.startswith(b"m"):
                device_type = key[1:].decode()
                measures = self.of_type(device_type).measures
                measures.add(orjson.loads(value))
                self._logged_measures[device_type] = len(measures)
            else:
                device_type, device = key[1 : -_TAIL.size - 1].decode().split("\0", 1)
                by_type.setdefault(device_type, []).append((device, key[-_TAIL.size :], value))
        for device_type, rows in by_type.items():
            _load_panes(self.of_type(device_type), rows)


def _load_panes(panes: PaneColumns, rows: Sequence[tuple[str, bytes, bytes]]) -> None:
    devices = panes.devices.numbers([device for device, _, _ in rows])
    panes.reserve()
    numbers = np.frombuffer(b"".join(tail for _, tail, _ in rows), dtype=">i8").astype(np.int64)

    # A value written when the type had fewer measures is shorter: the rest is empty.
    measures = len(panes.measures)
    values = np.zeros((len(rows), 1 + measures * _PER_MEASURE), dtype=np.int64)
    values[:, 1::_PER_MEASURE] = np.float64("nan").view(np.int64)
    for row, (_, _, value) in enumerate(rows):
        values[row, : len(value) // 8] = np.frombuffer(value, dtype="<i8")
    measured = values[:, 1:].view(np.float64).reshape(len(rows), measures, _PER_MEASURE)

    # Ascending, so that of each device the newest pane comes last and its clock, reference and baseline remain.
    order = np.argsort(numbers, kind="stable")
    newest = np.full(len(panes.clocks), -1)
    newest[devices[order]] = order
    newest = newest[newest >= 0]
    panes.clocks[devices[newest]] = values[newest, 0]
    panes.references[devices[newest]] = measured[newest, :, 0]
    panes.baselines[devices[newest]] = measured[newest, :, 1 : 1 + SUMS]

    # Fewer panes may be configured now than were written then.
    latest = np.full(len(panes.clocks), NEVER)
    np.maximum.at(latest, devices, numbers)
    kept = np.flatnonzero(numbers > latest[devices] - panes.panes)
    panes.write(devices[kept], numbers[kept], measured[kept, :, 1 + SUMS :])
    panes.take_dirty()


def _spread(reference: float, count: float, first: float, second: float) -> dict[str, float]:
    """Of values given by count, and sum and sum of squares of their distance from a reference."""
    off = first / count
    deviation = math.sqrt(max(0.0, second - count * off * off) / (count - 1)) if count > 1 else 0.0
    return {"count": count, "mean": reference + off, "stddev": deviation}


class PaneTable:
    """Changelog-backed panes of all device types, per partition.

    Args:
        name: name of the table.
        panes: how many panes back are kept per device.
    """

    def __init__(self, name: str, panes: int) -> None:
        self.name = name
        self._panes = panes
        self._partitions: dict[int, PartitionPanes] = {}
        self._restoring: dict[int, dict[bytes, bytes]] = {}

    def partition(self, partition: int) -> PartitionPanes:
        """The state of a partition; empty if it is new."""
        state = self._partitions.get(partition)
        if state is None:
            state = self._partitions[partition] = PartitionPanes(self._panes)
        return state

    def restore(self, partition: int, entries: Sequence[tuple[bytes, bytes]]) -> None:
        """Take entries of the changelog, in any order and any number of calls."""
        self._restoring.setdefault(partition, {}).update(entries)

    def restored(self, partition: int) -> None:
        """All entries were given."""
        self.partition(partition).load(self._restoring.pop(partition, {}))

    def rows(self, entries: Mapping[bytes, bytes]) -> Iterator[dict[str, Any]]:
        """See `headrace.engine.operator.Readable`: mean and deviation of what each pane holds."""
        names = {key[1:].decode(): orjson.loads(value) for key, value in entries.items() if key.startswith(b"m")}
        for key in sorted(key for key in entries if key.startswith(b"p")):
            device_type, device = key[1 : -_TAIL.size - 1].decode().split("\0", 1)
            measured = np.frombuffer(entries[key], "<f8", offset=8).reshape(-1, _PER_MEASURE).tolist()
            yield {
                "device_type": device_type,
                "device_id": device,
                "pane": _TAIL.unpack(key[-_TAIL.size :])[0],
                "clock": int.from_bytes(entries[key][:8], "little", signed=True),
                "measures": {
                    name: _spread(reference, *sums)
                    for name, (reference, _, _, _, *sums) in zip(names[device_type], measured, strict=False)
                    if sums[0]
                },
            }

    def changes(self, partition: int) -> dict[bytes, bytes | None]:
        """Newest value per key changed since the last call; None deletes."""
        state = self._partitions.get(partition)
        return state.changes() if state is not None else {}

    def forget(self, partition: int) -> None:
        """Drop the partition's state."""
        self._partitions.pop(partition, None)
        self._restoring.pop(partition, None)
