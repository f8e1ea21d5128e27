"""Makes records as the Kinesis Producer Library does."""

import hashlib
from collections.abc import Sequence

from headrace.connectors.kinesis.aggregated import MAGIC


def aggregate(records: Sequence[tuple[str, bytes]]) -> bytes:
    """One record that holds these: partition keys and data."""
    keys = list(dict.fromkeys(key for key, _ in records))
    body = b"".join(_bytes(1, key.encode()) for key in keys)
    for key, data in records:
        # An explicit hash key and a tag stand between: readers must pass over both.
        body += _bytes(3, b"\x08" + _varint(keys.index(key)) + b"\x10\x00" + _bytes(3, data) + _bytes(4, b"\x0a\x01t"))
    return MAGIC + body + hashlib.md5(body, usedforsecurity=False).digest()


def _bytes(field: int, data: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(data)) + data


def _varint(number: int) -> bytes:
    found = b""
    while number >= 0x80:
        found += bytes([number & 0x7F | 0x80])
        number >>= 7
    return found + bytes([number])
