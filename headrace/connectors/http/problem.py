"""Errors as HTTP clients get them: RFC 9457, application/problem+json."""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, Literal

import orjson
from aiohttp import web

MEDIA_TYPE = "application/problem+json"
#: What is wrong, for programs: the end of a problem's `type`.
Kind = Literal[
    "bad-request",
    "busy",
    "cannot-expect",
    "conflict",
    "failed",
    "forbidden",
    "head-too-large",
    "invalid-message",
    "key-reused",
    "not-allowed",
    "not-found",
    "not-json",
    "refused",
    "too-large",
    "too-slow",
    "unauthorized",
    "unavailable",
    "unsupported-encoding",
    "unsupported-media-type",
]
PREFIX = "urn:headrace:problem:"
#: Seconds after which a client that was told to come later should try again.
RETRY_AFTER = 1


class HttpProblem(Exception):
    """A request that is not carried out.

    Args:
        status: of the answer.
        kind: for programs.
        detail: for people: what happened and what to do.
        headers: of the answer, beside the usual.
        more: members of the document beside the usual.
    """

    def __init__(
        self,
        status: HTTPStatus,
        kind: Kind,
        detail: str,
        *,
        headers: Mapping[str, str] | None = None,
        **more: Any,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.kind = kind
        self.headers = dict(headers or {})
        if status in (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE):
            self.headers.setdefault("Retry-After", str(RETRY_AFTER))
        self._more = more

    def body(self) -> bytes:
        """The document."""
        document = {"type": PREFIX + self.kind, "title": self.status.phrase, "status": int(self.status)}
        return orjson.dumps(document | {"detail": str(self).encode(errors="replace").decode()} | self._more)

    def response(self) -> web.Response:
        """The answer."""
        return web.Response(status=self.status, body=self.body(), headers=self.headers, content_type=MEDIA_TYPE)

    def raw(self) -> bytes:
        """The whole answer as it goes over a connection that ends with it."""
        body = self.body()
        head = [f"HTTP/1.1 {int(self.status)} {self.status.phrase}", f"Content-Type: {MEDIA_TYPE}"]
        head += [f"Content-Length: {len(body)}", "Connection: close"]
        head += [f"{name}: {value}" for name, value in self.headers.items()]
        return "\r\n".join(head).encode() + b"\r\n\r\n" + body
