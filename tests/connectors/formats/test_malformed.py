"""What no format can read is refused with a reason, whatever it is."""

from typing import Any

import cbor2
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.connectors.formats import Aside, Message, NotUnpacked, Part
from headrace.connectors.formats.parts import OUTPUT_FACTOR, OUTPUT_FLOOR
from headrace.connectors.topic_profile import TopicProfile

NOW = 1_700_000_000_000
PROFILES = {
    name: TopicProfile.model_validate({"name": "p", "topic": topic, "device_type": "x", "format": name, **more})
    for name, topic, more in (
        ("thingsboard", "v1/devices/{device}/#", {}),
        ("thingsboard-gateway", "v1/gateway/#", {}),
        ("chirpstack", "application/+/device/{device}/event/+", {}),
        ("senml-json", "senml", {}),
        ("senml-cbor", "senml", {}),
        ("envelope", "gw/+", {"device_field": ["id"]}),
    )
}
TOPICS = {
    "thingsboard": "v1/devices/d/telemetry",
    "thingsboard-gateway": "v1/gateway/telemetry",
    "chirpstack": "application/1/device/d/event/up",
    "senml-json": "senml",
    "senml-cbor": "senml",
    "envelope": "gw/1",
}


def unpack(name: str, payload: bytes, topic: str = "") -> list[Part] | Aside:
    """What the format makes of a message."""
    topic = topic or TOPICS[name]
    made, found = PROFILES[name].unpacker(), PROFILES[name].find(topic)
    assert made is not None
    assert found is not None
    return made(Message(topic.split("/"), found.device_id or "", payload, NOW))


NAMES = st.sampled_from(
    [
        "ts",
        "values",
        "readings",
        "object",
        "rxInfo",
        "deviceInfo",
        "devEui",
        "time",
        "fCnt",
        "timestamp",
        "$units",
        "id",
        "a",
        "rssi",
        "x_",
        "bn",
        "bt",
        "bu",
        "bv",
        "bs",
        "bver",
        "n",
        "u",
        "v",
        "vs",
        "vb",
        "vd",
        "s",
        "t",
        "ut",
    ]
)
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**64 - 1),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=5),
    st.sampled_from(["d:a", "2023-01-01T00:00:00Z", "0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59-23:59", "aGk"]),
)
DOCUMENTS = st.recursive(
    SCALARS,
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(NAMES, inner, max_size=5)),
    max_leaves=20,
)
LABELS = dict(
    zip(
        ["bs", "bv", "bu", "bt", "bn", "bver", "n", "u", "v", "vs", "vb", "s", "t", "ut", "vd"],
        range(-6, 9),
        strict=True,
    )
)
RECORDS = st.lists(st.dictionaries(NAMES, SCALARS, max_size=6), min_size=1, max_size=5)


def check(name: str, payload: bytes, topic: str = "") -> None:
    """It is unpacked to flat objects within the bounds, put aside, or refused with a reason."""
    made: list[Part] | Aside | str
    try:
        made = unpack(name, payload, topic)
    except NotUnpacked as error:
        made = error.reason
    assert made
    if isinstance(made, str):
        assert made.encode()
        return
    if isinstance(made, Aside):
        assert made.event
        return
    assert all(isinstance(orjson.loads(part.payload), dict) for part in made)
    assert sum(len(part.payload) + len(part.device_id) for part in made) <= OUTPUT_FACTOR * len(payload) + OUTPUT_FLOOR


@pytest.mark.parametrize("name", PROFILES)
@given(payload=st.one_of(st.binary(max_size=80), DOCUMENTS.map(orjson.dumps), RECORDS.map(orjson.dumps)))
def test_any_payload(name: str, payload: bytes) -> None:
    """Bytes, and JSON with the formats' own words in the wrong places."""
    check(name, payload)


@given(RECORDS)
def test_any_pack_in_cbor(records: list[dict[str, Any]]) -> None:
    """Records of any labels, their values of any kind."""
    relabelled = [{LABELS.get(name, name): value for name, value in each.items()} for each in records]

    check("senml-cbor", cbor2.dumps(relabelled))


@given(st.sampled_from(["status", "location", "join", "nobody-knows"]), DOCUMENTS)
def test_any_event(event: str, document: Any) -> None:
    """Events of ChirpStack that say anything."""
    check("chirpstack", orjson.dumps(document), f"application/1/device/d/event/{event}")


