"""SenML packs (RFC 8428) in JSON and CBOR."""

import re
from base64 import urlsafe_b64encode
from collections.abc import Callable, Mapping
from contextlib import suppress
from math import isfinite
from typing import Any

from headrace.connectors.formats.cbor import CborError, decode_cbor
from headrace.connectors.formats.parts import (
    Message,
    NotUnpacked,
    Part,
    Rows,
    check_items,
    check_size,
    is_number,
    kind,
    loads,
)
from headrace.connectors.formats.senml_names import MAX_NAME, SenmlNames
from headrace.connectors.formats.senml_units import known_unit, sum_unit

#: Versions that are read: up to that of RFC 8428, and with secondary units (RFC 9100, feature 4).
VERSION, WITH_SECONDARY_UNITS = 10, 26
#: Times below this are relative to now, seconds (RFC 8428, 4.5.3): about eight and a half years.
RELATIVE = 1 << 28
#: RFC 8428, table 4.
LABELS = {
    -1: "bver",
    -2: "bn",
    -3: "bt",
    -4: "bu",
    -5: "bv",
    -6: "bs",
    0: "n",
    1: "u",
    2: "v",
    3: "vs",
    4: "vb",
    5: "s",
    6: "t",
    7: "ut",
    8: "vd",
}
_NUMBERS = ("bt", "bv", "bs", "v", "s", "t", "ut")
_TEXTS = ("bn", "bu", "n", "u", "vs")
_VALUES = ("v", "vs", "vb", "vd")
#: A record without any of these only sets what holds from it on.
_OWN = frozenset({"n", "u", "t", "ut", "s", *_VALUES})
_NOT_SUMMED = frozenset({"vs", "vb", "vd"})
_DATA = re.compile(r"[A-Za-z0-9_+/-]*={0,2}")

Record = Mapping[str, Any]


class Senml:
    """Takes a pack apart: values of a device and a time become one object, times are resolved, units are named.

    A sum `s` becomes the metric `…_sum`, text and data (base64url) are texts, `ut` is not kept. A label that ends with
    `_` must be understood, so a pack with one is refused (RFC 8428, 4.4); other unknown labels are left out.

    Args:
        names: how names are divided.
        time_field: of the objects that are made.
        decode: of a payload, to a list of records with JSON's labels.
    """

    def __init__(self, names: SenmlNames, time_field: str, decode: Callable[[bytes], Any]) -> None:
        self._names = names
        self._time_field = time_field
        self._decode = decode

    def __call__(self, message: Message) -> list[Part]:
        """See `headrace.connectors.formats.parts.Unpack`."""
        pack = self._decode(message.payload)
        if not isinstance(pack, list):
            raise NotUnpacked(f"payload is {kind(pack)}; a SenML pack is an array of records", message.device_id)
        check_items(len(pack))
        rows = Rows(message.payload, self._time_field)
        base: dict[str, Any] = {}
        for place, record in enumerate(pack):
            try:
                _check(record)
                _take_base(base, record, first=place == 0)
                if _OWN.intersection(record):
                    self._add(rows, base, record, message)
            except NotUnpacked as error:
                raise NotUnpacked(f"record {place}: {error.reason}", message.device_id) from error
        return rows.parts()

    def _add(self, rows: Rows, base: Record, record: Record, message: Message) -> None:
        begin, own = base.get("bn", ""), record.get("n", "")
        if len(begin) + len(own) > MAX_NAME:
            raise NotUnpacked(f"its name has more than {MAX_NAME} characters")
        unit = record.get("u", base.get("bu", ""))
        device_id, metric = self._names.divide(begin + own, unit, message.device_id)
        value, total = _value(base, record), _sum(base, record)
        if value is None and total is None:
            raise NotUnpacked("it has no value")
        values: dict[str, Any] = {}
        units: dict[str, str] = {}
        if value is not None:
            values[metric] = value
            if unit and is_number(value):
                units[metric] = known_unit(unit)
        if total is not None:
            values[f"{metric}_sum"] = total
            if unit:
                units[f"{metric}_sum"] = sum_unit(unit)
        rows.add(device_id, _time(base, record, message.now_ms), values, units)


