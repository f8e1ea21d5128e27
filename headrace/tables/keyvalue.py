"""The plain table: values by key, per partition, with a changelog entry per changed key and commit."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Generic, Protocol, TypeVar, cast

from headrace.engine.batch import Batch
from headrace.engine.errors import ConfigError
from headrace.engine.log import Known
from headrace.engine.operator import FIRST_VERSION
from headrace.engine.runtime.restoring import VERSION_KEY
from headrace.tables.draft import Draft
from headrace.tables.keys import Key, decode_key
from headrace.tables.part import TIME_KEY, Part
from headrace.tables.schema import K, Migration, Schema, V, plain_schema, typed_schema
from headrace.tables.store import NOTE, Codec, MemoryStore, Store

OfKey = TypeVar("OfKey")
OfValue = TypeVar("OfValue")


class Stores(Protocol):
    """Makes stores; `headrace.tables.rocks.RocksStores` is one."""

    def store(self, table: str, partition: int, codec: Codec[Any]) -> Store[Any]: ...


class KeyValue(Generic[K, V]):
    """A changelog-backed dictionary per partition. Values are never changed in place: write a new one.

    Writes go through `draft`, or through `update` in `Batch.on_finish`. They are encoded when they are committed, the
    newest per key only.

    Without `stores` all entries are in memory, decoded. With `RocksStores` they are on disk, and memory holds what was
    changed since the last commit; a restart takes from the changelog what is not on disk yet.

    Args:
        name: name of the table.
        encode, decode: value to bytes and back, exactly.
        parts: what the texts of a key, a tuple, are, for whoever looks into the table.
        ttl: seconds after which an entry is gone, counted from its last write, by the largest append time that the
            partition of the table was told with its updates; None keeps entries until they are deleted.
        stores: where entries are; in memory if left out.

    >>> table = KeyValue("door", str.encode, bytes.decode)
    >>> table.update(0, {("hall",): "open"}); table.changes(0)
    {b'["hall"]': b'open'}
    """

    def __init__(
        self,
        name: str,
        encode: Callable[[V], bytes],
        decode: Callable[[bytes], V],
        parts: Sequence[str] = (),
        *,
        ttl: float | None = None,
        stores: Stores | None = None,
    ) -> None:
        self._set_up(name, plain_schema(encode, decode, parts), ttl, stores)

    @classmethod
    def typed(
        cls,
        name: str,
        *,
        key: type[OfKey],
        value: type[OfValue],
        version: int = FIRST_VERSION,
        migrate: Mapping[int, Migration] | None = None,
        ttl: float | None = None,
        stores: Stores | None = None,
    ) -> "KeyValue[OfKey, OfValue]":
        """A table whose keys and values have types. Values are JSON with sorted fields, checked when they are read.

        Args:
            key: a `msgspec.Struct`, dataclass, NamedTuple or `tuple[...]` of texts and integers (64 bits).
            value: whatever msgspec writes as JSON and reads back.
            version: 1, and 1 more with each change of what values mean.
            migrate: by version, what makes of its value (as JSON has it) the one of the next version.
        Raises:
            ConfigError: the key has other parts, or a version has no migration.
        """
        table = cast(KeyValue[OfKey, OfValue], cls.__new__(cls))
        table._set_up(name, typed_schema(key, value, version, migrate or {}, name), ttl, stores)
        return table

    def _set_up(self, name: str, schema: Schema[K, V], ttl: float | None, stores: Stores | None) -> None:
        if ttl is not None and ttl <= 0:
            raise ConfigError(f"table {name}: a time to live is more than 0 seconds, not {ttl}")
        self.name = name
        self.version = schema.version
        self._schema = schema
        self._ttl = None if ttl is None else round(ttl * 1000)
        self._stores = stores
        self._codec = schema.codec(timed=ttl is not None)
        self._parts: dict[int, Part[V]] = {}

    # -- reading and writing

    def get(self, partition: int, key: K, at: int | None = None) -> V | None:
        """The value of `key`, or None.

        Args:
            at: append time of the record that asks, ms; of use with a time to live, whose end may come within a batch.
        """
        part = self._part(partition)
        return part.live(part.get(self._schema.split(key)), _later(part, at))

    def range(
        self, partition: int, first: K | Key | None = None, last: K | Key | None = None, at: int | None = None
    ) -> Iterator[tuple[K, V]]:
        """Entries from `first` to `last`, both included, in the order of their keys.

        Parts compare as integers do, or as texts by code point. A tuple of a key's first parts, as an end, includes all
        that begin with it. Do not change the table while you go on with it.
        """
        part = self._part(partition)
        for key, kept in part.range(*self._schema.bounds(first, last), {}):
            value = part.live(kept, _later(part, at))
            if value is not None:
                yield self._schema.join(key), value

    def draft(self, batch: Batch) -> Draft[K, V]:
        """The table as this batch reads and changes it."""
        return Draft(self._part(batch.partition), self._schema, batch)

    def update(self, partition: int, entries: Mapping[K, V | None], at: int | None = None) -> None:
        """Set keys; None deletes. The table's time moves on to `at`, if that is later; of use with a time to live.

        Entries that are written at different times need an update each, or their order depends on batch boundaries.
        """
        part = self._part(partition)
        time = _later(part, at)
        part.take({self._schema.split(key): part.kept(value, time) for key, value in entries.items()}, time)

    def view(self, partition: int) -> Mapping[K, V]:
        """All entries of a partition, as they are now; only to read."""
        return View(self._part(partition), self._schema)

    def views(self) -> Mapping[int, Mapping[K, V]]:
        """All entries by partition."""
        return {partition: self.view(partition) for partition in self._parts}

    def rows(self, entries: Mapping[bytes, bytes]) -> Iterator[dict[str, Any]]:
        """See `headrace.engine.operator.Readable`; values that have fields become objects."""
        part = Part[V](MemoryStore(self._codec), self._ttl)
        time = int(entries.get(TIME_KEY, b"0"))
        for key, encoded in sorted((decode_key(key), each) for key, each in entries.items() if key[:1] != NOTE):
            value = part.live(self._codec.decoded(key, encoded), time)
            if value is not None:
                names = self._schema.names or [f"key_{number}" for number in range(len(key))]
                yield {**dict(zip(names, key, strict=True)), **self._schema.show(value)}

    # -- committing and restoring, see `headrace.engine.operator.Stored`

    def changes(self, partition: int) -> dict[bytes, bytes | None]:
        """Newest value per key changed since the last call; None deletes."""
        part = self._parts.get(partition)
        return {} if part is None else part.changes()

    def committed(self, partition: int, position: int) -> None:
        """Bring the store to what the last `changes` brought the changelog to."""
        if partition in self._parts:
            self._parts[partition].store.commit(position)

    def known(self, partition: int) -> Known | None:
        """How far the store is."""
        self.forget(partition)
        if self._stores is not None:
            self._parts[partition] = self._new_part(self._stores.store(self.name, partition, self._codec))
        return self._part(partition).store.known()

    def clear(self, partition: int) -> None:
        """Empty the store."""
        self._part(partition).store.clear()

    def restore(self, partition: int, entries: Sequence[tuple[bytes, bytes | None]], position: int = 0) -> None:
        """Take entries of the changelog, any number of calls."""
        self._part(partition).store.restore(entries, position)

    def proven(self, partition: int) -> bool:
        """Whether the store is what the changelog says."""
        return self._part(partition).store.proven()

    def written(self, partition: int) -> int:
        """The version that the entries are of."""
        return int(self._part(partition).store.notes.get(VERSION_KEY, FIRST_VERSION))

    def restored(self, partition: int) -> None:
        """All entries were given. Those of an older version are migrated, and written with the next commit.

        Raises:
            ValueError: an entry cannot be read; names its key.
        """
        part, written = self._part(partition), self.written(partition)
        if self._ttl is None and TIME_KEY in part.store.notes:
            raise ValueError(f"table {self.name} was kept with a time to live")
        part.time = int(part.store.notes.get(TIME_KEY, 0))
        if written == self.version:
            part.notes.pop(VERSION_KEY, None)
            part.store.settle()
            return
        for key, encoded in part.store.unsettled():
            migrated = self._codec.migrated(key, written, encoded)
            part.take({key: None if migrated is None else self._codec.decoded(key, migrated)}, part.time)

    def migrate(self, version: int, entries: Mapping[bytes, bytes]) -> dict[bytes, bytes]:
        """See `headrace.engine.operator.Versioned`."""
        migrated = {key: self._codec.migrated(decode_key(key), version, each) for key, each in entries.items()}
        return {key: each for key, each in migrated.items() if each is not None}

    def forget(self, partition: int) -> None:
        """Drop the partition's entries; what is on disk stays for when it comes back."""
        part = self._parts.pop(partition, None)
        if part is not None:
            part.store.close()

    def close(self) -> None:
        """Close the stores. What is in memory can still be read."""
        for part in self._parts.values():
            part.store.close()

    @property
    def on_disk(self) -> bool:
        """Whether the store outlives the process."""
        return self._stores is not None

    def _part(self, partition: int) -> Part[V]:
        if partition not in self._parts:
            # Not restored, as in tests and repaired agents: nothing on disk has to do with it.
            self._parts[partition] = self._new_part(MemoryStore(self._codec))
        return self._parts[partition]

    def _new_part(self, store: Store[Any]) -> Part[V]:
        part = Part[V](store, self._ttl)
        if self.version != FIRST_VERSION:
            part.notes[VERSION_KEY] = b"%d" % self.version
        return part


class View(Mapping[K, V]):
    """A partition as a mapping."""

    def __init__(self, part: Part[V], schema: Schema[K, V]) -> None:
        self._part = part
        self._schema = schema

    def __getitem__(self, key: K) -> V:
        value = self._part.live(self._part.get(self._schema.split(key)), self._part.time)
        if value is None:
            raise KeyError(key)
        return value

    def __iter__(self) -> Iterator[K]:
        return map(self._schema.join, self._part)

    def __len__(self) -> int:
        return sum(1 for _ in self)


def _later(part: Part[Any], at: int | None) -> int:
    return part.time if at is None else max(part.time, at)
