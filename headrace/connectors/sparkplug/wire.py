"""Protocol Buffers on the wire, as far as Sparkplug B needs them: splits a message into its fields, and writes some."""

from collections.abc import Iterator

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
#: A varint has at most so many bytes (Protocol Buffers Encoding, Base 128 Varints).
LONGEST_VARINT = 10
_WIDTHS = {FIXED64: 8, FIXED32: 4}
_64_BITS = 0xFFFF_FFFF_FFFF_FFFF


class BadPayload(ValueError):
    """Bytes that are no Sparkplug B payload; the text says why."""


def fields(data: bytes, start: int, stop: int) -> Iterator[tuple[int, int, int, int]]:
    """The fields of the message at `data[start:stop]`: number, wire type, and two numbers more.

    These are the value and 0 of a varint, and first and last place of what has a length. Nothing is copied, and nothing
    goes deeper: what is inside of a field is for the caller to ask. About 0.4 µs per field.

    Raises:
        BadPayload: it is no message.
    """
    place = start
    while place < stop:
        key = data[place]
        place += 1
        if key & 0x80:
            key, place = _varint(data, place - 1, stop)
        if key < 8:
            raise BadPayload("a field has the number 0, which Protocol Buffers forbid")
        kind = key & 7
        if kind in (VARINT, BYTES):
            if place < stop and data[place] < 0x80:
                length = data[place]
                place += 1
            else:
                length, place = _varint(data, place, stop)
            if kind == VARINT:
                yield key >> 3, kind, length, 0
                continue
        elif kind in _WIDTHS:
            length = _WIDTHS[kind]
        else:
            raise BadPayload(f"wire type {kind} is none of Protocol Buffers 3")
        end = place + length
        if end > stop:
            raise BadPayload("a field is longer than what is around it")
        yield key >> 3, kind, place, end
        place = end


def _varint(data: bytes, place: int, stop: int) -> tuple[int, int]:
    """The number at `place`, and the place behind it."""
    value = shift = 0
    for here in range(place, min(place + LONGEST_VARINT, stop)):
        byte = data[here]
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & _64_BITS, here + 1
        shift += 7
    raise BadPayload("a number has no end")


def varint_field(number: int, value: int) -> bytes:
    """A field of kind varint."""
    return _written(number << 3 | VARINT) + _written(value)


def bytes_field(number: int, value: bytes) -> bytes:
    """A field with a length: bytes, text, or a message."""
    return _written(number << 3 | BYTES) + _written(len(value)) + value


def _written(value: int) -> bytes:
    found = bytearray()
    while value >= 0x80:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    found.append(value)
    return bytes(found)
