"""Bodies: what is too large, packed, or comes in pieces."""

import asyncio
import contextlib
import gzip
import zlib
from typing import Any

import aiohttp
import pytest

from headrace.engine.errors import LogError
from tests.connectors.http.serving import READING, TELEMETRY, serving
from tests.connectors.http.test_guard import HEAD, kind
from tests.connectors.http.test_singles import commit

LIMITS: dict[str, Any] = {"max_body_bytes": 10_000, "max_unpacked_bytes": 20_000, "max_waiting_bytes": 1 << 16}


async def test_too_long_by_its_own_account() -> None:
    """It is refused before a byte of it is sent; the connection ends."""
    async with serving(**LIMITS) as server:
        answer = await server.raw(HEAD + b"Content-Length: 10001\r\n\r\n")

        assert (answer.status, kind(answer), answer.headers["Connection"]) == (413, "too-large", "close")


async def test_too_long_in_chunks() -> None:
    """What says no length is refused when it passes the limit."""
    async with serving(**LIMITS) as server:
        chunk = b"1000\r\n" + b" " * 0x1000 + b"\r\n"
        answer = await server.raw(HEAD + b"Transfer-Encoding: chunked\r\n\r\n", *[chunk] * 3)

        assert (answer.status, kind(answer)) == (413, "too-large")


async def test_chunks() -> None:
    """A body in chunks is taken."""
    async with serving(**LIMITS) as server:
        chunks = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in (READING[:10], READING[10:]))
        answer = await server.raw(
            HEAD + b"Connection: close\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks + b"0\r\n\r\n"
        )

        assert answer.status == 202
        assert await server.appended() == [("roof-7", READING)]


async def test_gzip() -> None:
    """What is unpacked is what is appended."""
    async with serving(**LIMITS) as server:
        answer = await server.post(TELEMETRY, gzip.compress(READING), Content_Encoding="gzip")

        assert answer.status == 202
        assert await server.appended() == [("roof-7", READING)]


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        (gzip.compress(b"0" * 20_001), 413, "too-large"),
        (gzip.compress(b" " * 50_000_000, 9)[:9_000], 413, "too-large"),
        (gzip.compress(READING)[:-4], 400, "bad-request"),
        (gzip.compress(READING) * 2, 400, "bad-request"),
        (gzip.compress(READING) + b"x", 400, "bad-request"),
        (zlib.compress(READING), 400, "bad-request"),
        (READING, 400, "bad-request"),
        (b"", 400, "bad-request"),
    ],
    ids=["long", "bomb", "cut", "two", "more", "zlib", "plain", "empty"],
)
async def test_gzip_that_is_wrong(body: bytes, status: int, said: str) -> None:
    """It is refused with the reason; nothing is appended and nothing stays held."""
    async with serving(**LIMITS) as server:
        answer = await server.post(TELEMETRY, body, Content_Encoding="gzip")

        assert (answer.status, kind(answer)) == (status, said)
        assert await server.appended() == []
        assert server.source.statistics().waiting_bytes == 0


@pytest.mark.parametrize("encoding", ["deflate", "br", "gzip, gzip"])
async def test_other_encodings(encoding: str) -> None:
    """They are refused, with the one that is not."""
    async with serving() as server:
        answer = await server.post(TELEMETRY, READING, Content_Encoding=encoding)

        assert (answer.status, kind(answer)) == (415, "unsupported-encoding")
        assert answer.headers["Accept-Encoding"] == "gzip"


async def test_a_client_that_asks_first() -> None:
    """It is told to go on, or what is wrong before it sends anything."""
    async with serving(**LIMITS) as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(HEAD + b"Connection: close\r\nExpect: 100-continue\r\nContent-Length: %d\r\n\r\n" % len(READING))
        told = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 60)
        writer.write(READING)
        answer = await asyncio.wait_for(reader.read(), 60)
        writer.close()
        refused = await server.raw(HEAD + b"Expect: 100-continue\r\nContent-Length: 10001\r\n\r\n")
        unknown = await server.raw(HEAD + b"Expect: a miracle\r\nContent-Length: 10\r\n\r\n")

        assert told == b"HTTP/1.1 100 Continue\r\n\r\n"
        assert answer.startswith(b"HTTP/1.1 202")
        assert refused.status == 413
        assert unknown.status == 417


async def test_under_pressure() -> None:
    """While the log takes nothing, what is more than is allowed is refused before it is read, and fits again later."""
    async with serving(max_requests=2) as server:
        server.intake.before.clear()
        waiting = [asyncio.create_task(server.post(TELEMETRY, READING)) for _ in range(2)]
        while server.source.statistics().received < 2:
            await asyncio.sleep(0.005)
        answer = await server.raw(HEAD + b"Content-Length: 50\r\n\r\n")
        server.intake.before.set()

        assert [(await each).status for each in waiting] == [202, 202]
        assert (answer.status, kind(answer), answer.headers["Retry-After"]) == (429, "busy", "1")
        assert (await server.post(TELEMETRY, READING)).status == 202


