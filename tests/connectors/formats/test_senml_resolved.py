"""SenML packs with base fields in every position mean what RFC 8428, 4.6, resolves them to."""

from base64 import urlsafe_b64decode, urlsafe_b64encode
from random import Random
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.connectors.formats import Aside, Message, NotUnpacked, Part, unpacker
from headrace.connectors.formats.envelope import EnvelopeFields
from headrace.connectors.formats.profile_format import FormatName
from headrace.connectors.formats.senml_names import SenmlNames
from headrace.schemas.units import STATED_UNITS
from tests.connectors.formats.cbor_forms import written

NOW = 1_700_000_000_000
#: Below it times are relative (RFC 8428, 4.5.3).
RELATIVE = 2**28
#: By the names of the registry: ours, and that of a sum.
UNITS = {"V": ("V", "V*s"), "W": ("W", "J"), "Cel": ("degC", "degC*s"), "%RH": ("%", "%*s")}
#: RFC 8428, table 4.
LABELS = {
    **{"bver": -1, "bn": -2, "bt": -3, "bu": -4, "bv": -5, "bs": -6},
    **{"n": 0, "u": 1, "v": 2, "vs": 3, "vb": 4, "s": 5, "t": 6, "ut": 7, "vd": 8},
}

NUMBERS = st.one_of(st.integers(-50, 50), st.sampled_from([0.5, -1.25, 1e9]))
#: Device, time in ms, metric, its value and unit.
Resolved = tuple[str, int, str, Any, str | None]
RECORDS = st.fixed_dictionaries(
    {},
    optional={
        "bn": st.sampled_from(["urn:dev:a:", "urn:dev:b:", "c/", "urn:dev:a:x"]),
        "bt": st.sampled_from([0, -10, 1_600_000_000, 1_600_000_000.5, RELATIVE - 1]),
        "bu": st.sampled_from([*UNITS]),
        "bv": NUMBERS,
        "bs": NUMBERS,
        "bver": st.just(10),
        "n": st.sampled_from(["t", "h", "x:y", ""]),
        "u": st.sampled_from([*UNITS]),
        "s": NUMBERS,
        "t": st.sampled_from([0, 1, -1, 0.25, 1_600_000_000]),
        "ut": st.just(60),
        "unknown": st.text(max_size=3),
    },
)
VALUES = st.one_of(
    st.builds(lambda value: {"v": value}, NUMBERS),
    st.builds(lambda value: {"vs": value}, st.text(max_size=5)),
    st.builds(lambda value: {"vb": value}, st.booleans()),
    st.builds(lambda value: {"vd": urlsafe_b64encode(value).decode().rstrip("=")}, st.binary(max_size=5)),
    st.just({}),
)
MERGED = st.builds(lambda record, value: {**record, **value}, RECORDS, VALUES)
#: Most of them begin with a device, and none of those is without a value.
PACKS = st.one_of(
    st.builds(
        lambda first, others: [{"bn": "urn:dev:a:", "v": 1} | first, *others],
        RECORDS,
        st.lists(st.builds(lambda record, value: {**record, **(value or {"v": 2})}, RECORDS, VALUES), max_size=5),
    ),
    st.lists(MERGED, min_size=1, max_size=6),
)


def resolved(pack: list[dict[str, Any]]) -> set[Resolved]:
    """What a pack says, record by record, by the words of the specification.

    Raises:
        ValueError: it says nothing, or not of whom.
    """
    found: set[Resolved] = set()
    base: dict[str, Any] = {"bn": "", "bt": 0, "bu": ""}
    for record in pack:
        base |= {label: value for label, value in record.items() if label.startswith("b")}
        if not record.keys() & {"n", "u", "t", "ut", "s", "v", "vs", "vb", "vd"}:
            continue
        name, seconds = base["bn"] + record.get("n", ""), base["bt"] + record.get("t", 0)
        cut = max(name.rfind(":"), name.rfind("/"))
        if cut < 1:
            raise ValueError("no device")
        device, metric, unit = name[:cut], name[cut + 1 :] or "value", record.get("u", base["bu"])
        time = round(seconds * 1000) + (NOW if seconds < RELATIVE else 0)
        texts = [record[label] for label in ("vs", "vb", "vd") if label in record]
        has_sum = "s" in record or ("bs" in base and not texts)
        if texts:
            found.add((device, time, metric, typed(texts[0]), None))
        elif "v" in record or ("bv" in base and "s" not in record):
            value = base.get("bv", 0) + record.get("v", 0)
            found.add((device, time, metric, typed(value), UNITS[unit][0] if unit else None))
        elif not has_sum:
            raise ValueError("no value")
        if has_sum:
            total = base.get("bs", 0) + record.get("s", 0)
            found.add((device, time, f"{metric}_sum", typed(total), UNITS[unit][1] if unit else None))
    if not found:
        raise ValueError("no record")
    return found


def typed(value: object) -> tuple[str, object]:
    """A value with what it is: true is not 1. JSON does not tell 1 from 1.0."""
    return ("number" if type(value) in (int, float) else type(value).__name__, value)


def unpacked(name: FormatName, payload: bytes) -> set[Resolved]:
    """What the format makes of a pack, value by value."""
    unpack = unpacker(name, time_field="timestamp", senml=SenmlNames(), envelope=EnvelopeFields(), sequence=None)
    assert unpack is not None
    parts = unpack(Message(["senml"], "", payload, NOW))
    assert not isinstance(parts, Aside)
    return {each for part in parts for each in values_of(part)}


def values_of(part: Part) -> list[Resolved]:
    """The values of one record."""
    values = orjson.loads(part.payload)
    time, units = values.pop("timestamp"), values.pop(STATED_UNITS, {})
    return [(part.device_id, time, name, typed(value), units.get(name)) for name, value in values.items()]


def in_cbor(pack: list[dict[str, Any]], random: Random) -> bytes:
    """A pack with numbers as labels, some of them texts all the same, in any form; data as bytes."""
    made = []
    for record in pack:
        items = [(label, as_bytes(value) if label == "vd" else value) for label, value in record.items()]
        random.shuffle(items)
        made.append(
            {LABELS[label] if label in LABELS and random.random() < 0.8 else label: value for label, value in items}
        )
    return written(made, random)


def as_bytes(text: str) -> bytes:
    """What base64url says."""
    return urlsafe_b64decode(text + "=" * (-len(text) % 4))


@given(PACKS, st.randoms(use_true_random=False))
def test_base_fields_anywhere(pack: list[dict[str, Any]], random: Random) -> None:
    """In JSON and in every form of CBOR a pack becomes the values that it resolves to, or is refused whole."""
    payloads: dict[FormatName, bytes] = {"senml-json": orjson.dumps(pack), "senml-cbor": in_cbor(pack, random)}
    try:
        wanted = resolved(pack)
    except ValueError:
        for name, payload in payloads.items():
            with pytest.raises(NotUnpacked):
                unpacked(name, payload)
        return

    for name, payload in payloads.items():
        assert unpacked(name, payload) == wanted
