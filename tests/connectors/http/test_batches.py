"""Batches: a status for each message, and answers that are kept."""

import asyncio
import gzip
from typing import Any

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from headrace.connectors.http.idempotency import IdempotencyKeys
from headrace.engine.clock import ManualClock
from headrace.engine.log import Transaction
from tests.connectors.http.serving import opened_memory, serving, statuses
from tests.connectors.http.test_guard import kind
from tests.connectors.http.test_singles import commit, conflict, message_ids

NDJSON = "application/x-ndjson"


def reading(number: int, device: str = "d1") -> bytes:
    """A good message."""
    return b'{"device_id": "%s", "timestamp": %d, "temperature": 20}' % (device.encode(), 1_750_000_000_000 + number)


def array(*items: bytes) -> bytes:
    """A batch."""
    return b"[" + b" ,\n".join(items) + b"]"


WRONG = [b"5", b'"x"', b"null", b"[]", b"{}", b'{"device_id": "d1"}', b'{"device_id": "d1", "temperature": 1e999}']


async def test_a_status_for_each() -> None:
    """What is wrong is refused with the reason and touches no other; the rest is appended in order, as it was sent."""
    good = [reading(each, f"d{each % 3}") for each in range(4)]
    items = [good[0], *WRONG[:4], good[1], *WRONG[4:], good[2], good[3]]
    async with serving() as server:
        answer = await server.post("/batch", array(*items))

        assert answer.status == 202
        assert statuses(answer) == ["accepted" if item in good else "refused" for item in items]
        assert all(item["reason"] for item in answer.document["items"] if item["status"] == "refused")
        assert (answer.document["accepted"], answer.document["refused"]) == (4, len(WRONG))
        assert sorted(payload for _, payload in await server.appended()) == sorted(good)


async def test_lines() -> None:
    """Of lines each is on its own: one that is no JSON is refused alone, empty ones do not count."""
    async with serving() as server:
        body = b"\n".join([reading(1), b"{", b"", b"  ", reading(2) + b"\r"])
        answer = await server.post("/batch", body, Content_Type=NDJSON)

        assert statuses(answer) == ["accepted", "refused", "accepted"]
        assert [payload for _, payload in await server.appended()] == [reading(1), reading(2)]


async def test_of_another_device_type() -> None:
    """The request says how its messages are read."""
    row = {"sensor_id": "hall-1", "type": "pressure", "value": 1000, "location": "hall"}
    async with serving() as server:
        answer = await server.post("/batch?device_type=aggregator", [row])
        unknown = await server.post("/batch?device_type=agregator", [row])

        assert statuses(answer) == ["accepted"]
        assert [device for device, _ in await server.appended()] == ["hall-1"]
        assert (unknown.status, "aggregator" in unknown.document["detail"]) == (400, True)
        misspelt = await server.post("/batch?devicetype=aggregator", [row])
        assert (misspelt.status, "device_type" in misspelt.document["detail"]) == (400, True)


async def test_all_refused() -> None:
    """Then nothing is left to be judged: 200, and nothing is appended."""
    async with serving() as server:
        answer = await server.post("/batch", array(*WRONG))

        assert (answer.status, set(statuses(answer))) == (200, {"refused"})
        assert await server.appended() == []


@pytest.mark.parametrize(
    ("body", "media", "status", "said"),
    [
        (b"[]", "application/json", 400, "invalid-message"),
        (b"\n\n", NDJSON, 400, "invalid-message"),
        (b"{}", "application/json", 400, "invalid-message"),
        (b"[1, 2", "application/json", 400, "not-json"),
        (b"[" * 100_000, "application/json", 400, "not-json"),
        (array(*[b"{}"] * 11), "application/json", 413, "too-large"),
        (b"[" + b"1," * 400_000 + b"1]", "application/json", 413, "too-large"),
        (b"{}\n" * 11, NDJSON, 413, "too-large"),
        (b"\n" * 400_000, NDJSON, 413, "too-large"),
        (b"[]", "text/csv", 415, "unsupported-media-type"),
    ],
)
async def test_no_batch(body: bytes, media: str, status: int, said: str) -> None:
    """It is refused as a whole."""
    async with serving(max_items=10) as server:
        answer = await server.post("/batch", body, Content_Type=media)

        assert (answer.status, kind(answer)) == (status, said)


async def test_nested_too_deeply() -> None:
    """It is said so of an array, which may be JSON all the same; of lines the others are taken."""
    deep = b'{"x": ' + b"[" * 50_000 + b"]" * 50_000 + b"}"
    async with serving() as server:
        in_array = await server.post("/batch", array(deep))
        in_lines = await server.post("/batch", deep + b"\n" + reading(1), Content_Type=NDJSON)

        assert (in_array.status, "nested too deeply" in in_array.document["detail"]) == (400, True)
        assert statuses(in_lines) == ["refused", "accepted"]


async def test_a_message_that_is_too_large() -> None:
    """It is refused alone, however deep it nests."""
    bomb = b'{"device_id": "d1", "x": [' + b"[]," * 1_000 + b"1]}"
    async with serving(max_message_bytes=1_000) as server:
        answer = await server.post("/batch", array(reading(1), bomb, reading(2)))

        assert statuses(answer) == ["accepted", "refused", "accepted"]
        assert "1000 bytes" in answer.document["items"][1]["reason"]


