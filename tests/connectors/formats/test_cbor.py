"""CBOR: what a library writes is read back, and nothing else does harm."""

from contextlib import suppress
from math import isfinite
from random import Random
from typing import Any

import cbor2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.connectors.formats.cbor import CborError, decode_cbor
from tests.connectors.formats.cbor_forms import decimal_fraction, self_described, written

SCALARS = st.one_of(
    st.integers(-(2**64), 2**64 - 1), st.floats(allow_nan=False), st.booleans(), st.none(), st.text(), st.binary()
)
LABELS = st.one_of(st.integers(-9, 9), st.text())
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(LABELS, inner, max_size=4)),
    max_leaves=8,
)


def depth(value: Any) -> int:
    """How deep arrays and maps nest."""
    if isinstance(value, dict):
        return 1 + max(map(depth, value.values()), default=0)
    return 1 + max(map(depth, value), default=0) if isinstance(value, list) else 0


@given(VALUES.filter(lambda value: depth(value) <= 7), st.booleans())
def test_what_a_library_writes(value: Any, canonical: bool) -> None:
    """Is read as the library reads it, in its shortest form too."""
    encoded = cbor2.dumps(value, canonical=canonical)

    assert repr(decode_cbor(encoded)) == repr(cbor2.loads(encoded))


RANDOM = st.randoms(use_true_random=False)


@given(VALUES.filter(lambda value: depth(value) <= 7), RANDOM)
def test_every_form_of_a_value(value: Any, random: Random) -> None:
    """Unknown lengths, strings in pieces, numbers of any width, floats of each precision, the tag for CBOR itself."""
    encoded = written(value, random)
    if random.random() < 0.2:
        encoded = self_described(encoded, random)

    assert repr(decode_cbor(encoded)) == repr(value)


@given(st.integers(-340, 340), st.integers(-(2**64), 2**64 - 1), RANDOM)
def test_decimal_fractions(exponent: int, mantissa: int, random: Random) -> None:
    """Are the double that the decimal number is, or refused where none is large enough."""
    encoded = decimal_fraction(exponent, mantissa, random)
    wanted = float(f"{mantissa}e{exponent}")

    if isfinite(wanted):
        assert repr(decode_cbor(encoded)) == repr(wanted)
    else:
        with pytest.raises(CborError, match="too large a number"):
            decode_cbor(encoded)


@given(st.one_of(st.integers(2**64, 2**80), st.integers(-(2**80), -(2**64) - 1)))
def test_large_integers(value: int) -> None:
    """What a library writes as bytes with a tag is refused: no JSON number would hold it."""
    with pytest.raises(CborError, match=r"tag [23] is none that SenML has"):
        decode_cbor(cbor2.dumps(value))


@given(VALUES, RANDOM, st.integers(0, 40))
def test_a_cut_value(value: Any, random: Random, size: int) -> None:
    """The beginning of a value is none, wherever it is cut."""
    encoded = written(value, random)

    if size < len(encoded):
        with pytest.raises(CborError):
            decode_cbor(encoded[:size])


@given(st.binary(max_size=60))
def test_any_bytes(data: bytes) -> None:
    """Are read or refused, nothing else."""
    with suppress(CborError):
        decode_cbor(data)


@pytest.mark.parametrize(
    ("data", "value"),
    [
        ("9f0102ff", [1, 2]),
        ("bf6161 01ff", {"a": 1}),
        ("7f6161 6162ff", "ab"),
        ("5f4101 4102ff", b"\x01\x02"),
        ("d9d9f7 8101", [1]),
        ("c48221196ab3", 273.15),
        ("f93e00", 1.5),
    ],
)
def test_forms_that_few_write(data: str, value: Any) -> None:
    """Indefinite lengths, the tag for CBOR itself, decimal fractions, half precision."""
    assert decode_cbor(bytes.fromhex(data)) == value


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        ("", "ends in the middle"),
        ("9bffffffffffffffff", "ends in the middle"),
        ("bbffffffffffffffff", "ends in the middle"),
        ("7bffffffffffffffff", "ends in the middle"),
        ("81" * 2_000 + "00", "nests deeper than 8"),
        ("9f" * 2_000, "nests deeper than 8"),
        ("c1" * 2_000 + "00", "nests deeper than 8"),
        ("0000", "1 bytes too many"),
        ("62c328", "not UTF-8"),
        ("a1f5 01", "neither a number nor a text"),
        ("a2 0001 0002", "'0' is there twice"),
        ("d82361 61", "tag 35"),
        ("c24101", "tag 2"),
        ("c4821b7fffffffffffffff01", "exponent"),
        ("c482190190 1bffffffffffffffff", "too large a number"),
        ("c48101", "two whole numbers"),
        ("ff", "begins nothing"),
        ("1c", "begins nothing"),
        ("f820", "begins nothing"),
        ("9f", "ends in the middle"),
        ("9f" + "a0" * 200_000, "more than 100000 values"),
        ("5f6161ff", "no part of a string"),
        ("5f5fff", "a length is missing"),
    ],
)
def test_hostile_bytes(data: str, reason: str) -> None:
    """Are refused with a reason, quickly: no length is believed, no tag is worked on."""
    with pytest.raises(CborError, match=reason):
        decode_cbor(bytes.fromhex(data))
