"""The messages of a batch, each in the bytes in which it was sent."""

from collections.abc import Iterator
from http import HTTPStatus
from io import BytesIO
from itertools import islice

import msgspec

from headrace.connectors.http.problem import HttpProblem

NDJSON = ("application/x-ndjson", "application/ndjson", "application/jsonl")
#: Commas of an array: what it takes in memory before it is known how many messages it has, 64 bytes each. Likewise
#: lines, empty ones too: nothing else runs while they are looked at.
MAX_COMMAS = 300_000
_array = msgspec.json.Decoder(list[msgspec.Raw])


def split(body: bytes, media_type: str, most: int) -> list[bytes]:
    """The messages, without the white space around them.

    Args:
        body: a JSON array, or a JSON value per line where `media_type` says so.
        most: messages.
    Raises:
        HttpProblem: it is no array, or has too many messages.
    """
    lines = media_type in NDJSON
    if not lines and body.count(b",") > MAX_COMMAS:
        raise _too_large(f"an array has {MAX_COMMAS:,} commas at most, those in texts too")
    if lines and body.count(b"\n") > MAX_COMMAS:
        raise _too_large(f"a batch has {MAX_COMMAS:,} lines at most, empty ones too")
    items = list(islice(_lines(body), most + 1)) if lines else _elements(body)
    if len(items) > most:
        raise _too_large(f"a batch has {most} messages at most")
    if not items:
        raise HttpProblem(HTTPStatus.BAD_REQUEST, "invalid-message", "the batch is empty; send one message or more")
    return items


def _lines(body: bytes) -> Iterator[bytes]:
    """One by one: a body of nothing but line ends must not make a list of them."""
    return filter(None, map(bytes.strip, BytesIO(body)))


def _elements(body: bytes) -> list[bytes]:
    try:
        return [bytes(item) for item in _array.decode(body)]
    except msgspec.ValidationError:
        said = "the body is no array; send [{…}, {…}], or a JSON object per line as application/x-ndjson"
        raise HttpProblem(HTTPStatus.BAD_REQUEST, "invalid-message", said) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        what = "is nested too deeply" if isinstance(error, RecursionError) else f"is not JSON: {error}"
        said = f"the body {what}; of an array nothing can be taken then, of lines the others"
        raise HttpProblem(HTTPStatus.BAD_REQUEST, "not-json", said) from None


def _too_large(said: str) -> HttpProblem:
    return HttpProblem(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "too-large", f"{said}; send it in parts")
