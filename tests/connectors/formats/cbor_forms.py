"""An encoder of CBOR (RFC 8949) that writes every form of a value that is allowed, as `random` picks them."""

import struct
from random import Random
from typing import Any

#: Bytes of the argument, by what stands in the first byte.
_WIDTHS = {24: 1, 25: 2, 26: 4, 27: 8}
_FLOATS = {25: ">e", 26: ">f", 27: ">d"}
_BREAK = b"\xff"


def written(value: Any, random: Random) -> bytes:
    """Bytes that mean `value`: lengths known or not, numbers wider than they must be, floats as short as may be."""
    if value is None or isinstance(value, bool):
        return {False: b"\xf4", True: b"\xf5", None: random.choice([b"\xf6", b"\xf7"])}[value]
    if isinstance(value, int):
        return _head(0, value, random) if value >= 0 else _head(1, -1 - value, random)
    if isinstance(value, float):
        return random.choice([bytes([0xE0 | info]) + data for info, data in _as_floats(value)])
    if isinstance(value, str | bytes):
        return _string(value, random)
    if isinstance(value, dict):
        major, parts = 5, [written(each, random) for pair in value.items() for each in pair]
    else:
        major, parts = 4, [written(each, random) for each in value]
    if random.random() < 0.5:
        return bytes([major << 5 | 31]) + b"".join(parts) + _BREAK
    return _head(major, len(value), random) + b"".join(parts)


def decimal_fraction(exponent: int, mantissa: int, random: Random) -> bytes:
    """Tag 4 (RFC 8949, 3.4.4)."""
    return _head(6, 4, random) + written([exponent, mantissa], random)


def self_described(data: bytes, random: Random) -> bytes:
    """Tag 55799 (RFC 8949, 3.4.6)."""
    return _head(6, 55_799, random) + data


def _head(major: int, count: int, random: Random) -> bytes:
    forms = [bytes([major << 5 | count])] if count < 24 else []
    forms += [
        bytes([major << 5 | info]) + count.to_bytes(width) for info, width in _WIDTHS.items() if count < 1 << 8 * width
    ]
    return random.choice(forms)


def _as_floats(value: float) -> list[tuple[int, bytes]]:
    """All precisions that hold the value."""
    found = []
    for info, form in _FLOATS.items():
        try:
            data = struct.pack(form, value)
        except OverflowError:
            continue
        if struct.unpack(form, data)[0] == value:
            found.append((info, data))
    return found


def _string(value: str | bytes, random: Random) -> bytes:
    major = 3 if isinstance(value, str) else 2
    if random.random() < 0.5:
        data = value.encode() if isinstance(value, str) else value
        return _head(major, len(data), random) + data
    made, rest = bytes([major << 5 | 31]), value
    while rest or random.random() < 0.2:
        # A chunk of a text holds whole characters (RFC 8949, 3.2.3); it may be empty.
        size = random.randint(0, len(rest))
        chunk, rest = rest[:size], rest[size:]
        data = chunk.encode() if isinstance(chunk, str) else chunk
        made += _head(major, len(data), random) + data
    return made + _BREAK
