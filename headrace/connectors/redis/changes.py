"""What a batch of records changes in the cache: per key the newest of it."""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import msgspec

from headrace.connectors.redis.entries import Entry, Keys, rollup_as_of, rollup_entry, status_entry, window_of
from headrace.engine.log import Fetched
from headrace.schemas.readings import Readings, decode_readings

#: What decoding and encoding raise on records that are not what their topic carries.
UNREADABLE = (msgspec.MsgspecError, ValueError, TypeError, OverflowError, RecursionError)


class Change(NamedTuple):
    """One change: of those of a key each is made after the one before.

    Args:
        left_ms: real milliseconds that the entry has to live; > 0.
        value: the document; empty where the entry with the same start goes, as its window was retracted.
    """

    entry: Entry
    left_ms: int
    value: bytes


class _Rollup(msgspec.Struct):
    device_id: str
    device_type: str
    start: int
    end: int
    measures: dict[str, Any]
    window: str | None = None
    window_seconds: float | None = None
    kind: str | None = None
    revision: int = 0


_decoder = msgspec.json.Decoder(_Rollup)


class Changes:
    """Collects them.

    Attributes:
        unreadable: records that are not what their topic carries, count.
    """

    def __init__(self, keys: Keys) -> None:
        self._keys = keys
        #: Per key entries, and whether they were retracted. Only a retraction does not take the place of what is before
        #: it: after it an earlier window may be the newest.
        self._by_key: dict[bytes, list[tuple[Entry, bool]]] = {}
        self.unreadable = 0

    def add_readings(self, fetched: Fetched) -> None:
        """Take records of `telemetry.readings`."""
        values = fetched.records.values
        try:
            for readings in decode_readings(values):
                self._readings(readings, fetched, 0)
        except UNREADABLE:
            for at, value in enumerate(values):
                self._try(lambda at=at, value=value: self._one_reading(value, fetched, at))  # type: ignore[misc]

    def add_rollups(self, fetched: Fetched) -> None:
        """Take records of `telemetry.rollups`."""
        for at, value in enumerate(fetched.records.values):
            self._try(lambda at=at, value=value: self._rollup(value, fetched, at))  # type: ignore[misc]

    def __iter__(self) -> Iterator[Change]:
        """The changes, but for data that has expired."""
        for entries in self._by_key.values():
            for entry, retracted in entries:
                left_ms = self._keys.left_ms(entry.key, entry.as_of)
                if left_ms > 0:
                    yield Change(entry, left_ms, b"" if retracted else entry.value())

    def _try(self, take: Callable[[], None]) -> None:
        try:
            take()
        except UNREADABLE:
            self.unreadable += 1

    def _one_reading(self, value: bytes | None, fetched: Fetched, at: int) -> None:
        for readings in decode_readings([value]):
            self._readings(readings, fetched, at)

    def _readings(self, readings: Readings, fetched: Fetched, first: int) -> None:
        newest: dict[str, int] = {}
        times = readings.times.tolist()
        for row, device_id in enumerate(readings.device_ids):
            if device_id not in newest or times[row] >= times[newest[device_id]]:
                newest[device_id] = row
        made = []
        for device_id, row in newest.items():
            extra = readings.extras and readings.extras[row]
            place = (fetched.target.partition, fetched.offset(first + int(readings.rows[row])))
            metrics = readings.measures_of(row) | (extra or {})
            made.append(status_entry(self._keys, device_id, readings.device_type, times[row], metrics, place))
            made[-1].value()  # raises here, if at all
        for entry in made:
            self._add(entry)

    def _rollup(self, value: bytes | None, fetched: Fetched, at: int) -> None:
        found = _decoder.decode(value or b"")
        window = window_of(found.window, found.window_seconds)
        as_of = rollup_as_of(found.kind, found.end, fetched.records.timestamps[at])
        document = {**msgspec.structs.asdict(found), "window": window}
        entry = rollup_entry(self._keys, document, as_of, (fetched.target.partition, fetched.offset(at)))
        entry.value()
        self._add(entry, retracted=found.kind == "retraction")

    def _add(self, entry: Entry, *, retracted: bool = False) -> None:
        entries = self._by_key.setdefault(entry.key, [])
        if retracted or not entries or entries[-1][1]:
            entries.append((entry, retracted))
        elif entries[-1][0].order <= entry.order:
            entries[-1] = (entry, False)
