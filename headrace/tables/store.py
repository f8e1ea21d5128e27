"""Where the entries of one partition of a table are: the interface, and the store in memory."""

import heapq
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from itertools import count
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

from headrace.engine.log import Known
from headrace.tables.keys import Key, decode_key, encode_key, within

#: What is kept under a key: the value, or with a time to live a `Timed`.
Kept = TypeVar("Kept")

#: Keys of a changelog that begin so are notes of the table itself.
NOTE = b"\0"
#: Note: sum over all entries but itself, by which a store is told to be the changelog's (see `rocks.py`).
DIGEST_KEY = b"\0digest"


#: What decoding may raise for bytes that it does not know.
UNREADABLE = (ArithmeticError, AssertionError, AttributeError, LookupError, TypeError, ValueError)


class Timed(NamedTuple):
    """A value of a table with a time to live.

    Args:
        written: the table's time when it was written, ms since 1970 UTC.
    """

    written: int
    value: Any


class Codec(NamedTuple, Generic[Kept]):
    """How what is kept becomes bytes.

    Args:
        migrate: what a version wrote, as it is written now; None if it is not needed any more.
        timed: whether it is a `Timed`.
        format: of the values; a store of another format is made anew.
    """

    encode: Callable[[Kept], bytes]
    decode: Callable[[bytes], Kept]
    migrate: Callable[[int, bytes], bytes | None]
    timed: bool
    format: str

    def entries(self, changes: Mapping[Key, Kept | None]) -> dict[bytes, bytes | None]:
        """Changes as the changelog has them."""
        return {encode_key(key): None if kept is None else self.encode(kept) for key, kept in changes.items()}

    def decoded(self, key: Key, encoded: bytes) -> Kept:
        """What is kept under `key`.

        Raises:
            ValueError: these bytes are none of it; names the key.
        """
        try:
            return self.decode(encoded)
        except UNREADABLE as error:
            raise _about(key, error) from error

    def migrated(self, key: Key, version: int, encoded: bytes) -> bytes | None:
        """What `version` wrote under `key`, as it is written now; None if it is not needed any more.

        Raises:
            ValueError: it cannot be migrated; names the key.
        """
        try:
            return self.migrate(version, encoded)
        except UNREADABLE as error:
            raise _about(key, error) from error


def _about(key: Key, error: Exception) -> ValueError:
    return ValueError(f"key {encode_key(key).decode()}: {error!r}")


class Store(Protocol[Kept]):
    """Entries of one partition, as of the last commit.

    A commit is `prepare`, which takes effect for reads at once, then `commit` when it is durable.
    """

    notes: dict[bytes, bytes]

    def get(self, key: Key) -> Kept | None: ...

    def __iter__(self) -> Iterator[Key]:
        """All keys, in any order."""
        ...

    def range(self, first: Key | None, last: Key | None, without: Container[Key]) -> Iterator[tuple[Key, Kept]]:
        """In the order of keys, see `within`; keys in `without` are left out."""
        ...

    def oldest(self, until: int, most: int) -> list[Key]:
        """Keys last written at `until` (ms) or before, the oldest first; none twice before they are changed."""
        ...

    def prepare(self, changes: Mapping[Key, Kept | None], notes: Mapping[bytes, bytes]) -> dict[bytes, bytes | None]:
        """Take changes; returns all that is to be written to the changelog. None deletes."""
        ...

    def commit(self, position: int) -> None:
        """What was prepared is durable in the changelog, its last entry at `position`."""
        ...

    def known(self) -> Known | None:
        """See `headrace.engine.operator.Stored`; so are `clear` and `restore`."""
        ...

    def clear(self) -> None: ...

    def restore(self, entries: Sequence[tuple[bytes, bytes | None]], position: int) -> None: ...

    def proven(self) -> bool: ...

    def settle(self) -> None:
        """Everything was given to `restore`.

        Raises:
            ValueError: an entry cannot be read; names its key.
        """
        ...

    def unsettled(self) -> Iterator[tuple[Key, bytes]]:
        """Instead of `settle`: every entry as it was given to `restore`, which is not to be read any more."""
        ...

    def close(self) -> None: ...


