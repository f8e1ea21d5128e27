"""Every kind of bad input, its exact outcome, and that its neighbours in the batch do not notice."""

from typing import Any

import orjson
import pytest

from headrace.agents.ingest import Ingest, IngestConfig
from headrace.engine.records import Header, Records
from headrace.engine.testkit import Driven, drive
from headrace.schemas import topics
from headrace.schemas.device_type import DeviceType
from headrace.tables.device_types import load_device_types

TYPES = load_device_types()
KNOWN = ", ".join(sorted(TYPES))
#: 2024-01-01T00:00:00Z
T0 = 1_704_067_200_000
LIMIT = 1 << 20


def between_neighbours(
    value: bytes | None, key: bytes | None = b"d1", device_type: bytes | None = b"environmental", limit: int = LIMIT
) -> Driven:
    """What comes of `value` between two good messages of the same device."""
    good = [orjson.dumps({"timestamp": T0 + place, "co2": 400}) for place in (1, 2)]
    types: Header = [b"environmental", device_type, b"environmental"]
    ids: Header = [b"m0", b"m1", b"m2"]
    records = Records(
        [b"d1", key, b"d1"], [good[0], value, good[1]], [T0] * 3, {topics.DEVICE_TYPE: types, topics.MESSAGE_ID: ids}
    )
    return drive(Ingest(TYPES, IngestConfig(max_payload_bytes=limit)), records, base_offset=100)


def reason(driven: Driven) -> str:
    """Why the message in the middle was refused; checks that the others were not."""
    read = [orjson.loads(record.value or b"") for record in driven.sent[topics.READINGS]]
    assert [reading["message_id"] for reading in read] == ["m0", "m2"]
    assert [reading["measures"] for reading in read] == [{"co2": 400}, {"co2": 400}]
    assert list(driven.sent) == [topics.READINGS]
    ((offset, why),) = driven.dead_letters
    assert offset == 101
    return why


def message(**fields: Any) -> bytes:
    return orjson.dumps({"timestamp": T0, **fields})


NESTED = b'{"timestamp":%d,"co2":400,"x":' % T0 + b"[" * 200 + b"]" * 200 + b"}"


