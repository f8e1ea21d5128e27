"""Keys in order."""

from hypothesis import given
from hypothesis import strategies as st

from headrace.tables.keys import END, Key, decode_key, encode_key, from_ordered, ordered, within

parts = st.tuples(st.text(), st.integers(-(1 << 63), (1 << 63) - 1), st.text(st.sampled_from("\0\1ab\u00ff\U0001f600")))
prefixes = st.tuples(parts, st.integers(0, 3)).map(lambda drawn: drawn[0][: drawn[1]])


@given(prefixes)
def test_keys_come_back(key: Key) -> None:
    """From the bytes of a changelog, and from those of a store."""
    assert decode_key(encode_key(key)) == key
    assert from_ordered(ordered(key)) == key


@given(prefixes, prefixes)
def test_bytes_sort_as_keys_do(one: Key, other: Key) -> None:
    """Texts, integers and missing parts."""
    assert (ordered(one) < ordered(other)) == (one < other)


@given(prefixes, prefixes, prefixes)
def test_bytes_are_within_as_keys_are(key: Key, first: Key, last: Key) -> None:
    """The end of a range includes what begins with it."""
    assert (ordered(first) <= ordered(key) < ordered(last) + END) == within(key, first, last)
