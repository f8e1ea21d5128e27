"""Payloads of Sparkplug B. The files in `golden/` were written by Google's own library, with the field numbers of 6.4.

There is a JSON file beside each with the documents that its values are.
"""

import base64
import contextlib
import math
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.connectors.sparkplug.catalogue import Catalogue, UnknownMetric, documents
from headrace.connectors.sparkplug.payload import Payload, read_payload, rebirth_request
from headrace.connectors.sparkplug.wire import BadPayload
from tests.connectors.sparkplug.edge_node import TYPES, metric, number, payload, piece

GOLDEN = Path(__file__).parent / "golden"
NOW = 1_750_000_000_000


def golden(name: str) -> Payload:
    """A file, read."""
    return read_payload((GOLDEN / f"{name}.bin").read_bytes())


def read(found: Payload, catalogue: Catalogue | None = None) -> list[dict[str, Any]]:
    """Its documents."""
    catalogue = catalogue or Catalogue.of(found.metrics)
    return [orjson.loads(each) for each in documents(found, catalogue, NOW, "timestamp", 1 << 20)]


@pytest.mark.parametrize(("name", "birth"), [("nbirth", "nbirth"), ("dbirth", "dbirth"), ("ddata", "dbirth")])
def test_golden_files(name: str, birth: str) -> None:
    """Every datatype, aliases, nulls, several timestamps: as another library wrote them."""
    catalogue = Catalogue.of(golden(birth).metrics)

    assert read(golden(name), catalogue) == orjson.loads((GOLDEN / f"{name}.json").read_bytes())


def test_nothing_but_nulls_is_no_reading() -> None:
    """What has no value at its time makes no document; beside other values it is null in theirs."""
    nulls = [metric("a", "Int32", 0, timestamp=NOW, null=True), metric("b", "Double", math.nan, timestamp=NOW)]
    later = metric("b", "Double", 0.0, timestamp=NOW + 1)
    both = metric("a", "Int32", 0, timestamp=NOW + 1, null=True)

    assert read(read_payload(payload(nulls, 1, NOW))) == []
    assert read(read_payload(payload([*nulls, later, both], 1, NOW))) == [{"timestamp": NOW + 1, "b": 0.0, "a": None}]


def test_golden_deaths() -> None:
    """A death certificate has the session's number; a device's has a sequence number, and neither has values."""
    assert (golden("ndeath").bd_seq, golden("ndeath").seq) == (0, None)
    assert (golden("ddeath").bd_seq, golden("ddeath").seq) == (None, 123)
    assert read(golden("ndeath")) == read(golden("ddeath")) == []


def test_a_rebirth_request() -> None:
    """It is what another library writes."""
    assert rebirth_request(NOW) == (GOLDEN / "ncmd.bin").read_bytes()


def test_what_a_birth_declares_is_stored() -> None:
    """A catalogue comes back from its bytes as it was."""
    catalogue = Catalogue.of(golden("dbirth").metrics)._replace(connection="3-1")

    assert Catalogue.load(catalogue.dump()) == catalogue


INTEGERS = {
    name: st.integers(least, least + (1 << bits) - 1)
    for bits in (8, 16, 32, 64)
    for name, least in ((f"Int{bits}", -(1 << bits - 1)), (f"UInt{bits}", 0))
}
VALUES: dict[str, st.SearchStrategy[Any]] = {
    **INTEGERS,
    "Double": st.floats(allow_nan=False, allow_infinity=False),
    "Float": st.floats(width=32, allow_nan=False, allow_infinity=False),
    "Boolean": st.booleans(),
    "String": st.text(max_size=20),
    "Text": st.text(max_size=20),
    "UUID": st.uuids().map(str),
    "DateTime": st.integers(0, 1 << 60),
    "Bytes": st.binary(max_size=20),
    "DataSet": st.binary(max_size=20),
    "Template": st.binary(max_size=20),
}
TYPED = st.sampled_from(sorted(VALUES)).flatmap(lambda name: st.tuples(st.just(name), VALUES[name]))


@given(st.lists(st.tuples(st.text(min_size=1, max_size=8), TYPED), max_size=12, unique_by=lambda each: each[0]))
def test_a_value_is_what_was_sent(sent: list[tuple[str, tuple[str, Any]]]) -> None:
    """Each value of each type comes out as it went in, by name in a birth and by alias in data."""
    names = [f"m/{name}" for name, _ in sent]
    pairs = [typed for _, typed in sent]
    rows = list(enumerate(zip(names, pairs, strict=True)))
    birth = read_payload(
        payload([metric(name, kind, value, alias=place) for place, (name, (kind, value)) in rows], 0, NOW)
    )
    data = read_payload(
        payload([metric(None, kind, value, alias=place, typed=False) for place, (_, (kind, value)) in rows], 1, NOW)
    )

    for found in (read(birth), read(data, Catalogue.of(birth.metrics))):
        said = found[0] if found else {"timestamp": NOW}
        assert set(said) == {"timestamp", *names}
        for name, (kind, value) in zip(names, pairs, strict=True):
            assert same(kind, said[name], value), (kind, said[name], value)


def same(kind: str, found: Any, sent: Any) -> bool:
    """Whether a value is the one that was sent; a 32-bit float may be another decimal number of the same float."""
    if isinstance(sent, bytes):
        return bool(base64.b64decode(found) == sent)
    if kind == "Float":
        return math.isclose(found, sent, rel_tol=1e-7, abs_tol=1e-45)
    return type(found) is type(sent) and bool(found == sent)


