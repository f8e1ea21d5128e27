"""Tables larger than memory: a store on disk, in RocksDB."""

import hashlib
from collections.abc import Container, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Generic

import msgspec

from headrace.engine.log import Known
from headrace.tables.keys import END, Key, decode_key, from_ordered, ordered
from headrace.tables.rocks_folder import RocksFolder, rocksdict
from headrace.tables.store import DIGEST_KEY, NOTE, Codec, Kept, overlaid

#: First bytes of what is in RocksDB: the state of the store, notes, entries, and entries by time of writing.
_STATE, _NOTES, _ENTRIES, _AGES = b"a", b"b", b"c", b"d"
#: Entries that a range read takes at once; in between the database may change, or be closed.
RANGE_CHUNK = 1_000
_DIGEST_BYTES = 16


class RocksStores:
    """Makes stores in a folder, each partition of each table in a folder of its own.

    It holds nothing that changelogs do not: delete it whenever no worker runs.

    Args:
        folder: made if missing; of one worker alone, on a local disk.
    Raises:
        ConfigError: rocksdict is not installed.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = RocksFolder(folder)

    def store(self, table: str, partition: int, codec: Codec[Kept]) -> "RocksStore[Kept]":
        """The store of one partition of a table, not open yet."""
        return RocksStore(self._folder, Path(table) / str(partition), codec)


class _State(msgspec.Struct):
    """What a store says of itself.

    Args:
        position: of the changelog, from which what is newer can be read.
        digest: sum over all entries and notes, hexadecimal.
        doubtful: whether an entry may be there that cannot be read.
    """

    format: str
    position: int = 0
    digest: str = "0"
    doubtful: bool = False


class RocksStore(Generic[Kept]):
    """Entries of one partition on disk, as of a commit: that of the changelog's end, or one before.

    A commit goes into the changelog first and then, in one write that is whole or not there, into the store. The write
    is not synced: a power cut takes the store back by some commits.

    A store is not believed. Every commit carries a digest of the whole table: the sum of a hash per entry, kept up to
    date with what is overwritten. A store is used again only if the changelog, read on from its position, comes to the
    digest that stands there; one that is ahead of it, of another topic of that name, or has missed deletions that
    compaction dropped, does not. See `test_table_equals_its_changelog`.
    """

    def __init__(self, folder: RocksFolder, place: Path, codec: Codec[Kept]) -> None:
        self._folder = folder
        self._place = place
        self._codec = codec
        self._database: Any = None
        self._begin()

    def _begin(self) -> None:
        self._state = _State(self._codec.format)
        self._usable = self._marked = False
        self.notes: dict[bytes, bytes] = {}
        self._prepared: dict[Key, Kept | None] = {}
        self._writes: dict[bytes, bytes | None] = {}
        self._digest = 0

    # -- reading

    def get(self, key: Key) -> Kept | None:
        if key in self._prepared:
            return self._prepared[key]
        encoded = self._database.get(_ENTRIES + ordered(key))
        return None if encoded is None else self._codec.decode(encoded)

    def __iter__(self) -> Iterator[Key]:
        yield from (key for key, _ in self._entries() if key not in self._prepared)
        yield from (key for key, kept in self._prepared.items() if kept is not None)

    def range(self, first: Key | None, last: Key | None, without: Container[Key]) -> Iterator[tuple[Key, Kept]]:
        found = self._entries(first, last)
        hidden = (self._prepared, without)
        below = ((key, self._codec.decode(each)) for key, each in found if not any(key in keys for keys in hidden))
        return overlaid(below, {key: kept for key, kept in self._prepared.items() if key not in without}, first, last)

    def oldest(self, until: int, most: int) -> list[Key]:
        found = self._scan(_AGES, _AGES + (until + 1).to_bytes(8))
        keys = (from_ordered(place[len(_AGES) + 8 :]) for place, _ in found)
        return list(islice((key for key in keys if key not in self._prepared), most))

    def _entries(self, first: Key | None = None, last: Key | None = None) -> Iterator[tuple[Key, bytes]]:
        low = _ENTRIES if first is None else _ENTRIES + ordered(first)
        high = _ENTRIES + END if last is None else _ENTRIES + ordered(last) + END
        return ((from_ordered(place[len(_ENTRIES) :]), value) for place, value in self._scan(low, high))

    def _scan(self, low: bytes, high: bytes) -> Iterator[tuple[bytes, bytes]]:
        options = rocksdict().ReadOptions()
        options.set_iterate_upper_bound(high)
        while True:
            found = list(islice(self._database.items(from_key=low, read_opt=options), RANGE_CHUNK))
            yield from found
            if len(found) < RANGE_CHUNK:
                return
            low = found[-1][0] + b"\0"

    # -- committing

    def prepare(self, changes: Mapping[Key, Kept | None], notes: Mapping[bytes, bytes]) -> dict[bytes, bytes | None]:
        entries: dict[bytes, bytes | None] = {**self._codec.entries(changes), **notes}
        self.notes.update(notes)
        self._prepared |= changes
        # What was prepared before, and whose commit nobody spoke of again, goes along once more.
        self._writes |= entries
        if not self._writes:
            return {}
        self._digest = self._digest_with(self._writes)
        return {**self._writes, DIGEST_KEY: b"%x" % self._digest}

    def commit(self, position: int) -> None:
        if self._writes and self._database is not None:
            self._write(self._writes, position, self._digest)
            self._prepared, self._writes = {}, {}

    def _digest_with(self, writes: Mapping[bytes, bytes | None]) -> int:
        digest = int(self._state.digest, 16)
        for (key, new), old in zip(writes.items(), self._before(writes), strict=True):
            digest += (0 if new is None else _hash(key, new)) - (0 if old is None else _hash(key, old))
        return digest % (1 << 8 * _DIGEST_BYTES)

    def _before(self, writes: Mapping[bytes, Any]) -> list[bytes | None]:
        found: list[bytes | None] = self._database[[_place(key) for key in writes]]
        return found

    def _write(self, writes: Mapping[bytes, bytes | None], position: int, digest: int) -> None:
        batch = rocksdict().WriteBatch(raw_mode=True)
        if self._codec.timed:
            for key, old in zip(writes, self._before(writes), strict=True):
                if old is not None and not key.startswith(NOTE):
                    batch.delete(self._age(key, old))
        for key, value in writes.items():
            if value is None:
                batch.delete(_place(key))
                continue
            batch.put(_place(key), value)
            if self._codec.timed and not key.startswith(NOTE):
                batch.put(self._age(key, value), b"")
        self._state.position, self._state.digest = position, f"{digest:x}"
        batch.put(_STATE, msgspec.json.encode(self._state))
        self._database.write(batch)

    @staticmethod
    def _age(key: bytes, value: bytes) -> bytes:
        written, _, _ = value.partition(b" ")
        if not written.isdigit():
            raise ValueError(f"{key!r}: no time before the value; was the table kept without a time to live?")
        return _AGES + int(written).to_bytes(8) + ordered(decode_key(key))

    # -- restoring

    def known(self) -> Known | None:
        if self._database is None:
            self._database = self._folder.open(self._place)
            self._begin()
            state = self._database.get(_STATE)
            if state is not None:
                self._state = msgspec.json.decode(state, type=_State)
                self._usable = self._state.format == self._codec.format
                self.notes = {place[len(_NOTES) :]: value for place, value in self._scan(_NOTES, _NOTES + END)}
        return Known(self._state.position, DIGEST_KEY, self._state.digest.encode()) if self._usable else None

    def clear(self) -> None:
        if self._database.get(_STATE) is not None:
            self.close()
            self._folder.destroy(self._place)
            self._database = self._folder.open(self._place)
        self._begin()

    def restore(self, entries: Sequence[tuple[bytes, bytes | None]], position: int) -> None:
        writes = dict(entries)
        if DIGEST_KEY in writes:
            # From here on, so that the next restore comes past it again.
            self._marked, self._state.position = True, position
            digest = writes.pop(DIGEST_KEY)
            self.notes[DIGEST_KEY] = digest or b""
        for key, value in writes.items():
            if not key.startswith(NOTE):
                self._doubt(key, value)
            elif value is None:
                self.notes.pop(key, None)
            else:
                self.notes[key] = value
        self._write(writes, self._state.position, self._digest_with(writes))

    def _doubt(self, key: bytes, value: bytes | None) -> None:
        if value is not None and not self._state.doubtful:
            try:
                self._codec.decoded(decode_key(key), value)
            except ValueError:
                self._state.doubtful = True  # of an older version, or overwritten further on, or damaged

    def proven(self) -> bool:
        return self._marked and self.notes[DIGEST_KEY] == self._state.digest.encode()

    def settle(self) -> None:
        if self._state.doubtful:
            for key, encoded in self._entries():
                self._codec.decoded(key, encoded)
            self._state.doubtful = False

    def unsettled(self) -> Iterator[tuple[Key, bytes]]:
        return self._entries()

    def close(self) -> None:
        if self._database is not None:
            self._database.close()
            self._database = None
            self._folder.closed(self._place)


def _place(key: bytes) -> bytes:
    return _NOTES + key if key.startswith(NOTE) else _ENTRIES + ordered(decode_key(key))


def _hash(key: bytes, value: bytes) -> int:
    sized = len(key).to_bytes(4) + key + value
    return int.from_bytes(hashlib.blake2b(sized, digest_size=_DIGEST_BYTES).digest())
