"""Requests that are nearly right."""

import asyncio
from random import Random

import pytest

from tests.connectors.http.serving import READING, Server, serving
from tests.connectors.http.test_guard import HEAD

GOOD = HEAD + b"Connection: close\r\nContent-Length: %d\r\n\r\n%s" % (len(READING), READING)
CHUNKED = HEAD + b"Connection: close\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n" % (
    len(READING),
    READING,
)
PIECES = [
    b"\r\n",
    b"\r",
    b"\n",
    b"\0",
    b" ",
    b":",
    b"\xff",
    b"Content-Length: 5\r\n",
    b"Content-Length: -1\r\n",
    b"Content-Encoding: gzip\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"Expect: 100-continue\r\n",
    b"Upgrade: websocket\r\nConnection: Upgrade\r\n",
    b"Host: y\r\n",
    b"HTTP/1.0",
    b"%",
    b"?a=%",
    b"0\r\n\r\n",
    GOOD,
]


def nearly(rng: Random) -> bytes:
    """A request with pieces put in, and others taken out."""
    made = rng.choice([GOOD, CHUNKED])
    for _ in range(rng.randint(1, 4)):
        at = rng.randint(0, len(made))
        made = made[:at] + rng.choice([b"", rng.randbytes(2), *PIECES]) + made[at + rng.randint(0, 6) :]
    return made


async def told(server: Server, request: bytes) -> bytes:
    """What comes back until the server closes, or has nothing more to say."""
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    try:
        writer.write(request)
        return await asyncio.wait_for(reader.read(), 60)
    except ConnectionError:
        return b""
    finally:
        writer.close()


@pytest.mark.parametrize("seed", range(3))
async def test_no_request_is_a_fault_of_ours(seed: int) -> None:
    """It is answered as right or wrong, nothing but what was sent is appended, and the next is answered as ever."""
    rng = Random(seed)
    requests = [nearly(rng) for _ in range(60)]
    async with serving(head_timeout=0.2, body_timeout=0.2, keep_alive=0.2, verdict_timeout=0.2) as server:
        answers = await asyncio.gather(*(told(server, each) for each in requests))

        assert not any(b"HTTP/1.1 5" in each for each in answers)
        assert all(not each or each.startswith(b"HTTP/1.") for each in answers)
        accepted = sum(each.count(b"HTTP/1.1 202") + each.count(b"HTTP/1.0 202") for each in answers)
        assert len(await server.appended()) >= accepted
        assert (await server.ask("GET", "/health")).status == 200
        while server.source.statistics().waiting_bytes:
            await asyncio.sleep(0.005)


@pytest.mark.parametrize(
    "more",
    [
        b"Content-Length: 50\r\nTransfer-Encoding: chunked\r\n",
        b"Content-Length: 50\r\nContent-Length: 51\r\n",
        b"Content-Length: -1\r\n",
        b"Content-Length: 5x\r\n",
        b"Content-Length: 99999999999999999999999\r\n",
        b"Transfer-Encoding: gzip\r\n",
        b"X : y\r\nContent-Length: 50\r\n",
    ],
)
async def test_heads_that_proxies_could_read_otherwise(more: bytes) -> None:
    """They are refused: two readings of where a request ends would let one hide in another."""
    async with serving() as server:
        answer = await server.raw(HEAD + more + b"\r\n" + READING)

        assert answer.status in (400, 413)
        assert await server.appended() == []
