"""From columns of records to Kafka's record batches, by aiokafka's compiled builder."""

import struct
from collections.abc import Iterable, Iterator
from itertools import count, repeat
from typing import NamedTuple

from aiokafka.record.default_records import DefaultRecordBatchBuilder

from headrace.engine.kafka import record_format
from headrace.engine.kafka.record_format import COMPRESSION, HEADER, LENGTH, MAGIC
from headrace.engine.records import Records

#: Bytes of records, before compression, that one record batch takes; a larger record has a batch of its own. Topics
#: take batches of 1 MiB unless told otherwise.
BATCH_BYTES = 512 << 10

_PREFIX = struct.Struct(">qiibI")
#: The headers of one record, as aiokafka takes them.
_Headers = list[tuple[str, bytes]]


class EncodedBatch(NamedTuple):
    """A record batch but for its producer.

    Args:
        total: number of records.
        attributes: compression.
        base_timestamp: of the first record, ms.
        max_timestamp: the latest of all, ms.
        payload: the records, compressed.
    """

    total: int
    attributes: int
    base_timestamp: int
    max_timestamp: int
    payload: bytes

    def build(self, producer_id: int, epoch: int, sequence: int) -> bytes:
        """The whole batch, written in a transaction of this producer; `sequence` is that of its first record."""
        checked = HEADER.pack(
            *(0, 0, -1, MAGIC, 0),
            self.attributes | record_format.TRANSACTIONAL,
            *(self.total - 1, self.base_timestamp, self.max_timestamp),
            *(producer_id, epoch, sequence, self.total),
        )[record_format.CHECKED_FROM :]
        checked += self.payload
        length = record_format.CHECKED_FROM - LENGTH.size + len(checked)
        crc = record_format.crc32c(checked)
        return _PREFIX.pack(0, length, -1, MAGIC, crc) + checked


def encode(records: Records, compression: str) -> Iterator[EncodedBatch]:
    """The records as batches, in order; each is encoded when it is asked for. 0.5 µs per record, 0.9 with headers."""
    code = COMPRESSION[compression]
    start = 0
    while start < len(records):
        left = records.slice(start, len(records)) if start else records
        taken, payload = _fill(left)
        stamps = left.timestamps[:taken]
        packed = record_format.compress(code, payload)
        attributes = code
        if len(packed) >= len(payload):
            packed, attributes = payload, 0
        yield EncodedBatch(taken, attributes, stamps[0], max(stamps), packed)
        start += taken


def _fill(records: Records) -> tuple[int, bytes]:
    """As many of the first records as one batch takes, and their bytes."""
    builder = DefaultRecordBatchBuilder(MAGIC, 0, 0, -1, -1, -1, BATCH_BYTES)
    added = map(builder.append, count(), records.timestamps, records.keys, records.values, _headers(records))
    taken = next((number for number, written in enumerate(added) if written is None), len(records))
    return taken, bytes(memoryview(builder.build())[HEADER.size :])


def _headers(records: Records) -> Iterable[_Headers]:
    """The headers of each record; None has none."""
    same = [(name, column) for name, column in records.headers.items() if isinstance(column, bytes)]
    if len(same) == len(records.headers):
        return repeat(same)
    names = list(records.headers)
    columns = [records.header(name) for name in names]
    return (
        [(name, value) for name, value in zip(names, row, strict=True) if value is not None]
        for row in zip(*columns, strict=True)
    )