@given(st.binary(max_size=200))
def test_any_bytes(data: bytes) -> None:
    """Whatever comes is a payload, or is refused with a reason; nothing else happens."""
    with contextlib.suppress(BadPayload, UnknownMetric):
        read(read_payload(data))


@given(st.sampled_from(["nbirth", "dbirth", "ddata"]), st.data())
def test_bytes_that_were_changed(name: str, data: st.DataObject) -> None:
    """So it is with payloads of which some bytes are wrong."""
    raw = bytearray((GOLDEN / f"{name}.bin").read_bytes())
    for place in data.draw(st.lists(st.integers(0, len(raw) - 1), max_size=5)):
        raw[place] = data.draw(st.integers(0, 255))
    with contextlib.suppress(BadPayload, UnknownMetric):
        read(read_payload(bytes(raw[: data.draw(st.integers(0, len(raw)))])))


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b"\x12\x05\x0a", "longer than what is around it"),
        (b"\x0b", "wire type 3"),
        (b"\x00\x01", "the number 0"),
        (b"\x82\x00\x00", "the number 0"),
        (piece(2, b"\x05\x00\x00\x00\x00"), "the number 0"),
        (b"\x08" + b"\xff" * 11, "a number has no end"),
        (b"\x08\x80", "a number has no end"),
        (b"\x08", "a number has no end"),
        (piece(2, piece(1, b"\xff")), "not UTF-8"),
        (piece(2, piece(1, b"x" * 513)), "more than 512 bytes"),
    ],
)
def test_what_is_no_payload(raw: bytes, reason: str) -> None:
    """The reason says what is wrong."""
    with pytest.raises(BadPayload, match=reason):
        read_payload(raw)


@pytest.mark.parametrize(
    ("kind", "field", "reason"),
    [
        ("Int8", number(10, 128 + 256), "384 is no integer of 8 bits"),
        ("UInt8", number(10, 256), "256 is no unsigned integer of 8 bits"),
        ("Boolean", number(10, 2), "datatype 11 stands in field 10"),
        ("String", number(10, 2), "datatype 12 stands in field 10"),
        ("Double", number(11, 2), "datatype 10 stands in field 11"),
        ("Int16Array", piece(16, b"abc"), "3 bytes are no array of datatype 23"),
    ],
)
def test_a_value_that_is_not_of_its_type(kind: str, field: bytes, reason: str) -> None:
    """It is refused, and never made into another one."""
    raw = piece(2, piece(1, b"x") + number(4, TYPES[kind][0]) + field)

    with pytest.raises(BadPayload, match=reason):
        read(read_payload(raw))


def bits(count: int, packed: bytes) -> bytes:
    """A metric with an array of bits."""
    return piece(1, b"x") + number(4, 32) + piece(16, count.to_bytes(4, "little") + packed)


@given(st.lists(st.booleans(), max_size=40))
def test_bits_are_in_their_order(sent: list[bool]) -> None:
    """The highest of the first byte is the first, and what fills the last byte is none."""
    text = "".join(str(int(each)) for each in sent)
    packed = bytes(int(text[place : place + 8].ljust(8, "0"), 2) for place in range(0, len(text), 8))

    found = read(read_payload(payload([bits(len(sent), packed)], 0, NOW)))

    assert found == [{"timestamp": NOW, "x": sent}]


@pytest.mark.parametrize(
    ("metrics", "reason"),
    [
        ([bits((1 << 18) + 8, b"\0" * ((1 << 15) + 1))], "an array of 262,152 bits is longer than 262,144"),
        ([bits(1 << 17, b"\0" * (1 << 14))] * 2, "more than 1,048,576 bytes"),
    ],
)
def test_bits_are_bounded(metrics: list[bytes], reason: str) -> None:
    """An array, and all of a message: as references they take sixty times what they have on the wire."""
    with pytest.raises(BadPayload, match=reason):
        read(read_payload(payload(metrics, 0, NOW)))


def test_how_others_write_integers() -> None:
    """A negative one in all 64 bits of a varint, or in just the bits of its type; an unsigned one in the long field."""
    raw = payload(
        [
            piece(1, b"cut") + number(4, 3) + number(10, (1 << 64) - 7),
            piece(1, b"narrow") + number(4, 1) + number(10, 0xF9),
            piece(1, b"long") + number(4, 7) + number(11, 7),
        ],
        0,
        NOW,
    )

    assert read(read_payload(raw)) == [{"timestamp": NOW, "cut": -7, "narrow": -7, "long": 7}]


def test_a_metric_named_like_the_time() -> None:
    """The time is the message's; the metric has another name."""
    found = read(read_payload(payload([metric("timestamp", "Int32", 5)], 0, NOW)))

    assert found == [{"timestamp": NOW, "timestamp_": 5}]


@pytest.mark.parametrize(
    ("metrics", "reason"),
    [
        ([metric("a", "Int8", 1, alias=1), metric("b", "Int8", 1, alias=1)], "alias 1 stands for two metrics"),
        ([metric("a", "Int8", 1, alias=1), metric("a", "Int8", 1, alias=2)], "has two aliases"),
        ([metric(None, "Int8", 1, alias=1)], "has no name"),
    ],
)
def test_a_birth_that_cannot_be_trusted(metrics: list[bytes], reason: str) -> None:
    """Data could not be told apart by it: it declares nothing."""
    with pytest.raises(BadPayload, match=reason):
        Catalogue.of(read_payload(payload(metrics, 0, NOW)).metrics)
