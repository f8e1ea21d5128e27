"""Clients that take too long, or send what is no HTTP."""

import asyncio
import contextlib
import socket
import ssl
import subprocess
from typing import Any

import aiohttp
import pytest

from headrace.connectors.http.guard import MAX_HEAD_BYTES
from tests.connectors.http.serving import READING, TELEMETRY, Answer, Server, parse, serving
from tests.connectors.mqtt.listening import HandClock
from tests.loop_time import skip

HEAD = f"POST {TELEMETRY} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nPrefer: respond-async\r\n".encode()


def kind(answer: Answer) -> str:
    """What was wrong, as programs read it."""
    assert answer.headers["Content-Type"].startswith("application/problem+json")
    assert answer.document["status"] == answer.status
    return str(answer.document["type"]).removeprefix("urn:headrace:problem:")


async def test_a_slow_head_is_ended() -> None:
    """Whoever sends a byte of a head now and then is told so, and is gone."""
    async with serving(head_timeout=0.3) as server:
        answer = await server.raw(HEAD)

        assert (answer.status, kind(answer)) == (408, "too-slow")
        assert server.source.statistics().refused == 1


async def test_silence_is_ended() -> None:
    """A connection on which nothing comes does not stay."""
    async with serving(head_timeout=0.3) as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)

        assert await asyncio.wait_for(reader.read(), 60) == b""
        writer.close()


async def test_a_slow_body_is_ended() -> None:
    """A body of which the rest does not come is refused, and nothing of it appended."""
    async with serving(body_timeout=0.2) as server:
        answer = await server.raw(HEAD + b"Content-Length: 100\r\n\r\n{")

        assert (answer.status, kind(answer)) == (408, "too-slow")
        assert await server.appended() == []


@pytest.mark.parametrize(
    "more",
    [b"X: " + b"a" * (MAX_HEAD_BYTES + 1), b"\r\n".join(b"X%d: %s" % (n, b"a" * 1000) for n in range(40))],
    ids=["line", "lines"],
)
async def test_a_long_head_is_refused(more: bytes) -> None:
    """In one line or in many."""
    async with serving() as server:
        pieces = [more[at : at + 900] for at in range(0, len(more), 900)]
        answer = await server.raw(HEAD, *pieces)

        assert (answer.status, kind(answer)) == (431, "head-too-large")


@pytest.mark.parametrize(
    "said", [b"hello\r\n\r\n", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b"GET / HTTP/9.9\r\n\r\n"]
)
async def test_what_is_no_http(said: bytes) -> None:
    """It is answered with a problem, and the connection ends."""
    async with serving() as server:
        answer = await server.raw(said)

        assert (answer.status, kind(answer)) == (400, "bad-request")


async def test_too_many_connections() -> None:
    """One more than allowed is refused while all are new; when another goes there is room again."""
    async with serving(max_connections=1, clock=HandClock()) as server:
        _, first = await asyncio.open_connection("127.0.0.1", server.port)
        while server.source.statistics().connections < 1:
            await asyncio.sleep(0.005)
        answer = await server.raw(b"")
        first.close()
        while server.source.statistics().connections:
            await asyncio.sleep(0.005)

        assert (answer.status, kind(answer), answer.headers["Retry-After"]) == (503, "busy", "1")
        assert (await server.post(TELEMETRY, READING)).status == 202


@pytest.mark.parametrize("sent", [b"", HEAD, HEAD + b"Content-Length: 100\r\n\r\n{"], ids=["silent", "head", "body"])
async def test_clients_that_wait_make_room(sent: bytes) -> None:
    """Whoever has a connection and does nothing with it loses it when somebody else wants one."""
    async with serving(max_connections=2) as server:
        slow = [await asyncio.open_connection("127.0.0.1", server.port) for _ in range(2)]
        for _, writer in slow:
            writer.write(sent)
        answers: list[int] = []
        while not answers or answers[-1] == 503:
            try:
                answers.append((await server.post(TELEMETRY, READING)).status)
            except aiohttp.ClientError:  # hung up on, as its connection was one too many
                await asyncio.sleep(0.02)

        assert answers[-1] == 202
        assert await slow[0][0].read() == b""
        for _, writer in slow:
            writer.close()


async def test_requests_in_hand_keep_their_connection() -> None:
    """Who waits for the log is not hung up on, whoever wants a connection."""
    async with serving(max_connections=1) as server:
        server.intake.before.clear()
        waiting = asyncio.create_task(server.post(TELEMETRY, READING))
        await server.intake.entered.wait()
        statuses = {(await server.raw(b"")).status for _ in range(20)}
        server.source._guard.now += 60  # as if that had been long ago
        statuses |= {(await server.raw(b"")).status for _ in range(20)}
        server.intake.before.set()

        assert (statuses, (await waiting).status) == ({503}, 202)


async def test_a_client_that_closes_its_side() -> None:
    """It still gets the answers to all it has sent."""
    async with serving() as server:
        server.intake.before.clear()
        request = HEAD + b"Content-Length: %d\r\n\r\n%s" % (len(READING), READING)
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(request * 3)
        writer.write_eof()
        await server.intake.entered.wait()
        server.intake.before.set()
        answers = await asyncio.wait_for(reader.read(), 60)
        writer.close()

        assert answers.count(b"HTTP/1.1 202") == 3
        assert len(await server.appended()) == 3


