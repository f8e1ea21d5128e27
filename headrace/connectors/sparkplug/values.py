"""What a Sparkplug value is in JSON, by its datatype (section 6.4.16 of the specification)."""

import base64
import struct
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from headrace.connectors.sparkplug.payload import BOOL, DOUBLE, FLOAT, INT, LONG, RAW, STRING, Metric
from headrace.connectors.sparkplug.wire import BadPayload

#: Bits of integers by datatype, signed and not.
_SIGNED = {1: 8, 2: 16, 3: 32, 4: 64}
_UNSIGNED = {5: 8, 6: 16, 7: 32, 8: 64, 13: 64}
_NUMBERS, _BOOLEAN, _TEXTS = (9, 10), 11, (12, 14, 15)
#: Struct codes of arrays; 32 are bits and 33 texts.
_ARRAYS = {22: "b", 23: "h", 24: "i", 25: "q", 26: "B", 27: "H", 28: "I", 29: "Q", 30: "f", 31: "d", 34: "Q"}
_BITS, _LISTED_TEXTS = 32, 33
#: In one array: each bit of a payload becomes a reference of eight bytes.
MAX_BITS = 1 << 18


class Unfit(BadPayload):
    """A value that is not of its datatype."""


def json_value(metric: Metric, datatype: int | None) -> Any:
    """The value of a metric as JSON has it; `datatype` from its birth where it says none itself.

    Integers are exact, also negative ones, which come in unsigned fields. A 32-bit float is the shortest decimal number
    that stands for it. DateTime is ms since 1970 UTC. Arrays are lists. Bytes and files are base64, and so are data
    sets and templates: the message that they are on the wire.

    Raises:
        Unfit: it is not of that type.
    """
    if metric.is_null or metric.field == 0:
        return None
    kind = metric.datatype or datatype or 0
    read = _READERS.get(kind, _by_field)
    return read(metric.field, metric.value, kind)


def _integer(field: int, value: Any, kind: int) -> int:
    if field not in (INT, LONG):
        raise _misplaced(field, kind)
    return _signed(value, field, _SIGNED[kind]) if kind in _SIGNED else _unsigned(value, _UNSIGNED[kind])


def _number(field: int, value: Any, kind: int) -> float:
    if field not in (FLOAT, DOUBLE):
        raise _misplaced(field, kind)
    return _shortest(value) if field == FLOAT else value


def _boolean(field: int, value: Any, kind: int) -> bool:
    if field != BOOL and not (field in (INT, LONG) and value in (0, 1)):
        raise _misplaced(field, kind)
    return bool(value)


def _string(field: int, value: Any, kind: int) -> str:
    if field != STRING:
        raise _misplaced(field, kind)
    return str(value)


def _by_field(field: int, value: Any, kind: int) -> Any:
    """Of a type that we do not know, or that is bytes, or a message inside of the message."""
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if field == FLOAT:
        return _shortest(value)
    return bool(value) if field == BOOL else value


def _misplaced(field: int, kind: int) -> Unfit:
    return Unfit(f"a value of datatype {kind} stands in field {field}")


def _signed(value: int, field: int, bits: int) -> int:
    """Two's complement in as many bits as the type has, or in all of the field."""
    wide = 32 if field == INT else 64
    if value >= 1 << bits and value < (1 << wide) - (1 << bits - 1):
        raise Unfit(f"{value} is no integer of {bits} bits")
    if value >= 1 << bits:
        return value - (1 << wide)
    return value - (1 << bits) if value >= 1 << bits - 1 else value


def _unsigned(value: int, bits: int) -> int:
    if value >= 1 << bits:
        raise Unfit(f"{value} is no unsigned integer of {bits} bits")
    return value


def _shortest(value: float) -> float:
    return float(str(np.float32(value)))


def _array(field: int, value: Any, kind: int) -> list[Any]:
    if field != RAW:
        raise _misplaced(field, kind)
    if kind == _LISTED_TEXTS:
        return _texts(value)
    if kind == _BITS:
        return _bits(value)
    code = _ARRAYS[kind]
    if len(value) % struct.calcsize(f"<{code}"):
        raise Unfit(f"{len(value)} bytes are no array of datatype {kind}")
    found = [each[0] for each in struct.iter_unpack(f"<{code}", value)]
    return list(map(_shortest, found)) if code == "f" else found


def _texts(value: bytes) -> list[str]:
    """Each ends with a zero byte."""
    try:
        return value.decode().removesuffix("\0").split("\0") if value else []
    except UnicodeDecodeError:
        raise Unfit("an array of texts is not UTF-8") from None


def _bits(value: bytes) -> list[bool]:
    """How many there are in four bytes, then the bits, highest first."""
    count = int.from_bytes(value[:4], "little")
    if len(value) < 4 or len(value) - 4 != (count + 7) // 8:
        raise Unfit(f"{len(value)} bytes are no array of bits")
    if count > MAX_BITS:
        raise Unfit(f"an array of {count:,} bits is longer than {MAX_BITS:,}")
    bits = np.unpackbits(np.frombuffer(value, np.uint8, offset=4), count=count)
    found: list[bool] = bits.astype(bool).tolist()
    return found


#: By datatype.
_READERS: Mapping[int, Callable[[int, Any, int], Any]] = {
    **dict.fromkeys([*_SIGNED, *_UNSIGNED], _integer),
    **dict.fromkeys(_NUMBERS, _number),
    _BOOLEAN: _boolean,
    **dict.fromkeys(_TEXTS, _string),
    **dict.fromkeys([*_ARRAYS, _BITS, _LISTED_TEXTS], _array),
}