@pytest.mark.parametrize(
    ("name", "payload", "reason"),
    [
        ("thingsboard", b"", "payload is empty"),
        ("thingsboard", b'{"a": "\xff"}', "payload is not JSON: byte 7 is no UTF-8; is it binary?"),
        ("senml-cbor", b"", "payload is empty"),
        ("senml-cbor", b' [{"n": "a:b", "v": 1}]', "but JSON: set the format senml-json"),
        ("senml-cbor", b"\x7f" + b"\x60" * 200_000 + b"\xff", "it holds more than 100000 values"),
        ("chirpstack", b"\x0a\x10\x01", "json = true"),
        ("thingsboard", b"7", "an entry is a number, not an object"),
        ("thingsboard", b"[[]]", "an entry is an array, not an object"),
        ("thingsboard", b"{}", "it holds no values"),
        ("thingsboard", b'{"ts": "now", "values": {"a": 1}}', "ts is a text, not a time in ms"),
        ("thingsboard", b'{"ts": true, "values": {"a": 1}}', "ts is a boolean, not a time in ms"),
        ("thingsboard", b'{"ts": 1e300, "values": {"a": 1}}', "ts is a number, not a time in ms"),
        ("thingsboard", b'{"ts": 1, "values": [1]}', "values is an array, not an object"),
        ("thingsboard", b'{"timestamp": 1}', "a value is named 'timestamp', which is taken"),
        ("thingsboard-gateway", b"[]", "payload is an array, not an object"),
        ("thingsboard-gateway", b'{"a": {"t": 1}}', "what it has for device 'a' is an object, not an array"),
        ("thingsboard-gateway", b'{"": [{"t": 1}]}', "a device has an empty name"),
        ("thingsboard-gateway", b'{"a": []}', "it holds no values"),
        ("chirpstack", b"[]", "payload is an array, not an event"),
        ("chirpstack", b'{"object": [1]}', "object is an array, not an object"),
        ("chirpstack", b'{"object": {}, "time": "yesterday"}', "time is 'yesterday', not an ISO 8601 time"),
        ("chirpstack", b'{"object": {}, "time": "2023-01-01T00:00:00"}', "with an offset from UTC"),
        ("chirpstack", b'{"object": {}, "deviceInfo": {"devEui": "e"}}', "'e', but the message came from 'd'"),
        ("chirpstack", b'{"object": {"a": {"b": 1}, "a_b": 2}}', "object gives 'a_b' twice"),
        ("chirpstack", b'{"object": {}, "rxInfo": [{"rssi": "loud"}]}', "rssi is a text, not a number"),
        ("chirpstack", b'{"object": ' + b'{"a":' * 17 + b"1" + b"}" * 18, "object nests deeper than 16 levels"),
        ("senml-json", b"{}", "a SenML pack is an array of records"),
        ("senml-json", b"[]", "it holds no values"),
        ("senml-json", b"[1]", "record 0: it is a number, not an object"),
        ("senml-json", b'[{"bn": "d:"}, {"n": "a"}]', "record 1: it has no value"),
        ("senml-json", b'[{"n": "a", "v": 1}]', "name 'a' names no device"),
        ("senml-json", b'[{"n": "d: a", "v": 1}]', "'d: a' is no SenML name"),
        ("senml-json", b'[{"v": 1}]', "'' is no SenML name"),
        ("senml-json", b'[{"n": "d:a", "v": "1"}]', "v is a text, not a number"),
        ("senml-json", b'[{"n": "d:a", "v": true}]', "v is a boolean, not a number"),
        ("senml-json", b'[{"n": "d:a", "v": null}]', "v is null, not a number"),
        ("senml-json", b'[{"n": "d:a", "vb": 1}]', "vb is a number, not true or false"),
        ("senml-json", b'[{"n": "d:a", "vs": 1}]', "vs is a number, not a text"),
        ("senml-json", b'[{"n": "d:a", "vd": "%"}]', "vd is not data in base64url"),
        ("senml-json", b'[{"n": "d:a", "v": 1, "vs": "x"}]', "it has v and vs, but a record has one value"),
        ("senml-json", b'[{"n": "d:a", "v": 1e308, "bv": 1e308}]', "with its base value it is too large a number"),
        ("senml-json", b'[{"n": "d:a", "v": 1, "t": 1e300}]', "its time is 1e+300 s, which is none"),
        ("senml-json", b'[{"bver": 11, "n": "d:a", "v": 1}]', "bver is 11: versions up to 10 are read, and 26"),
        ("senml-json", b'[{"n": "d:a", "v": 1}, {"bver": 5, "n": "d:b", "v": 1}]', "bver is 5, but the pack"),
        ("senml-cbor", b"\xa0", "payload is an object; a SenML pack is an array of records"),
        ("senml-cbor", cbor2.dumps([{0: "d:a", "n": "d:b", 2: 1}]), "n is there twice, as a number and as a text"),
        ("senml-cbor", cbor2.dumps([{0: "d:a", 2: float("nan")}]), "v is nan, not a number"),
        ("senml-cbor", cbor2.dumps([{0: "d:a", 2: -(2**64)}]), "a value cannot be written as JSON"),
        ("envelope", b"{}", "there is no readings; an envelope has the readings there"),
        ("envelope", b'{"readings": {"id": "a"}}', "readings is an object; an envelope has the readings there"),
        ("envelope", b"7", "payload is a number, not an envelope"),
        ("envelope", b"[]", "it holds no readings"),
        ("envelope", b'[{"id": "a"}, 7]', "reading 1 is a number, not an object"),
    ],
)  # fmt: skip
def test_the_reason(name: str, payload: bytes, reason: str) -> None:
    """It says what is wrong, and where."""
    with pytest.raises(NotUnpacked) as caught:
        unpack(name, payload)

    assert reason in caught.value.reason


def test_values_apart_of_an_envelope() -> None:
    """An object with the values must be one, and must not say again what stands beside it."""
    profile = TopicProfile.model_validate(
        {
            **{"name": "p", "topic": "gw/+", "device_type": "x", "format": "envelope", "device_field": "id"},
            "envelope": {"items": "r", "values": "data"},
        }
    )
    made = profile.unpacker()
    assert made is not None

    for payload, reason in (
        (b'[{"id": "a", "data": 7}]', "data of reading 0 is a number, not an object"),
        (b'[{"id": "a", "data": {"id": "b"}}]', "reading 0 gives 'id' twice, once in data"),
    ):
        with pytest.raises(NotUnpacked, match=reason):
            made(Message(["gw", "1"], "", payload, NOW))
