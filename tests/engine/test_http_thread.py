"""The HTTP server of a thread, over real sockets."""

import http.client
import os
import resource
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from http import HTTPStatus

import pytest
import structlog

from headrace.engine.http_thread import MAX_CLIENTS, MAX_HEAD_BYTES, PAUSE, Answer, HttpThread

#: Seconds after which a client of a test gives up: it hangs.
GIVE_UP = 120.0

#: Bytes that no buffer of a connection takes.
LARGE = 16_000_000

Serve = Callable[..., HttpThread]


def hello(method: str, path: str) -> Answer:
    """Says what was asked; /broken raises, /large is larger than any buffer."""
    if path == "/broken":
        raise RuntimeError("broken")
    if path == "/large":
        return Answer(HTTPStatus.OK, b"x" * LARGE)
    return Answer(HTTPStatus.OK, f"{method} {path}".encode())


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Makes servers that are stopped afterwards."""
    with ExitStack() as stack:

        def make(patience: float = GIVE_UP) -> HttpThread:
            server = HttpThread("127.0.0.1", 0, hello, patience=patience)
            stack.callback(server.stop)
            return server

        yield make


def connect(server: HttpThread) -> socket.socket:
    """A connection."""
    return socket.create_connection(("127.0.0.1", server.port), timeout=GIVE_UP)


def rest(client: socket.socket) -> bytes:
    """Everything until the server closes, in whichever way."""
    received = b""
    try:
        while part := client.recv(65_536):
            received += part
    except ConnectionError:
        pass
    return received


def send(server: HttpThread, request: bytes) -> bytes:
    """The whole response to a request."""
    with connect(server) as client:
        client.sendall(request)
        return rest(client)


def status(response: bytes) -> int:
    """The status code of a response."""
    return int(response.split(b" ", 2)[1])


def test_get_and_head(serve: Serve) -> None:
    """HEAD has the headers of GET and no body; the query is part of the target."""
    server = serve()

    got = send(server, b"GET /a?b=c HTTP/1.1\r\nHost: x\r\n\r\n")
    head = send(server, b"HEAD /a HTTP/1.0\r\n\r\n")

    assert got.endswith(b"\r\n\r\nGET /a?b=c")
    assert b"\r\nContent-Length: 10\r\n" in got
    assert b"\r\nConnection: close\r\n" in got
    assert head.endswith(b"\r\n\r\n")
    assert b"\r\nContent-Length: 7\r\n" in head


def test_request_may_come_in_pieces(serve: Serve) -> None:
    """A byte at a time is a request too."""
    with connect(serve()) as client:
        for byte in b"GET /pieces HTTP/1.1\r\nHost: x\r\n\r\n":
            client.sendall(bytes([byte]))

        assert rest(client).endswith(b"GET /pieces")


def test_large_answer_arrives_whole(serve: Serve) -> None:
    """However slowly it is read at first."""
    response = send(serve(), b"GET /large HTTP/1.1\r\n\r\n")

    assert response.partition(b"\r\n\r\n")[2] == b"x" * LARGE


def test_body_is_not_read_and_the_answer_arrives(serve: Serve) -> None:
    """A client that goes on sending gets its answer all the same; a second request in the line does not."""
    body = b"GET /second HTTP/1.1\r\n\r\n" * 1_000

    response = send(serve(), b"POST /a HTTP/1.1\r\nContent-Length: 24000\r\n\r\n" + body)

    assert response.count(b"HTTP/1.1 ") == 1
    assert response.endswith(b"POST /a")


@pytest.mark.parametrize(
    "request_", [b"hello\r\n\r\n", b"GET /a\r\n\r\n", b"GET /a HTTP/2\r\n\r\n", b"\xff\xfe\r\n\r\n", b"\r\n\r\n"]
)
def test_what_is_no_request_is_refused(serve: Serve, request_: bytes) -> None:
    """400 for what is not HTTP/1, TLS and HTTP/2 among them."""
    assert status(send(serve(), request_)) == HTTPStatus.BAD_REQUEST


def test_headers_are_bounded(serve: Serve) -> None:
    """431 for more than a page of them, ended or not."""
    line = b"X-Filler: " + b"x" * 100 + b"\r\n"
    many = b"GET / HTTP/1.1\r\n" + line * (MAX_HEAD_BYTES // len(line) + 1)
    server = serve()

    assert status(send(server, many + b"\r\n")) == HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
    assert status(send(server, many)) == HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE


def test_error_while_answering_is_an_answer(serve: Serve) -> None:
    """500, and the server goes on."""
    server = serve()

    assert status(send(server, b"GET /broken HTTP/1.1\r\n\r\n")) == HTTPStatus.INTERNAL_SERVER_ERROR
    assert status(send(server, b"GET /a HTTP/1.1\r\n\r\n")) == HTTPStatus.OK


def test_silent_client_is_closed(serve: Serve) -> None:
    """Whether it says nothing or half of something."""
    server = serve(patience=0.05)

    assert send(server, b"") == b""
    assert send(server, b"GET / HTT") == b""


def test_client_that_drips_is_closed(serve: Serve) -> None:
    """The whole request has one time limit, however often a byte of it comes."""
    closed = threading.Event()
    with connect(serve(patience=0.1)) as client:

        def wait_closed() -> None:
            rest(client)
            closed.set()

        reading = threading.Thread(target=wait_closed)
        reading.start()
        try:
            while not closed.wait(0.01):
                client.sendall(b"x")
        except ConnectionError:
            pass
        reading.join(GIVE_UP)

    assert closed.is_set()


def test_client_that_does_not_read_is_closed(serve: Serve) -> None:
    """An answer that nobody takes is given up, and the server goes on meanwhile."""
    patient, impatient = serve(), serve(patience=0.1)
    for server in (patient, impatient):
        with socket.socket() as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            client.settimeout(GIVE_UP)
            client.connect(("127.0.0.1", server.port))
            client.sendall(b"GET /large HTTP/1.1\r\n\r\n")

            answer = send(server, b"GET /a HTTP/1.1\r\n\r\n")
            if server is patient:
                assert status(answer) == HTTPStatus.OK
                assert server.clients
                continue
            while server.clients:
                threading.Event().wait(0.01)
            assert len(rest(client)) < LARGE


def test_connections_are_bounded(serve: Serve) -> None:
    """One too many is closed at once, and taken when there is room again."""
    server = serve()
    with ExitStack() as stack:
        for _ in range(MAX_CLIENTS):
            stack.enter_context(connect(server))
        assert send(server, b"GET /a HTTP/1.1\r\n\r\n") == b""

    while server.clients:
        threading.Event().wait(0.01)
    assert status(send(server, b"GET /a HTTP/1.1\r\n\r\n")) == HTTPStatus.OK


def test_process_without_room_for_a_connection_recovers(serve: Serve) -> None:
    """The client waits, the thread does not spin; when files are closed the client is answered."""
    server, limits = serve(), resource.getrlimit(resource.RLIMIT_NOFILE)
    began = time.monotonic()
    with socket.socket() as client, structlog.testing.capture_logs() as logged:
        client.settimeout(GIVE_UP)
        resource.setrlimit(resource.RLIMIT_NOFILE, (client.fileno() + 20, limits[1]))
        filling = []
        try:
            with suppress(OSError):
                while True:
                    filling.append(os.dup(0))
            client.connect(("127.0.0.1", server.port))
            client.sendall(b"GET /late HTTP/1.1\r\n\r\n")
            while not logged:
                threading.Event().wait(0.001)
        finally:
            for file in filling:
                os.close(file)
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)

        assert rest(client).endswith(b"GET /late")
    assert {entry["event"] for entry in logged} == {"http_pauses"}
    assert len(logged) <= 1 + (time.monotonic() - began) / PAUSE


def test_stop_closes_everything() -> None:
    """Open connections too; then nobody listens, and the thread is gone."""
    server = HttpThread("127.0.0.1", 0, hello)
    with connect(server) as client:
        client.sendall(b"GET")

        server.stop()

        assert rest(client) == b""
    with pytest.raises(ConnectionRefusedError):
        connect(server)
    assert "headrace-http" not in {thread.name for thread in threading.enumerate()}


def test_stop_closes_what_is_only_just_connecting() -> None:
    """A connection in whatever state is closed, not left to hang."""
    for _ in range(50):
        server = HttpThread("127.0.0.1", 0, hello)
        with ExitStack() as stack:
            clients = [stack.enter_context(connect(server)) for _ in range(4)]

            server.stop()

            assert [rest(client) for client in clients] == [b""] * 4


def test_listens_on_the_given_address_only(serve: Serve) -> None:
    """Another address of the same machine does not reach it."""
    server = serve()

    with pytest.raises(OSError, match=r"."):
        socket.create_connection(("127.0.0.2", server.port), timeout=GIVE_UP)


def test_address_that_is_taken_raises(serve: Serve) -> None:
    """At once, to whoever makes it."""
    with pytest.raises(OSError, match="in use"):
        HttpThread("127.0.0.1", serve().port, hello)


def test_ipv6(serve: Serve) -> None:
    """An address of either kind can be listened on."""
    server = HttpThread("::1", 0, hello)
    client = http.client.HTTPConnection("::1", server.port, timeout=GIVE_UP)

    client.request("GET", "/six")

    assert client.getresponse().read() == b"GET /six"
    client.close()
    server.stop()
