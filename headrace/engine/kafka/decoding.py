"""From Kafka's record batches to columns of records: checked when they arrive, decoded when they are read."""

import struct
from bisect import bisect_left
from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass

import numpy as np
from aiokafka.errors import CorruptRecordException

from headrace.engine.kafka import record_format
from headrace.engine.kafka.record_columns import read_columns
from headrace.engine.kafka.record_format import CHECKED_FROM, COMPRESSION_MASK, CONTROL, HEADER, LENGTH, MAGIC
from headrace.engine.kafka.record_rows import Contents, read_rows
from headrace.engine.log import Fetched, TopicPartition, given_offsets
from headrace.engine.records import Records

#: From this many records on a batch is read by columns: numpy's calls take as long as about so many rows.
MANY_RECORDS = 48
ABORTED = 0

_CONTROL_KEY = struct.Struct(">hh")


@dataclass(slots=True)
class Stretch:
    """A part of a partition as it was fetched: one record batch, with the offsets without records around it.

    Args:
        offset: where it is read from; records before are left out.
        next_offset: where what comes behind begins.
        header: of the batch; None where there are only transaction markers and aborted records.
        payload: of the batch, compressed.
    """

    target: TopicPartition
    offset: int
    next_offset: int
    header: record_format.Header | None = None
    payload: bytes = b""

    @property
    def count(self) -> int:
        """Records in there, about: those before `offset` are counted too."""
        return self.header.records if self.header is not None else 0

    def decode(self) -> Fetched:
        """The records of this stretch alone; see `decode`."""
        return decode([self])


def decode(found: Sequence[Stretch]) -> Fetched:
    """The records of stretches, at least one, that follow each other.

    Raises:
        CorruptRecordException: they are not built as they should be.
    """
    full = [(stretch.header, stretch.payload) for stretch in found if stretch.header is not None]
    try:
        contents = _together(full)
        if contents is not None:
            return _fetched(found, [header for header, _ in full], contents)
        return Fetched.joined([_alone(stretch) for stretch in found])
    except Exception as error:  # codecs raise what they like
        raise CorruptRecordException(f"damaged records from offset {found[0].offset} on: {error!r}") from error


def _together(batches: Sequence[tuple[record_format.Header, bytes]]) -> Contents | None:
    """What is in several batches, read as if they were one: many small ones cost no more than a large one.

    None for a few records, which are faster one by one, and for records whose headers are not the same.
    """
    count = sum(header.records for header, _ in batches)
    if count < MANY_RECORDS:
        return None
    plain = [record_format.decompress(header.attributes & COMPRESSION_MASK, payload) for header, payload in batches]
    return read_columns(plain[0] if len(plain) == 1 else b"".join(plain), count)


def _alone(stretch: Stretch) -> Fetched:
    if stretch.header is None:
        return Fetched(stretch.target, stretch.offset, stretch.next_offset, Records([], [], []))
    return _fetched([stretch], [stretch.header], _contents(stretch.header, stretch.payload))


def _fetched(found: Sequence[Stretch], headers: Sequence[record_format.Header | None], contents: Contents) -> Fetched:
    """Columns with offsets and times counted from the batches they came in."""
    first, last = found[0], found[-1]
    known = [header for header in headers if header is not None]
    counts = [header.records for header in known]
    offsets = (np.repeat([header.base_offset for header in known], counts) + contents.offsets).tolist()
    appended = [bool(header.attributes & record_format.LOG_APPEND_TIME) for header in known]
    bases = np.repeat(
        [each.max_timestamp if by_log else each.base_timestamp for each, by_log in zip(known, appended, strict=True)],
        counts,
    )
    times = np.where(np.repeat(appended, counts), bases, bases + contents.times).tolist()
    records = Records(contents.keys, contents.values, times, contents.headers)
    start = bisect_left(offsets, first.offset)
    if start:
        offsets, records = offsets[start:], records.slice(start, len(records))
    return Fetched(first.target, first.offset, last.next_offset, records, given_offsets(first.offset, offsets))


def stretches(
    target: TopicPartition, offset: int, body: bytes, aborted: Sequence[tuple[int, int]] | None = None
) -> list[Stretch]:
    """What a fetch from `offset` on brought, aborted transactions left out.

    Args:
        body: record batches, the last one possibly cut off.
        aborted: (producer id, first offset) of transactions in there that were aborted.
    Raises:
        CorruptRecordException: a checksum is wrong.
    """
    found: list[Stretch] = []
    starts = sorted(aborted or (), key=lambda each: each[1], reverse=True)
    aborting: set[int] = set()
    for header, start, end in _batches(body):
        next_offset = header.base_offset + header.last_offset_delta + 1
        while starts and starts[-1][1] < next_offset:
            aborting.add(starts.pop()[0])
        if header.attributes & CONTROL:
            if _control_type(header, body[start:end]) == ABORTED:
                aborting.discard(header.producer_id)
        elif header.records and not _aborted(header, aborting):
            position = found[-1].next_offset if found else offset
            found.append(Stretch(target, position, max(position, next_offset), header, body[start:end]))
            continue
        if found:
            found[-1].next_offset = max(found[-1].next_offset, next_offset)
        elif next_offset > offset:
            found.append(Stretch(target, offset, next_offset))
    return found


def _batches(body: bytes) -> Iterator[tuple[record_format.Header, int, int]]:
    """Header of each whole batch, and where its payload is."""
    view = memoryview(body)
    start = 0
    while start + HEADER.size <= len(body):
        header = record_format.Header._make(HEADER.unpack_from(body, start))
        end = start + LENGTH.size + header.length
        if header.magic != MAGIC or header.length < HEADER.size - LENGTH.size:
            raise CorruptRecordException(f"record batch of version {header.magic} at offset {header.base_offset}")
        if end > len(body):
            return
        if record_format.crc32c(view[start + CHECKED_FROM : end]) != header.crc:
            raise CorruptRecordException(f"wrong checksum at offset {header.base_offset}")
        yield header, start + HEADER.size, end
        start = end


def _aborted(header: record_format.Header, aborting: Set[int]) -> bool:
    return bool(header.attributes & record_format.TRANSACTIONAL) and header.producer_id in aborting


def _control_type(header: record_format.Header, payload: bytes) -> int:
    (key,) = _contents(header, payload).keys[:1]
    _, kind = _CONTROL_KEY.unpack_from(key or b"")
    return int(kind)


def _contents(header: record_format.Header, payload: bytes) -> Contents:
    return read_rows(record_format.decompress(header.attributes & COMPRESSION_MASK, payload), header.records)