async def test_a_client_that_closes_its_side_too_early() -> None:
    """A body that cannot come any more is refused; nothing of it is appended."""
    async with serving() as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(HEAD + b"Content-Length: 100\r\n\r\n{")
        writer.write_eof()
        answer = parse(await asyncio.wait_for(reader.read(), 60))
        writer.close()

        assert (answer.status, kind(answer)) == (400, "bad-request")
        assert await server.appended() == []


async def test_an_answer_that_is_not_read() -> None:
    """A client that does not take its answer in time is gone; the server does not wait for it."""
    items = b"[" + b",".join([b"{}"] * 10_000) + b"]"
    head = HEAD.replace(TELEMETRY.encode(), b"/batch")
    async with serving(answer_timeout=0.2) as server:
        client = socket.socket()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.connect(("127.0.0.1", server.port))
        _, writer = await asyncio.open_connection(sock=client, limit=1024)
        writer.write((head + b"Content-Length: %d\r\n\r\n%s" % (len(items), items)) * 20)
        while server.source.statistics().refused == 0:
            await asyncio.sleep(0.02)
        while server.source.statistics().connections:
            await asyncio.sleep(0.02)
        writer.transport.abort()

        assert (await server.post(TELEMETRY, READING)).status == 202


async def test_requests_that_are_pipelined() -> None:
    """They are answered one after the other, and appended in that order."""
    async with serving() as server:
        bodies = [b'{"timestamp": %d, "temperature": 20}' % (1_750_000_000_000 + each) for each in range(30)]
        requests = [HEAD + b"Content-Length: %d\r\n\r\n%s" % (len(body), body) for body in bodies]
        requests.append(b"GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(b"".join(requests))
        answers = await asyncio.wait_for(reader.read(), 60)
        writer.close()

        assert answers.count(b"HTTP/1.1 202") == len(bodies)
        assert [payload for _, payload in await server.appended()] == bodies


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A certificate and its key, as settings."""
    folder = tmp_path_factory.mktemp("tls")
    certificate, key = folder / "c.pem", folder / "k.pem"
    make = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
    subprocess.run([*make, "-keyout", str(key), "-out", str(certificate)], check=True, capture_output=True)
    return {"certificate": certificate, "key": key}


async def over_tls(server: Server, pair: dict[str, Any], request: bytes) -> Answer:
    """What a client is answered that speaks TLS."""
    context = ssl.create_default_context(cafile=str(pair["certificate"]))
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port, ssl=context, server_hostname="localhost")
    writer.write(request)
    answer = parse(await reader.read())
    writer.close()
    return answer


HEALTH = b"GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"


async def test_tls(pair: dict[str, Any]) -> None:
    """With a certificate it speaks TLS, and nothing else."""
    body = READING + b" " * 200_000
    post = HEAD + b"Connection: close\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)
    async with serving(**pair) as server:
        assert (await over_tls(server, pair, HEALTH)).document == {"status": "ok"}
        assert (await over_tls(server, pair, post)).status == 202
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(HEALTH)
        told = await reader.read()
        writer.close()
        while server.source.statistics().connections:
            await asyncio.sleep(0.005)

        assert b"HTTP" not in told


async def test_clients_that_do_not_finish_tls(pair: dict[str, Any]) -> None:
    """They count from the moment that they connect, are ended in time, and keep nobody out."""
    async with serving(max_connections=2, head_timeout=60, **pair) as server:
        slow = [await asyncio.open_connection("127.0.0.1", server.port) for _ in range(2)]
        while server.source.statistics().connections < 2:
            await asyncio.sleep(0.005)
        while server.source.statistics().connections:
            skip(60)
            await asyncio.sleep(0.005)
        for reader, writer in slow:
            with contextlib.suppress(ConnectionError):
                assert await asyncio.wait_for(reader.read(), 60) == b""
            writer.close()

        assert (await over_tls(server, pair, HEALTH)).document == {"status": "ok"}


async def test_a_stop_answers_what_is_in_hand() -> None:
    """A request that waits for the log is answered; connections without one are closed."""
    async with serving() as server:
        server.intake.before.clear()
        waiting = asyncio.create_task(server.post(TELEMETRY, READING))
        await server.intake.entered.wait()
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        server.stop.set()
        server.intake.before.set()

        assert (await waiting).status == 202
        assert await asyncio.wait_for(reader.read(), 60) == b""
        writer.close()


async def test_a_server_that_stood_still() -> None:
    """Holds it against nobody: while its machine was stopped it could hear no client."""
    clock = HandClock()
    async with serving(clock=clock) as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        while server.source.statistics().connections < 1:
            await asyncio.sleep(0.005)
        clock.advance(100_000)
        writer.write(HEALTH)
        answer = parse(await asyncio.wait_for(reader.read(), 60))
        writer.close()

        assert answer.status == 200
