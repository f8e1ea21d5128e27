"""JSON of whatever a device may have said."""

import json
from typing import Any

import orjson


def json_bytes(document: Any) -> bytes:
    """The document as JSON; also with numbers of any length, which orjson refuses.

    Raises:
        ValueError: it cannot be written, as it is nested too deep or holds half a character.

    >>> json_bytes({"n": 10**30})
    b'{"n":1000000000000000000000000000000}'
    """
    try:
        return orjson.dumps(document)
    except orjson.JSONEncodeError:
        pass
    try:
        return json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()
    except (TypeError, RecursionError) as error:
        raise ValueError(f"no JSON: {error}") from error
