"""Ingest on every file of JSONTestSuite: as a payload, as values and as a key, between messages that do not notice.

What must be accepted (`y_`) is decoded, what must be refused (`n_`) is dead-lettered as no JSON; what is left open
(`i_`) is pinned here.
"""

import ast
import json
import re
from pathlib import Path
from typing import Any

import orjson
import pytest

from headrace.agents.ingest import Ingest
from headrace.engine.records import Record, Records
from headrace.engine.testkit import Driven, drive
from headrace.schemas import topics
from headrace.tables.device_types import load_device_types

TYPES = load_device_types()
#: 2024-01-01T00:00:00Z
T0 = 1_704_067_200_000
UNDECODED = ("payload is not JSON: ", "payload is not UTF-8: ", "payload is empty")
#: Of what the suite leaves open, this is decoded: numbers that a double rounds, and nesting (which is too deep to
#: keep). Refused: numbers beyond doubles, halves of surrogate pairs, bad UTF-8, UTF-16 and byte order marks.
DECODED = {
    "i_number_double_huge_neg_exp",
    "i_number_real_underflow",
    "i_number_too_big_neg_int",
    "i_number_too_big_pos_int",
    "i_number_very_big_negative_int",
    "i_structure_500_nested_arrays",
}
WRAPPERS = {
    "unknown field": b'{"timestamp":%d,"co2":400,"x":%%b}' % T0,
    "unknown field at first": b'{"x":%%b,"timestamp":%d,"co2":400}' % T0,
    "known field": b'{"timestamp":%d,"co2":%%b}' % T0,
    "time": b'{"co2":400,"timestamp":%b}',
    "key": b'{"timestamp":%d,"co2":400,%%b:1}' % T0,
}


def load_cases() -> dict[str, bytes]:
    """The bytes of every file of the suite, by name."""
    cases = {}
    for line in (Path(__file__).parent / "json_suite" / "cases.tsv").read_text(encoding="ascii").splitlines():
        name, _, literal = line.partition("\t")
        value = ast.literal_eval(literal)
        cases[name] = value if isinstance(value, bytes) else b"".join(part * count for part, count in value)
    return cases


CASES = load_cases()


def between_neighbours(payload: bytes | None) -> tuple[Driven, list[Record]]:
    """What comes of `payload` between two good messages, and the records of these two; None leaves it out."""
    good = [orjson.dumps({"timestamp": T0 + place, "temp": 20.5, "note": "good"}) for place in (1, 2)]
    values = [(b"m0", good[0]), (b"m1", payload), (b"m2", good[1])]
    kept = [(name, value) for name, value in values if value is not None]
    records = Records(
        [b"d1"] * len(kept),
        [value for _, value in kept],
        [T0] * len(kept),
        {topics.DEVICE_TYPE: b"environmental", topics.MESSAGE_ID: [name for name, _ in kept]},
    )
    driven = drive(Ingest(TYPES), records)
    neighbours = [record for record in driven.sent[topics.READINGS] if b'"m1"' not in (record.value or b"")]
    return driven, neighbours


NEIGHBOURS = between_neighbours(None)[1]


def outcome(payload: bytes) -> dict[str, Any] | str:
    """The reading that `payload` becomes, or why it was refused; checks that its neighbours did not notice."""
    driven, neighbours = between_neighbours(payload)

    assert neighbours == NEIGHBOURS
    sent = driven.sent[topics.READINGS]
    if len(sent) == 3:
        assert driven.dead_letters == []
        reading: dict[str, Any] = orjson.loads(sent[1].value or b"")
        return reading
    ((offset, reason),) = driven.dead_letters
    assert offset == 1
    return reason


def is_decoded(name: str) -> bool:
    return name.startswith("y_") or name in DECODED


def meaning(name: str) -> Any:
    """What a file says, by another parser; whole numbers beyond 64 bits are kept as doubles."""
    return json.loads(CASES[name], parse_int=lambda digits: int(digits) if len(digits) < 20 else float(digits))


def contains_nul(name: str) -> bool:
    return re.search(rb"(?<!\\)\\u0000", CASES[name]) is not None


def test_the_suite_is_complete() -> None:
    """All 318 files are here, those that are hard to keep as files too."""
    assert len(CASES) == 318
    assert len(CASES["n_structure_100000_opening_arrays"]) == 100_000
    assert set(CASES) >= DECODED


@pytest.mark.parametrize("name", CASES)
def test_as_the_whole_payload(name: str) -> None:
    """No file of the suite is a message; what is JSON is refused for what it says, the rest because it is none."""
    reason = outcome(CASES[name])

    assert isinstance(reason, str)
    assert reason.startswith(UNDECODED) is not is_decoded(name), reason


