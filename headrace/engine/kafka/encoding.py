"""From columns of records to Kafka's record batches, by aiokafka's compiled builder."""

import struct
from collections.abc import Iterable, Iterator, Sequence
from itertools import count, repeat
from typing import Any, NamedTuple

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
    """The records as batches, in order; each is encoded when it is asked for."""
    code = COMPRESSION[compression]
    columns: Sequence[Iterable[Any]] = (records.timestamps, records.keys, records.values, _headers(records))
    # These go on from batch to batch: slices of all that is left would take longer the more there is.
    rest = [iter(column) for column in columns]
    for column in rest:
        next(column, None)
    start = 0
    while start < len(records):
        taken, payload = _fill(records, start, rest)
        stamps = records.timestamps[start : start + taken]
        packed = record_format.compress(code, payload)
        attributes = code
        if len(packed) >= len(payload):
            packed, attributes = payload, 0
        yield EncodedBatch(taken, attributes, stamps[0], max(stamps), packed)
        start += taken


def _fill(records: Records, start: int, rest: Sequence[Iterator[Any]]) -> tuple[int, bytes]:
    """As many records from `start` on as one batch takes, and their bytes.

    Args:
        rest: the columns behind the record at `start`; afterwards those behind the first record that was not taken.
    """
    builder = DefaultRecordBatchBuilder(MAGIC, 0, 0, -1, -1, -1, BATCH_BYTES)
    first = records[start]
    builder.append(0, first.timestamp, first.key, first.value, list(first.headers.items()))
    added = map(builder.append, count(1), *rest)
    taken = next((number for number, written in enumerate(added, 1) if written is None), len(records) - start)
    return taken, bytes(memoryview(builder.build())[HEADER.size :])


def _headers(records: Records) -> Iterable[_Headers]:
    """The headers of each record; None has none."""
    own = [column for column in records.headers.values() if not isinstance(column, bytes)]
    if not own:
        return repeat([(name, column) for name, column in records.headers.items() if isinstance(column, bytes)])
    rows = zip(*(zip(repeat(name), records.header(name)) for name in records.headers), strict=True)
    if any(None in column for column in own):
        return ([header for header in row if header[1] is not None] for row in rows)
    return map(list, rows)
