"""Between headrace's columns of records and the record batches of Kafka."""

from collections.abc import Iterable, Sequence

from aiokafka.errors import CorruptRecordException
from aiokafka.producer.message_accumulator import BatchBuilder
from aiokafka.record.control_record import ABORT_MARKER, ControlRecord
from aiokafka.record.memory_records import MemoryRecords

from headrace.engine.log import Fetched, TopicPartition, given_offsets
from headrace.engine.records import Header, Records

#: Bytes of records, before compression, that one record batch takes.
BATCH_BYTES = 512 << 10
#: Codec numbers of the record format, by the names of the settings.
COMPRESSION = {"none": 0, "gzip": 1, "snappy": 2, "lz4": 3, "zstd": 4}


def encode(records: Records, compression: str) -> list[BatchBuilder]:
    """Record batches for one partition, in order, for a transactional producer."""
    batches: list[BatchBuilder] = []
    batch = _new_batch(compression)
    for key, value, stamp, headers in zip(
        records.keys, records.values, records.timestamps, _header_rows(records), strict=True
    ):
        if batch.append(timestamp=stamp, key=key, value=value, headers=headers) is None:
            batches.append(batch)
            batch = _new_batch(compression)
            batch.append(timestamp=stamp, key=key, value=value, headers=headers)
    batches.append(batch)
    return batches


def _new_batch(compression: str) -> BatchBuilder:
    return BatchBuilder(BATCH_BYTES, COMPRESSION[compression], is_transactional=1)


def _header_rows(records: Records) -> Iterable[list[tuple[str, bytes | None]]]:
    """The headers of each record, as the format wants them; an absent one is left out."""
    total = len(records)
    constant: list[tuple[str, bytes | None]] = [
        (name, column) for name, column in records.headers.items() if isinstance(column, bytes)
    ]
    columns = {name: column for name, column in records.headers.items() if not isinstance(column, bytes)}
    if not columns:
        return [constant] * total
    names = list(columns)
    if any(value is None for column in columns.values() for value in column):
        return [
            constant + [(name, value) for name, value in zip(names, row, strict=True) if value is not None]
            for row in zip(*columns.values(), strict=True)
        ]
    return [constant + list(zip(names, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def decode(
    target: TopicPartition, offset: int, body: bytes, aborted: Sequence[tuple[int, int]] | None, max_records: int
) -> list[Fetched]:
    """What a fetch brought, from `offset` on, in pieces of about `max_records`.

    The last piece may have no records: then markers or aborted transactions only moved the position.

    Args:
        body: record batches, the last one possibly cut off.
        aborted: (producer id, first offset) of transactions in there that were aborted.
    Raises:
        CorruptRecordException: a checksum is wrong; fetch again.
    """
    pieces: list[Fetched] = []
    columns = _Columns(target, offset)
    aborted_from = sorted(aborted or (), key=lambda each: each[1])
    aborting: set[int] = set()
    batches = MemoryRecords(bytes(body))
    while batches.has_next():
        batch = batches.next_batch()
        if not batch.validate_crc():
            raise CorruptRecordException(f"{target.topic}/{target.partition} at {batch.base_offset}")
        while aborted_from and aborted_from[0][1] <= batch.base_offset:
            aborting.add(aborted_from.pop(0)[0])
        if batch.is_control_batch:
            if ControlRecord.parse(next(batch).key) == ABORT_MARKER:
                aborting.discard(batch.producer_id)
        elif not (batch.is_transactional and batch.producer_id in aborting):
            columns.add(batch)
        columns.position = max(columns.position, batch.next_offset)
        if len(columns.offsets) >= max_records:
            pieces.append(columns.piece())
            columns = _Columns(target, columns.position)
    if columns.offsets or columns.position > columns.start:
        pieces.append(columns.piece())
    return pieces


class _Columns:
    """Records being collected from batches."""

    def __init__(self, target: TopicPartition, start: int) -> None:
        self.target = target
        self.start = self.position = start
        self.offsets: list[int] = []
        self._keys: list[bytes | None] = []
        self._values: list[bytes | None] = []
        self._timestamps: list[int] = []
        self._headers: list[list[tuple[str, bytes | None]]] = []

    def add(self, batch: Iterable[object]) -> None:
        """Take the records of one batch; a fetch may begin inside it."""
        start = self.position
        rows = [(r.offset, r.key, r.value, r.timestamp, r.headers) for r in batch]  # type: ignore[attr-defined]
        if rows and rows[0][0] < start:
            rows = [row for row in rows if row[0] >= start]
        if rows:
            offsets, keys, values, timestamps, headers = zip(*rows, strict=True)
            self.offsets += offsets
            self._keys += keys
            self._values += values
            self._timestamps += timestamps
            self._headers += headers

    def piece(self) -> Fetched:
        """Everything collected."""
        records = Records(self._keys, self._values, self._timestamps, _header_columns(self._headers))
        offsets = given_offsets(self.start, self.offsets)
        return Fetched(self.target, self.start, self.position, records, offsets)


def _header_columns(rows: Sequence[list[tuple[str, bytes | None]]]) -> dict[str, Header]:
    if not rows:
        return {}
    names = [name for name, _ in rows[0]]
    values: list[tuple[bytes | None, ...]] = []
    for row in rows:
        if [name for name, _ in row] != names:
            return _uneven_columns(rows)
        values.append(tuple(value for _, value in row))
    return {name: _column(list(column)) for name, column in zip(names, zip(*values, strict=True), strict=True)}


def _column(values: list[bytes | None]) -> Header:
    """One value for all where they are equal."""
    first = values[0]
    return first if first is not None and values.count(first) == len(values) else values


def _uneven_columns(rows: Sequence[list[tuple[str, bytes | None]]]) -> dict[str, Header]:
    """Headers that not every record has, or in another order; of a name given twice the last counts."""
    columns: dict[str, list[bytes | None]] = {}
    for index, row in enumerate(rows):
        for name, value in row:
            columns.setdefault(name, [None] * len(rows))[index] = value
    return {name: list(column) for name, column in columns.items()}
