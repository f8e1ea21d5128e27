"""Readings as bytes and as columns."""

from typing import Any

import msgspec
import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.schemas.readings import Readings, decode_readings, encode_readings


def readings(measures: dict[str, list[float]], extras: list[dict[str, Any] | None] | None = None) -> Readings:
    total = len(next(iter(measures.values())))
    return Readings(
        "tilt",
        np.arange(total, dtype=np.int64),
        [f"d{row}" for row in range(total)],
        np.arange(total, dtype=np.int64) + 1_700_000_000_000,
        [f"m{row}" for row in range(total)],
        {name: np.array(column, dtype=np.float64) for name, column in measures.items()},
        extras,
    )


def test_the_bytes_of_a_reading() -> None:
    """These bytes are what other programs and older logs have: a change here is a change of format."""
    columns = readings({"a": [1.5, np.nan], "b": [2.0, 3.0]}, [{"z": 1, "note": "x\ny"}, None])
    columns.repeats = [None, ["b"]]

    assert encode_readings(columns) == [
        b'{"message_id":"m0","device_id":"d0","device_type":"tilt","time":1700000000000,'
        b'"measures":{"a":1.5,"b":2.0},"extra":{"note":"x\\ny","z":1}}',
        b'{"message_id":"m1","device_id":"d1","device_type":"tilt","time":1700000000001,'
        b'"measures":{"b":3.0},"repeats":["b"]}',
    ]


def test_types_are_taken_apart_in_order() -> None:
    """A batch of several types gives columns per type, each knowing its places in the batch."""
    first, second = encode_readings(readings({"a": [1.0, 2.0]}))
    other = first.replace(b'"tilt"', b'"pump"')

    tilt, pump = decode_readings([first, other, second])

    assert (tilt.device_type, tilt.rows.tolist(), tilt.measures["a"].tolist()) == ("tilt", [0, 2], [1.0, 2.0])
    assert (pump.device_type, pump.rows.tolist(), pump.measures["a"].tolist()) == ("pump", [1], [1.0])
    assert decode_readings([]) == []


def test_news_leaves_out_what_was_carried_before() -> None:
    """Measures that are repeated count as absent in `news`, and only there."""
    columns = readings({"a": [1.0, 2.0], "b": [3.0, 4.0]})
    columns.repeats = [None, ["a"]]

    assert columns.news()["a"].tolist() == pytest.approx([1.0, np.nan], nan_ok=True)
    assert columns.news()["b"].tolist() == [3.0, 4.0]
    assert columns.measures["a"].tolist() == [1.0, 2.0]
    assert columns.take(np.array([1])).repeats == [["a"]]


def test_other_bytes_are_refused() -> None:
    """What is no reading raises instead of becoming half a reading."""
    for value in (b"", b"{}", b"[]", None, b'{"message_id":1}'):
        with pytest.raises(msgspec.DecodeError):
            decode_readings([value])


NUMBERS = st.floats(allow_nan=True, allow_infinity=False)
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=5)
NAMES = st.sampled_from(["a", "b", "pm2.5", "class", "µ"])


@given(st.dictionaries(NAMES, st.lists(NUMBERS, min_size=3, max_size=3), min_size=1), st.dictionaries(TEXTS, TEXTS))
@settings(max_examples=60, deadline=None)
def test_what_is_encoded_is_decoded(measures: dict[str, list[float]], extra: dict[str, Any]) -> None:
    """Every number and text comes back exactly; every document is one line of JSON."""
    columns = readings(measures, [extra, None, extra])

    values = encode_readings(columns)
    (back,) = decode_readings(values)

    for name in measures:
        given_column, column = columns.measures[name], back.measures.get(name, np.full(3, np.nan))
        assert np.array_equal(column, given_column, equal_nan=True)
    assert back.extras == ([extra, None, extra] if extra else None)
    assert [orjson.loads(value)["message_id"] for value in values] == columns.message_ids
    assert not any(b"\n" in value for value in values)
