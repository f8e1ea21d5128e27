"""Each format gives back the readings that an encoder of its own put into it."""

import json
from collections.abc import Mapping
from typing import Any

import cbor2
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.connectors.formats import Aside, Message, NotUnpacked, Part, unpacker
from headrace.connectors.formats.envelope import EnvelopeFields
from headrace.connectors.formats.profile_format import FormatName
from headrace.connectors.formats.senml_names import SenmlNames
from headrace.schemas.units import STATED_UNITS

NOW = 1_700_000_000_000
#: By device and time, ms: values by name. What a message shall become.
Readings = dict[tuple[str, int], dict[str, Any]]

NAMES = st.text("abcdefgh0123456789", min_size=1, max_size=8)
#: Words of the formats themselves.
TAKEN = ("ts", "values", "at", "id", "items", "data", STATED_UNITS)
#: Of JSON: any text, with what must be escaped and what has more than 16 bits.
TEXTS: st.SearchStrategy[str] = st.one_of(NAMES, st.text(min_size=1, max_size=6)).filter(lambda text: text not in TAKEN)
NUMBERS = st.one_of(st.integers(-(2**53), 2**53), st.floats(-1e9, 1e9, allow_nan=False))
VALUES = st.one_of(NUMBERS, st.booleans(), st.text(max_size=12))
#: And what no reading has as a measure, but may have as another field.
ANY_VALUES = st.one_of(
    VALUES, st.none(), st.lists(VALUES, max_size=2), st.dictionaries(NAMES, VALUES, max_size=2)
)  # fmt: skip
TIMES = st.integers(NOW - 10**9, NOW + 10**6)


def readings(
    devices: st.SearchStrategy[str], names: st.SearchStrategy[str] = NAMES, values: st.SearchStrategy[Any] = VALUES
) -> st.SearchStrategy[Readings]:
    """Any readings of these devices."""
    return st.dictionaries(
        st.tuples(devices, TIMES), st.dictionaries(names, values, min_size=1, max_size=4), min_size=1, max_size=12
    )


def unpacked(name: FormatName, payload: bytes, device_id: str = "", *, values: str | None = None) -> Readings:
    """What a format makes of a message, by device and time; that it may be in order of time is checked.

    Args:
        values: of an envelope, the field of a reading that holds its values.
    """
    envelope = EnvelopeFields(items="items", values=values)
    unpack = unpacker(name, time_field="at", senml=SenmlNames(), envelope=envelope, sequence=None)
    assert unpack is not None
    parts = unpack(Message(["x", "telemetry"], device_id, payload, NOW))
    assert not isinstance(parts, Aside)
    found: Readings = {}
    times = []
    for part in parts:
        document = orjson.loads(part.payload)
        assert document.pop(STATED_UNITS, {}).keys() <= document.keys()
        times.append(document.pop("at"))
        key = (part.device_id or document.pop("id"), times[-1])
        assert key not in found
        found[key] = document
    if name != "envelope":
        assert times == sorted(times)
    return found


def same(found: Readings, wanted: Readings) -> bool:
    """Equal, and true is not 1."""
    return repr(sorted(found.items())) == repr(sorted(wanted.items())) or (
        found == wanted and all(typed(found[key]) == typed(wanted[key]) for key in wanted)
    )


def typed(values: Mapping[str, Any]) -> dict[str, bool]:
    """Which values are true or false."""
    return {name: isinstance(value, bool) for name, value in values.items()}


def in_json(document: Any, *, ascii_only: bool) -> bytes:
    """As some encoders write it, with every other character escaped, or as most do."""
    return json.dumps(document).encode() if ascii_only else orjson.dumps(document)


@given(readings(st.just("dach-\N{SNOWMAN}"), TEXTS, ANY_VALUES), st.booleans())
def test_thingsboard(wanted: Readings, escaped: bool) -> None:
    """Entries with `ts` and `values`, in any order, of any names and values."""
    entries = [{"ts": time, "values": values} for (_, time), values in wanted.items()]
    payload = in_json(entries[0] if len(entries) == 1 else entries, ascii_only=escaped)

    assert same(unpacked("thingsboard", payload, "dach-\N{SNOWMAN}"), wanted)


@given(st.dictionaries(TEXTS, ANY_VALUES, min_size=1, max_size=4), st.booleans())
def test_thingsboard_without_a_time(values: dict[str, Any], alone: bool) -> None:
    """The values as they are, or in an array; there is no time."""
    unpack = unpacker("thingsboard", time_field="at", senml=SenmlNames(), envelope=EnvelopeFields(), sequence=None)
    assert unpack is not None

    parts = unpack(Message(["x", "telemetry"], "roof-7", orjson.dumps(values if alone else [values]), NOW))

    assert not isinstance(parts, Aside)
    (part,) = parts
    assert orjson.loads(part.payload) == values


