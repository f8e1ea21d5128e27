"""The plain table: values by key, per partition, with a changelog entry per changed key."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, is_dataclass
from typing import Any, Generic, TypeVar

import orjson

Value = TypeVar("Value")

#: A key: any texts. In the changelog a JSON array.
Key = tuple[str, ...]


class KeyValue(Generic[Value]):
    """A changelog-backed dictionary per partition. Values are never changed in place: write a new one.

    Writes are for `Batch.on_finish`. They are encoded when they are committed, the newest per key only.

    Args:
        name: name of the table.
        encode, decode: value to bytes and back, exactly.
        parts: what the texts of a key are, for whoever looks into the table.

    >>> table = KeyValue("door", str.encode, bytes.decode)
    >>> table.update(0, {("hall",): "open"}); table.changes(0)
    {b'["hall"]': b'open'}
    """

    def __init__(
        self,
        name: str,
        encode: Callable[[Value], bytes],
        decode: Callable[[bytes], Value],
        parts: Sequence[str] = (),
    ) -> None:
        self.name = name
        self._parts = parts
        self._encode = encode
        self._decode = decode
        self._values: dict[int, dict[Key, Value]] = {}
        self._dirty: dict[int, dict[Key, None]] = {}

    def view(self, partition: int) -> Mapping[Key, Value]:
        """All entries of a partition, as they are now; only to read."""
        return self._values.get(partition, {})

    def views(self) -> Mapping[int, Mapping[Key, Value]]:
        """All entries by partition."""
        return self._values

    def update(self, partition: int, entries: Mapping[Key, Value | None]) -> None:
        """Set keys; None deletes."""
        values, dirty = self._values.setdefault(partition, {}), self._dirty.setdefault(partition, {})
        for key, value in entries.items():
            if value is None:
                values.pop(key, None)
            else:
                values[key] = value
            dirty[key] = None

    def restore(self, partition: int, entries: Sequence[tuple[bytes, bytes]]) -> None:
        """Take entries of the changelog, in any order and any number of calls."""
        values = self._values.setdefault(partition, {})
        for key, value in entries:
            values[tuple(orjson.loads(key))] = self._decode(value)

    def restored(self, partition: int) -> None:
        """All entries were given."""

    def rows(self, entries: Mapping[bytes, bytes]) -> Iterator[dict[str, Any]]:
        """See `headrace.engine.operator.Readable`; values that are dataclasses become objects."""
        for key, text in sorted((tuple(orjson.loads(key)), value) for key, value in entries.items()):
            value: Any = self._decode(text)
            names = self._parts or [f"key_{number}" for number in range(len(key))]
            shown = asdict(value) if is_dataclass(value) and not isinstance(value, type) else {"value": value}
            yield {**dict(zip(names, key, strict=True)), **shown}

    def changes(self, partition: int) -> dict[bytes, bytes | None]:
        """Newest value per key changed since the last call; None deletes."""
        values, dirty = self._values.get(partition, {}), self._dirty.pop(partition, {})
        return {orjson.dumps(key): self._encode(values[key]) if key in values else None for key in dirty}

    def forget(self, partition: int) -> None:
        """Drop the partition's entries."""
        self._values.pop(partition, None)
        self._dirty.pop(partition, None)
