"""Reads bodies: bounded in bytes, in what gzip may make of them, and in what all requests hold together."""

import asyncio
import zlib
from collections.abc import Iterator
from http import HTTPStatus

from aiohttp import web

from headrace.connectors.http.guard import GuardedConnection
from headrace.connectors.http.problem import HttpProblem
from headrace.connectors.http.room import Share
from headrace.connectors.http.settings import HttpSettings

#: gzip alone, without zlib's own form.
_GZIP = 31
#: Unpacked at a time, bytes.
_STEP = 256 << 10
#: Bytes that come in a few reads.
_SMALL = 64 << 10


async def read_body(
    request: web.BaseRequest, settings: HttpSettings, share: Share, *, most: int | None = None
) -> bytes:
    """The body, unpacked. What is too large by its own account is refused before a byte of it is read.

    Args:
        most: bytes, packed or not, where that is less than any body may have.
    Raises:
        HttpProblem: it is too large, comes too slowly, is not what it says, or there is no room for it.
        ConnectionError: the client is gone.
    """
    packed = _is_packed(request)
    limit = settings.max_body_bytes if most is None else min(most, settings.max_body_bytes)
    length = request.content_length
    if length is not None and length > limit:
        raise _too_large("body", length, limit)
    share.check(length or 0)
    await _let_come(request)
    unpacked = settings.max_unpacked_bytes if most is None else min(most, settings.max_unpacked_bytes)
    try:
        async with asyncio.timeout(settings.body_timeout) as patience:
            share.begin(lambda: None if patience.expired() else patience.reschedule(0.0))
            unpacking = Unpacking(unpacked) if packed else None
            if length is not None and length <= _SMALL:
                await _read(request, share, limit, unpacking)
            else:
                assert isinstance(request.protocol, GuardedConnection)
                with request.protocol.reading_much():
                    await _read(request, share, limit, unpacking)
            return share.finish()
    except TimeoutError:
        share.check_kept()
        said = f"the body took longer than {settings.body_timeout:g} s"
        raise HttpProblem(HTTPStatus.REQUEST_TIMEOUT, "too-slow", said) from None
    except web.RequestPayloadError as error:
        raise HttpProblem(HTTPStatus.BAD_REQUEST, "bad-request", f"the body cannot be read: {error}") from None


def _is_packed(request: web.BaseRequest) -> bool:
    encoding = request.headers.get("Content-Encoding", "identity").strip().lower()
    if encoding not in ("gzip", "x-gzip", "identity", ""):
        raise HttpProblem(
            HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
            "unsupported-encoding",
            f"Content-Encoding {encoding!r} is not understood; send gzip, or nothing of the kind",
            headers={"Accept-Encoding": "gzip"},
        )
    return encoding.endswith("gzip")


async def _let_come(request: web.BaseRequest) -> None:
    """Tell a client that asks first (RFC 9110, 10.1.1) to go on."""
    expected = request.headers.get("Expect")
    if expected is None:
        return
    if expected.lower() != "100-continue":
        raise HttpProblem(HTTPStatus.EXPECTATION_FAILED, "cannot-expect", "only Expect: 100-continue is understood")
    if request.transport is not None and request.content.total_raw_bytes == 0:
        request.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")


async def _read(request: web.BaseRequest, share: Share, most: int, unpacking: "Unpacking | None") -> None:
    size = 0
    async for part in request.content.iter_any():
        size += len(part)
        if size > most:
            raise _too_large("body", size, most)
        if unpacking is None:
            share.keep(part)
            continue
        for piece in unpacking.feed(part):
            share.keep(piece)
    if unpacking is not None:
        unpacking.finish()


class Unpacking:
    """gzip as it comes: never more of it in memory than it may unpack to.

    Args:
        most: bytes that it may unpack to.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._size = 0
        self._packed = zlib.decompressobj(_GZIP)

    def feed(self, data: bytes) -> Iterator[bytes]:
        """What this makes, piece by piece."""
        while data:
            if self._packed.eof:
                raise _not_gzip("goes on behind the end of its gzip member; send all of it as one member")
            try:
                piece = self._packed.decompress(data, _STEP)
            except zlib.error as error:
                raise _not_gzip(f"is not gzip: {error}") from None
            self._size += len(piece)
            if self._size > self._most:
                raise _too_large("unpacked body", self._size, self._most)
            yield piece
            data = self._packed.unconsumed_tail or self._packed.unused_data

    def finish(self) -> None:
        """Nothing more comes."""
        if not self._packed.eof:
            raise _not_gzip("is gzip without its end")


def _not_gzip(why: str) -> HttpProblem:
    return HttpProblem(HTTPStatus.BAD_REQUEST, "bad-request", f"the body {why}")


def _too_large(what: str, size: int, most: int) -> HttpProblem:
    said = f"{what} of {size} bytes or more; {most} are allowed. Send less at once"
    return HttpProblem(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "too-large", said)
