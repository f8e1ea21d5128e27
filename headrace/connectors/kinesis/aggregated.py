"""Records of the Kinesis Producer Library that hold many messages.

Source: aggregation-format.md of github.com/awslabs/amazon-kinesis-producer: four bytes, a protobuf message, its MD5.
"""

import hashlib
from collections.abc import Iterator, Sequence
from typing import NamedTuple

MAGIC = b"\xf3\x89\x9a\xc2"
DIGEST_BYTES = 16
#: Wire types of protobuf.
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
#: Field numbers of AggregatedRecord, and of its Record.
_KEYS, _RECORDS = 1, 3
_KEY_INDEX, _DATA = 1, 3
_LONGEST_VARINT = 10


class UserRecord(NamedTuple):
    """One message of several."""

    key: bytes
    data: bytes


class BadAggregate(ValueError):
    """It begins like an aggregated record, but is none."""


def unpack(data: bytes) -> Sequence[UserRecord] | None:
    """The messages of an aggregated record, in order; None if it is an ordinary one.

    Raises:
        BadAggregate: its checksum or its form is wrong.

    >>> unpack(b"plain") is None
    True
    """
    if data[: len(MAGIC)] != MAGIC:
        return None
    body, digest = data[len(MAGIC) : -DIGEST_BYTES], data[-DIGEST_BYTES:]
    if hashlib.md5(body, usedforsecurity=False).digest() != digest:
        raise BadAggregate("the checksum does not fit")
    keys, places = list[bytes](), list[tuple[int, bytes]]()
    for field, value in _fields(body):
        if field == _KEYS and isinstance(value, bytes):
            keys.append(value)
        elif field == _RECORDS and isinstance(value, bytes):
            places.append(_record(value))
    if any(place >= len(keys) for place, _ in places):
        raise BadAggregate("a message has a partition key that is not in the table")
    return [UserRecord(keys[place], payload) for place, payload in places]


def _record(data: bytes) -> tuple[int, bytes]:
    """Place of the key, and payload."""
    said = dict(_fields(data))
    place, payload = said.get(_KEY_INDEX), said.get(_DATA)
    if not isinstance(place, int) or not isinstance(payload, bytes):
        raise BadAggregate("a message has no partition key or no data")
    return place, payload


def _fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Number and value of each field; fixed-width ones as bytes."""
    place, end = 0, len(data)
    while place < end:
        tag, place = _varint(data, place)
        kind = tag & 7
        if kind == _VARINT:
            value, place = _varint(data, place)
            yield tag >> 3, value
            continue
        if kind == _BYTES:
            size, place = _varint(data, place)
        elif kind in (_FIXED64, _FIXED32):
            size = 8 if kind == _FIXED64 else 4
        else:
            raise BadAggregate(f"wire type {kind} is unknown")
        if place + size > end:
            raise BadAggregate("it ends in the middle of a field")
        yield tag >> 3, data[place : place + size]
        place += size


def _varint(data: bytes, place: int) -> tuple[int, int]:
    """A number, and the place behind it."""
    value = 0
    for shift in range(_LONGEST_VARINT):
        if place >= len(data):
            raise BadAggregate("it ends in the middle of a number")
        byte = data[place]
        place += 1
        value |= (byte & 0x7F) << 7 * shift
        if byte < 0x80:
            return value, place
    raise BadAggregate("a number has no end")
