"""How `Records` lie in one row of the embedded log: MessagePack, with a version in front."""

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


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(_Body)


def encode(records: Records) -> bytes:
    """The bytes of one row."""
    return _encoder.encode(_Body(VERSION, records.keys, records.values, records.timestamps, records.headers))


def decode(body: bytes) -> Records:
    """The records of one row.

    Raises:
        LogError: the row is torn or was written by a newer headrace.
    """
    try:
        row = _decoder.decode(body)
    except (msgspec.DecodeError, msgspec.ValidationError) as error:
        raise LogError(
            f"the log holds a row that cannot be read ({error}); restore the data folder from a copy"
        ) from error
    if row.version != VERSION:
        raise LogError(f"the log holds a row of format {row.version}, this headrace reads {VERSION}; upgrade headrace")
    return Records(row.keys, row.values, row.timestamps, row.headers)