def senml_json(payload: bytes) -> Any:
    """The records of a pack in JSON."""
    return loads(payload)


def senml_cbor(payload: bytes) -> Any:
    """The records of a pack in CBOR, with the labels that JSON has, and data as its base64url."""
    check_size(payload)
    if not payload:
        raise NotUnpacked("payload is empty")
    try:
        pack = decode_cbor(payload)
    except CborError as error:
        advice = ", but JSON: set the format senml-json" if _is_json(payload) else f": {error}"
        raise NotUnpacked(f"payload is no CBOR of a SenML pack{advice}") from error
    return [_relabelled(record) for record in pack] if isinstance(pack, list) else pack


def _is_json(payload: bytes) -> bool:
    with suppress(NotUnpacked):
        return isinstance(loads(payload), list | dict)
    return False


def _relabelled(record: Any) -> Any:
    if not isinstance(record, dict):
        return record
    made: dict[str, Any] = {}
    for key, value in record.items():
        label = LABELS.get(key, f"label {key}") if isinstance(key, int) else key
        if label in made:
            raise NotUnpacked(f"{label} is there twice, as a number and as a text")
        is_data = label == "vd" and isinstance(value, bytes)
        made[label] = urlsafe_b64encode(value).rstrip(b"=").decode() if is_data else value
    return made


def _check(record: Any) -> None:
    if not isinstance(record, dict):
        raise NotUnpacked(f"it is {kind(record)}, not an object")
    for label, value in record.items():
        if label.endswith("_"):
            raise NotUnpacked(f"{label[:64]} must be understood, and is not known here")
        if label in _NUMBERS and not (is_number(value) and isfinite(value)):
            raise NotUnpacked(f"{label} is {kind(value) if not is_number(value) else value}, not a number")
        if label in _TEXTS and not isinstance(value, str):
            raise NotUnpacked(f"{label} is {kind(value)}, not a text")
    if "vb" in record and type(record["vb"]) is not bool:
        raise NotUnpacked(f"vb is {kind(record['vb'])}, not true or false")
    if "vd" in record and not (isinstance(record["vd"], str) and _DATA.fullmatch(record["vd"])):
        raise NotUnpacked("vd is not data in base64url")


def _take_base(base: dict[str, Any], record: Record, *, first: bool) -> None:
    """Remember what holds from this record on."""
    base.update({label: record[label] for label in ("bn", "bt", "bu", "bv", "bs") if label in record})
    version = record.get("bver", VERSION if first else base["bver"])
    if type(version) is not int or not (0 < version <= VERSION or version == WITH_SECONDARY_UNITS):
        raise NotUnpacked(f"bver is {str(version)[:20]}: versions up to {VERSION} are read, and {WITH_SECONDARY_UNITS}")
    if not first and version != base["bver"]:
        raise NotUnpacked(f"bver is {version}, but the pack began with {base['bver']}")
    base["bver"] = version


def _value(base: Record, record: Record) -> Any:
    given = [label for label in _VALUES if label in record]
    if len(given) > 1:
        raise NotUnpacked(f"it has {' and '.join(given)}, but a record has one value")
    if given and given != ["v"]:
        value = record[given[0]]
        return value.rstrip("=") if given == ["vd"] else value
    if not given and ("bv" not in base or "s" in record):
        return None
    return _finite(base.get("bv", 0), record.get("v", 0))


def _sum(base: Record, record: Record) -> Any:
    if "s" not in record and ("bs" not in base or _NOT_SUMMED.intersection(record)):
        return None
    return _finite(base.get("bs", 0), record.get("s", 0))


def _finite(base: float, own: float) -> float:
    try:
        total = base + own
        if isfinite(total):
            return total
    except OverflowError:
        pass
    raise NotUnpacked("with its base value it is too large a number")


def _time(base: Record, record: Record, now_ms: int) -> int:
    """When, ms since 1970 UTC."""
    seconds = _finite(base.get("bt", 0), record.get("t", 0))
    if abs(seconds) > 1e15:
        raise NotUnpacked(f"its time is {seconds:g} s, which is none")
    return round(seconds * 1000) + (now_ms if seconds < RELATIVE else 0)
