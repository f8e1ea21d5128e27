"""What a fetch brings becomes the records that were written, and nothing else."""

import struct

import pytest
from aiokafka.errors import CorruptRecordException
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from hypothesis import given
from hypothesis import strategies as st

from headrace.engine.kafka.decoding import MANY_RECORDS, stretches
from headrace.engine.kafka.decoding import decode as decode_all
from headrace.engine.kafka.encoding import encode
from headrace.engine.kafka.record_columns import read_columns
from headrace.engine.kafka.record_format import CHECKED_FROM, HEADER, LENGTH, crc32c
from headrace.engine.kafka.record_rows import read_rows
from headrace.engine.log import Fetched, TopicPartition
from headrace.engine.records import Records
from tests.engine.kafka.record_batches import COMPRESSIONS, as_kept, body, same, some_records

TARGET = TopicPartition("t", 0)
HEADERS = st.tuples(st.sampled_from(["a", "b", "c"]), st.binary(max_size=3))


def decode(data: bytes, offset: int = 0, aborted: list[tuple[int, int]] | None = None) -> list[Fetched]:
    return [stretch.decode() for stretch in stretches(TARGET, offset, data, aborted)]


def offsets(pieces: list[Fetched]) -> list[int]:
    return [piece.offset(index) for piece in pieces for index in range(len(piece.records))]


# -- round trips


@given(st.lists(some_records(), min_size=1, max_size=3), COMPRESSIONS)
def test_records_come_back(parts: list[Records], compression: str) -> None:
    """Whatever was written comes back the same, with its offsets, one stretch after another without a gap."""
    data, at = b"", 0
    for part in parts:
        data += body(part, compression, at)
        at += len(part)

    found = decode(data)

    assert same([piece.records for piece in found], Records.concat(parts))
    assert offsets(found) == list(range(at))
    assert [piece.base_offset for piece in found] == [0, *(piece.next_offset for piece in found[:-1])]
    assert found[-1].next_offset == at


@given(some_records(), some_records(), COMPRESSIONS, st.data())
def test_reading_begins_inside_a_batch(first: Records, second: Records, compression: str, data: st.DataObject) -> None:
    """From any offset on, exactly the records from there on come back."""
    whole = body(first, compression) + body(second, compression, len(first))
    total = len(first) + len(second)
    offset = data.draw(st.integers(0, total - 1))

    found = decode(whole, offset)

    assert same([piece.records for piece in found], Records.concat([first, second]).slice(offset, total))
    assert offsets(found) == list(range(offset, total))
    assert found[0].base_offset == offset


@given(some_records(), some_records(), COMPRESSIONS, st.data())
def test_last_batch_may_be_cut_off(first: Records, second: Records, compression: str, data: st.DataObject) -> None:
    """A fetch ends where its size ends: what is whole is read, the rest comes with the next fetch."""
    head, tail = body(first, compression), body(second, compression, len(first))
    cut = data.draw(st.integers(0, len(tail) - 1))

    found = decode(head + tail[:cut])

    assert same([piece.records for piece in found], first)
    assert found[-1].next_offset == len(first)


@given(some_records())
def test_rows_and_columns_read_the_same(records: Records) -> None:
    """Reading by columns, where it can be done, finds what reading one by one does."""
    (batch,) = encode(records, "none")

    rows, columns = read_rows(batch.payload, batch.total), read_columns(batch.payload, batch.total)

    uneven = any(isinstance(column, list) and None in column for column in records.headers.values())
    assert columns == rows or (columns is None and uneven)


@given(st.lists(st.tuples(st.binary(max_size=5), st.lists(HEADERS, max_size=4)), max_size=6))
def test_headers_of_other_writers(rows: list[tuple[bytes, list[tuple[str, bytes]]]]) -> None:
    """Headers in any order and number, a name given twice included, come back by name; the last of a name counts."""
    for repeat in (1, MANY_RECORDS):
        sent = (rows or [(b"", [])]) * repeat
        builder = DefaultRecordBatchBuilder(2, 0, 0, -1, -1, 0, 1 << 24)
        for index, (value, headers) in enumerate(sent):
            builder.append(index, 1, None, value, headers)

        (found,) = decode(bytes(builder.build()))

        assert [(record.value, record.headers) for record in found.records] == [
            (value, dict(headers)) for value, headers in sent
        ]


