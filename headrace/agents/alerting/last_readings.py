"""The table of last readings: event time and value per device of the metrics that some rule watches the rate of.

Changelog: key `<device type> NUL <metric> NUL <device>`, value int64 ms and float64, little-endian.
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from headrace.schemas.readings import Floats, Ints
from headrace.tables.grouping import NEVER, Flags, Groups, Numbering, grown

_ENTRY = np.dtype([("time", "<i8"), ("value", "<f8")])


class LastColumn:
    """Last readings of a metric, of the devices of one type in one partition; 17 bytes per device beside its number."""

    def __init__(self) -> None:
        self.devices = Numbering()
        self._times: Ints = np.full(1, NEVER)
        self._values: Floats = np.zeros(1)
        self._dirty: Flags = np.zeros(1, dtype=np.bool_)

    def changes_of(self, devices: Sequence[str], groups: Groups, values: Floats) -> tuple[Floats, Callable[[], None]]:
        """Change per second of each reading from the one before, and what makes these the last readings.

        Args:
            devices: of the groups, (g,).
            groups: the readings, brought together by device.
            values: (n,) in the order of `groups`; NaN where there is none to be looked at.
        Returns:
            Differences and seconds as quotients times 1000, (n,), NaN where there is none; for `Batch.on_finish`.
        """
        numbers = self._numbers(devices)
        places = np.flatnonzero(~np.isnan(values))
        value, time, rank = values[places], groups.times[places], groups.rank[places]
        head = np.append(True, rank[1:] != rank[:-1]) if len(places) else np.zeros(0, dtype=np.bool_)
        before, then = np.roll(value, 1), np.roll(time, 1)
        before[head], then[head] = self._values[numbers[rank[head]]], self._times[numbers[rank[head]]]
        defined = (then != NEVER) & (time > then)
        found = np.full(len(values), np.nan)
        with np.errstate(all="ignore"):
            found[places[defined]] = (value[defined] - before[defined]) / (time[defined] - then[defined]) * 1000
        tail = np.append(head[1:], True) if len(places) else head
        ends = numbers[rank[tail]]
        return found, lambda: self._set(ends, time[tail], value[tail])

    def load(self, entries: Sequence[tuple[str, bytes]]) -> None:
        """Take last readings from the changelog, by device."""
        numbers = self._numbers([device for device, _ in entries])
        read = np.frombuffer(b"".join(value for _, value in entries), dtype=_ENTRY)
        self._times[numbers], self._values[numbers] = read["time"], read["value"]

    def changes(self) -> dict[str, bytes]:
        """What changed since the last call, by device."""
        changed = np.flatnonzero(self._dirty)
        self._dirty[changed] = False
        entries = np.empty(len(changed), dtype=_ENTRY)
        entries["time"], entries["value"] = self._times[changed], self._values[changed]
        data = entries.tobytes()
        names = self.devices.names
        return {names[number]: data[row * 16 : row * 16 + 16] for row, number in enumerate(changed.tolist())}

    def known(self) -> list[str]:
        """Devices with a last reading."""
        names = self.devices.names
        return [names[number] for number in np.flatnonzero(self._times != NEVER).tolist()]

    def _numbers(self, device_ids: Sequence[str]) -> Ints:
        numbers = self.devices.numbers(device_ids)
        if len(self.devices) > len(self._times):
            room = (max(len(self.devices), 2 * len(self._times)),)
            self._times, self._values = grown(self._times, room, NEVER), grown(self._values, room, 0)
            self._dirty = grown(self._dirty, room, False)
        return numbers

    def _set(self, numbers: Ints, times: Ints, values: Floats) -> None:
        self._times[numbers], self._values[numbers], self._dirty[numbers] = times, values, True


class LastReadings:
    """Changelog-backed columns of last readings, per partition."""

    def __init__(self, name: str) -> None:
        self.name = name
        #: By partition, then device type and metric.
        self._columns: dict[int, dict[tuple[str, str], LastColumn]] = {}
        self._dropped: dict[int, dict[bytes, None]] = {}

    def of(self, partition: int, device_type: str, metric: str) -> LastColumn:
        """The last readings of a metric."""
        return self._columns.setdefault(partition, {}).setdefault((device_type, metric), LastColumn())

    def types(self, partition: int) -> set[str]:
        """Device types with last readings."""
        return {device_type for device_type, _ in self._columns.get(partition, ())}

    def keep(self, partition: int, device_type: str, metrics: Collection[str]) -> None:
        """Forget those of a device type but of these metrics; for `Batch.on_finish`."""
        columns = self._columns.get(partition, {})
        for key in [key for key in columns if key[0] == device_type and key[1] not in metrics]:
            dropped = self._dropped.setdefault(partition, {})
            dropped.update(dict.fromkeys(_key(*key, device) for device in columns.pop(key).known()))

    # -- committing and restoring, see `headrace.engine.operator.State`

    def restore(self, partition: int, entries: Sequence[tuple[bytes, bytes]]) -> None:
        """Take entries of the changelog, in any order and any number of calls."""
        found: dict[tuple[str, str], list[tuple[str, bytes]]] = {}
        for key, value in entries:
            device_type, metric, device = key.decode().split("\0", 2)
            found.setdefault((device_type, metric), []).append((device, value))
        for (device_type, metric), rows in found.items():
            self.of(partition, device_type, metric).load(rows)

    def restored(self, partition: int) -> None:
        """All entries were given."""

    def changes(self, partition: int) -> dict[bytes, bytes | None]:
        """Newest value per key changed since the last call; None deletes."""
        entries: dict[bytes, bytes | None] = dict(self._dropped.pop(partition, {}))
        for (device_type, metric), column in self._columns.get(partition, {}).items():
            entries.update({_key(device_type, metric, device): each for device, each in column.changes().items()})
        return entries

    def rows(self, entries: Mapping[bytes, bytes]) -> Iterator[dict[str, Any]]:
        """See `headrace.engine.operator.Readable`."""
        for key in sorted(entries):
            names = dict(zip(("device_type", "metric", "device_id"), key.decode().split("\0", 2), strict=True))
            (read,) = np.frombuffer(entries[key], dtype=_ENTRY)
            yield {**names, "time": int(read["time"]), "value": float(read["value"])}

    def forget(self, partition: int) -> None:
        """Drop the partition's last readings."""
        self._columns.pop(partition, None)
        self._dropped.pop(partition, None)


def _key(device_type: str, metric: str, device: str) -> bytes:
    return f"{device_type}\0{metric}\0{device}".encode()
