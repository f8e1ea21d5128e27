"""A table as one batch changes it."""

from collections.abc import Iterator
from itertools import accumulate
from typing import Any, Generic

from headrace.engine.batch import Batch
from headrace.tables.keys import Key
from headrace.tables.part import Part
from headrace.tables.schema import K, Schema, V


class Draft(Generic[K, V]):
    """Reads see what the batch wrote before; all of it takes effect when the batch is finished. One per batch.

    `row` is the place in the batch of the record that reads or writes. Where the table has a time to live, its append
    time, or an earlier record's if that was later, is the time at which entries are expired or not, so that the same
    log gives the same for any batch boundaries.
    """

    def __init__(self, part: Part[V], schema: Schema[K, V], batch: Batch) -> None:
        self._part = part
        self._schema = schema
        self._times = list(accumulate(batch.records.timestamps, max, initial=part.time))[1:] or [part.time]
        self._entries: dict[Key, Any] = {}
        batch.on_finish(self._finish)

    def get(self, key: K, row: int) -> V | None:
        """The value of `key`, or None."""
        parts = self._schema.split(key)
        kept = self._entries[parts] if parts in self._entries else self._part.get(parts)
        return self._part.live(kept, self._times[row])

    def range(self, first: K | Key | None, last: K | Key | None, row: int) -> Iterator[tuple[K, V]]:
        """Entries from `first` to `last`, see `KeyValue.range`."""
        low, high = self._schema.bounds(first, last)
        for key, kept in self._part.range(low, high, self._entries):
            value = self._part.live(kept, self._times[row])
            if value is not None:
                yield self._schema.join(key), value

    def put(self, key: K, value: V, row: int) -> None:
        """Set a key. Values are never changed in place: write a new one."""
        self._entries[self._schema.split(key)] = self._part.kept(value, self._times[row])

    def delete(self, key: K, row: int) -> None:
        """Delete a key, if it is there."""
        self._entries[self._schema.split(key)] = None

    def _finish(self) -> None:
        self._part.take(self._entries, self._times[-1])