@pytest.mark.parametrize(
    ("value", "why"),
    [
        (b"", "payload is empty"),
        (None, "payload is empty"),
        (b"hello", "payload is not JSON: unexpected character, expected a JSON value"),
        (b'{"timestamp":1', "payload is not JSON: "),
        (b'{"timestamp":%d,"co2":400} {}' % T0, "payload is not JSON: unexpected content after document"),
        (b'{"timestamp":%d,"co2":400},{"co2":1}' % T0, "payload is not JSON: "),
        (b"[1, 2]", "payload is an array, not an object"),
        (b"null", "payload is null, not an object"),
        (b'"text"', "payload is a text, not an object"),
        (b'{"timestamp":%d,"co2":NaN}' % T0, "payload is not JSON: "),
        (b'{"timestamp":%d,"co2":Infinity}' % T0, "payload is not JSON: "),
        (b'{"timestamp":%d,"co2":-Infinity}' % T0, "payload is not JSON: "),
        (b'{"timestamp":%d,"co2":1e999}' % T0, "payload is not JSON: number is infinity"),
        (b'{"timestamp":%d,"co2":%s}' % (T0, b"9" * 400), "payload is not JSON: number is infinity"),
        (b"[" * 1_000_000, "payload is not JSON: depth limit exceeded"),
        (b'{"a":' * 170_000, "payload is not JSON: depth limit exceeded"),
        (b" " * (LIMIT + 1), "payload has 1048577 bytes, more than the 1048576 allowed"),
        (b'{"timestamp":%d,"co2":400,"note":"\\ud800"}' % T0, "payload is not JSON: no low surrogate in string"),
        (b'{"timestamp":%d,"co2":400,"note":"\\udc00"}' % T0, "payload is not JSON: "),
        (b'{"timestamp":%d,"co2":400,"note":"\xff"}' % T0, "payload is not UTF-8: invalid start byte at byte "),
        (b'{"timestamp":%d,"co2":400,"note":"\xed\xa0\x80"}' % T0, "payload is not UTF-8: "),
        (b'\xef\xbb\xbf{"timestamp":%d,"co2":400}' % T0, "payload is not JSON: "),
        (b'{"timestamp":%d,"co2":400,"note":"a\\u0000b"}' % T0, "a text contains the character U+0000"),
        (b'{"timestamp":%d,"co2":400,"a\\u0000b":[[1]]}' % T0, "a text contains the character U+0000"),
        (b'{"timestamp":%d,"co2":400,"x":{"y":["\\u0000"]}}' % T0, "a text contains the character U+0000"),
        (NESTED, "arrays and objects nest deeper than 64 levels"),
        (NESTED.replace(b"[", b"[[").replace(b"]", b"]]"), "arrays and objects nest deeper than 64 levels"),
    ],
)
def test_payloads_that_are_no_messages(value: bytes | None, why: str) -> None:
    """What cannot be read as one JSON object is refused, and says why."""
    assert reason(between_neighbours(value)).startswith(why)


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"temperature": "21.5"}, "temperature is the text '21.5', not a number"),
        ({"temperature": True}, "temperature is a boolean (true), not a number"),
        ({"temperature": [21.5]}, "temperature is an array, not a number"),
        ({"temperature": {"value": 21.5}}, "temperature is an object, not a number"),
        ({"temperature": 85.5}, "temperature is 85.5, greater than 85 degC"),
        ({"temperature": -273.15}, "temperature is -273.15, less than -60 degC"),
        ({"temp_f": 1000}, "temperature is 537.777777777778, greater than 85 degC"),
        ({"temp_f": 1e308}, "temperature is 5.55555555555556e+307, greater than 85 degC"),
        ({"co2": 10**19}, "co2 is 1e+19, greater than 40000 ppm"),
        ({"temperature": 20, "temp": 20}, "temperature is given twice, once as temp"),
        ({"humidity": 101, "co2": "x"}, "humidity is 101, greater than 100 %; co2 is the text 'x', not a number"),
        ({}, "no measure and no other field"),
        ({"co2": None, "note": None}, "no measure and no other field"),
    ],
)
def test_values_that_are_wrong(fields: dict[str, Any], why: str) -> None:
    """A wrong value refuses the whole message, with all that is wrong with it."""
    assert reason(between_neighbours(message(**fields))) == why


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"status": "normal"}, "tilt_angle is missing"),
        ({"tilt_angle": None, "status": 5}, "tilt_angle is missing; status is a number (5), not a text"),
        ({"tilt_angle": 1, "battery_level": 84.5}, "battery_level is 84.5, not an integer"),
        ({"tilt_angle": 1, "battery_level": True}, "battery_level is a boolean (true), not an integer"),
    ],
)
def test_values_that_are_wrong_for_a_tilt_sensor(fields: dict[str, Any], why: str) -> None:
    """Required fields, integers and texts are checked."""
    driven = between_neighbours(message(**fields), device_type=b"tilt")

    assert set(reason(driven).split("; ")) == set(why.split("; "))