@given(readings(TEXTS, TEXTS, ANY_VALUES), st.booleans())
def test_thingsboard_gateway(wanted: Readings, escaped: bool) -> None:
    """Entries by device, whatever it is called."""
    document: dict[str, list[Any]] = {}
    for (device, time), values in wanted.items():
        document.setdefault(device, []).append({"ts": time, "values": values})

    assert same(unpacked("thingsboard-gateway", in_json(document, ascii_only=escaped)), wanted)


@given(readings(TEXTS, TEXTS, ANY_VALUES), st.booleans(), st.booleans())
def test_envelope(wanted: Readings, bare: bool, escaped: bool) -> None:
    """An item per reading of many devices, in an object or alone; a common field goes into each that has none."""
    items = [{"id": device, "at": time, **values} for (device, time), values in wanted.items()]
    for values in wanted.values():
        values.update({} if bare else {"gateway": values.get("gateway", "gw")})

    payload = in_json(items if bare else {"gateway": "gw", "items": items}, ascii_only=escaped)

    assert same(unpacked("envelope", payload), wanted)


@given(readings(TEXTS, TEXTS, ANY_VALUES), st.lists(st.booleans(), min_size=12, max_size=12))
def test_envelope_with_values_apart(wanted: Readings, apart: list[bool]) -> None:
    """Values in an object of their own, in some of the items."""
    heads = [({"id": device, "at": time}, values) for (device, time), values in wanted.items()]
    items = [
        {**head, "data": values} if each else {**head, **values}
        for (head, values), each in zip(heads, apart, strict=False)
    ]

    assert same(unpacked("envelope", orjson.dumps({"items": items}), values="data"), wanted)


#: Names that are paths of their own.
UNDERSCORED = st.lists(NAMES, min_size=1, max_size=3).map("_".join)


def nested(values: Mapping[str, Any]) -> dict[str, Any]:
    """Names as paths: `a_b` is b in a."""
    made: dict[str, Any] = {}
    for name, value in values.items():
        *way, last = name.split("_")
        inner = made
        for step in way:
            inner = inner.setdefault(step, {})
        inner[last] = value
    return made


def uplink(counter: int, time: int) -> dict[str, Any]:
    """A frame without its values; protobuf leaves a zero out."""
    return {"time": iso(time), "deviceInfo": {"devEui": "0101"}} | ({"fCnt": counter} if counter else {})


def chirpstack(event: str, document: Any, device_id: str = "0101") -> list[Part] | Aside:
    """What an event becomes."""
    unpack = unpacker("chirpstack", time_field="at", senml=SenmlNames(), envelope=EnvelopeFields(), sequence=None)
    assert unpack is not None
    topic = ["application", "1", "device", "0101", "event", event]
    return unpack(Message(topic, device_id, orjson.dumps(document), NOW))


COUNTERS = st.integers(0, 2**32 - 1)


@given(
    st.dictionaries(st.one_of(NAMES, UNDERSCORED).map(lambda name: f"o_{name}_v"), VALUES | st.none(), max_size=6),
    TIMES,
    COUNTERS,
    st.lists(st.tuples(st.integers(-120, -1), st.floats(-20, 20)), max_size=4),
    st.sampled_from(["", "0101"]),
)
def test_chirpstack(
    values: dict[str, Any], time: int, counter: int, heard: list[tuple[int, float]], in_topic: str
) -> None:
    """The object, its names joined; the best signal beside it; the frame counter in the header."""
    event = uplink(counter, time) | {
        "object": nested(values),
        "rxInfo": [{"gatewayId": f"g{number}", "rssi": rssi, "snr": snr} for number, (rssi, snr) in enumerate(heard)],
    }

    parts = chirpstack("up", event, in_topic)

    assert not isinstance(parts, Aside)
    (part,) = parts
    found = orjson.loads(part.payload)
    assert (part.device_id, part.sequence) == ("0101", b"%d 4294967296 %d" % (counter, time))
    assert {name: found[name] for name in values} == values
    assert found["at"] == time
    assert found.get("rssi") == max((rssi for rssi, _ in heard), default=None)
    assert found.get("gateways") == (len(heard) or None)


@given(TIMES, COUNTERS, st.sampled_from([{}, {"object": None}, {"object": []}, {"object": "x"}]))
def test_chirpstack_without_an_object(time: int, counter: int, decoded: dict[str, Any]) -> None:
    """A frame that no codec decoded is refused, and keeps its device and its number: it was not lost."""
    with pytest.raises(NotUnpacked, match="object") as caught:
        chirpstack("up", uplink(counter, time) | {"data": "qg==", **decoded})

    assert (caught.value.device_id, caught.value.sequence) == ("0101", b"%d 4294967296 %d" % (counter, time))