def test_header_names_need_not_be_text() -> None:
    """A header that another writer gave a name of arbitrary bytes does not stop the partition."""
    records = Records([b"k"], [b"v"], [1], {"name": b"x"})
    whole = bytearray(body(records, "none"))
    whole[whole.index(b"name") : whole.index(b"name") + 4] = b"\xff\xfe\x00\x80"
    struct.pack_into(">I", whole, CHECKED_FROM - 4, crc32c(bytes(whole[CHECKED_FROM:])))

    (found,) = decode(bytes(whole))

    assert list(found.records[0].headers.values()) == [b"x"]


def test_broker_may_give_the_times() -> None:
    """Where the topic takes the time of the append, every record of a batch has that of the batch."""
    whole = bytearray(body(Records([b"k"] * 2, [b"v"] * 2, [5, 9]), "none"))
    (attributes,) = struct.unpack_from(">h", whole, CHECKED_FROM)
    struct.pack_into(">h", whole, CHECKED_FROM, attributes | 0x08)
    struct.pack_into(">I", whole, CHECKED_FROM - 4, crc32c(bytes(whole[CHECKED_FROM:])))

    (found,) = decode(bytes(whole))

    assert found.records.timestamps == [9, 9]


@pytest.mark.parametrize("count", [1, MANY_RECORDS])
@pytest.mark.parametrize("size", [0, 1, 63, 64, 8191, 8192, 2**20 - 1, 2**20])
def test_lengths_of_every_size(size: int, count: int) -> None:
    """Where a length takes one byte more, keys, values and headers are still told apart."""
    parts = [bytes([65 + index]) * size for index in range(3)]
    records = Records([parts[0]] * count, [parts[1]] * count, [2**40] * count, {"h": [parts[2]] * count, "c": b"x"})
    if size * count > 1 << 21:
        records = records.slice(0, 1)

    assert same([piece.records for piece in decode(body(records, "none"))], records)


# -- what is not read


def marker(offset: int, kind: int) -> bytes:
    """A transaction marker of the producer of `body`: 0 aborts, 1 commits."""
    (batch,) = encode(Records([struct.pack(">hh", 0, kind)], [b"\0" * 6], [1]), "none")
    whole = bytearray(as_kept(batch, offset))
    struct.pack_into(">h", whole, CHECKED_FROM, 0x30)
    struct.pack_into(">I", whole, CHECKED_FROM - 4, crc32c(bytes(whole[CHECKED_FROM:])))
    return bytes(whole)


ONE = Records([b"k"], [b"v"], [1])


def test_markers_and_aborted_records_take_offsets_only() -> None:
    """A committed, an aborted and a committed transaction: two records, and the position behind the last marker."""
    data = (
        body(ONE, "none", 0) + marker(1, 1) + body(ONE, "none", 2) + marker(3, 0) + body(ONE, "none", 4) + marker(5, 1)
    )

    found = decode(data, aborted=[(77, 2)])

    assert offsets(found) == [0, 4]
    assert found[-1].next_offset == 6
    assert Fetched.joined(found).offsets == [0, 4]


def test_nothing_but_markers_moves_the_position() -> None:
    """A fetch of an aborted transaction alone brings no record, but the place behind it."""
    (found,) = decode(body(ONE, "none", 8) + marker(9, 0), 8, [(77, 8)])

    assert (found.base_offset, found.next_offset, len(found.records)) == (8, 10, 0)


@pytest.mark.parametrize("count", [1, MANY_RECORDS])
def test_read_that_begins_at_a_marker(count: int) -> None:
    """Records behind a marker that a read begins with keep their own offsets."""
    many = Records([b"k"] * count, [b"v"] * count, [1] * count)
    data = marker(5, 1) + body(many, "none", 6) + marker(6 + count, 1) + body(ONE, "none", 7 + count)

    whole = decode_all(stretches(TARGET, 5, data))

    assert offsets([whole]) == [*range(6, 6 + count), 7 + count]
    assert (whole.base_offset, whole.next_offset) == (5, 8 + count)


