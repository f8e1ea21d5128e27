"""A small HTTP server on a thread of its own: it answers while everything else in the process is busy."""

import asyncio
import contextlib
import socket
import threading
from collections.abc import Callable
from http import HTTPStatus
from typing import NamedTuple

import structlog

#: A request line with its headers may have this many bytes.
MAX_HEAD_BYTES = 8192
#: Seconds that a request and its answer may take together.
PATIENCE = 5.0
#: Connections at a time; more are closed at once.
MAX_CLIENTS = 32
#: Seconds that a client gets to close its side, so that what it still sends does not undo the answer.
LINGER = 0.5

logger = structlog.get_logger(__name__)


class Answer(NamedTuple):
    """An HTTP response."""

    status: HTTPStatus
    body: bytes
    content_type: str = "text/plain; charset=utf-8"


class HttpThread:
    """Listens from its making to `stop`. One request per connection, without a body.

    Args:
        host, port: where to listen; port 0 is any free one.
        answer: the response to a method and a path; called on the thread, one call at a time.
        patience: seconds that a request and its answer may take together.
    Raises:
        OSError: the address cannot be listened on.
    """

    def __init__(
        self, host: str, port: int, answer: Callable[[str, str], Answer], *, patience: float = PATIENCE
    ) -> None:
        self._answer = answer
        self._patience = patience
        self._writers: set[asyncio.StreamWriter] = set()
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        self._socket = socket.create_server(address[:2], family=family)
        #: The port that it listens on.
        self.port: int = self._socket.getsockname()[1]
        self._loop = asyncio.new_event_loop()
        self._stop = asyncio.Event()
        self._thread = threading.Thread(target=self._run, name="headrace-http", daemon=True)
        self._thread.start()

    @property
    def clients(self) -> int:
        """Open connections, count."""
        return len(self._writers)

    def stop(self) -> None:
        """Stop listening, close what is open, end the thread."""
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._serve())

    async def _serve(self) -> None:
        server = await asyncio.start_server(self._client, sock=self._socket, limit=MAX_HEAD_BYTES)
        await self._stop.wait()
        server.close()
        # Not cancelled: a connection that is only just being taken would stay open, with nobody to close it.
        while others := asyncio.all_tasks() - {asyncio.current_task()}:
            for writer in self._writers:
                writer.transport.abort()
            await asyncio.wait(others, timeout=0.01)

    async def _client(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            if self.clients <= MAX_CLIENTS:
                with contextlib.suppress(OSError, TimeoutError):
                    async with asyncio.timeout(self._patience):
                        await self._talk(reader, writer)
        finally:
            self._writers.discard(writer)
            writer.transport.abort()

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        method = ""
        try:
            method, path = _parse(await reader.readuntil(b"\r\n\r\n"))
        except asyncio.IncompleteReadError:
            return  # gone before it asked
        except asyncio.LimitOverrunError:
            answer = Answer(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, b"")
        except ValueError:
            answer = Answer(HTTPStatus.BAD_REQUEST, b"not HTTP/1\n")
        else:
            answer = self._ask(method, path)
        writer.write(_head(answer) + (b"" if method == "HEAD" else answer.body))
        await writer.drain()
        writer.write_eof()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LINGER):
                while await reader.read(MAX_HEAD_BYTES):
                    pass

    def _ask(self, method: str, path: str) -> Answer:
        try:
            return self._answer(method, path)
        except Exception:
            logger.exception("http_failed", path=path)
            return Answer(HTTPStatus.INTERNAL_SERVER_ERROR, b"see the log\n")


def _parse(head: bytes) -> tuple[str, str]:
    """Method and path of a request.

    Raises:
        ValueError: it is none.
    """
    method, target, version = head.split(b"\r\n", 1)[0].decode("ascii").split(" ")
    if not version.startswith("HTTP/1."):
        raise ValueError(version)
    return method, target.partition("?")[0]


def _head(answer: Answer) -> bytes:
    lines = [
        f"HTTP/1.1 {answer.status.value} {answer.status.phrase}",
        f"Content-Type: {answer.content_type}",
        f"Content-Length: {len(answer.body)}",
        "Cache-Control: no-store",
        "X-Content-Type-Options: nosniff",
        "Connection: close",
    ]
    if answer.status == HTTPStatus.METHOD_NOT_ALLOWED:
        lines.append("Allow: GET, HEAD")
    return "\r\n".join([*lines, "", ""]).encode()