class MemoryStore(Generic[Kept]):
    """Entries in a dictionary, decoded."""

    def __init__(self, codec: Codec[Kept]) -> None:
        self._codec = codec
        self.clear()

    def clear(self) -> None:
        self.notes: dict[bytes, bytes] = {}
        self._entries: dict[Key, Kept] = {}
        self._encoded: dict[bytes, bytes] = {}
        self._sorted = _SortedKeys(self._entries)
        self._ages: list[tuple[int, int, Key]] = []
        self._turns = count()

    def get(self, key: Key) -> Kept | None:
        return self._entries.get(key)

    def __iter__(self) -> Iterator[Key]:
        return iter(self._entries)

    def range(self, first: Key | None, last: Key | None, without: Container[Key]) -> Iterator[tuple[Key, Kept]]:
        for key in self._sorted.between(first, last):
            kept = self._entries.get(key)
            if kept is not None and key not in without:
                yield key, kept

    def oldest(self, until: int, most: int) -> list[Key]:
        keys: list[Key] = []
        while self._ages and len(keys) < most and self._ages[0][0] <= until:
            written, _, key = heapq.heappop(self._ages)
            kept: Any = self._entries.get(key)
            if kept is not None and kept.written == written:
                keys.append(key)
        return keys

    def prepare(self, changes: Mapping[Key, Kept | None], notes: Mapping[bytes, bytes]) -> dict[bytes, bytes | None]:
        entries = {**self._codec.entries(changes), **notes}
        if DIGEST_KEY in self.notes and entries:
            del self.notes[DIGEST_KEY]
            entries[DIGEST_KEY] = None  # it would be wrong from now on
        self.notes.update(notes)
        for key, kept in changes.items():
            if kept is None:
                self._entries.pop(key, None)
            else:
                self._entries[key] = kept
                self._sorted.add(key)
                self._note_age(key, kept)
        return entries

    def commit(self, position: int) -> None:
        """A commit that fails costs the whole store anyway."""

    def known(self) -> Known | None:
        return None

    def restore(self, entries: Sequence[tuple[bytes, bytes | None]], position: int) -> None:
        # Decoded when all is known: of most keys there are older values in the log, and they may be of another version.
        for key, value in entries:
            place = self.notes if key.startswith(NOTE) else self._encoded
            if value is None:
                place.pop(key, None)
            else:
                place[key] = value

    def proven(self) -> bool:
        return True

    def settle(self) -> None:
        for key, encoded in self.unsettled():
            kept = self._codec.decoded(key, encoded)
            self._entries[key] = kept
            self._note_age(key, kept)

    def unsettled(self) -> Iterator[tuple[Key, bytes]]:
        while self._encoded:
            key, encoded = self._encoded.popitem()
            yield decode_key(key), encoded

    def close(self) -> None:
        """Nothing is open."""

    def _note_age(self, key: Key, kept: Any) -> None:
        if self._codec.timed:
            heapq.heappush(self._ages, (kept.written, next(self._turns), key))


class _SortedKeys:
    """The keys of a dictionary in order; costs nothing before the first question."""

    def __init__(self, entries: Mapping[Key, object]) -> None:
        self._entries = entries
        self._keys: list[Key] | None = None
        self._listed: set[Key] = set()
        self._in_order = False

    def add(self, key: Key) -> None:
        """`key` is in the dictionary now."""
        if self._keys is not None and key not in self._listed:
            self._listed.add(key)
            self._keys.append(key)
            self._in_order = False

    def between(self, first: Key | None, last: Key | None) -> list[Key]:
        """Keys in order, see `within`; some may be gone."""
        if self._keys is None or len(self._keys) > 2 * len(self._entries) + 100:
            self._keys, self._listed, self._in_order = list(self._entries), set(self._entries), False
        if not self._in_order:
            self._keys.sort()
            self._in_order = True
        low = 0 if first is None else bisect_left(self._keys, first)
        high = len(self._keys) if last is None else bisect_right(self._keys, last, key=lambda key: key[: len(last)])
        return self._keys[low:high]


def overlaid(
    below: Iterator[tuple[Key, Kept]], above: Mapping[Key, Kept | None], first: Key | None, last: Key | None
) -> Iterator[tuple[Key, Kept]]:
    """Entries of a range of both in order; a key is in one only, and with None in `above` in none."""
    newer = iter(sorted((key, kept) for key, kept in above.items() if within(key, first, last)))
    upper, lower = next(newer, None), next(below, None)
    while upper is not None or lower is not None:
        if upper is not None and (lower is None or upper[0] < lower[0]):
            key, kept = upper
            if kept is not None:
                yield key, kept
            upper = next(newer, None)
        elif lower is not None:
            yield lower
            lower = next(below, None)