@given(st.lists(st.tuples(some_records(most=60), st.booleans()), min_size=1, max_size=5), st.data())
def test_stretches_are_read_together_as_one_by_one(parts: list[tuple[Records, bool]], data: st.DataObject) -> None:
    """Several batches decoded at once are what each is by itself, whatever lies between them."""
    whole, at = b"", 0
    for records, aborted in parts:
        whole += body(records, "lz4", at) + marker(at + len(records), int(not aborted))
        at += len(records) + 1
    starts = [0]
    for records, _ in parts:
        starts.append(starts[-1] + len(records) + 1)
    gone = [(77, start) for start, (_, aborted) in zip(starts, parts, strict=False) if aborted]
    offset = data.draw(st.integers(0, at - 1))
    found = stretches(TARGET, offset, whole, gone)

    together, each = decode_all(found), [stretch.decode() for stretch in found]

    assert offsets([together]) == offsets(each)
    assert same([together.records], Records.concat([piece.records for piece in each]))
    assert (together.base_offset, together.next_offset) == (offset, at)


def test_aborted_transaction_of_somebody_else() -> None:
    """Of transactions that lie across each other, the aborted one alone is left out."""
    other = bytearray(body(ONE, "none", 1))
    struct.pack_into(">q", other, HEADER.size - struct.calcsize(">qhii"), 78)
    struct.pack_into(">I", other, CHECKED_FROM - 4, crc32c(bytes(other[CHECKED_FROM:])))

    found = decode(body(ONE, "none", 0) + bytes(other) + body(ONE, "none", 2) + marker(3, 0), aborted=[(77, 0)])

    assert offsets(found) == [1]
    assert found[-1].next_offset == 4


def test_compacted_batch_keeps_its_offsets() -> None:
    """A batch that lost its last records reaches as far as before, an empty one too."""
    whole = bytearray(body(Records([b"k"] * 2, [b"a", b"b"], [1, 1]), "none", 10))
    struct.pack_into(">i", whole, CHECKED_FROM + 2, 6)
    struct.pack_into(">I", whole, CHECKED_FROM - 4, crc32c(bytes(whole[CHECKED_FROM:])))
    empty = bytearray(whole[: HEADER.size])
    struct.pack_into(">qi", empty, 0, 17, HEADER.size - LENGTH.size)
    struct.pack_into(">i", empty, HEADER.size - 4, 0)
    struct.pack_into(">I", empty, CHECKED_FROM - 4, crc32c(bytes(empty[CHECKED_FROM:])))

    (found,) = decode(bytes(whole + empty), 10)

    assert offsets([found]) == [10, 11]
    assert found.next_offset == 24


# -- damage


@given(some_records(), COMPRESSIONS, st.data())
def test_a_damaged_byte_is_noticed(records: Records, compression: str, data: st.DataObject) -> None:
    """Whatever byte of the checked part changes, nothing of the batch is believed."""
    whole = bytearray(body(records, compression))
    place = data.draw(st.integers(CHECKED_FROM - 4, len(whole) - 1))
    whole[place] ^= data.draw(st.integers(1, 255))

    with pytest.raises(CorruptRecordException):
        decode(bytes(whole))


@given(some_records(), COMPRESSIONS, st.data())
def test_damage_with_a_right_checksum_is_noticed(records: Records, compression: str, data: st.DataObject) -> None:
    """Records that are not built as they should be are an error of one kind, or read as something; never a crash."""
    whole = bytearray(body(records, compression))
    place = data.draw(st.integers(HEADER.size, len(whole) - 1))
    whole[place] ^= data.draw(st.integers(1, 255))
    struct.pack_into(">I", whole, CHECKED_FROM - 4, crc32c(bytes(whole[CHECKED_FROM:])))

    try:
        found = decode(bytes(whole))
    except CorruptRecordException:
        return

    assert sum(len(piece.records) for piece in found) <= len(records)


def test_old_format_is_refused() -> None:
    """A batch of the format before Kafka 0.11 is an error that says so."""
    whole = bytearray(body(ONE, "none"))
    whole[LENGTH.size + 4] = 1

    with pytest.raises(CorruptRecordException, match="version 1"):
        decode(bytes(whole))
