"""Room: whoever is slow holds it only while nobody else needs it."""

import asyncio
import contextlib
import gzip
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.connectors.http.problem import HttpProblem
from headrace.connectors.http.room import Room
from headrace.engine.clock import ManualClock
from tests.connectors.http.serving import READING, TELEMETRY, Server, parse, serving, statuses
from tests.connectors.http.test_guard import HEAD, kind
from tests.connectors.http.test_singles import commit, message_ids
from tests.loop_time import skip

BODY = 60_000
LIMITS: dict[str, Any] = {"max_body_bytes": BODY, "max_unpacked_bytes": BODY, "max_waiting_bytes": 1 << 16}
BATCH = HEAD.replace(TELEMETRY.encode(), b"/batch")
SMALL = b'[{"device_id": "roof-7", "timestamp": 1750000000000, "temperature": 20}]'


@asynccontextmanager
async def slow_clients(server: Server, count: int, sent: bytes) -> AsyncIterator[list[asyncio.StreamReader]]:
    """Clients that have sent so much of a request, and no more."""
    made = []
    for _ in range(count):
        made.append(await asyncio.open_connection("127.0.0.1", server.port))
        made[-1][1].write(sent)
    try:
        yield [reader for reader, _ in made]
    finally:
        for _, writer in made:
            writer.transport.abort()  # what the server has not read would keep it open, perhaps longer than the loop


@pytest.mark.parametrize("count", [1, 40])
@pytest.mark.parametrize("is_packed", [False, True])
async def test_slow_clients_shut_nobody_out(count: int, is_packed: bool) -> None:
    """With all but the end of their bodies in the room, every other request is served, small or large."""
    body = b"[" + b" " * (BODY - 2)
    packed = gzip.compress(body)[:-9]
    more = b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % (len(packed) + 9) if is_packed else b""
    request = BATCH + (more + packed if is_packed else b"Content-Length: %d\r\n\r\n%s" % (BODY, body))
    large = b"[" + b" " * (BODY - len(SMALL) - 1) + SMALL[1:]
    async with serving(**LIMITS) as server, slow_clients(server, count, request) as readers:
        while server.source.statistics().waiting_bytes < BODY // 2:
            await asyncio.sleep(0.005)
        told = [
            await server.post(TELEMETRY, READING),
            await server.post("/batch", SMALL),
            await server.post("/batch", large),
            await server.post("/batch", large),
        ]
        answers = await asyncio.gather(*(reader.readuntil(b"}") for reader in readers))

        assert [each.status for each in told] == [202] * 4
        assert {(parse(each).status, kind(parse(each))) for each in answers} == {(429, "busy")}
        assert server.source.statistics().waiting_bytes == 0


async def test_slow_clients_beside_an_honest_one() -> None:
    """However many come, and come again, who posts meanwhile is served each time, and the room is never overdrawn."""
    most = 0
    request = BATCH + b"Content-Length: %d\r\n\r\n[%s" % (BODY, b" " * 20_000)
    async with serving(**LIMITS) as server:

        async def come_again() -> None:
            while True:
                with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
                    async with slow_clients(server, 1, request) as (reader,):
                        await reader.readuntil(b"}")

        attackers = [asyncio.create_task(come_again()) for _ in range(10)]
        found = []
        for _ in range(60):
            found.append((await server.post(TELEMETRY, READING)).status)
            most = max(most, server.source.statistics().waiting_bytes)
        for each in attackers:
            each.cancel()
        await asyncio.gather(*attackers, return_exceptions=True)

        assert set(found) == {202}
        assert 0 < most <= LIMITS["max_waiting_bytes"]


async def test_whoever_waits_for_ingest_holds_no_bytes() -> None:
    """What is in the log makes room, whatever the worker does."""
    large = b'{"timestamp": 1750000000000, "temperature": 20, "x": "%s"}' % (b"x" * 50_000)
    async with serving(verdict_timeout=60, **LIMITS) as server:
        waiting = []
        for number in range(5):
            waiting.append(asyncio.create_task(server.ask("POST", TELEMETRY, large)))
            while server.source.statistics().appended <= number:
                await asyncio.sleep(0.005)
            while server.source.statistics().waiting_bytes:
                await asyncio.sleep(0.005)
        await commit(server, True)

        assert [(await each).status for each in waiting] == [201] * 5