async def test_a_batch_that_waits() -> None:
    """With `Prefer: wait` each message has what ingest says of it."""
    async with serving() as server:
        asking = asyncio.create_task(
            server.post("/batch", array(reading(1), b"{}", reading(1), reading(2, "d2")), Prefer="wait=30")
        )
        ids = await message_ids(server)
        await commit(server, True, [conflict(ids[1])])
        answer = await asking

        assert (answer.status, answer.headers["Preference-Applied"]) == (200, "wait=30")
        assert sorted(statuses(answer)) == ["conflict", "refused", "stored", "stored"]
        assert answer.document["conflict"] == 1


@settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.lists(
        st.fixed_dictionaries({"device_id": st.text(min_size=1, max_size=8), "timestamp": st.just(1_750_000_000_000)})
        | st.dictionaries(st.text(max_size=4), st.none() | st.floats(allow_nan=False) | st.text(max_size=4)),
        min_size=1,
        max_size=8,
    ),
    st.booleans(),
)
async def test_bytes_are_kept(documents: list[dict[str, Any]], in_lines: bool) -> None:
    """Whatever is accepted is in the log in the very bytes in which it was sent, in order per device."""
    items = [orjson.dumps(each | {"temperature": 20}) for each in documents]
    async with serving() as server:
        body = b"\n".join(items) if in_lines else array(*items)
        answer = await server.post("/batch", body, Content_Type=NDJSON if in_lines else "application/json")
        accepted = [item for item, status in zip(items, statuses(answer), strict=True) if status == "accepted"]

        found = await server.appended()
        assert sorted(payload for _, payload in found) == sorted(accepted)
        assert all(orjson.loads(payload)["device_id"] == device for device, payload in found)


# --- Idempotency-Key ---


async def test_sent_again() -> None:
    """The same request under the same key gets the same answer and appends nothing, packed or not."""
    body = array(reading(1), b"{}")
    async with serving() as server:
        first = await server.post("/batch", body, Idempotency_Key="k")
        again = await server.post("/batch", body, Idempotency_Key="k")
        packed = await server.post("/batch", gzip.compress(body), Idempotency_Key="k", Content_Encoding="gzip")
        other = await server.post("/batch", body, Idempotency_Key="l")

        assert again[::2] == packed[::2] == first[::2]
        assert ("Idempotency-Replayed" in first.headers, again.headers["Idempotency-Replayed"]) == (False, "true")
        assert "Idempotency-Replayed" not in other.headers
        assert len(await server.appended()) == 2


@pytest.mark.parametrize("key", ["", " ", "two words", "x" * 257])
async def test_what_is_no_key(key: str) -> None:
    """400, and nothing is taken."""
    async with serving() as server:
        answer = await server.post("/batch", array(reading(1)), Idempotency_Key=key)

        assert (answer.status, kind(answer)) == (400, "bad-request")
        assert await server.appended() == []


async def test_another_request_under_the_same_key() -> None:
    """It is refused: 422; whether the body differs, or how it is read."""
    async with serving() as server:
        await server.post("/batch", array(reading(1)), Idempotency_Key="k")
        body = await server.post("/batch", array(reading(2)), Idempotency_Key="k")
        device_type = await server.post("/batch?device_type=tilt", array(reading(1)), Idempotency_Key="k")

        assert (body.status, kind(body), device_type.status) == (422, "key-reused", 422)
        assert len(await server.appended()) == 1


async def test_at_the_same_time() -> None:
    """The second waits for the first, and gets its answer."""
    async with serving() as server:
        server.intake.before.clear()
        asking = [asyncio.create_task(server.post("/batch", array(reading(1)), Idempotency_Key="k")) for _ in range(5)]
        await server.intake.entered.wait()
        server.intake.before.set()

        assert [(await each).document["accepted"] for each in asking] == [1] * 5
        assert len(await server.appended()) == 1


async def test_after_a_restart() -> None:
    """What was appended is known to be."""
    async with opened_memory() as log:
        async with serving(log) as server:
            first = await server.post("/batch", array(reading(1)), Idempotency_Key="k")
        async with serving(log) as server:
            again = await server.post("/batch", array(reading(1)), Idempotency_Key="k")

            assert again[::2] == first[::2]
            assert len(await server.appended()) == 1


@pytest.mark.parametrize("key", ["", "x" * 256, "\u00e4"])
async def test_no_key(key: str) -> None:
    """A key is a few printable characters."""
    async with serving() as server:
        answer = await server.post("/batch", array(reading(1)), Idempotency_Key=key)

        assert answer.status == 400


async def test_keys_are_forgotten() -> None:
    """After their time, and the oldest when there are too many; the log forgets them too."""
    clock = ManualClock(1_000_000)
    async with opened_memory() as log:
        keys = IdempotencyKeys(log, clock, seconds=10, most=3)
        for number in range(5):
            name, kept = b"k%d" % number, keys.answer(b"digest", 202, b"{}")
            await log.commit(Transaction(changes=[keys.changes(name, kept)]))
            keys.put(name, kept)
            clock.advance(1_000)
        restored = IdempotencyKeys(log, clock, seconds=10, most=3)
        await restored.restore()

        for each in (keys, restored):
            assert [each.find(b"k%d" % number, b"digest") is not None for number in range(5)] == [False] * 2 + [
                True
            ] * 3
        clock.advance(20_000)
        assert restored.find(b"k4", b"digest") is None
