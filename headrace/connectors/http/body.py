"""Reads bodies: bounded in bytes, in what gzip may make of them, and in what all requests hold together."""

import asyncio
import zlib
from http import HTTPStatus
from types import TracebackType
from typing import Self

from aiohttp import web

from headrace.connectors.http.problem import HttpProblem
from headrace.connectors.http.settings import HttpSettings

#: gzip alone, without zlib's own form.
_GZIP = 31
#: Unpacked at a time, bytes.
_STEP = 256 << 10


class Room:
    """What requests may hold together.

    Nothing is held for bodies that are still to come, so clients that promise much and send nothing take no room.

    Args:
        requests: with a whole body that are not appended yet; more are refused unread.
        most: bytes of bodies.
    """

    def __init__(self, requests: int, most: int) -> None:
        self._requests = requests
        self._most = most
        self.requests = self.bytes = 0

    def enter(self) -> "Share":
        """For a request that is not read yet.

        Raises:
            HttpProblem: there is no place for it.
        """
        if self.requests >= self._requests:
            raise _busy("requests")
        return Share(self)

    def check(self, size: int) -> None:
        """Look whether there is room for so many bytes more.

        Raises:
            HttpProblem: there is not.
        """
        if self.bytes + size > self._most:
            raise _busy("bytes")


class Share:
    """What one request holds, until the end of the `with`."""

    def __init__(self, room: Room) -> None:
        self._room = room
        self._held = 0
        self._has_place = False

    def check(self, size: int) -> None:
        """See `Room.check`."""
        self._room.check(size)

    def take(self, size: int) -> None:
        """Hold so many bytes more, if there is room; see `Room.check`."""
        self._room.check(size)
        self._room.bytes += size
        self._held += size

    def take_place(self) -> None:
        """All of it is there."""
        self._room.requests += not self._has_place
        self._has_place = True

    def leave_place(self) -> None:
        """Another request may come in its place: what is left to do costs no more than the bytes that are held."""
        self._room.requests -= self._has_place
        self._has_place = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.leave_place()
        self._room.bytes -= self._held


def _busy(what: str) -> HttpProblem:
    return HttpProblem(
        HTTPStatus.TOO_MANY_REQUESTS, "busy", f"too many {what} are on their way into the log; send it again later"
    )


async def read_body(request: web.BaseRequest, settings: HttpSettings, share: Share) -> bytes:
    """The body, unpacked. What is too large by its own account is refused before a byte of it is read.

    Raises:
        HttpProblem: it is too large, comes too slowly, is not what it says, or there is no room for it.
        ConnectionError: the client is gone.
    """
    packed = _is_packed(request)
    length = request.content_length
    if length is not None and length > settings.max_body_bytes:
        raise _too_large("body", length, settings.max_body_bytes)
    share.check(length or 0)
    await _let_come(request)
    try:
        async with asyncio.timeout(settings.body_timeout):
            body = await _read(request, settings, share, packed)
    except TimeoutError:
        said = f"the body took longer than {settings.body_timeout:g} s"
        raise HttpProblem(HTTPStatus.REQUEST_TIMEOUT, "too-slow", said) from None
    except web.RequestPayloadError as error:
        raise HttpProblem(HTTPStatus.BAD_REQUEST, "bad-request", f"the body cannot be read: {error}") from None
    share.take_place()
    return body


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


async def _read(request: web.BaseRequest, settings: HttpSettings, share: Share, packed: bool) -> bytes:
    unpacking = Unpacking(settings.max_unpacked_bytes, share) if packed else None
    parts, size = [], 0
    async for part in request.content.iter_any():
        size += len(part)
        if size > settings.max_body_bytes:
            raise _too_large("body", size, settings.max_body_bytes)
        share.take(len(part))
        parts.append(part if unpacking is None else unpacking.feed(part))
    if unpacking is not None:
        unpacking.finish()
    return b"".join(parts)


class Unpacking:
    """gzip as it comes: never more of it in memory than it may unpack to.

    Args:
        most: bytes that it may unpack to.
        share: holds them.
    """

    def __init__(self, most: int, share: Share) -> None:
        self._most = most
        self._share = share
        self._size = 0
        self._packed = zlib.decompressobj(_GZIP)

    def feed(self, data: bytes) -> bytes:
        """What this makes."""
        parts = []
        while data:
            if self._packed.eof:
                raise _not_gzip("there is more behind its end; send one member")
            try:
                part = self._packed.decompress(data, _STEP)
            except zlib.error as error:
                raise _not_gzip(str(error)) from None
            self._size += len(part)
            if self._size > self._most:
                raise _too_large("unpacked body", self._size, self._most)
            self._share.take(len(part))
            parts.append(part)
            data = self._packed.unconsumed_tail or self._packed.unused_data
        return b"".join(parts)

    def finish(self) -> None:
        """Nothing more comes."""
        if not self._packed.eof:
            raise _not_gzip("its end is missing")


def _not_gzip(why: str) -> HttpProblem:
    return HttpProblem(HTTPStatus.BAD_REQUEST, "bad-request", f"the body is not gzip: {why}")


def _too_large(what: str, size: int, most: int) -> HttpProblem:
    said = f"{what} of {size} bytes or more; {most} are allowed. Send less at once"
    return HttpProblem(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "too-large", said)