@given(
    TIMES,
    st.one_of(st.sampled_from(["join", "ack", "txack", "log", "integration"]), st.text(min_size=1, max_size=8)),
    st.dictionaries(TEXTS, ANY_VALUES, max_size=3),
)
def test_other_events_of_chirpstack(time: int, event: str, more: dict[str, Any]) -> None:
    """What is no uplink, status or location goes aside, whatever it says, under the device of topic or payload."""
    if event in ("up", "status", "location") or "/" in event:
        return

    assert chirpstack(event, {**more, **uplink(1, time)}, "") == Aside(event, "0101")
    assert chirpstack(event, list(more), "0101") == Aside(event, "0101")


@given(TIMES, st.integers(-32, 31), st.floats(0, 100), st.sampled_from(["battery", "external", "unavailable"]))
def test_status_of_chirpstack(time: int, margin: int, level: float, power: str) -> None:
    """Margin and battery are a reading without a number; without a battery, or where it is not known, no level is."""
    status: dict[str, Any] = {"margin": margin} if margin else {}
    more: dict[str, dict[str, Any]] = {
        "battery": {"batteryLevel": level} if level else {},
        "external": {"externalPowerSource": True},
        "unavailable": {"batteryLevelUnavailable": True},
    }

    parts = chirpstack("status", {**uplink(0, time), **status, **more[power]})

    assert not isinstance(parts, Aside)
    (part,) = parts
    powers: dict[str, dict[str, Any]] = {"battery": {"batteryLevel": level}, "external": {"externalPowerSource": True}}
    wanted = {"at": time, "margin": margin} | powers.get(power, {})
    assert orjson.loads(part.payload) == wanted
    assert part.sequence is None


def iso(time: int) -> str:
    """ms since 1970 UTC as ChirpStack writes it, with nine digits."""
    days, rest = divmod(time, 86_400_000)
    year, month, day = civil(days)
    seconds, ms = divmod(rest, 1000)
    clock = f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}"
    return f"{year:04}-{month:02}-{day:02}T{clock}.{ms:03}999999+00:00"


def civil(days: int) -> tuple[int, int, int]:
    """The date so many days after 1970-01-01 (Hinnant's days_from_civil, backwards), not by the code under test."""
    era, of_era = divmod(days + 719_468, 146_097)
    year_of_era = (of_era - of_era // 1460 + of_era // 36_524 - of_era // 146_096) // 365
    of_year = of_era - (365 * year_of_era + year_of_era // 4 - year_of_era // 100)
    month = (5 * of_year + 2) // 153
    day = of_year - (153 * month + 2) // 5 + 1
    return year_of_era + era * 400 + (month >= 10), month + 3 if month < 10 else month - 9, day


SENML_VALUES = {bool: "vb", str: "vs", int: "v", float: "v"}
CBOR_LABELS = {"bn": -2, "bt": -3, "n": 0, "u": 1, "v": 2, "vs": 3, "vb": 4, "t": 6}


def pack(wanted: Readings, base: bool) -> list[dict[str, Any]]:
    """A pack with everything in each record, or with base names and times wherever they change."""
    records: list[dict[str, Any]] = []
    name, begin = "", 0
    for (device, time), values in wanted.items():
        for metric, value in values.items():
            record: dict[str, Any] = {"n": f"{device}:{metric}", "t": time / 1000}
            if base:
                record = {"n": metric, "t": (time - begin) / 1000}
                if name != f"{device}:":
                    name, begin = f"{device}:", time
                    record |= {"bn": name, "bt": time / 1000, "t": 0}
            label = SENML_VALUES[type(value)]
            records.append(record | {label: value} | ({"u": "Cel"} if label == "v" else {}))
    return records


@given(readings(NAMES.map("urn:dev:mac:{}".format)), st.booleans())
def test_senml_json(wanted: Readings, base: bool) -> None:
    """Names, times and values of every kind, with base fields and without."""
    assert same(unpacked("senml-json", orjson.dumps(pack(wanted, base))), wanted)


@given(readings(NAMES), st.booleans())
def test_senml_cbor(wanted: Readings, base: bool) -> None:
    """The same, written by a CBOR library with numbers as labels."""
    records = [{CBOR_LABELS[label]: value for label, value in each.items()} for each in pack(wanted, base)]

    assert same(unpacked("senml-cbor", cbor2.dumps(records)), wanted)
