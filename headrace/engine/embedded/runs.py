"""Rows of changes in memory while they are merged: sorted runs, walked together in the order of their keys."""

import sqlite3
from bisect import bisect_left
from collections.abc import Callable

from headrace.engine.embedded.codec import decode_entries
from headrace.engine.embedded.compacted import id_range


class Runs:
    """What the rows of one partition up to the id `through` changed; those do not change any more.

    Several rows make a run, of about `length` entries: sorting it is the longest step, and no step may be long.
    """

    def __init__(self, partition_id: int, through: int, length: int) -> None:
        self.partition_id = partition_id
        self.through = through
        self._length = length
        self._loaded_to = id_range(partition_id)[0] - 1
        self._runs: list[tuple[list[bytes], list[bytes | None]]] = []
        self._places: list[int] = []

    def load(self, connection: sqlite3.Connection, in_time: Callable[[], bool]) -> bool:
        """Load some more, a run at least; whether all are loaded."""
        while True:
            found: dict[bytes, bytes | None] = {}
            for row_id, body in connection.execute(
                "SELECT id, body FROM changes WHERE id > ? AND id <= ? ORDER BY id", (self._loaded_to, self.through)
            ):
                row = decode_entries(body)
                found.update(zip(row.keys, row.values, strict=True))
                self._loaded_to = row_id
                if len(found) >= self._length:
                    break
            if not found:
                return True
            keys = sorted(found)
            self._runs.append((keys, [found[key] for key in keys]))
            self._places.append(0)
            if not in_time():
                return False

    def go_to(self, key: bytes) -> None:
        """Go on at `key`."""
        self._places = [bisect_left(keys, key) for keys, _ in self._runs]

    def next_key(self) -> bytes | None:
        """The least key that was not taken; None if all were."""
        left = [keys[place] for (keys, _), place in zip(self._runs, self._places, strict=True) if place < len(keys)]
        return min(left, default=None)

    def take(self, below: bytes | None, most: int) -> dict[bytes, bytes | None]:
        """The newest of each key from the next one on, all that are less than `below`, or about `most` of them."""
        ends = self._ends(below)
        if sum(ends) - sum(self._places) > most:
            ends = self._ends(self._cut(max(1, most // len(self._runs)), below))
        taken: dict[bytes, bytes | None] = {}
        for (keys, values), place, end in zip(self._runs, self._places, ends, strict=True):
            taken.update(zip(keys[place:end], values[place:end], strict=True))
        self._places = ends
        return taken

    def _cut(self, share: int, below: bytes | None) -> bytes | None:
        """A key before which no run has more than `share` entries to take, and behind the next one."""
        found = [] if below is None else [below]
        for (keys, _), place in zip(self._runs, self._places, strict=True):
            found += keys[place + share : place + share + 1]
        return min(found, default=None)

    def _ends(self, below: bytes | None) -> list[int]:
        if below is None:
            return [len(keys) for keys, _ in self._runs]
        return [bisect_left(keys, below, place) for (keys, _), place in zip(self._runs, self._places, strict=True)]
