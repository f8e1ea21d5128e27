"""How `Records`, and entries of compacted topics, lie in rows of the embedded log: MessagePack, a version in front."""

from collections.abc import Sequence
from typing import TypeVar

import msgspec

from headrace.engine.errors import LogError
from headrace.engine.records import Header, Records

VERSION = 1


class _Body(msgspec.Struct, array_like=True):
    version: int
    keys: list[bytes | None]
    values: list[bytes | None]
    timestamps: list[int]
    headers: dict[str, Header]


class Entries(msgspec.Struct, array_like=True):
    """Keys and values of a compacted topic, one each; None deletes the key."""

    version: int
    keys: list[bytes]
    values: list[bytes | None]


_Row = TypeVar("_Row", _Body, Entries)

_encoder = msgspec.msgpack.Encoder()
_bodies = msgspec.msgpack.Decoder(_Body)
_entries = msgspec.msgpack.Decoder(Entries)


def encode(records: Records) -> bytes:
    """The bytes of one row."""
    return _encoder.encode(_Body(VERSION, records.keys, records.values, records.timestamps, records.headers))


def decode(body: bytes) -> Records:
    """The records of one row.

    Raises:
        LogError: the row is torn or was written by a newer headrace.
    """
    row = _decoded(_bodies, body)
    return Records(row.keys, row.values, row.timestamps, row.headers)


def encode_entries(keys: Sequence[bytes], values: Sequence[bytes | None]) -> bytes:
    """The bytes of one row of entries."""
    return _encoder.encode((VERSION, keys, values))


def decode_entries(body: bytes) -> Entries:
    """The entries of one row.

    Raises:
        LogError: the row is torn or was written by a newer headrace.
    """
    row = _decoded(_entries, body)
    if len(row.keys) != len(row.values):
        raise LogError(_unreadable(f"{len(row.keys)} keys, {len(row.values)} values"))
    return row


def _decoded(decoder: msgspec.msgpack.Decoder[_Row], body: bytes) -> _Row:
    try:
        row = decoder.decode(body)
    except (msgspec.DecodeError, msgspec.ValidationError) as error:
        raise LogError(_unreadable(error)) from error
    if row.version != VERSION:
        raise LogError(f"the log holds a row of format {row.version}, this headrace reads {VERSION}; upgrade headrace")
    return row


def _unreadable(why: object) -> str:
    return f"the log holds a row that cannot be read ({why}); restore the data folder from a copy"
