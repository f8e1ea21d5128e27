"""Entries of a table that have to be looked at when their time has come."""

from collections.abc import Callable
from heapq import heapify, heappop, heappush
from typing import Generic, TypeVar, cast

from headrace.tables.keyvalue import KeyValue

Key = TypeVar("Key", bound=tuple[str, ...])
Value = TypeVar("Value")


class TimedTable(KeyValue[Key, Value]):
    """A table with typed values whose entries may be due; made by `of`.

    Args:
        due_of: when an entry is to be looked at, ms; None for never.
    """

    due_of: Callable[[Value], int | None]

    #: Of each partition when to look at which entries, a heap; some may be out of date.
    _heaps: dict[int, list[tuple[int, Key]]]

    @classmethod
    def of(
        cls, name: str, key: type[Key], value: type[Value], due_of: Callable[[Value], int | None]
    ) -> "TimedTable[Key, Value]":
        """A table with nothing in it; see `KeyValue.typed`."""
        table = cast(TimedTable[Key, Value], cls.typed(name, key=key, value=value))
        table.due_of = due_of
        table._heaps = {}
        return table

    def moments(self, partition: int) -> list[tuple[int, Key]]:
        """A heap of when to look at which entries; only to read. Some may be out of date."""
        found = self._heaps.get(partition)
        if found is None:
            view = self.view(partition)
            found = [(due, key) for key, each in view.items() if (due := self.due_of(each)) is not None]
            heapify(found)
            self._heaps[partition] = found
        return found

    def keep_moments(self, partition: int, heap: list[tuple[int, Key]]) -> None:
        """What `moments` gives from now on; for `Batch.on_finish`."""
        self._heaps[partition] = heap

    def is_empty(self, partition: int) -> bool:
        """Whether there is no entry."""
        return next(iter(self.view(partition)), None) is None

    def restored(self, partition: int) -> None:
        """See `headrace.engine.operator.Stored`."""
        super().restored(partition)
        self._heaps.pop(partition, None)

    def forget(self, partition: int) -> None:
        """See `headrace.engine.operator.State`."""
        super().forget(partition)
        self._heaps.pop(partition, None)


class Agenda(Generic[Key, Value]):
    """The moments of a table as a batch changes them."""

    def __init__(self, table: TimedTable[Key, Value], partition: int) -> None:
        self._table = table
        self._partition = partition
        self._heap = table.moments(partition)
        self._is_own = False

    def pop(self, until_ms: int) -> tuple[int, Key] | None:
        """The first moment that is not after `until_ms`; None if there is none."""
        if not self._heap or self._heap[0][0] > until_ms:
            return None
        self._own()
        return heappop(self._heap)

    def add(self, key: Key, value: Value) -> None:
        """An entry was written."""
        due_ms = self._table.due_of(value)
        if due_ms is not None:
            self._own()
            heappush(self._heap, (due_ms, key))

    def apply(self) -> None:
        """For `Batch.on_finish`."""
        if self._is_own:
            self._table.keep_moments(self._partition, self._heap)

    def _own(self) -> None:
        if not self._is_own:
            self._heap = list(self._heap)
            self._is_own = True