async def test_so_many_may_wait_for_ingest() -> None:
    """Behind that nobody waits: accepted, at once."""
    item = b'{"device_id": "d%d", "timestamp": 1750000000000, "temperature": 20}'
    async with serving(**LIMITS) as server:
        first = b"[" + b",".join(item % each for each in range(60)) + b"]"
        waiting = asyncio.create_task(server.post("/batch", first, Prefer="wait=30"))
        await message_ids(server)
        while server.source.statistics().waiting_bytes:
            await asyncio.sleep(0.005)
        other = await server.post("/batch", first, Prefer="wait=30")
        await commit(server, True)

        assert (other.status, set(statuses(other))) == (202, {"accepted"})
        assert set(statuses(await waiting)) == {"stored"}


async def test_what_is_given_up_by_the_client_leaves_the_queue() -> None:
    """A log that is away for long does not collect requests that were answered with 503."""
    answers = []
    async with serving(append_timeout=60, max_requests=1) as server:
        server.intake.before.clear()
        for number in range(5):
            asking = asyncio.create_task(server.post(TELEMETRY, READING))
            while server.source.statistics().received < min(number, 1) + 1:
                await asyncio.sleep(0.005)
            await server.intake.entered.wait()
            skip(60)
            answers.append(await asking)
        server.intake.before.set()
        last = await server.post(TELEMETRY, READING)

        assert [each.status for each in answers] == [503] * 5
        assert last.status == 202
        assert len(await server.appended()) == 2  # that with which the log was busy, and the last


# --- the rule ---


def test_the_most_costly_is_given_up() -> None:
    """It is the body that has held most for longest; who asks is among them, and whole bodies are not."""
    clock = ManualClock(0)
    room, woken = Room(10, 100, clock), list[str]()
    whole, old, large, new = (room.enter() for _ in range(4))
    for share, name, size in ((whole, "whole", 30), (old, "old", 10), (large, "large", 40)):
        share.begin(lambda name=name: woken.append(name))  # type: ignore[misc]
        share.keep(b"x" * size)
        clock.advance(1_000)
        if share is whole:
            assert share.finish() == b"x" * 30
    new.begin(lambda: woken.append("new"))
    new.keep(b"x" * 30)  # large has held 40 for a second, old 10 for two

    assert (woken, room.bytes) == (["large"], 70)
    with pytest.raises(HttpProblem, match="others needed"):
        large.keep(b"x")
    with pytest.raises(HttpProblem, match="too many bytes"):
        new.keep(b"x" * 80)
    clock.advance(10_000)
    with pytest.raises(HttpProblem, match="others needed"):
        new.keep(b"x" * 40)


@given(
    st.lists(
        st.tuples(st.integers(0, 5), st.sampled_from(["keep", "finish", "leave", "wait"]), st.integers(0, 60)),
        max_size=40,
    )
)
def test_the_room_is_never_overdrawn(steps: list[tuple[int, str, int]]) -> None:
    """Whatever requests do: never more than the bound, nobody whole loses anything, and at the end nothing is held."""
    clock = ManualClock(0)
    room = Room(4, 100, clock)
    shares: dict[int, Any] = {}
    whole: dict[int, int] = {}
    for who, step, size in steps:
        with contextlib.suppress(HttpProblem):
            if who not in shares:
                shares[who] = room.enter()
                shares[who].begin(lambda: None)
            if step == "keep" and who not in whole:
                shares[who].keep(b"x" * size)
            elif step == "finish" and who not in whole:
                whole[who] = len(shares[who].finish())
            elif step == "leave":
                shares.pop(who).__exit__(None, None, None)
                whole.pop(who, None)
            elif step == "wait":
                clock.advance(size)
        assert 0 <= sum(whole.values()) <= room.bytes <= 100
        assert room.bytes - room.loose == sum(whole.values())
    for share in shares.values():
        share.__exit__(None, None, None)

    assert (room.bytes, room.loose, room.requests) == (0, 0, 0)
