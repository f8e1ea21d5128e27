"""Arbitrary records, and batches of them as a broker keeps them."""

import struct
from collections.abc import Iterable

from hypothesis import strategies as st

from headrace.engine.kafka.encoding import EncodedBatch, encode
from headrace.engine.kafka.record_format import COMPRESSION
from headrace.engine.records import Header, Records

PRODUCER, EPOCH = 77, 3
COMPRESSIONS = st.sampled_from(sorted(COMPRESSION))
#: Lengths around those where a length takes one byte more.
VALUES = st.none() | st.binary(max_size=20) | st.sampled_from([b"", b"x" * 63, b"x" * 64])
NAMES = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
STAMPS = st.integers(0, 2**40) | st.sampled_from([0, 1, 2**62])


@st.composite
def some_records(draw: st.DrawFn, least: int = 1, most: int = 120) -> Records:
    """Records with keys, values, times and headers of every kind."""
    total = draw(st.integers(least, most))

    def column(values: st.SearchStrategy[bytes | None]) -> list[bytes | None]:
        few = draw(st.lists(values, min_size=1, max_size=7))
        return [few[index % len(few)] for index in range(total)]

    def header() -> Header:
        return draw(st.binary(max_size=40)) if draw(st.booleans()) else column(VALUES)

    few_stamps = draw(st.lists(STAMPS, min_size=1, max_size=5))
    return Records(
        column(VALUES),
        column(VALUES),
        [few_stamps[index % len(few_stamps)] for index in range(total)],
        {name: header() for name in draw(st.lists(NAMES, max_size=5, unique=True))},
    )


def as_kept(batch: EncodedBatch, offset: int) -> bytes:
    """A batch as the broker keeps it: it gives the offset."""
    whole = bytearray(batch.build(PRODUCER, EPOCH, 0))
    struct.pack_into(">q", whole, 0, offset)
    return bytes(whole)


def body(records: Records, compression: str, offset: int = 0) -> bytes:
    """All batches of these records, as a fetch brings them."""
    parts = []
    for batch in encode(records, compression):
        parts.append(as_kept(batch, offset))
        offset += batch.total
    return b"".join(parts)


def same(found: Iterable[Records], expected: Records) -> bool:
    """Whether these are the expected records, record by record: columns may be kept differently."""
    return [record for part in found for record in part] == list(expected)