@pytest.mark.parametrize("wrapper", ["unknown field", "unknown field at first"])
@pytest.mark.parametrize("name", CASES)
def test_as_a_field_that_the_device_type_does_not_know(name: str, wrapper: str) -> None:
    """What is JSON is kept as it is, whatever it is; the rest is refused."""
    found = outcome(WRAPPERS[wrapper] % CASES[name])

    if not is_decoded(name):
        assert isinstance(found, str)
        assert found.startswith(UNDECODED)
        return
    value = meaning(name)
    if contains_nul(name):
        assert found == "a text contains the character U+0000, which no database text can hold"
    elif name == "i_structure_500_nested_arrays":
        assert found == "arrays and objects nest deeper than 64 levels"
    else:
        assert isinstance(found, dict)
        assert found["measures"] == {"co2": 400}
        assert found.get("extra", {}).get("x") == value


@pytest.mark.parametrize("name", CASES)
def test_as_a_measure(name: str) -> None:
    """Numbers are measures, null is none, anything else is refused for what it is or because it is no JSON."""
    found = outcome(WRAPPERS["known field"] % CASES[name])

    if not is_decoded(name):
        assert isinstance(found, str)
        assert found.startswith(UNDECODED)
        return
    value = meaning(name)
    if contains_nul(name):
        assert found == "a text contains the character U+0000, which no database text can hold"
    elif value is None:
        assert found == "no measure and no other field"
    elif type(value) in (int, float):
        wanted = f"co2 is {value}, less than 0 ppm" if value < 0 else {"co2": value}
        assert (found if isinstance(found, str) else found["measures"]) == wanted
    else:
        assert isinstance(found, str)
        assert found.startswith("co2 is ")


@pytest.mark.parametrize("name", CASES)
def test_as_the_event_time(name: str) -> None:
    """No file of the suite is a time; what is JSON is refused for what it says, the rest because it is none."""
    reason = outcome(WRAPPERS["time"] % CASES[name])

    assert isinstance(reason, str)
    assert reason.startswith(UNDECODED) is not is_decoded(name), reason


@pytest.mark.parametrize("name", CASES)
def test_as_a_key(name: str) -> None:
    """A text is a key like any other; what is no text is none."""
    found = outcome(WRAPPERS["key"] % CASES[name])

    value = json.loads(CASES[name]) if is_decoded(name) else None
    if isinstance(value, str):
        assert isinstance(found, dict)
        assert found["extra"] == {value: 1}
    else:
        assert isinstance(found, str)
        assert found.startswith(UNDECODED)


@pytest.mark.parametrize("wrapper", WRAPPERS.values(), ids=WRAPPERS)
@pytest.mark.parametrize(
    "value",
    [
        b"9" * 400,
        b"-" + b"9" * 400,
        b"1e999",
        b"0." + b"1" * 400 + b"e999",
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b"[" * 100_000 + b"]" * 100_000,
        b'"\xff"',
        b'"\xed\xa0\x80"',
        b'["\xc0\x80"]',
        b'"\\ud800"',
        b'{"\\udc00":1}',
        b'\xef\xbb\xbf"a"',
        b'"a\0b"',
        b"1\0",
        b"NaN",
        b"-Infinity",
    ],
    ids=lambda value: repr(value[:12]),
)
def test_hostile_values_are_no_json(value: bytes, wrapper: bytes) -> None:
    """Numbers beyond doubles, nesting without end, broken texts, marks and raw NULs are refused wherever they are."""
    reason = outcome(wrapper % value)

    assert isinstance(reason, str)
    assert reason.startswith(UNDECODED)


@pytest.mark.parametrize(
    ("payload", "measures", "extra"),
    [
        (b'{"timestamp":%d,"co2":1,"co2":400}', {"co2": 400}, {}),
        (b'{"timestamp":%d,"co2":"x","co2":400}', {"co2": 400}, {}),
        (b'{"timestamp":1,"co2":400,"timestamp":%d}', {"co2": 400}, {}),
        (b'{"timestamp":%d,"noise":1,"co2":400,"co2":null}', {"noise": 1}, {}),
        (b'{"timestamp":%d,"co2":1,"c\\u006f2":400}', {"co2": 400}, {}),
        (b'{"timestamp":%d,"co2":400,"x":1,"x":2}', {"co2": 400}, {"x": 2}),
        (b'{"timestamp":%d,"co2":400,"x":{"y":1,"y":2}}', {"co2": 400}, {"x": {"y": 2}}),
        (b'{"device_id":"other","timestamp":%d,"co2":400,"device_id":"d1"}', {"co2": 400}, {}),
    ],
)
def test_of_a_key_given_twice_the_last_value_counts(
    payload: bytes, measures: dict[str, float], extra: dict[str, Any]
) -> None:
    """As with every common parser; what came before it is not looked at."""
    found = outcome(payload % T0)

    assert isinstance(found, dict)
    assert found["measures"] == measures
    assert found.get("extra", {}) == extra


@pytest.mark.parametrize("last", [b'"x"', b"-1", b"[]"])
def test_of_a_key_given_twice_the_last_value_is_judged(last: bytes) -> None:
    """A good value before a wrong one does not help."""
    found = outcome(b'{"timestamp":%d,"co2":400,"co2":%b}' % (T0, last))

    assert isinstance(found, str)
    assert found.startswith("co2 is ")
