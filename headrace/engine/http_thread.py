"""A small HTTP server on a thread of its own: it answers while everything else in the process is busy."""

import asyncio
import contextlib
import socket
import threading
from collections.abc import Callable
from functools import partial
from http import HTTPStatus
from typing import NamedTuple

import structlog

#: A request line with its headers may have this many bytes.
MAX_HEAD_BYTES = 8192
#: Seconds that a request and its answer may take together.
PATIENCE = 5.0
#: Connections at a time; more are closed at once.
MAX_CLIENTS = 32
#: Seconds without taking connections when there is no room for another in the process.
PAUSE = 1.0
#: Seconds that a client gets to close its side, so that what it still sends does not undo the answer.
LINGER = 0.5

logger = structlog.get_logger(__name__)


class Answer(NamedTuple):
    """An HTTP response."""

    status: HTTPStatus
    body: bytes
    content_type: str = "text/plain; charset=utf-8"


class HttpThread:
    """Listens from its making to `stop`. One request per connection; a body is not read.

    Plain sockets: asyncio's own server leaks connections that it takes while it closes (3.11).

    Args:
        host, port: where to listen; port 0 is any free one.
        answer: the response to a method and a target (path and query); called on the thread, one call at a time.
        patience: seconds that a request and its answer may take together.
    Raises:
        OSError: the address cannot be listened on.
    """

    def __init__(
        self, host: str, port: int, answer: Callable[[str, str], Answer], *, patience: float = PATIENCE
    ) -> None:
        self._answer = answer
        self._patience = patience
        self._clients: set[asyncio.Task[None]] = set()
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        self._socket = socket.create_server(address[:2], family=family)
        self._socket.setblocking(False)
        #: The port that it listens on.
        self.port: int = self._socket.getsockname()[1]
        self._loop = asyncio.new_event_loop()
        self._stop = asyncio.Event()
        self._thread = threading.Thread(target=self._run, name="headrace-http", daemon=True)
        self._thread.start()

    @property
    def clients(self) -> int:
        """Open connections, count."""
        return len(self._clients)

    def stop(self) -> None:
        """Stop listening, close what is open, end the thread."""
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._serve())

    async def _serve(self) -> None:
        async with asyncio.TaskGroup() as group:
            self._loop.add_reader(self._socket, self._accept, group)
            await self._stop.wait()
            self._loop.remove_reader(self._socket)
            self._socket.close()
            for client in self._clients:
                client.cancel()

    def _accept(self, group: asyncio.TaskGroup) -> None:
        try:
            connection, _ = self._socket.accept()
        except (BlockingIOError, ConnectionError):
            return  # gone again
        except OSError as error:  # no file descriptors left: it would be called again and again
            logger.warning("http_pauses", error=str(error))
            self._loop.remove_reader(self._socket)
            self._loop.call_later(PAUSE, self._resume, group)
            return
        if len(self._clients) >= MAX_CLIENTS:
            connection.close()
            return
        client = group.create_task(self._serve_client(connection))
        self._clients.add(client)
        client.add_done_callback(partial(self._end, connection))

    def _end(self, connection: socket.socket, client: asyncio.Task[None]) -> None:
        """Close a connection; not left to its task, which may be cancelled before it begins."""
        connection.close()
        self._clients.discard(client)

    def _resume(self, group: asyncio.TaskGroup) -> None:
        if not self._stop.is_set():
            self._loop.add_reader(self._socket, self._accept, group)

    async def _serve_client(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError, TimeoutError):
            connection.setblocking(False)
            async with asyncio.timeout(self._patience):
                response = await self._respond(connection)
                await self._loop.sock_sendall(connection, response)
                connection.shutdown(socket.SHUT_WR)
                async with asyncio.timeout(LINGER):
                    while await self._loop.sock_recv(connection, MAX_HEAD_BYTES):
                        pass

    async def _respond(self, connection: socket.socket) -> bytes:
        """Read a request; the whole response to it. Empty when there was none."""
        head = b""
        while (end := head.find(b"\r\n\r\n")) < 0 and len(head) <= MAX_HEAD_BYTES:
            part = await self._loop.sock_recv(connection, MAX_HEAD_BYTES)
            if not part:
                return b""
            head += part
        if not 0 <= end <= MAX_HEAD_BYTES:
            return _encode(Answer(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, b""))
        try:
            method, target = _parse(head)
        except ValueError:
            return _encode(Answer(HTTPStatus.BAD_REQUEST, b"not HTTP/1\n"))
        return _encode(self._ask(method, target), with_body=method != "HEAD")

    def _ask(self, method: str, target: str) -> Answer:
        try:
            return self._answer(method, target)
        except Exception:
            logger.exception("http_failed", target=target)
            return Answer(HTTPStatus.INTERNAL_SERVER_ERROR, b"see the log\n")


def _parse(head: bytes) -> tuple[str, str]:
    """Method and target of a request.

    Raises:
        ValueError: it is none.
    """
    method, target, version = head.split(b"\r\n", 1)[0].decode("ascii").split(" ")
    if not version.startswith("HTTP/1."):
        raise ValueError(version)
    return method, target


def _encode(answer: Answer, *, with_body: bool = True) -> bytes:
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
    return "\r\n".join([*lines, "", ""]).encode() + (answer.body if with_body else b"")