@pytest.mark.parametrize(
    ("time", "why"),
    [
        (None, "no event time: timestamp or ts or time is missing"),
        (0, "event time 1970-01-01T00:00:00.000+00:00 is before 2000-01-01"),
        (-1, "event time 1969-12-31T23:59:59.999+00:00 is before 2000-01-01"),
        (T0 // 1000, "event time 1970-01-20T17:21:07.200+00:00 is before 2000-01-01"),
        (946_684_799_999, "event time 1999-12-31T23:59:59.999+00:00 is before 2000-01-01"),
        ("1970-01-01T00:00:00Z", "event time 1970-01-01T00:00:00.000+00:00 is before 2000-01-01"),
        (
            T0 + 300_001,
            "event time 2024-01-01T00:05:00.001+00:00 is more than 300 s later than the append time "
            "2024-01-01T00:00:00.000+00:00",
        ),
        (
            "2025-01-01T00:00:00Z",
            "event time 2025-01-01T00:00:00.000+00:00 is more than 300 s later than the append time "
            "2024-01-01T00:00:00.000+00:00",
        ),
        (
            10**18,
            "event time 1000000000000000000 ms is more than 300 s later than the append time "
            "2024-01-01T00:00:00.000+00:00",
        ),
        (
            2**64 - 1,
            "event time 4611686018427387904 ms is more than 300 s later than the append time "
            "2024-01-01T00:00:00.000+00:00",
        ),
        ("yesterday", "timestamp 'yesterday' is not an ISO 8601 time"),
        ("2024-01-01T00:00:00", "timestamp '2024-01-01T00:00:00' has no offset from UTC"),
        (str(T0), f"timestamp '{T0}' is not an ISO 8601 time"),
        (True, "timestamp is a boolean, but this device type writes times as epoch_ms or iso8601"),
        ([T0], "timestamp is an array, but this device type writes times as epoch_ms or iso8601"),
    ],
)
def test_event_times_that_cannot_be(time: Any, why: str) -> None:
    """A time that is missing, unreadable, of an unset clock or of the future refuses the message and says which."""
    assert reason(between_neighbours(orjson.dumps({"timestamp": time, "co2": 400}))) == why


@pytest.mark.parametrize("time", [b"1e308", b"-1e308"])
def test_seconds_beyond_any_date(time: bytes) -> None:
    """Seconds that are infinitely many milliseconds are refused like other dates that cannot be."""
    seconds = DeviceType.model_validate({"name": "s", "time": {"formats": ["epoch_s"]}, "fields": {"co2": {}}})
    records = Records([b"d"], [b'{"timestamp":%b,"co2":1}' % time], [T0], {topics.DEVICE_TYPE: b"s"})

    driven = drive(Ingest({"s": seconds}), records)

    assert len(driven.dead_letters) == 1
    assert driven.dead_letters[0][1].startswith("event time ")


def test_the_bounds_of_event_time_belong_to_the_good_side() -> None:
    """The first millisecond of 2000, and five minutes ahead of the append, are accepted."""
    for time in (946_684_800_000, T0 + 300_000):
        assert between_neighbours(orjson.dumps({"timestamp": time, "co2": 400})).dead_letters == []


def test_a_time_in_the_future_moves_no_clock() -> None:
    """After a message from next year, repeats of the device are still recognised."""
    good = orjson.dumps({"timestamp": T0, "co2": 400})
    future = orjson.dumps({"timestamp": T0 + 31_536_000_000, "co2": 400})
    operator = Ingest(TYPES)

    headers: dict[str, Header] = {topics.DEVICE_TYPE: b"environmental"}
    driven = drive(operator, Records([b"d"] * 3, [good, future, good], [T0] * 3, headers))

    assert [offset for offset, _ in driven.dead_letters] == [1]
    assert list(operator.counters.totals().values()) == [{"duplicate": 1}]


@pytest.mark.parametrize(
    ("claim", "why"),
    [
        ({"device_id": "d2"}, "device_id in the payload is 'd2', but the message came from 'd1'"),
        ({"deviceId": "d2"}, "deviceId in the payload is 'd2', but the message came from 'd1'"),
        ({"device_id": "d1", "deviceId": "D1"}, "deviceId in the payload is 'D1', but the message came from 'd1'"),
        ({"device_id": 1}, "device_id in the payload is not a text, but the message came from 'd1'"),
    ],
)
def test_messages_that_claim_to_be_of_another_device(claim: dict[str, Any], why: str) -> None:
    """A device id in the payload that is not the topic's refuses the message."""
    assert reason(between_neighbours(message(co2=400, **claim))) == why


@pytest.mark.parametrize(
    ("key", "why"),
    [
        (None, "device id is empty"),
        (b"", "device id is empty"),
        (b"x" * 257, "device id is longer than 256 characters"),
        (b"a\0b", "device id 'a\\x00b' has characters that cannot be printed"),
        (b"a\nb", "device id 'a\\nb' has characters that cannot be printed"),
        (b"\xff", "device id is not UTF-8"),
        (b"\xed\xa0\x80", "device id is not UTF-8"),
    ],
)
def test_device_ids_that_are_none(key: bytes | None, why: str) -> None:
    """A device id is 1 to 256 printable characters."""
    assert reason(between_neighbours(message(co2=400), key=key)) == why


def test_what_cannot_be_read_says_so_though_it_names_no_device() -> None:
    """A file source finds no device in a payload that is no JSON: that is why there is none."""
    nameless = topics.NO_DEVICE.encode()
    assert reason(between_neighbours(b'{"device_id": "d1", ', key=nameless)).startswith("payload is not JSON")
    assert reason(between_neighbours(b"[1, 2]", key=nameless)) == "payload is an array, not an object"
    assert reason(between_neighbours(message(co2=400), key=nameless)) == "the message names no device"


@pytest.mark.parametrize(
    ("device_type", "why"),
    [
        (b"toaster", f"device type 'toaster' is unknown; known are {KNOWN}"),
        (b"\xff", f"device type '\ufffd' is unknown; known are {KNOWN}"),
        (None, f"no device type; known are {KNOWN}"),
    ],
)
def test_device_types_that_are_unknown(device_type: bytes | None, why: str) -> None:
    """A message of a type that is not configured is refused, with the types that are."""
    assert reason(between_neighbours(message(co2=400), device_type=device_type)) == why


@pytest.mark.parametrize(
    "payload",
    [
        b'{"timestamp":%d,"co2":400,"note":"\\\\u0000"}' % T0,
        b'{"timestamp":%d,"co2":400,"note":"\\ud83d\\ude00"}' % T0,
        b'{"timestamp":%d,"co2":400,"x":' % T0 + b"[" * 63 + b"]" * 63 + b"}",
        b'{"timestamp":%d,"co2":400,"":"no name","x":18446744073709551615}' % T0,
        b'{"timestamp":%d,"co2":1,"co2":400}' % T0,
        b'{"timestamp":%d,"co2":400,"pm25":1.7976931348623157e-308}' % T0,
    ],
)
def test_odd_messages_that_are_right(payload: bytes) -> None:
    """What only looks hostile is accepted: an escaped backslash, a surrogate pair, some nesting, a repeated key."""
    driven = between_neighbours(payload)

    assert driven.dead_letters == []
    middle = orjson.loads(driven.sent[topics.READINGS][1].value or b"")
    assert middle["measures"]["co2"] == 400


def test_a_batch_of_nothing_but_bad_input_sends_nothing() -> None:
    """Every message is accounted for, in the order of the log."""
    values: list[bytes | None] = [b"", b"{", b"[]", b'{"timestamp":1}', None]

    driven = drive(Ingest(TYPES), Records([b"d"] * 5, values, [T0] * 5, {topics.DEVICE_TYPE: b"environmental"}))

    assert driven.sent == {}
    assert [offset for offset, _ in driven.dead_letters] == [0, 1, 2, 3, 4]


def test_event_time_beyond_what_tables_can_keep() -> None:
    """A clock that runs far ahead, append time and all, is refused instead of breaking tables."""
    late = (1 << 42) + 1000
    records = Records(
        [b"d"],
        [orjson.dumps({"timestamp": late, "co2": 400})],
        [late],
        {topics.DEVICE_TYPE: b"environmental", topics.MESSAGE_ID: [b"0199f7a1-0000-7000-8000-000000000001"]},
    )

    driven = drive(Ingest(load_device_types()), records)

    assert [reason.split(" is after ")[0] for _, reason in driven.dead_letters] == [
        "event time 2109-05-15T07:35:12.104+00:00"
    ]
