"""First stage of ingest: payload bytes to JSON objects. One hostile payload cannot disturb its neighbours."""

from collections.abc import Sequence
from typing import Any

import orjson

Document = dict[str, Any]
#: Why a message is refused, by its place among those looked at. The first reason of a message is kept.
Reasons = dict[int, str]

#: How deep arrays and objects may nest. Deeper than anybody means, shallower than any recursion limit downstream.
MAX_DEPTH = 64
_BACKSLASH = ord("\\")
_ESCAPED_NUL = b"\\u0000"


def decode(payloads: Sequence[bytes | None], max_bytes: int, reasons: Reasons) -> list[Document]:
    """The JSON object in each payload; an empty one where there is none, with the reason in `reasons`.

    Args:
        payloads: as the devices sent them.
        max_bytes: largest payload that is looked at, bytes.
        reasons: gets an entry for each payload that is refused.
    """
    documents = _all_at_once(payloads, max_bytes)
    if documents is None:
        documents = [_decode_one(place, payload, max_bytes, reasons) for place, payload in enumerate(payloads)]
    for place, payload in enumerate(payloads):
        # One byte is found ten times as fast as six, and most payloads have no escape at all.
        if payload and _BACKSLASH in payload and _ESCAPED_NUL in payload and has_nul(documents[place]):
            reasons.setdefault(place, "a text contains the character U+0000, which no database text can hold")
    return documents


def _all_at_once(payloads: Sequence[bytes | None], max_bytes: int) -> list[Document] | None:
    """The objects, or None if any payload is none: then somebody has to look at each."""
    loads = orjson.loads
    try:
        if max(map(len, payloads), default=0) > max_bytes:  # type: ignore[arg-type]
            return None
        documents = [loads(payload) for payload in payloads]  # type: ignore[arg-type]
    except (orjson.JSONDecodeError, TypeError):
        return None
    return documents if set(map(type, documents)) <= {dict} else None


def _decode_one(place: int, payload: bytes | None, max_bytes: int, reasons: Reasons) -> Document:
    if not payload:
        reasons[place] = "payload is empty"
        return {}
    if len(payload) > max_bytes:
        reasons[place] = f"payload has {len(payload)} bytes, more than the {max_bytes} allowed"
        return {}
    try:
        document = orjson.loads(payload)
    except orjson.JSONDecodeError as error:
        reasons[place] = _why_not_json(payload, error)
        return {}
    if type(document) is not dict:
        reasons[place] = f"payload is {kind(document)}, not an object"
        return {}
    return document


def _why_not_json(payload: bytes, error: orjson.JSONDecodeError) -> str:
    try:
        payload.decode()
    except UnicodeDecodeError as invalid:
        return f"payload is not UTF-8: {invalid.reason} at byte {invalid.start}"
    return f"payload is not JSON: {error.msg} at character {error.pos}"


def kind(value: Any) -> str:
    """What a JSON value is, for a person.

    >>> kind(True), kind([1])
    ('a boolean', 'an array')
    """
    names = {dict: "an object", list: "an array", str: "a text", bool: "a boolean", type(None): "null"}
    return names.get(type(value), "a number")


def has_nul(value: Any) -> bool:
    """Whether a text or key anywhere in a JSON value contains U+0000. Needs no recursion."""
    waiting = [value]
    while waiting:
        value = waiting.pop()
        if isinstance(value, str):
            if "\0" in value:
                return True
        elif isinstance(value, dict):
            waiting += value.keys()
            waiting += value.values()
        elif isinstance(value, list):
            waiting += value
    return False


def too_deep(value: Any) -> bool:
    """Whether arrays and objects nest deeper than `MAX_DEPTH` in a JSON value."""
    level = [value]
    for _ in range(MAX_DEPTH + 1):
        level = [
            inner
            for outer in level
            if isinstance(outer, dict | list)
            for inner in (outer.values() if isinstance(outer, dict) else outer)
        ]
        if not level:
            return False
    return True
