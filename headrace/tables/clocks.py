"""The clock table: every device's own clock, its largest event time so far, as a column per device type.

Changelog: key `<device type> NUL <device>`, value int64, ms, little-endian.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from headrace.schemas.readings import Ints
from headrace.tables.grouping import NEVER, Flags, Numbering, grown


class ClockColumn:
    """Clocks of the devices of one type in one partition; 9 bytes per device beside its number."""

    def __init__(self) -> None:
        self.devices = Numbering()
        self.clocks: Ints = np.full(1, NEVER)
        self._dirty: Flags = np.zeros(1, dtype=np.bool_)

    def numbers(self, device_ids: Sequence[str]) -> Ints:
        """The number of each device, (n,) int64; new ones have the clock `NEVER`."""
        numbers = self.devices.numbers(device_ids)
        if len(self.devices) > len(self.clocks):
            room = max(len(self.devices), 2 * len(self.clocks))
            self.clocks = grown(self.clocks, (room,), NEVER)
            self._dirty = grown(self._dirty, (room,), False)
        return numbers

    def set(self, devices: Ints, clocks: Ints) -> None:
        """Set clocks, ms, by device number; for `Batch.on_finish`."""
        self._dirty[devices] |= self.clocks[devices] != clocks
        self.clocks[devices] = clocks

    def load(self, entries: Sequence[tuple[str, bytes]]) -> None:
        """Take clocks from the changelog, by device."""
        numbers = self.numbers([device for device, _ in entries])
        self.clocks[numbers] = np.frombuffer(b"".join(value for _, value in entries), dtype="<i8")

    def changes(self, prefix: bytes) -> dict[bytes, bytes]:
        """What changed since the last call, keys beginning with `prefix`."""
        changed = np.flatnonzero(self._dirty)
        self._dirty[changed] = False
        values, names = self.clocks[changed].astype("<i8", copy=False).tobytes(), self.devices.names
        keys = [prefix + names[device].encode() for device in changed.tolist()]
        return {key: values[row * 8 : row * 8 + 8] for row, key in enumerate(keys)}


class ClockTable:
    """Changelog-backed clocks of all devices, per partition.

    Args:
        name: name of the table.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self._partitions: dict[int, dict[str, ClockColumn]] = {}

    def of_type(self, partition: int, device_type: str) -> ClockColumn:
        """The clocks of a device type in a partition."""
        return self._partitions.setdefault(partition, {}).setdefault(device_type, ClockColumn())

    def restore(self, partition: int, entries: Sequence[tuple[bytes, bytes]]) -> None:
        """Take entries of the changelog, in any order and any number of calls."""
        by_type: dict[str, list[tuple[str, bytes]]] = {}
        for key, value in entries:
            device_type, device = key.decode().split("\0", 1)
            by_type.setdefault(device_type, []).append((device, value))
        for device_type, rows in by_type.items():
            self.of_type(partition, device_type).load(rows)

    def restored(self, partition: int) -> None:
        """All entries were given."""

    def rows(self, entries: Mapping[bytes, bytes]) -> Iterator[dict[str, Any]]:
        """See `headrace.engine.operator.Readable`."""
        for key in sorted(entries):
            device_type, device = key.decode().split("\0", 1)
            yield {
                "device_type": device_type,
                "device_id": device,
                "clock": int.from_bytes(entries[key], "little", signed=True),
            }

    def changes(self, partition: int) -> dict[bytes, bytes | None]:
        """Newest value per key changed since the last call."""
        entries: dict[bytes, bytes | None] = {}
        for device_type, column in self._partitions.get(partition, {}).items():
            entries.update(column.changes(device_type.encode() + b"\0"))
        return entries

    def forget(self, partition: int) -> None:
        """Drop the partition's clocks."""
        self._partitions.pop(partition, None)
