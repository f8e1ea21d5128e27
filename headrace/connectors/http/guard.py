"""What stands before requests: how many connections there are, and how long a client may take over a head or an answer.

aiohttp parses and keeps connections; of these limits it has none of its own.
"""

import asyncio
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from typing import Any

import structlog
from aiohttp import StreamReader, web

from headrace.connectors.http.problem import HttpProblem
from headrace.connectors.http.settings import HttpSettings
from headrace.engine.cancel import cancel_and_wait
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
#: Bytes read from a connection at a time: so much of what nobody has asked for may be in memory twice per connection.
READ_BYTES = 16 << 10
#: Likewise of large bodies that are being read, and of how many: a busy server gets to each connection once in a while.
WIDE_BYTES, MOST_WIDE = 256 << 10, 32
#: Seconds that a client has the connection to itself, whoever else wants one.
OWN_TIME = 1.0

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
        connections: at a time. For one more the client is hung up on that has let its connection wait for longest, of
            those that did so for `OWN_TIME`; where there is none the new one gets a 503.
        tls: how TLS is spoken; None for none.
    """

    def __init__(
        self,
        handler: Any,
        settings: HttpSettings,
        clock: Clock,
        connections: int,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        super().__init__(
            handler,
            auto_decompress=False,
            keepalive_timeout=settings.keep_alive,
            max_line_size=MAX_HEAD_BYTES // 2,
            max_field_size=MAX_HEAD_BYTES // 2,
            max_headers=64,
            lingering_time=LINGER,
            read_bufsize=READ_BYTES,
            access_log=None,
        )
        self.settings = settings
        self._clock = clock
        self._most = connections
        self._tls = tls
        # The newest of those that are being read last.
        self._wide: dict[GuardedConnection, None] = {}
        self._handshakes: set[asyncio.Task[None]] = set()
        self._options = dict(self._kwargs)
        #: The clock's seconds, as of the last tick.
        self.now = clock.monotonic()
        #: Those that have waited for their clients for longest come first.
        self.open: dict[GuardedConnection, None] = {}
        self.refused = 0
        self.stopping = False

    def __call__(self) -> asyncio.Protocol:  # type: ignore[override]
        """A protocol for a new connection."""
        connection = GuardedConnection(self, self._options)
        return connection if self._tls is None else _Door(self, connection)

    def admit(self, connection: "GuardedConnection") -> bool:
        """Whether there is room for one more."""
        if self.stopping or (len(self.open) >= self._most and not self._make_room()):
            self.refused += 1
            return False
        self.open[connection] = None
        connection.since = self.now
        return True

    def answered(self, connection: "GuardedConnection") -> None:
        """From now on it waits for its client."""
        if connection in self.open:
            del self.open[connection]
            self.open[connection] = None
            connection.since = self.now

    def widen(self, connection: "GuardedConnection") -> None:
        """Read much at a time from this one; of too many, little again from that which did so for longest."""
        connection.read_by(WIDE_BYTES)
        self._wide[connection] = None
        if len(self._wide) > MOST_WIDE:
            self.narrow(next(iter(self._wide)))

    def narrow(self, connection: "GuardedConnection") -> None:
        """Read little at a time from this one."""
        if connection in self._wide:
            del self._wide[connection]
            connection.read_by(READ_BYTES)

    def shake(self, connection: "GuardedConnection", transport: asyncio.Transport) -> None:
        """Begin TLS; the connection begins when that is there."""
        task = asyncio.create_task(self._shake(connection, transport))
        self._handshakes.add(task)
        task.add_done_callback(self._handshakes.discard)

    async def _shake(self, connection: "GuardedConnection", transport: asyncio.Transport) -> None:
        assert self._tls is not None
        loop, timeout = asyncio.get_running_loop(), self.settings.head_timeout
        try:
            spoken = await loop.start_tls(
                transport, connection, self._tls, server_side=True, ssl_handshake_timeout=timeout
            )
        except OSError as error:
            log.debug("http_no_tls", reason=str(error))
            spoken = None
        except BaseException:
            self.open.pop(connection, None)
            raise
        if spoken is None or transport.is_closing():
            self.open.pop(connection, None)
            self.refused += 1
            transport.abort()
            return
        connection.connection_made(spoken)

    def _make_room(self) -> bool:
        for connection in self.open:
            if self.now - connection.since < OWN_TIME:
                return False
            if connection.waits_for_client():
                del self.open[connection]
                self.refused += 1
                connection.abort()
                return True
        return False

    async def watch(self) -> None:
        """End connections whose clients take too long. Until cancelled."""
        while True:
            await self._clock.sleep(TICK)
            before, self.now = self.now, self._clock.monotonic()
            for connection in list(self.open):
                # What came since the tick before bears its time; this one may be late, if the process stood still.
                connection.check(before)

    async def end(self) -> None:
        """Close every connection, and leave what is in hand."""
        self.stopping = True
        await cancel_and_wait(*self._handshakes)
        await self.shutdown(END_TIMEOUT)
        for connection in list(self.open):
            connection.abort()


class _Door(asyncio.Protocol):
    """A connection before TLS: it counts from the moment that it is accepted."""

    def __init__(self, guard: Guard, connection: "GuardedConnection") -> None:
        self._guard = guard
        self._connection = connection

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        if not self._guard.admit(self._connection):
            transport.abort()  # no word could be read before TLS
            return
        transport.pause_reading()
        self._connection.below = transport
        self._guard.shake(self._connection, transport)


class GuardedConnection(web.RequestHandler):
    """One connection.

    Where it is follows from two counts: a request is in hand while more have begun than were answered.
    """

    __slots__ = (
        "_answered",
        "_body",
        "_deadline",
        "_early",
        "_ended",
        "_gone",
        "_guard",
        "_head_bytes",
        "_leaving",
        "below",
        "since",
    )

    def __init__(self, guard: Guard, options: dict[str, Any]) -> None:
        super().__init__(guard, loop=asyncio.get_running_loop(), **options)
        self._guard = guard
        self._answered = self._head_bytes = 0
        self._deadline: float | None = None
        # Its last answer is on its way; given up, what comes is not even parsed.
        self._leaving = self._gone = False
        # Of the last request that has begun.
        self._body: StreamReader | None = None
        # The client has said that it sends no more.
        self._ended = False
        # Came in the moment between the end of the TLS handshake and the beginning of the connection.
        self._early: list[bytes] = []
        #: The transport below TLS, where there is TLS.
        self.below: asyncio.Transport | None = None
        #: Since when it waits for its client, unless a request is in hand; by `Guard.now`.
        self.since = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See `asyncio.Protocol`."""
        assert isinstance(transport, asyncio.Transport)
        if self._gone:
            return
        if self.below is None and not self._guard.admit(self):
            self._gone = True
            transport.write(FULL)
            transport.close()
            return
        # asyncio reads 256 KiB, so that many clients at once could fill the memory.
        set_read_size(transport, READ_BYTES)
        self._deadline = self._guard.now + self._guard.settings.head_timeout
        super().connection_made(transport)
        for data in self._early:
            self.data_received(data)
        self._early.clear()

    def connection_lost(self, exc: BaseException | None) -> None:
        """See `asyncio.Protocol`."""
        self._gone = True
        self._guard.open.pop(self, None)
        super().connection_lost(exc)

    @contextmanager
    def reading_much(self) -> Iterator[None]:
        """While a large body comes."""
        self._guard.widen(self)
        try:
            yield
        finally:
            self._guard.narrow(self)

    def read_by(self, size: int) -> None:
        """Read so many bytes at a time."""
        set_read_size(self.transport, size)
        if size > READ_BYTES and self._current_request is not None:
            self._current_request.content.set_read_chunk_size(size)

    def has_request(self) -> bool:
        """Whether a request has begun that is not answered."""
        return self._request_count > self._answered

    def waits_for_client(self) -> bool:
        """Whether its client has to go on: with TLS, a head or a body."""
        if not self.has_request() or self._body is None:
            return True
        return not (self._body if self._current_request is None else self._current_request.content).is_eof()

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`."""
        if self._gone:
            return
        if self.transport is None and not self._force_close:
            self._early.append(data)
            return
        if not data or self.has_request() or self._leaving:
            self._parse(data)
            if data and not self.waits_for_client():
                # It sends more requests before this one is answered: they wait in the kernel, not here.
                self._pause_reading_for_buffer()
            return
        if not self._head_bytes:
            self._deadline = self._guard.now + self._guard.settings.head_timeout
        self._head_bytes += len(data)
        self._parse(data)
        if self.has_request():
            self._deadline = None
        elif self._head_bytes > MAX_HEAD_BYTES:
            self._leave(LONG)

    def _parse(self, data: bytes) -> None:
        super().data_received(data)
        if self._messages:
            self._body = self._messages[-1][1]

    def eof_received(self) -> bool | None:  # type: ignore[override]
        """See `asyncio.Protocol`. Whoever has sent a request and closes its own side still gets the answer."""
        if self._gone or not self.has_request():
            return None
        if self._body is not None and not self._body.is_eof():
            self._body.set_exception(web.RequestPayloadError("the client closed the connection before its end"))
            self._body.feed_eof()
        self._ended = True
        return self.below is None  # TLS knows no half of a connection

    async def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        """Send an answer; see aiohttp."""
        self._deadline = self._guard.now + self._guard.settings.answer_timeout
        try:
            return await super().finish_response(request, resp, start_time)
        finally:
            self._answered += 1
            if not self.has_request():
                self._body = None
            self._head_bytes = 0
            self._leaving = not resp.keep_alive
            self._deadline = self._guard.now + 2 * LINGER if self._leaving else None
            if not self.has_request():
                self._guard.answered(self)
                if self._ended:
                    self.close()
            if self._buffer_paused:
                self._resume_reading_if_drained()

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
        transport = self.transport or self.below
        if isinstance(transport, asyncio.Transport):
            transport.abort()

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


def set_read_size(transport: asyncio.BaseTransport | None, size: int) -> None:
    """Bytes read at a time, where that is known: asyncio's own TLS reads 256 KiB whatever is said."""
    if hasattr(transport, "max_size"):
        setattr(transport, "max_size", size)  # noqa: B010  # of asyncio's sockets, and not typed
