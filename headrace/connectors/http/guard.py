"""What stands before requests: how many connections there are, and how long a client may take over a head or an answer.

aiohttp parses and keeps connections; of these limits it has none of its own.
"""

import asyncio
from http import HTTPStatus
from typing import Any

import structlog
from aiohttp import web

from headrace.connectors.http.problem import HttpProblem
from headrace.connectors.http.settings import HttpSettings
from headrace.engine.clock import Clock

log = structlog.get_logger(__name__)

#: A request line with its headers may have this many bytes in all; each line half of it.
MAX_HEAD_BYTES = 16 << 10
#: Seconds that a client gets to read an answer to a body that nobody read.
LINGER = 2.0
#: Seconds that answers on their way get when everything ends.
END_TIMEOUT = 0.1
#: Seconds between two looks at the connections.
TICK = 0.5

FULL = HttpProblem(HTTPStatus.SERVICE_UNAVAILABLE, "busy", "there are too many connections; try again later").raw()
SLOW = HttpProblem(HTTPStatus.REQUEST_TIMEOUT, "too-slow", "the head of the request took too long").raw()
LONG = HttpProblem(
    HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, "head-too-large", f"a head has {MAX_HEAD_BYTES} bytes at most"
).raw()


class Guard(web.Server):
    """Makes the protocols of connections, and looks after them.

    Args:
        handler: answers a request; raises nothing but what aiohttp says that a client is gone with.
        settings: limits.
        clock: for the time.
        connections: at a time; more get a 503 at once.
    """

    def __init__(self, handler: Any, settings: HttpSettings, clock: Clock, connections: int) -> None:
        super().__init__(
            handler,
            auto_decompress=False,
            keepalive_timeout=settings.keep_alive,
            max_line_size=MAX_HEAD_BYTES // 2,
            max_field_size=MAX_HEAD_BYTES // 2,
            max_headers=64,
            lingering_time=LINGER,
            access_log=None,
        )
        self.settings = settings
        self._clock = clock
        self._most = connections
        self._options = dict(self._kwargs)
        #: The clock's seconds, as of the last tick.
        self.now = clock.monotonic()
        self.open: dict[GuardedConnection, None] = {}
        self.refused = 0
        self.stopping = False

    def __call__(self) -> "GuardedConnection":
        """A protocol for a new connection."""
        return GuardedConnection(self, self._options)

    def admit(self, connection: "GuardedConnection") -> bool:
        """Whether there is room for one more."""
        if self.stopping or len(self.open) >= self._most:
            self.refused += 1
            return False
        self.open[connection] = None
        return True

    async def watch(self) -> None:
        """End connections whose clients take too long. Until cancelled."""
        while True:
            await self._clock.sleep(TICK)
            self.now = self._clock.monotonic()
            for connection in list(self.open):
                connection.check(self.now)

    async def end(self) -> None:
        """Close every connection, and leave what is in hand."""
        self.stopping = True
        await self.shutdown(END_TIMEOUT)
        for connection in list(self.open):
            connection.abort()


class GuardedConnection(web.RequestHandler):
    """One connection.

    Where it is follows from two counts: a request is in hand while more have begun than were answered.
    """

    __slots__ = ("_answered", "_deadline", "_gone", "_guard", "_head_bytes", "_leaving")

    def __init__(self, guard: Guard, options: dict[str, Any]) -> None:
        super().__init__(guard, loop=asyncio.get_running_loop(), **options)
        self._guard = guard
        self._answered = self._head_bytes = 0
        self._deadline: float | None = None
        # Its last answer is on its way; given up, what comes is not even parsed.
        self._leaving = self._gone = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See `asyncio.Protocol`."""
        assert isinstance(transport, asyncio.Transport)
        if not self._guard.admit(self):
            transport.write(FULL)
            transport.close()
            return
        self._deadline = self._guard.now + self._guard.settings.head_timeout
        super().connection_made(transport)

    def connection_lost(self, exc: BaseException | None) -> None:
        """See `asyncio.Protocol`."""
        self._guard.open.pop(self, None)
        super().connection_lost(exc)

    def has_request(self) -> bool:
        """Whether a request has begun that is not answered."""
        return self._request_count > self._answered

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`."""
        if self._gone:
            return
        if self.has_request() or self._leaving:
            super().data_received(data)
            return
        if not self._head_bytes:
            self._deadline = self._guard.now + self._guard.settings.head_timeout
        self._head_bytes += len(data)
        super().data_received(data)
        if self.has_request():
            self._deadline = None
        elif self._head_bytes > MAX_HEAD_BYTES:
            self._leave(LONG)

    async def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        """Send an answer; see aiohttp."""
        self._deadline = self._guard.now + self._guard.settings.answer_timeout
        try:
            return await super().finish_response(request, resp, start_time)
        finally:
            self._answered += 1
            self._head_bytes = 0
            self._leaving = not resp.keep_alive
            self._deadline = self._guard.now + 2 * LINGER if self._leaving else None

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """The answer to what is no HTTP; see aiohttp."""
        if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            if isinstance(exc, ConnectionError):
                log.debug("http_client_gone")
            else:
                log.error("http_failed", exc_info=exc)
            problem = HttpProblem(HTTPStatus.INTERNAL_SERVER_ERROR, "failed", "this is a fault of the server")
        elif type(exc).__name__ == "LineTooLong":
            problem = HttpProblem(
                HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, "head-too-large", "a line of the head is too long"
            )
        else:
            said = (message or "").splitlines() or ["it is not HTTP"]
            problem = HttpProblem(HTTPStatus.BAD_REQUEST, "bad-request", f"the request cannot be read: {said[0][:200]}")
        response = problem.response()
        response.force_close()
        return response

    def check(self, now: float) -> None:
        """End it if the client takes too long."""
        if self._deadline is None or now <= self._deadline:
            return
        self._guard.refused += 1
        if self.has_request() or self._leaving:
            self.abort()
        else:
            self._leave(SLOW if self._head_bytes else b"")

    def abort(self) -> None:
        """Drop it."""
        if isinstance(self.transport, asyncio.Transport):
            self.transport.abort()

    def _leave(self, last_words: bytes) -> None:
        """End it with these words. Closed at once, what the client still sends would undo them."""
        if not isinstance(self.transport, asyncio.Transport):
            return
        self._leaving = self._gone = True
        self._deadline = self._guard.now + LINGER
        self.transport.write(last_words)
        if not last_words or not self.transport.can_write_eof():
            self.force_close()
        else:
            self.transport.write_eof()
