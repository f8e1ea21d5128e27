"""The record batch of Kafka, version 2: its header, its variable-length integers, its compression.

Source: the implementation notes of Apache Kafka, "Message Format" (since 0.11).
"""

import struct
from collections.abc import Callable
from typing import NamedTuple

from aiokafka import codec
from aiokafka.record.util import calc_crc32c

#: Everything before the records.
HEADER = struct.Struct(">qiibIhiqqqhii")
#: Offset and length come first; the length counts what follows them.
LENGTH = struct.Struct(">qi")
#: The checksum covers everything from here on.
CHECKED_FROM = struct.calcsize(">qiibI")
MAGIC = 2
COMPRESSION_MASK, LOG_APPEND_TIME, TRANSACTIONAL, CONTROL = 0x07, 0x08, 0x10, 0x20
#: Codec numbers, by the names of the settings.
COMPRESSION = {"none": 0, "gzip": 1, "snappy": 2, "lz4": 3, "zstd": 4}

#: The quick end of each codec. aiokafka asks lz4 for 9, which takes ten times as long for a fifth less
#: (`benchmarks/record_batches.py`).
_GZIP_LEVEL, _LZ4_LEVEL, _ZSTD_LEVEL = 1, 1, 1


class Header(NamedTuple):
    """The header of one record batch, field by field."""

    base_offset: int
    length: int
    leader_epoch: int
    magic: int
    crc: int
    attributes: int
    last_offset_delta: int
    base_timestamp: int
    max_timestamp: int
    producer_id: int
    producer_epoch: int
    base_sequence: int
    records: int


def crc32c(data: bytes | memoryview) -> int:
    """Checksum (Castagnoli) of `data`."""
    return int(calc_crc32c(data))


def compress(code: int, data: bytes) -> bytes:
    """`data`, compressed with the codec of this number."""
    return bytes(_COMPRESSORS[code](data)) if code else data


def decompress(code: int, data: bytes) -> bytes:
    """What `compress` was given.

    Raises:
        KeyError: there is no codec of this number.
        Exception: the codec's own, when `data` is damaged.
    """
    return bytes(_DECOMPRESSORS[code](data)) if code else data


_COMPRESSORS: dict[int, Callable[[bytes], bytes]] = {
    1: lambda data: codec.gzip_encode(data, _GZIP_LEVEL),
    2: codec.snappy_encode,
    3: lambda data: codec.lz4_encode(data, _LZ4_LEVEL),
    4: lambda data: codec.zstd_encode(data, _ZSTD_LEVEL),
}
_DECOMPRESSORS: dict[int, Callable[[bytes], bytes]] = {
    1: codec.gzip_decode,
    2: codec.snappy_decode,
    3: codec.lz4_decode,
    4: codec.zstd_decode,
}
