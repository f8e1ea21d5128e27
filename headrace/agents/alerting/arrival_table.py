"""The table of arrivals: when each device was last heard of, and how often it usually is.

Keys of the changelog:

    d <device type> NUL <device>     `FIELDS` as float64, little-endian
    p                                of the partition: append time of its newest record, and when everybody last
                                     resumed, ms, as float64
"""

import struct
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from headrace.agents import usual_interval
from headrace.schemas.readings import Floats, Ints
from headrace.tables.grouping import Flags, Numbering, grown

#: said: up to which append time the silence that goes on was reported, ms; 0 if it was not.
FIELDS = (*usual_interval.FIELDS, "said")
SAID = len(usual_interval.FIELDS)
_PARTITION = b"p"
_TWO = struct.Struct("<2d")


class ArrivalColumns:
    """Devices of one type in one partition; 57 bytes each beside its name.

    `state` is (fields, room) float64, zero for devices that were never heard of; only to read.
    """

    def __init__(self) -> None:
        self.devices = Numbering()
        self.state: Floats = np.zeros((len(FIELDS), 1))
        self._dirty: Flags = np.zeros(1, dtype=np.bool_)

    def numbers(self, device_ids: Sequence[str]) -> Ints:
        """The number of each device, (n,) int64."""
        numbers = self.devices.numbers(device_ids)
        room = self.state.shape[1]
        if len(self.devices) > room:
            room = max(len(self.devices), 2 * room)
            self.state = grown(self.state, (len(FIELDS), room), 0)
            self._dirty = grown(self._dirty, (room,), False)
        return numbers

    def set(self, devices: Ints, state: Floats) -> None:
        """Set the state of devices, (fields, k); for `Batch.on_finish`."""
        self.state[:, devices] = state
        self._dirty[devices] = True

    def load(self, devices: Sequence[str], values: Sequence[bytes]) -> None:
        """Take what the changelog says of devices."""
        numbers = self.numbers(devices)
        self.state[:, numbers] = np.frombuffer(b"".join(values), "<f8").reshape(-1, len(FIELDS)).T

    def changes(self, prefix: bytes) -> dict[bytes, bytes]:
        """What changed since the last call, keys beginning with `prefix`."""
        changed = np.flatnonzero(self._dirty)
        self._dirty[changed] = False
        values = np.ascontiguousarray(self.state[:, changed].T).astype("<f8", copy=False).tobytes()
        width, names = 8 * len(FIELDS), self.devices.names
        keys = [prefix + names[device].encode() for device in changed.tolist()]
        return {key: values[row * width : (row + 1) * width] for row, key in enumerate(keys)}

    def keys(self, prefix: bytes) -> list[bytes]:
        """Of all devices that were ever heard of."""
        return [prefix + name.encode() for name in self.devices.names]


class _Partition:
    def __init__(self) -> None:
        self.types: dict[str, ArrivalColumns] = {}
        self.newest = self.resumed = 0.0
        self.dropped: list[bytes] = []
        self.dirty = False


class ArrivalTable:
    """Changelog-backed arrivals of all devices, per partition."""

    name = "alert.arrivals"

    def __init__(self) -> None:
        self._partitions: dict[int, _Partition] = {}
        #: What somebody derives from a partition; gone with it.
        self.plans: dict[int, Any] = {}

    def types(self, partition: int) -> Mapping[str, ArrivalColumns]:
        """The device types that are known in a partition."""
        found = self._partitions.get(partition)
        return {} if found is None else found.types

    def of_type(self, partition: int, device_type: str) -> ArrivalColumns:
        """The devices of a type in a partition."""
        return self._of(partition).types.setdefault(device_type, ArrivalColumns())

    def drop(self, partition: int, device_type: str) -> None:
        """Forget the devices of a type; for `Batch.on_finish`."""
        part = self._of(partition)
        columns = part.types.pop(device_type, None)
        if columns is not None:
            part.dropped += columns.keys(_prefix(device_type))

    def newest(self, partition: int) -> float:
        """Append time of the newest record, ms; 0 if there is none."""
        return self._of(partition).newest

    def resumed(self, partition: int) -> float:
        """Append time at which the partition's devices last spoke again after they all had been away, ms; or 0."""
        return self._of(partition).resumed

    def move(self, partition: int, newest: float, resumed: float) -> None:
        """Set both; for `Batch.on_finish`."""
        part = self._of(partition)
        part.dirty |= (part.newest, part.resumed) != (newest, resumed)
        part.newest, part.resumed = newest, resumed

    def restore(self, partition: int, entries: Sequence[tuple[bytes, bytes]]) -> None:
        """Take entries of the changelog, in any order and any number of calls."""
        part = self._of(partition)
        by_type: dict[str, list[tuple[str, bytes]]] = {}
        for key, value in entries:
            if key == _PARTITION:
                part.newest, part.resumed = _TWO.unpack(value)
            else:
                device_type, device = key[1:].decode().split("\0", 1)
                by_type.setdefault(device_type, []).append((device, value))
        for device_type, rows in by_type.items():
            columns = part.types.setdefault(device_type, ArrivalColumns())
            columns.load([device for device, _ in rows], [value for _, value in rows])

    def restored(self, partition: int) -> None:
        """All entries were given."""
        self.plans.pop(partition, None)

    def changes(self, partition: int) -> dict[bytes, bytes | None]:
        """Newest value per key changed since the last call; None deletes."""
        part = self._partitions.get(partition)
        if part is None:
            return {}
        entries: dict[bytes, bytes | None] = dict.fromkeys(part.dropped)
        part.dropped = []
        if part.dirty:
            entries[_PARTITION] = _TWO.pack(part.newest, part.resumed)
            part.dirty = False
        for device_type, columns in part.types.items():
            entries.update(columns.changes(_prefix(device_type)))
        return entries

    def rows(self, entries: Mapping[bytes, bytes]) -> Iterator[dict[str, Any]]:
        """See `headrace.engine.operator.Readable`."""
        for key in sorted(entries):
            if key == _PARTITION:
                continue
            device_type, device = key[1:].decode().split("\0", 1)
            numbers = np.frombuffer(entries[key], "<f8").tolist()
            yield {"device_type": device_type, "device_id": device, **dict(zip(FIELDS, numbers, strict=True))}

    def forget(self, partition: int) -> None:
        """Drop the partition."""
        self._partitions.pop(partition, None)
        self.plans.pop(partition, None)

    def _of(self, partition: int) -> _Partition:
        return self._partitions.setdefault(partition, _Partition())


def _prefix(device_type: str) -> bytes:
    return b"d" + device_type.encode() + b"\0"
