"""The part of CBOR (RFC 8949) that SenML uses: numbers, texts, bytes, true, false, arrays, maps, decimal fractions.

Nothing else is decoded: general libraries also build regular expressions, mails, dates and references out of tags,
which is no work to do for whoever can publish a message.
"""

import struct
from math import isfinite
from typing import Any

#: How deep arrays and maps may nest; SenML needs three.
MAX_DEPTH = 8
#: Values in one message, labels and pieces of strings included: a byte can be one, and each costs fifty times that. A
#: tenth of a second.
MAX_VALUES = 100_000
_INDEFINITE = 31
_DECIMAL_FRACTION, _SELF_DESCRIBED = 4, 55_799
#: Powers of ten that a double can tell from 0 and infinity.
_EXPONENTS = range(-400, 401)
_SIMPLE = {20: False, 21: True, 22: None, 23: None}
_FLOATS = {25: (">e", 2), 26: (">f", 4), 27: (">d", 8)}
_BREAK = object()


class CborError(ValueError):
    """Bytes that are not CBOR, or CBOR that SenML does not use."""


def decode_cbor(data: bytes) -> Any:
    """The one value in `data`. Time and memory are bounded by its size.

    Raises:
        CborError: says what is wrong, and at which byte.

    >>> decode_cbor(bytes.fromhex("81a10205"))
    [{2: 5}]
    """
    reader = _Reader(data)
    value = reader.value(0)
    if reader.place != len(data):
        raise CborError(f"{len(data) - reader.place} bytes too many behind the end, at byte {reader.place}")
    return value


class _Reader:
    def __init__(self, data: bytes) -> None:
        self._data = data
        self._values = 0
        self.place = 0

    def value(self, depth: int, *, may_end: bool = False) -> Any:
        """The next value; `_BREAK` where one of an indefinite array or map may end."""
        if depth > MAX_DEPTH:
            raise CborError(f"it nests deeper than {MAX_DEPTH} levels")
        self._count_one()
        first = self._take(1)[0]
        major, info = first >> 5, first & 31
        if major == 7:
            return _BREAK if info == _INDEFINITE and may_end else self._simple(info)
        count = self._count(major, info)
        if major < 2:
            return _known(count) if major == 0 else -1 - _known(count)
        if major < 4:
            return self._string(major, count)
        inner = {4: self._array, 5: self._map, 6: self._tagged}[major]
        return inner(count, depth)

    def _count_one(self) -> None:
        self._values += 1
        if self._values > MAX_VALUES:
            raise CborError(f"it holds more than {MAX_VALUES} values")

    def _take(self, size: int) -> bytes:
        taken = self._data[self.place : self.place + size]
        if len(taken) < size:
            raise CborError(f"it ends in the middle, at byte {len(self._data)}")
        self.place += size
        return taken

    def _count(self, major: int, info: int) -> int | None:
        """The number in the first bytes; None for an indefinite length."""
        if info < 24:
            return info
        if info < 28:
            return int.from_bytes(self._take(1 << info - 24))
        if info == _INDEFINITE and major in (2, 3, 4, 5):
            return None
        raise CborError(f"byte {self.place - 1} begins nothing")

    def _simple(self, info: int) -> Any:
        if info in _SIMPLE:
            return _SIMPLE[info]
        if info in _FLOATS:
            form, size = _FLOATS[info]
            return struct.unpack(form, self._take(size))[0]
        raise CborError(f"byte {self.place - 1} begins nothing that SenML has")

    def _string(self, major: int, count: int | None) -> str | bytes:
        parts = [self._take(count)] if count is not None else list(self._chunks(major))
        if major == 2:
            return b"".join(parts)
        try:
            return "".join(part.decode() for part in parts)
        except UnicodeDecodeError as error:
            raise CborError(f"a text before byte {self.place} is not UTF-8") from error

    def _chunks(self, major: int) -> list[bytes]:
        found = []
        while (first := self._take(1)[0]) != 0xFF:
            if first >> 5 != major:
                raise CborError(f"byte {self.place - 1} is no part of a string")
            self._count_one()
            found.append(self._take(_known(self._count(major, first & 31))))
        return found

    def _array(self, count: int | None, depth: int) -> list[Any]:
        self._check(count, 1)
        found: list[Any] = []
        while count is None or len(found) < count:
            value = self.value(depth + 1, may_end=count is None)
            if value is _BREAK:
                break
            found.append(value)
        return found

    def _map(self, count: int | None, depth: int) -> dict[int | str, Any]:
        self._check(count, 2)
        found: dict[int | str, Any] = {}
        while count is None or len(found) < count:
            key = self.value(depth + 1, may_end=count is None)
            if key is _BREAK:
                break
            if type(key) not in (int, str):
                raise CborError(f"a label before byte {self.place} is neither a number nor a text")
            if key in found:
                raise CborError(f"label {str(key)[:64]!r} is there twice")
            found[key] = self.value(depth + 1)
        return found

    def _check(self, count: int | None, each: int) -> None:
        """Believe no length that the bytes that are left cannot hold."""
        if count is not None and count * each > len(self._data) - self.place:
            raise CborError(f"it ends in the middle, at byte {len(self._data)}")

    def _tagged(self, tag: int | None, depth: int) -> Any:
        value = self.value(depth + 1)
        if tag == _SELF_DESCRIBED and depth == 0:
            return value
        if tag != _DECIMAL_FRACTION:
            raise CborError(f"tag {tag} is none that SenML has")
        if not (isinstance(value, list) and [type(each) for each in value] == [int, int]):
            raise CborError("a decimal fraction is not two whole numbers")
        exponent, mantissa = value
        if exponent not in _EXPONENTS:
            raise CborError(f"a decimal fraction has the exponent {exponent}")
        number = float(f"{mantissa}e{exponent}")
        if not isfinite(number):
            raise CborError("a decimal fraction is too large a number")
        return number


def _known(count: int | None) -> int:
    if count is None:
        raise CborError("a length is missing")
    return count