async def test_whoever_waits_for_ingest_holds_up_nobody() -> None:
    """Requests whose messages are in the log make room for others, whatever the worker does."""
    async with serving(max_requests=2, verdict_timeout=60) as server:
        waiting = [asyncio.create_task(server.ask("POST", TELEMETRY, READING)) for _ in range(6)]
        done = 0
        while done < 6:
            done = server.source.statistics().appended
            refused = [each for each in waiting if each.done()]
            waiting = [each for each in waiting if not each.done()]
            waiting += [asyncio.create_task(server.ask("POST", TELEMETRY, READING)) for _ in refused]
            await asyncio.sleep(0.005)
        await commit(server, True)

        assert len(waiting) == 6
        assert [(await each).status for each in waiting] == [201] * 6


async def test_a_log_that_takes_too_long() -> None:
    """The client is told so, and that it may send again."""
    async with serving(append_timeout=0.05) as server:
        server.intake.before.clear()
        answer = await server.post(TELEMETRY, READING)
        server.intake.before.set()

        assert (answer.status, kind(answer), answer.headers["Retry-After"]) == (503, "unavailable", "1")


async def test_a_log_that_fails() -> None:
    """Nobody is told that a message is there; the source ends."""
    with pytest.raises(LogError, match="disk is full"):
        await _post_to_a_full_disk()


async def _post_to_a_full_disk() -> None:
    async with serving() as server:
        server.intake.fail = True
        with contextlib.suppress(aiohttp.ClientError):
            assert (await server.post(TELEMETRY, READING)).status == 503


async def test_bytes_that_wait_are_bounded() -> None:
    """Likewise, where few requests hold many bytes."""
    async with serving(**LIMITS) as server:
        server.intake.before.clear()
        large = b'{"timestamp": 1750000000000, "temperature": 20, "x": "%s"}' % (b"x" * 9_900)
        waiting = [asyncio.create_task(server.post(TELEMETRY, large)) for _ in range(6)]
        while server.source.statistics().received < 6:
            await asyncio.sleep(0.005)
        answer = await server.raw(HEAD + b"Content-Length: 9960\r\n\r\n")
        server.intake.before.set()

        assert answer.status == 429
        assert [(await each).status for each in waiting] == [202] * 6
        assert server.source.statistics().waiting_bytes == 0


@pytest.mark.parametrize(("more", "status"), [(b"", 202), (b"Origin: https://example.org\r\n", 415)])
async def test_no_media_type(more: bytes, status: int) -> None:
    """It is JSON then; but not for a browser, which could be sent here by any page."""
    head = f"POST {TELEMETRY} HTTP/1.1\r\nHost: x\r\nPrefer: respond-async\r\n".encode() + more
    async with serving() as server:
        answer = await server.raw(head + b"Content-Length: %d\r\n\r\n" % len(READING) + READING)

        assert answer.status == status


async def test_clients_that_promise_much_take_no_room() -> None:
    """Bodies that are announced and do not come hold up nobody."""
    async with serving(max_requests=2, **LIMITS) as server:
        writers = []
        for _ in range(20):
            _reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
            writer.write(HEAD + b"Content-Length: 10000\r\n\r\n{")
            writers.append(writer)
        while server.source.statistics().waiting_bytes < 20:
            await asyncio.sleep(0.005)

        assert (await server.post(TELEMETRY, READING)).status == 202
        for writer in writers:
            writer.close()


async def test_appends_of_the_same_moment_are_one_commit() -> None:
    """What comes while a commit is under way goes into the next."""
    async with serving() as server:
        server.intake.before.clear()
        waiting = [asyncio.create_task(server.post(f"/devices/d{each}/telemetry", READING)) for each in range(50)]
        while server.source.statistics().received < 50:
            await asyncio.sleep(0.005)
        server.intake.before.set()

        assert {(await each).status for each in waiting} == {202}
        assert server.source.statistics().commits <= 3
        assert len(await server.appended()) == 50


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Content_Type": "text/plain"}, 415),
        ({"Content_Type": "application/x-www-form-urlencoded"}, 415),
        ({"Content_Type": "application/json; charset=utf-8"}, 202),
        ({"Content_Type": "application/json", "Origin": "https://example.org"}, 202),
    ],
)
async def test_media_types(headers: dict[str, str], status: int) -> None:
    """JSON is taken, whatever stands behind it."""
    async with serving() as server:
        answer = await server.post(TELEMETRY, READING, **headers)

        assert answer.status == status
        assert status == 202 or answer.headers["Accept"].startswith("application/json")
