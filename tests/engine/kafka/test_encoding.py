"""Records become record batches that any Kafka client reads."""

import pytest
from aiokafka.record.memory_records import MemoryRecords
from hypothesis import given

from headrace.engine.kafka.encoding import BATCH_BYTES, encode
from headrace.engine.records import Records
from tests.engine.kafka.record_batches import COMPRESSIONS, EPOCH, PRODUCER, body, some_records


@given(some_records(), COMPRESSIONS)
def test_another_client_reads_the_same(records: Records, compression: str) -> None:
    """aiokafka, which has its own reader of the format, finds every field of every record, and the checksum right."""
    check(records, compression)


def check(records: Records, compression: str) -> None:
    reader = MemoryRecords(body(records, compression, offset=1000))
    found = []
    while reader.has_next():
        batch = reader.next_batch()
        assert batch.validate_crc()
        assert (batch.producer_id, batch.is_transactional, batch.is_control_batch) == (PRODUCER, True, False)
        found += list(batch)

    assert [(r.offset - 1000, r.timestamp, r.key, r.value, r.headers) for r in found] == [
        (index, record.timestamp, record.key, record.value, list(record.headers.items()))
        for index, record in enumerate(records)
    ]


@pytest.mark.parametrize("large", range(6))
def test_records_go_on_in_the_next_batch(large: int) -> None:
    """Where one batch ends the next begins, wherever a record is that does not fit; none is lost, none mixed up."""
    values: list[bytes | None] = [b"%d" % number for number in range(6)]
    values[large] = bytes(BATCH_BYTES)

    check(Records(values[::-1], values, [*range(6)], {"same": b"h", "own": [None, *values[1:]]}), "none")


def test_batches_are_small_and_whole() -> None:
    """Records are shared out among batches of half a megabyte; a larger record has one of its own."""
    sizes = [1000] * 1200 + [BATCH_BYTES * 3] + [10] * 5
    records = Records([None] * len(sizes), [bytes(size) for size in sizes], [1] * len(sizes))

    batches = list(encode(records, "none"))

    assert [batch.total for batch in batches][-2:] == [1, 5]
    assert sum(batch.total for batch in batches) == len(sizes)
    assert all(len(batch.payload) <= BATCH_BYTES for batch in batches if batch.total > 1)
    assert len(batches) == 5


def test_compression_that_does_not_help_is_left_out() -> None:
    """A payload that would grow is sent as it is."""
    (batch,) = encode(Records([b"k"], [b"v"], [1]), "zstd")

    assert batch.attributes == 0


def test_nothing_is_encoded_before_it_is_asked_for() -> None:
    """A large append takes memory batch by batch."""
    records = Records([None] * 10, [*[bytes(BATCH_BYTES)] * 9, "no bytes"], [1] * 10)  # type: ignore[list-item]
    batches = encode(records, "none")

    assert next(batches).total == 1


def test_producer_and_sequence_are_filled_in() -> None:
    """A batch is built for one producer, epoch and sequence number."""
    (batch,) = encode(Records([b"k"], [b"v"], [1]), "none")

    built = MemoryRecords(batch.build(PRODUCER, EPOCH, 12)).next_batch()

    assert (built.producer_id, built.producer_epoch, built.base_sequence) == (PRODUCER, EPOCH, 12)
