"""One partition of a key-value table: what is committed, what finished batches changed since, and the table's time."""

from collections.abc import Iterator, Mapping
from itertools import chain
from typing import Any, Generic

from headrace.tables.keys import Key
from headrace.tables.schema import V
from headrace.tables.store import Store, Timed, overlaid

#: Note of a changelog: the table's time, ms since 1970 UTC.
TIME_KEY = b"\0time"
#: Expired entries that one commit deletes, at least; more where more is written.
EXPIRED_AT_ONCE = 1_000


class Part(Generic[V]):
    """A store with a write-behind cache: the newest change per key, encoded and handed to the store once per commit.

    Args:
        store: entries as of the last commit.
        ttl: ms after which an entry is gone, by the table's time; None keeps entries.
    """

    def __init__(self, store: Store[Any], ttl: int | None) -> None:
        self.store = store
        self.notes: dict[bytes, bytes] = {}
        self.time = 0
        self._ttl = ttl
        self._changed: dict[Key, Any] = {}

    def get(self, key: Key) -> Any:
        """What is kept under `key`, expired or not."""
        return self._changed[key] if key in self._changed else self.store.get(key)

    def range(self, first: Key | None, last: Key | None, but: Mapping[Key, Any]) -> Iterator[tuple[Key, Any]]:
        """What is kept, with what `but` says instead, in the order of keys, expired or not."""
        above = {**self._changed, **but}
        return overlaid(self.store.range(first, last, above), above, first, last)

    def __iter__(self) -> Iterator[Key]:
        """All keys, in any order, but for expired ones."""
        stored = (key for key in self.store if key not in self._changed) if self._changed else iter(self.store)
        changed = (key for key, kept in self._changed.items() if kept is not None)
        keys = chain(stored, changed)
        if self._ttl is None:
            return keys
        return (key for key in keys if self.live(self.get(key), self.time) is not None)

    def kept(self, value: V | None, time: int) -> Any:
        """A value as it is kept when it is written at `time`."""
        return value if self._ttl is None or value is None else Timed(time, value)

    def live(self, kept: Any, time: int) -> V | None:
        """The value of what is kept, unless it is expired at `time`."""
        if self._ttl is None or kept is None:
            value: V | None = kept
            return value
        return kept.value if time - kept.written < self._ttl else None

    def take(self, entries: Mapping[Key, Any], time: int) -> None:
        """Change entries; None deletes. The table's time moves on to `time`, if that is later."""
        self._changed |= entries
        if self._ttl is not None and time > self.time:
            self.time = time
            self.notes[TIME_KEY] = b"%d" % time

    def changes(self) -> dict[bytes, bytes | None]:
        """What changed since the last call, as the changelog has it. Deletes some of what is expired."""
        if self._ttl is not None and self.time >= self._ttl:
            most = max(EXPIRED_AT_ONCE, 2 * len(self._changed))  # more than can come
            for key in self.store.oldest(self.time - self._ttl, most):
                self._changed.setdefault(key, None)
        changed, notes = self._changed, self.notes
        self._changed, self.notes = {}, {}
        return self.store.prepare(changed, notes)
