"""The series table: numbers per device, place and measure, with a changelog entry per device × place.

Keys of the changelog, fields in network byte order:

    s <device type> NUL <device> NUL <place: uint16>     `width` numbers per measure, little-endian
    m <device type>                                      names of its measures
"""

import struct
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import orjson

from headrace.tables.series_columns import SeriesColumns

_PLACE = struct.Struct(">H")


class SeriesTable:
    """Changelog-backed numbers of all series, per partition.

    Args:
        name: name of the table.
        fields: what the numbers are, for who reads the table; their count is the width.
        places: rows per device, count; see `SeriesColumns`.
        dtype: of the numbers.
        version: raise it when the meaning of the numbers changes: older entries are dropped and learned anew.
    """

    def __init__(
        self,
        name: str,
        fields: Sequence[str],
        places: int = 1,
        dtype: type[np.floating[Any]] = np.float64,
        version: int = 1,
    ) -> None:
        self.name = name
        self.version = version
        self._fields = tuple(fields)
        self._places = places
        self._dtype = np.dtype(dtype).newbyteorder("<")
        self._scalar = dtype
        self._partitions: dict[int, dict[str, SeriesColumns]] = {}
        self._logged: dict[tuple[int, str], int] = {}
        self._restoring: dict[int, dict[bytes, bytes]] = {}

    def of_type(self, partition: int, device_type: str) -> SeriesColumns:
        """The rows of a device type in a partition."""
        types = self._partitions.setdefault(partition, {})
        columns = types.get(device_type)
        if columns is None:
            columns = types[device_type] = SeriesColumns(self._places, len(self._fields), self._scalar)
        return columns

    def types(self, partition: int) -> dict[str, SeriesColumns]:
        """All rows of a partition, by device type."""
        return self._partitions.get(partition, {})

    def migrate(self, version: int, entries: Mapping[bytes, bytes]) -> dict[bytes, bytes]:
        """See `headrace.engine.operator.Versioned`: what another version learned is forgotten."""
        return {}

    def restore(self, partition: int, entries: Sequence[tuple[bytes, bytes]]) -> None:
        """Take entries of the changelog, in any order and any number of calls."""
        self._restoring.setdefault(partition, {}).update(entries)

    def restored(self, partition: int) -> None:
        """All entries were given."""
        rows: dict[str, list[tuple[str, int, bytes]]] = {}
        for key, value in self._restoring.pop(partition, {}).items():
            if key.startswith(b"m"):
                device_type = key[1:].decode()
                measures = self.of_type(partition, device_type).measures
                measures.add(orjson.loads(value))
                self._logged[partition, device_type] = len(measures)
            else:
                device_type, device, place = _parsed(key)
                rows.setdefault(device_type, []).append((device, place, value))
        for device_type, found in rows.items():
            self._load(self.of_type(partition, device_type), found)

    def _load(self, columns: SeriesColumns, found: Sequence[tuple[str, int, bytes]]) -> None:
        devices = columns.devices.numbers([device for device, _, _ in found])
        columns.reserve()
        # Written when the type had fewer measures, a value is shorter: the rest is zero.
        numbers = np.zeros((len(found), len(columns.measures), len(self._fields)), self._dtype)
        flat = numbers.reshape(len(found), -1)
        for row, (_, _, value) in enumerate(found):
            flat[row, : len(value) // self._dtype.itemsize] = np.frombuffer(value, self._dtype)
        columns.load(devices, np.array([place for _, place, _ in found]), numbers)

    def changes(self, partition: int) -> dict[bytes, bytes | None]:
        """Newest value per key changed since the last call."""
        entries: dict[bytes, bytes | None] = {}
        for device_type, columns in self._partitions.get(partition, {}).items():
            name = device_type.encode()
            if len(columns.measures) != self._logged.get((partition, device_type)):
                entries[b"m" + name] = orjson.dumps(columns.measures.names)
                self._logged[partition, device_type] = len(columns.measures)
            devices, places, numbers = columns.take_dirty()
            if not len(devices):
                continue
            values = numbers.astype(self._dtype, copy=False).tobytes()
            width, prefix, names = len(values) // len(devices), b"s" + name + b"\0", columns.devices.names
            tails = places.astype(">u2").tobytes()
            for row, at in enumerate(devices.tolist()):
                key = prefix + names[at].encode() + b"\0" + tails[2 * row : 2 * row + 2]
                entries[key] = values[row * width : row * width + width]
        return entries

    def rows(self, entries: Mapping[bytes, bytes]) -> Iterator[dict[str, Any]]:
        """See `headrace.engine.operator.Readable`: the numbers by measure and name."""
        measures = {key[1:].decode(): orjson.loads(value) for key, value in entries.items() if key.startswith(b"m")}
        for key in sorted(key for key in entries if key.startswith(b"s")):
            device_type, device, place = _parsed(key)
            numbers = np.frombuffer(entries[key], self._dtype).reshape(-1, len(self._fields)).tolist()
            yield {
                "device_type": device_type,
                "device_id": device,
                "place": place,
                "measures": {
                    name: dict(zip(self._fields, row, strict=True))
                    for name, row in zip(measures[device_type], numbers, strict=False)
                    if any(row)
                },
            }

    def forget(self, partition: int) -> None:
        """Drop the partition's rows."""
        self._partitions.pop(partition, None)
        self._restoring.pop(partition, None)
        for key in [key for key in self._logged if key[0] == partition]:
            del self._logged[key]


def _parsed(key: bytes) -> tuple[str, str, int]:
    device_type, device = key[1 : -_PLACE.size - 1].decode().split("\0", 1)
    return device_type, device, _PLACE.unpack(key[-_PLACE.size :])[0]
