"""Keys of tables: texts and integers in a row. JSON in changelogs, where people read them; in order in stores."""

import orjson

#: A key, part by part.
Key = tuple[str | int, ...]

#: First byte of a part. Any part sorts before 0xff, which `END` relies on.
_INTEGER, _TEXT = 1, 2
_SIGN = 1 << 63
#: Behind `ordered(key)`: sorts after every key that begins with `key`.
END = b"\xff"


def encode_key(key: Key) -> bytes:
    """A key as a JSON array."""
    return orjson.dumps(key)


def decode_key(encoded: bytes) -> Key:
    """The key of an entry in a changelog.

    Raises:
        ValueError: it is none.
    """
    parts = orjson.loads(encoded)
    if not isinstance(parts, list) or not all(type(part) in (str, int) for part in parts):
        raise ValueError(f"key {encoded!r} is no array of texts and integers")
    return tuple(parts)


def ordered(key: Key) -> bytes:
    """Bytes that sort as keys do: part by part, integers by value, texts by code point, shorter keys first.

    Source: the tuple layer of FoundationDB, with eight bytes for every integer.

    >>> ordered(("hall",)) < ordered(("hall", -2)) < ordered(("hall", 3)) < ordered(("hallway",))
    True
    """
    parts = bytearray()
    for part in key:
        if isinstance(part, str):
            # A zero inside is followed by 0xff, the one at the end by less than that.
            parts += b"%c%b\0" % (_TEXT, part.encode().replace(b"\0", b"\0\xff"))
        else:
            parts += b"%c%b" % (_INTEGER, (part + _SIGN).to_bytes(8))
    return bytes(parts)


def from_ordered(encoded: bytes) -> Key:
    """The key that `ordered` made these bytes of."""
    parts: list[str | int] = []
    at = 0
    while at < len(encoded):
        if encoded[at] == _INTEGER:
            parts.append(int.from_bytes(encoded[at + 1 : at + 9]) - _SIGN)
            at += 9
        else:
            end = encoded.index(b"\0", at)
            while encoded[end + 1 : end + 2] == END:
                end = encoded.index(b"\0", end + 1)
            parts.append(encoded[at + 1 : end].replace(b"\0\xff", b"\0").decode())
            at = end + 1
    return tuple(parts)


def within(key: Key, first: Key | None, last: Key | None) -> bool:
    """Whether a key is between two others, both included; a shorter one stands for all that begin with it."""
    return (first is None or key >= first) and (last is None or key[: len(last)] <= last)
