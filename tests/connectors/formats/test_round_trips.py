"""Each format gives back the readings that an encoder of its own put into it."""

from collections.abc import Mapping
from typing import Any

import cbor2
import orjson
from hypothesis import given
from hypothesis import strategies as st

from headrace.connectors.formats import Aside, Message, unpacker
from headrace.connectors.formats.envelope import EnvelopeFields
from headrace.connectors.formats.profile_format import FormatName
from headrace.connectors.formats.senml_names import SenmlNames
from headrace.schemas.units import STATED_UNITS

NOW = 1_700_000_000_000
#: By device and time, ms: values by name. What a message shall become.
Readings = dict[tuple[str, int], dict[str, Any]]

NAMES = st.text("abcdefgh0123456789", min_size=1, max_size=8)
NUMBERS = st.one_of(st.integers(-(2**53), 2**53), st.floats(-1e9, 1e9, allow_nan=False))
VALUES = st.one_of(NUMBERS, st.booleans(), st.text(max_size=12))
TIMES = st.integers(NOW - 10**9, NOW + 10**6)


def readings(devices: st.SearchStrategy[str]) -> st.SearchStrategy[Readings]:
    """Any readings of these devices."""
    return st.dictionaries(
        st.tuples(devices, TIMES), st.dictionaries(NAMES, VALUES, min_size=1, max_size=4), min_size=1, max_size=12
    )


def unpacked(name: FormatName, payload: bytes, device_id: str = "", *, topic: str = "x/telemetry") -> Readings:
    """What a format makes of a message, by device and time; that it may be in order of time is checked."""
    unpack = unpacker(name, time_field="at", senml=SenmlNames(), envelope=EnvelopeFields(items="items"), sequence=None)
    assert unpack is not None
    parts = unpack(Message(topic.split("/"), device_id, payload, NOW))
    assert not isinstance(parts, Aside)
    found: Readings = {}
    times = []
    for part in parts:
        values = orjson.loads(part.payload)
        assert values.pop(STATED_UNITS, {}).keys() <= values.keys()
        times.append(values.pop("at"))
        key = (part.device_id or values.pop("id"), times[-1])
        assert key not in found
        found[key] = values
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


@given(readings(st.just("roof-7")))
def test_thingsboard(wanted: Readings) -> None:
    """Entries with `ts` and `values`, in any order."""
    entries = [{"ts": time, "values": values} for (_, time), values in wanted.items()]
    payload = orjson.dumps(entries[0] if len(entries) == 1 else entries)

    assert same(unpacked("thingsboard", payload, "roof-7"), wanted)


@given(readings(NAMES))
def test_thingsboard_gateway(wanted: Readings) -> None:
    """Entries by device."""
    document: dict[str, list[Any]] = {}
    for (device, time), values in wanted.items():
        document.setdefault(device, []).append({"ts": time, "values": values})

    assert same(unpacked("thingsboard-gateway", orjson.dumps(document)), wanted)


@given(readings(NAMES), st.booleans())
def test_envelope(wanted: Readings, bare: bool) -> None:
    """An item per reading, in an object or alone; a common field goes into each."""
    items = [{"id": device, "at": time, **values} for (device, time), values in wanted.items()]
    for values in wanted.values():
        values.update({} if bare else {"gateway": values.get("gateway", "gw")})

    payload = orjson.dumps(items if bare else {"gateway": "gw", "items": items})

    assert same(unpacked("envelope", payload), wanted)


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


@given(
    st.dictionaries(NAMES.map(lambda name: f"o_{name}_v"), VALUES, max_size=6),
    TIMES,
    st.integers(0, 2**32 - 1),
    st.lists(st.tuples(st.integers(-120, -1), st.floats(-20, 20)), max_size=4),
)
def test_chirpstack(values: dict[str, Any], time: int, counter: int, heard: list[tuple[int, float]]) -> None:
    """The object, its names joined; the best signal beside it; the frame counter in the header."""
    event: dict[str, Any] = {
        "time": f"{time // 1000}", "deviceInfo": {"devEui": "0101"}, "object": nested(values),
        "rxInfo": [{"gatewayId": f"g{number}", "rssi": rssi, "snr": snr} for number, (rssi, snr) in enumerate(heard)],
    }  # fmt: skip
    event["time"] = iso(time)
    if counter:
        event["fCnt"] = counter  # protobuf leaves a zero out
    unpack = unpacker("chirpstack", time_field="at", senml=SenmlNames(), envelope=EnvelopeFields(), sequence=None)
    assert unpack is not None

    parts = unpack(Message(["application", "1", "device", "0101", "event", "up"], "0101", orjson.dumps(event), NOW))

    assert not isinstance(parts, Aside)
    (part,) = parts
    found = orjson.loads(part.payload)
    assert part.sequence == b"%d 4294967296 %d" % (counter, time)
    assert {name: found[name] for name in values} == values
    assert found["at"] == time
    assert found.get("rssi") == max((rssi for rssi, _ in heard), default=None)
    assert found.get("gateways") == (len(heard) or None)


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
