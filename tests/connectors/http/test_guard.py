"""Clients that take too long, or send what is no HTTP."""

import asyncio
import ssl
import subprocess
from pathlib import Path

import pytest

from headrace.connectors.http.guard import MAX_HEAD_BYTES
from tests.connectors.http.serving import READING, TELEMETRY, Answer, parse, serving

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

        assert await asyncio.wait_for(reader.read(), 10) == b""
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
    """One more than allowed is refused; when another goes there is room again."""
    async with serving(max_connections=1) as server:
        _, first = await asyncio.open_connection("127.0.0.1", server.port)
        while server.source.statistics().connections < 1:
            await asyncio.sleep(0.005)
        answer = await server.raw(b"")
        first.close()
        while server.source.statistics().connections:
            await asyncio.sleep(0.005)

        assert (answer.status, kind(answer), answer.headers["Retry-After"]) == (503, "busy", "1")
        assert (await server.post(TELEMETRY, READING)).status == 202


async def test_requests_that_are_pipelined() -> None:
    """They are answered one after the other, and appended in that order."""
    async with serving() as server:
        bodies = [b'{"timestamp": %d, "temperature": 20}' % (1_750_000_000_000 + each) for each in range(30)]
        requests = [HEAD + b"Content-Length: %d\r\n\r\n%s" % (len(body), body) for body in bodies]
        requests.append(b"GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(b"".join(requests))
        answers = await asyncio.wait_for(reader.read(), 10)
        writer.close()

        assert answers.count(b"HTTP/1.1 202") == len(bodies)
        assert [payload for _, payload in await server.appended()] == bodies


async def test_tls(tmp_path: Path) -> None:
    """With a certificate it speaks TLS, and nothing else."""
    certificate, key = tmp_path / "c.pem", tmp_path / "k.pem"
    make = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
    subprocess.run([*make, "-keyout", str(key), "-out", str(certificate)], check=True, capture_output=True)
    async with serving(certificate=certificate, key=key) as server:
        context = ssl.create_default_context(cafile=str(certificate))
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", server.port, ssl=context, server_hostname="localhost"
        )
        writer.write(b"GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        answer = parse(await reader.read())
        writer.close()

        assert answer.document == {"status": "ok"}


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
        assert await asyncio.wait_for(reader.read(), 10) == b""
        writer.close()
