"""What a table's keys and values are, and how they are written."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, is_dataclass
from typing import Any, Generic, TypeVar, cast, get_args, get_origin, get_type_hints

import msgspec

from headrace.engine.errors import ConfigError
from headrace.tables.keys import Key
from headrace.tables.store import Codec, Timed

K = TypeVar("K")
V = TypeVar("V")

#: From the value that a version wrote, as JSON has it, to what the next one writes, or None to drop the entry.
Migration = Callable[[Any], Any]


@dataclass(frozen=True)
class Schema(Generic[K, V]):
    """Keys and values of a table.

    Args:
        split, join: a key to its parts and back.
        encode, decode: a value to bytes and back.
        show: a value as an object that JSON can hold.
        names: of the parts of a key.
        format: says what `decode` takes.
    """

    split: Callable[[K], Key]
    join: Callable[[Key], K]
    encode: Callable[[V], bytes]
    decode: Callable[[bytes], V]
    show: Callable[[V], dict[str, Any]]
    names: Sequence[str] = ()
    format: str = ""
    version: int = 1
    migrations: Mapping[int, Migration] = field(default_factory=dict)

    def bounds(self, first: K | Key | None, last: K | Key | None) -> tuple[Key | None, Key | None]:
        """The ends of a range, which may be the first parts of a key only."""
        low, high = (
            each if each is None or type(each) is tuple else self.split(cast(K, each)) for each in (first, last)
        )
        return low, high

    def codec(self, *, timed: bool) -> Codec[Any]:
        """With a time to live values have their time in front: `1700000000000 {"open": true}`."""
        if not timed:
            return Codec(self.encode, self.decode, self._migrated, timed, self.format)

        def encode(kept: Timed) -> bytes:
            return b"%d %b" % (kept.written, self.encode(kept.value))

        def decode(encoded: bytes) -> Timed:
            written, _, value = encoded.partition(b" ")
            return Timed(int(written), self.decode(value))

        def migrate(version: int, encoded: bytes) -> bytes | None:
            written, _, value = encoded.partition(b" ")
            migrated = self._migrated(version, value)
            return None if migrated is None else b"%b %b" % (written, migrated)

        return Codec(encode, decode, migrate, timed, f"{self.format} timed")

    def _migrated(self, version: int, encoded: bytes) -> bytes | None:
        value = msgspec.json.decode(encoded)
        for step in range(version, self.version):
            value = self.migrations[step](value)
            if value is None:
                return None
        return self.encode(self.decode(msgspec.json.encode(value)))


def plain_schema(encode: Callable[[V], bytes], decode: Callable[[bytes], V], names: Sequence[str]) -> Schema[Any, V]:
    """Keys are tuples, values what two functions make of them."""
    return Schema(_same, _same, encode, decode, _fields, names)


def typed_schema(
    key: type[K], value: type[V], version: int, migrations: Mapping[int, Migration], name: str
) -> Schema[K, V]:
    """Keys and values of given types; values are JSON with sorted fields.

    Raises:
        ConfigError: the key has parts that are neither text nor integer, or a version has no migration.
    """
    fields = _key_fields(key)
    mistakes = [
        f"table {name}: {part} of a key is {kind!r}, it can be str or int"
        for part, kind in fields.items()
        if kind not in (str, int)
    ]
    if not fields:
        mistakes.append(f"table {name}: a key is a tuple, a dataclass or a msgspec.Struct of str and int, not {key!r}")
    mistakes += [
        f"table {name} has version {version} and no migration from version {step}"
        for step in range(1, version)
        if step not in migrations
    ]
    if mistakes:
        raise ConfigError(*mistakes)
    is_tuple = get_origin(key) is tuple
    names, kinds = list(fields), list(fields.values())
    decoder = msgspec.json.Decoder(value)
    encoder = msgspec.json.Encoder(order="deterministic")

    def split(given: K) -> Key:
        return tuple(given) if isinstance(given, tuple) else tuple(getattr(given, part) for part in names)

    def join(parts: Key) -> K:
        if list(map(type, parts)) != kinds:
            raise ValueError(f"a key of {key!r} has other parts")
        return cast(K, parts) if is_tuple else key(*parts)

    def encode(given: V) -> bytes:
        encoded = encoder.encode(given)
        decoder.decode(encoded)  # what cannot be read must not get into a changelog: NaN, or another type
        return encoded

    schema_ = msgspec.json.encode(msgspec.json.schema(value), order="deterministic")
    format_ = hashlib.blake2b(schema_, digest_size=8).hexdigest()
    return Schema(split, join, encode, decoder.decode, _shown, names, f"{format_}-{version}", version, migrations)


def _same(given: Any) -> Any:
    return given


def _fields(value: Any) -> dict[str, Any]:
    return asdict(value) if is_dataclass(value) and not isinstance(value, type) else {"value": value}


def _shown(value: Any) -> dict[str, Any]:
    builtin = msgspec.to_builtins(value)
    return builtin if isinstance(builtin, dict) else {"value": builtin}


def _key_fields(key: Any) -> dict[str, Any]:
    if get_origin(key) is tuple:
        return {f"key_{number}": kind for number, kind in enumerate(get_args(key))}
    is_struct = isinstance(key, type) and (issubclass(key, msgspec.Struct) or is_dataclass(key))
    return get_type_hints(key) if is_struct or hasattr(key, "_fields") else {}
