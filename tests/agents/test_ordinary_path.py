"""The fast way of reading payloads says what the exact one says, of any payload, and is taken where it should be."""

import math
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from headrace.agents.decode import Reasons
from headrace.agents.exact_path import Limits, read_exactly
from headrace.agents.normalised import Normalised
from headrace.agents.ordinary_path import OrdinaryPath, ordinary_path
from headrace.agents.read_payloads import PayloadReader
from headrace.schemas.device_type import DeviceType
from headrace.tables.device_types import load_device_types

#: 2024-01-01T00:00:00Z
T0 = 1_704_067_200_000
LIMITS = Limits(payload_bytes=400, ahead_ms=300_000)
#: Everything that a device type can say of a payload.
MOTLEY = DeviceType.model_validate(
    {
        "name": "motley",
        "time": {"fields": ["t", "when"], "formats": ["epoch_s", "iso8601"]},
        "fields": {
            "heat": {"unit": "degC", "min": -40, "max": 85, "required": True, "aliases": {"heat_f": "degF"}},
            "wide": {"unit": "Pa", "aliases": {"wide_bar": "bar"}},
            "count": {"type": "integer"},
            "open": {"type": "boolean", "aliases": {"is open": "1"}},
            "state": {"type": "text", "aliases": {"état": "1"}},
            "place": {"type": "text"},
        },
    }
)
TYPES = [MOTLEY, *load_device_types().values()]
NUMBERS = ["0", "-0", "-0.0", "1", "20.5", "85", "85.00000000000001", "1e2", "1E-7", "1e999", "-1e400", "9" * 400]
NUMBERS += [
    "9007199254740993",
    "18446744073709551616",
    "123456789012345678901234567890",
    "1.7976931348623157e308",
    "01",
]
NUMBERS += ["5e-324", "0.1e1", "-41", "2.5", "1e308", "100", "0.30000000000000004", "NaN", "1.", "-"]
TIMES = [
    str(T0),
    f"{T0}.5",
    f"{T0 + 300_000}",
    f"{T0 + 300_001}",
    f"{T0 + 300_000}.5",
    "946684799999.5",
    str(T0 // 1000),
]
TIMES += ["1704067200.25", "-1", f"{T0 / 1000}", "1e308", '"2024-01-01T00:00:00Z"', '"2024-01-01T08:00:00.5+08:00"']
TIMES += ['"2024-01-01"', '"1704067200000"', '"2024-01-01T00:10:00Z"', "4398046511103", "1.7040672e12"]
TEXTS = [
    '"d1"',
    '"d2"',
    '""',
    '"a b"',
    '"é😀"',
    '"a\\u0000b"',
    '"\\ud83d\\ude00"',
    '"\\ud800"',
    '"\\n"',
    '"\x7f"',
    '"20"',
]
OTHERS = [
    "null",
    "true",
    "false",
    "[1]",
    "{}",
    '{"a":[1]}',
    "[" * 70 + "]" * 70,
    "nul",
    '"\udcff"',
    '"\udced\udca0\udc80"',
    "",
]


def members(device_type: DeviceType, *, odd: bool) -> list[bytes]:
    """Members of an object: those that make sense, or all others too: of any name, with any value and odd keys."""
    types = {
        source.name: str(spec.type) for name, spec in device_type.fields.items() for source in device_type.sources[name]
    }
    types |= {**dict.fromkeys(device_type.time.fields, "time"), **dict.fromkeys(device_type.identity, "text")}
    usual = {"text": TEXTS, "boolean": ["true", "false", "null"], "time": TIMES}
    found = []
    for name in sorted(types) + ["unknown", "", "Heat"] * odd:
        key = orjson.dumps(name).decode()
        keys = [key, f" {key}\n", key.replace("e", "\\u0065"), key.replace("t", "\\t"), key[1:]] if odd else [key]
        values = [*TEXTS, *NUMBERS, *TIMES, *OTHERS] if odd else usual.get(types[name], NUMBERS)
        found += [f"{key}:{value}".encode("utf-8", "surrogateescape") for key in keys for value in values]
    return found


def batches(device_type: DeviceType) -> st.SearchStrategy[tuple[DeviceType, list[bytes | None]]]:
    """Payloads around what a device of the type sends: good, almost good, and broken."""
    usual = st.sampled_from(members(device_type, odd=False))
    odd = st.sampled_from(members(device_type, odd=True))
    times = [*TIMES, *[str(T0 // 1000 if "epoch_s" in device_type.time.formats else T0)] * len(TIMES)]
    needed = [f'"{device_type.time.fields[0]}":{time},"{device_type.measures[0]}":20'.encode() for time in times]
    start = st.sampled_from(needed)
    fine = st.lists(usual, max_size=2).flatmap(lambda some: start.map(lambda first: [first, *some]))
    mixed = st.lists(st.one_of(start, usual, usual, odd), max_size=5)
    objects = st.one_of(fine, mixed).map(lambda inside: b"{%b}" % b",".join(inside))
    places = st.integers(0, 200)
    broken = st.builds(lambda text, at, bit: text[:at] + bit + text[at + 1 :], objects, places, st.binary(max_size=2))
    others = st.sampled_from([None, b"", b"[]", b"null", b" {}", b"{}\0", b"\xef\xbb\xbf{}", b"{}" + b" " * 400])
    return st.tuples(st.just(device_type), st.lists(st.one_of(objects, objects, broken, others), max_size=8))


def as_said(found: Normalised) -> dict[int, Any]:
    """Per message what is known of it, numbers to the last bit."""
    said = {}
    for place, row in enumerate(found.rows.tolist()):
        measures = {name: column[place] for name, column in found.measures.items()}
        known = {name: value.hex() for name, value in measures.items() if not math.isnan(value)}
        said[row] = int(found.times[place]), known, found.extras[place] if found.extras else None
    assert list(said) == sorted(said)
    return said


def ordinary(device_type: DeviceType) -> OrdinaryPath:
    path = ordinary_path(device_type, LIMITS)
    assert path is not None
    return path


READERS = {each.name: PayloadReader(each, LIMITS) for each in TYPES}


@given(st.one_of(*map(batches, TYPES)))
@settings(max_examples=300, deadline=None)
@example((MOTLEY, [b'{"t":%s,"t":1704067200,"heat":20}' % (b"9" * 300)]))
@example((MOTLEY, [b'{"t":1704067200,"heat":1e999,"heat":20}', b'{"t":1e308,"heat":20}']))
@example((MOTLEY, [b'{"t":1704067200,"heat":20,"state":"\xff","state":"a"}']))
@example((MOTLEY, [b'{"t":1704067200,"heat":20,"wide_bar":1e308}', b'{"t":1704067200,"heat":-0,"wide":-0}']))
def test_both_paths_read_the_same(batch: tuple[DeviceType, list[bytes | None]]) -> None:
    """Readings to the last bit, dead letters and their reasons, and counts of unknown fields."""
    device_type, values = batch
    device_ids = ["d1"] * len(values)
    appended = np.full(len(values), T0, dtype=np.int64)
    exact_reasons: Reasons = {}
    reasons: Reasons = {}

    exact, exact_unknown = read_exactly(device_type, LIMITS, values, device_ids, appended, exact_reasons)
    found, unknown = READERS[device_type.name].read(values, device_ids, appended, reasons)

    assert as_said(found) == as_said(exact)
    assert reasons == exact_reasons
    assert unknown == exact_unknown
    assert sorted([*found.rows.tolist(), *reasons]) == list(range(len(values)))


GOOD = b'{"t":1704067200,"heat":20,"state":"x"}'


@given(st.one_of(*map(batches, TYPES)))
@settings(max_examples=150, deadline=None)
@example((MOTLEY, [GOOD]))
@example((MOTLEY, [GOOD, b'{"t":1704067200,"heat":20,"place":"x"}', b'{"heat":20}', None]))
@example((MOTLEY, [GOOD, b'{"t":1704067200,"heat":20,"heat":21}']))
@example((MOTLEY, [GOOD, GOOD + b" " * 400]))
@example((MOTLEY, [GOOD, b'{"t":1704067200,"heat":20,"state":"a\\u0000b"}']))
@example((MOTLEY, [GOOD, b'{"t":1704067200,"heat":"20"}', b'{"t":1704067200,"heat":20,"new":1}', b"{"]))
def test_what_came_before_changes_nothing(batch: tuple[DeviceType, list[bytes | None]]) -> None:
    """A message is read the same behind many messages that all have the same fields, whichever these are."""
    device_type, [before, *values] = batch[0], batch[1] or [GOOD]
    device_ids = ["d1"] * 100
    appended = np.full(100, T0)
    rest = device_ids[: len(values)], appended[: len(values)]
    reader = PayloadReader(device_type, LIMITS)
    exact_reasons: Reasons = {}
    reasons: Reasons = {}

    reader.read([before] * 100, device_ids, appended, {})
    found, unknown = reader.read(values, *rest, reasons)

    exact, exact_unknown = read_exactly(device_type, LIMITS, values, *rest, exact_reasons)
    assert as_said(found) == as_said(exact)
    assert (reasons, unknown) == (exact_reasons, exact_unknown)


@pytest.mark.parametrize(
    "payload",
    [
        {"timestamp": T0, "temp": 20.5, "humidity": 50, "co2": 400, "pm2.5": 12},
        {"timestamp": "2024-01-01T00:00:00Z", "temperature": None, "temp_f": 70, "deviceId": "d1"},
        {"ts": T0, "timestamp": None, "rssi": -70},
    ],
)
def test_ordinary_messages_take_the_ordinary_path(payload: dict[str, Any]) -> None:
    """Aliases, nulls, either form of time, and the device's own id."""
    path = ordinary(load_device_types()["environmental"])

    assert len(path.read([orjson.dumps(payload)], ["d1"], np.array([T0]))) == 1


def test_texts_booleans_and_integers_take_the_ordinary_path() -> None:
    """Every type of field is read there."""
    payload = {"when": T0 // 1000, "heat": 20, "count": 3.0, "is open": True, "état": "é", "place": "x"}

    found = ordinary(MOTLEY).read([orjson.dumps(payload)], ["d1"], np.array([T0]))

    assert {name: column.tolist() for name, column in found.measures.items()} == {
        "heat": [20],
        "count": [3],
        "open": [1],
    }
    assert found.extras == ['{"place":"x","state":"é"}'.encode()]


def test_a_fleet_that_sends_what_its_type_does_not_know_is_read_whole() -> None:
    """When the ordinary path gives up on a batch, what it did not try is read exactly."""
    payloads = [b'{"t":%d,"heat":20,"new":1}' % (T0 // 1000)] * 100 + [b'{"t":%d,"heat":21}' % (T0 // 1000), b"{"]
    reasons: Reasons = {}

    found, unknown = READERS["motley"].read(payloads, ["d1"] * 102, np.full(102, T0), reasons)

    assert found.rows.tolist() == list(range(101))
    assert found.measures["heat"].tolist() == [20] * 100 + [21]
    assert (unknown, list(reasons)) == ({"new": 100}, [101])


def test_a_device_type_that_says_something_else_is_read_in_full() -> None:
    """A key of the file that the ordinary path does not know may mean anything."""

    class Stricter(DeviceType):
        parity: str = "none"

    data = MOTLEY.model_dump(exclude_defaults=True)

    assert ordinary_path(Stricter.model_validate(data), LIMITS) is not None
    assert ordinary_path(Stricter.model_validate(data | {"parity": "even"}), LIMITS) is None
