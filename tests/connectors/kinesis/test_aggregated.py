"""Records of the Kinesis Producer Library."""

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.connectors.kinesis.aggregated import MAGIC, BadAggregate, unpack
from tests.connectors.kinesis.aggregate import aggregate

records = st.lists(st.tuples(st.text(min_size=1, max_size=256), st.binary(max_size=300)), max_size=40)


@given(records)
def test_every_message_comes_out_in_order(sent: list[tuple[str, bytes]]) -> None:
    """With its own partition key."""
    found = unpack(aggregate(sent))

    assert found is not None
    assert [(key.decode(), data) for key, data in found] == sent


@given(st.binary())
def test_ordinary_records_are_none(data: bytes) -> None:
    """Whatever they hold."""
    if not data.startswith(MAGIC):
        assert unpack(data) is None


@given(records, st.data())
def test_what_is_damaged_is_refused(sent: list[tuple[str, bytes]], data: st.DataObject) -> None:
    """A byte that is another one is noticed by the checksum."""
    whole = bytearray(aggregate(sent))
    place = data.draw(st.integers(len(MAGIC), len(whole) - 1))
    whole[place] ^= data.draw(st.integers(1, 255))

    with pytest.raises(BadAggregate, match="checksum"):
        unpack(bytes(whole))


@given(st.binary(max_size=60))
def test_what_has_a_checksum_and_is_none_is_refused_or_read(body: bytes) -> None:
    """Nothing else happens, whatever the bytes."""
    try:
        found = unpack(MAGIC + body + hashlib.md5(body, usedforsecurity=False).digest())
    except BadAggregate:
        return
    assert found is not None
    assert sum(len(data) for _, data in found) <= len(body)


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b"\x1a\x04\x08\x00\x1a\x00", "not in the table"),
        (b"\x0a\x01a\x1a\x02\x08\x00", "no partition key or no data"),
        (b"\x0a\x05a", "middle of a field"),
        (b"\x0a", "middle of a number"),
        (b"\xff" * 11, "a number has no end"),
        (b"\x0b", "wire type 3"),
    ],
)
def test_reasons(body: bytes, why: str) -> None:
    """Each says what is wrong."""
    with pytest.raises(BadAggregate, match=why):
        unpack(MAGIC + body + hashlib.md5(body, usedforsecurity=False).digest())
