"""One message per request: what is refused, and what ingest says of the rest."""

import asyncio
import gzip
from collections.abc import Sequence
from typing import Any

import orjson
import pytest

from headrace.connectors.topic_profile import TopicProfile
from headrace.engine.dead_letters import ORIGIN_TOPIC, REASON
from headrace.engine.log import Append, TopicPartition, Transaction
from headrace.engine.records import Records
from headrace.schemas import topics
from headrace.schemas.conflict import Conflict, Origin, encode_conflict
from tests.connectors.http.serving import GROUP, PARTITIONS, READING, TELEMETRY, Server, serving
from tests.connectors.http.test_guard import HEAD, kind

SENSOR = {"sensor_id": "hall-1", "type": "temperature", "value": 21.5, "location": "hall"}
ROW = {"device_id": "wall-3", "sensor_type": "temperature", "value": 70.7, "unit": "F"}


@pytest.mark.parametrize(
    ("path", "body", "device"),
    [
        ("/sensor/data", SENSOR, "hall-1"),
        ("/api/data", ROW, "wall-3"),
        (TELEMETRY, None, "roof-7"),
    ],
)
async def test_appended_as_it_was_sent(path: str, body: Any, device: str) -> None:
    """Under the device that the path or the payload names, byte by byte, with path and message id."""
    async with serving() as server:
        payload = READING if body is None else b" " + orjson.dumps(body, option=orjson.OPT_INDENT_2)
        answer = await server.post(path, payload)

        assert (answer.status, answer.document["status"]) == (202, "accepted")
        assert answer.headers["Preference-Applied"] == "respond-async"
        assert await server.appended() == [(device, payload)]
        (record,) = [
            each.records
            for part in range(PARTITIONS)
            if (each := await server.log.read(TopicPartition(topics.RAW, part), 0, 10)) is not None
        ]
        assert record.header(topics.MESSAGE_ID) == [answer.document["message_id"].encode()]
        assert record.header(topics.SOURCE) == [path.encode()]


@pytest.mark.parametrize(
    ("body", "said", "detail"),
    [
        (b"{", "not-json", "payload is not JSON"),
        (b"", "not-json", "payload is empty"),
        (b'{"sensor_id": "\xff"}', "not-json", "not UTF-8"),
        (b"[" * 10_000, "not-json", "not JSON"),
        (b'{"a":' * 60 + b"1" + b"}" * 60, "invalid-message", "names no device"),
        (b'{"a":' * 1_000 + b"1" + b"}" * 1_000, "invalid-message", "nest deeper than 64 levels"),
        (SENSOR | {"sensor_id": 5}, "invalid-message", "sensor_id is a number; a device id is a text"),
        (SENSOR | {"sensor_id": ""}, "invalid-message", "sensor_id is empty"),
        (b"[1]", "invalid-message", "an array"),
        (
            SENSOR | {"type": "smell"},
            "invalid-message",
            "type is 'smell'; it must be one of temperature, humidity, pressure",
        ),
        (SENSOR | {"value": 900}, "invalid-message", "greater than 85"),
        (SENSOR | {"value": "warm"}, "invalid-message", "not a number"),
        (SENSOR | {"location": ""}, "invalid-message", "location"),
        ({k: v for k, v in SENSOR.items() if k != "value"}, "invalid-message", "`value`"),
        ({k: v for k, v in SENSOR.items() if k != "type"}, "invalid-message", "type"),
        ({k: v for k, v in SENSOR.items() if k != "location"}, "invalid-message", "location"),
        ({k: v for k, v in SENSOR.items() if k != "sensor_id"}, "invalid-message", "names no device"),
        (SENSOR | {"timestamp": 32503680000000}, "invalid-message", "time"),
        (orjson.dumps(SENSOR).replace(b"21.5", b"1" * 400), "not-json", ""),
        (SENSOR | {"sensor_id": "x" * 300}, "invalid-message", "longer than 256"),
    ],
)
async def test_refused_before_the_append(body: Any, said: str, detail: str) -> None:
    """400 with what is wrong, told apart: bad JSON, and what the device type does not allow. It is in no log."""
    async with serving() as server:
        answer = await server.post("/sensor/data", body)

        assert (answer.status, kind(answer)) == (400, said)
        assert detail in answer.document["detail"]
        assert await server.appended() == []


async def test_too_large() -> None:
    """A message has a limit of its own."""
    async with serving(max_message_bytes=40) as server:
        answer = await server.post(TELEMETRY, READING)

        assert (answer.status, kind(answer)) == (413, "too-large")


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/devices/a%2Fb/telemetry", 400),
        ("/devices/%ff/telemetry", 400),
        ("/devices//telemetry", 400),
        ("/devices/%2B/telemetry", 400),
        ("/devices/a/other", 404),
        ("/devices/a", 404),
        ("/", 404),
        ("/devices/d%C3%A4/telemetry", 202),
        ("/devices/%7Bdevice%7D/telemetry", 202),
    ],
)
async def test_paths(path: str, status: int) -> None:
    """Of a device there is its telemetry; its id is no more than one level of a topic."""
    async with serving() as server:
        assert (await server.post(path, READING)).status == status


async def test_a_topic_that_nobody_takes() -> None:
    """Where no topic profile takes what the path stands for, that is said, and nothing is appended."""
    async with serving(topic="elsewhere/{device}") as server:
        answer = await server.post(TELEMETRY, READING)

        assert (answer.status, kind(answer)) == (404, "not-found")
        assert "elsewhere/roof-7" in answer.document["detail"]


PACK = [
    {"bn": "roof-1/", "bt": 1_750_000_000, "n": "temperature", "u": "Cel", "v": 21.5},
    {"n": "humidity", "u": "%RH", "v": 48},
    {"bn": "roof-2/", "n": "temperature", "u": "Cel", "v": 20},
]
SENML = TopicProfile(name="senml", topic="senml/+", device_type="environmental", format="senml-json")


async def test_a_format() -> None:
    """A message that holds several records is appended as these, all or none."""
    async with serving(topic="senml/{device}", profiles=[SENML]) as server:
        answer = await server.post("/devices/gateway-1/telemetry", PACK, Content_Type="application/senml+json")
        broken = await server.post("/devices/gateway-1/telemetry", [*PACK, {"n": "temperature", "u": "Cel"}])
        wrong = await server.post("/devices/gateway-1/telemetry", [*PACK, {"n": "temperature", "u": "Cel", "v": 900}])

        assert (answer.status, answer.document["records"]) == (202, 2)
        assert [each.status for each in (broken, wrong)] == [400, 400]
        assert (kind(broken), kind(wrong)) == ("invalid-message", "invalid-message")
        found = await server.appended()
        assert sorted(device for device, _ in found) == ["roof-1", "roof-2"]
        assert {orjson.loads(payload)["temperature"] for _, payload in found} == {21.5, 20}


async def test_verdicts_of_a_format() -> None:
    """The worst of its records is that of the message."""
    async with serving(topic="senml/{device}", profiles=[SENML]) as server:
        asking = asyncio.create_task(server.ask("POST", "/devices/gateway-1/telemetry", PACK))
        ids = await message_ids(server)
        await commit(server, True, [conflict(ids[1])])
        answer = await asking

        assert (answer.status, answer.document["message_id"]) == (409, ids[1].decode())


async def test_what_is_no_reading() -> None:
    """It goes aside, for good, and nobody judges it."""
    profile = TopicProfile(
        name="lora", topic="application/+/device/{device}/event/+", device_type="environmental", format="chirpstack"
    )
    join = {"deviceInfo": {"devEui": "24e124136c225107"}, "devAddr": "00bb2233", "time": "2025-06-15T15:06:40+00:00"}
    async with serving(topic="application/1/device/{device}/event/join", profiles=[profile]) as server:
        answer = await server.ask("POST", "/devices/24e124136c225107/telemetry", join)

        assert (answer.status, answer.document) == (201, {"status": "stored", "records": 0})
        assert await server.appended() == []
        assert sum((await server.log.end_offsets(topics.EVENTS)).values()) == 1


async def test_methods() -> None:
    """Others than those there are get 405, with those."""
    async with serving() as server:
        for method, path, allowed in (
            ("GET", "/sensor/data", "POST"),
            ("DELETE", "/api/data", "POST, GET, HEAD"),
            ("POST", "/health", "GET, HEAD"),
            ("OPTIONS", "/batch", "POST"),
        ):
            answer = await server.ask(method, path)
            assert (answer.status, answer.headers["Allow"]) == (405, allowed)
        assert (await server.ask("HEAD", "/health")).status == 200


async def test_health() -> None:
    """200 while all goes on, 503 with what stands still."""
    async with serving() as server:
        well = await server.ask("GET", "/health")
        server.health.broken("log", "the disk is full", "make room")
        ill = await server.ask("GET", "/health")

        assert (well.status, well.document) == (200, {"status": "ok"})
        assert (ill.status, kind(ill), ill.document["detail"]) == (503, "unavailable", "the disk is full")


async def test_api_data_without_a_database() -> None:
    """It says that there is none."""
    async with serving() as server:
        answer = await server.ask("GET", "/api/data")

        assert (answer.status, "database" in answer.document["detail"]) == (503, True)


# --- verdicts ---


async def commit(server: Server, positions: bool, appends: Sequence[Append] = ()) -> None:
    """What a worker would commit: outputs, and positions behind all there is."""
    ends = await server.log.end_offsets(topics.RAW)
    await server.log.commit(Transaction(appends=appends, group=GROUP, positions=ends if positions else {}))


async def message_ids(server: Server) -> list[bytes]:
    """Of all raw messages, once there is one."""
    while True:
        found = [
            each.records.header(topics.MESSAGE_ID)
            for part in range(PARTITIONS)
            if (each := await server.log.read(TopicPartition(topics.RAW, part), 0, 1_000)) is not None
        ]
        if found:
            return [each for ids in found for each in ids if each is not None]
        await asyncio.sleep(0.005)


def conflict(message_id: bytes) -> Append:
    """A record of one."""
    found = Conflict(
        message_id.decode(), "hall-1", "aggregator", 1_000, {"temperature": 21.5}, {"temperature": 22.0}, Origin(0, 0)
    )
    return Append(TopicPartition(topics.CONFLICTS, 1), Records([b"hall-1"], [encode_conflict(found)], [1], {}))


def dead_letter(message_id: bytes, origin: str = topics.RAW) -> Append:
    """A record of one."""
    headers: Any = {topics.MESSAGE_ID: [message_id], REASON: [b"not registered"], ORIGIN_TOPIC: origin.encode()}
    return Append(TopicPartition(topics.DEAD_LETTERS, 0), Records([b"hall-1"], [b"{}"], [1], headers))


async def test_stored() -> None:
    """201 when ingest is past it and said nothing against it; not before."""
    async with serving() as server:
        asking = asyncio.create_task(server.ask("POST", "/sensor/data", SENSOR))
        await message_ids(server)
        await commit(server, False, [dead_letter(b"of another")])
        assert not asking.done()
        await commit(server, True)
        answer = await asking

        assert (answer.status, answer.document["status"]) == (201, "stored")
        assert "Preference-Applied" not in answer.headers


async def test_conflict() -> None:
    """409, with both sides, when ingest kept it aside."""
    async with serving() as server:
        asking = asyncio.create_task(server.ask("POST", "/sensor/data", SENSOR))
        (message_id,) = await message_ids(server)
        await commit(server, True, [conflict(message_id)])
        answer = await asking

        assert (answer.status, kind(answer)) == (409, "conflict")
        assert answer.document["message_id"] == message_id.decode()
        assert (answer.document["sent"], answer.document["stored"]) == ({"temperature": 21.5}, {"temperature": 22.0})


async def test_refused_by_ingest() -> None:
    """400 when ingest dead-lettered it: it knows more than what is asked before the append."""
    async with serving() as server:
        asking = asyncio.create_task(server.ask("POST", "/sensor/data", SENSOR))
        (message_id,) = await message_ids(server)
        await commit(server, True, [dead_letter(message_id)])
        answer = await asking

        assert (answer.status, kind(answer), answer.document["detail"]) == (400, "refused", "not registered")


async def test_dead_letters_of_later_agents() -> None:
    """A reading on which another agent failed is stored."""
    async with serving() as server:
        asking = asyncio.create_task(server.ask("POST", "/sensor/data", SENSOR))
        (message_id,) = await message_ids(server)
        await commit(server, True, [dead_letter(message_id, topics.READINGS)])

        assert (await asking).status == 201


async def test_no_verdict() -> None:
    """202 when nobody says anything in time, and at once while no worker runs."""
    async with serving(verdict_timeout=0.05) as server:
        first = await server.ask("POST", "/sensor/data", SENSOR)
        asked = await server.ask("POST", "/sensor/data", SENSOR, Prefer="wait=1")

    async with serving(verdict_timeout=60) as server:
        await server.ask("POST", "/sensor/data", SENSOR, Prefer="wait=1")
        at_once = await server.ask("POST", "/sensor/data", SENSOR)  # or the test takes a minute too long

    assert (first.status, asked.status, at_once.status) == (202, 202, 202)
    assert (asked.headers["Preference-Applied"], "Preference-Applied" in at_once.headers) == ("wait=1", False)


async def test_who_asks_to_wait_waits_for_a_worker_that_is_away() -> None:
    """201 when one comes in that time, though nobody waits for it otherwise."""
    async with serving(verdict_timeout=0.05) as server:
        away = await server.ask("POST", "/sensor/data", SENSOR)
        asking = asyncio.create_task(server.ask("POST", "/sensor/data", SENSOR, Prefer="wait=30"))
        while len(await server.appended()) < 2:
            await asyncio.sleep(0.005)
        await commit(server, True)

        assert (away.status, (await asking).status) == (202, 201)


async def test_a_row_that_the_table_does_not_know() -> None:
    """It is taken, and the answer says that it is not shown, and what was meant."""
    async with serving() as server:
        strange = await server.post("/api/data", ROW | {"sensor_type": "temprature", "unit": None})
        known = await server.post("/api/data", ROW)

        assert (strange.status, known.status) == (202, 202)
        assert "has no field 'temprature'; did you mean 'temperature'?" in strange.document["detail"]
        assert "does not show it" not in known.document["detail"]


@pytest.mark.parametrize(("path", "body"), [("/api/data", ROW), ("/sensor/data", SENSOR), (TELEMETRY, None)])
async def test_sent_again_under_a_key(path: str, body: Any) -> None:
    """The same message under the same key gets the same answer and is appended once; another one: 422."""
    payload = READING if body is None else orjson.dumps(body)
    async with serving() as server:
        first = await server.post(path, payload, Idempotency_Key="k")
        again = await server.post(path, payload, Idempotency_Key="k")
        changed = await server.post(path, payload.replace(b"21.5", b"22").replace(b"70.7", b"71"), Idempotency_Key="k")
        elsewhere = await server.post("/devices/roof-8/telemetry", payload, Idempotency_Key="k")

        assert (first.status, first.document["status"]) == (202, "accepted")
        assert again[::2] == first[::2]
        assert ("Idempotency-Replayed" in first.headers, again.headers["Idempotency-Replayed"]) == (False, "true")
        assert (changed.status, kind(changed), elsewhere.status) == (422, "key-reused", 422)
        assert len(await server.appended()) == 1


async def test_what_is_refused_leaves_its_key_free() -> None:
    """Whoever corrects the message may use the key again."""
    async with serving() as server:
        wrong = await server.post("/sensor/data", SENSOR | {"value": "warm"}, Idempotency_Key="k")
        right = await server.post("/sensor/data", SENSOR, Idempotency_Key="k")

        assert (wrong.status, right.status) == (400, 202)


async def test_too_large_is_refused_unread() -> None:
    """By what it says of itself; without that as soon as it is too much."""
    async with serving(max_message_bytes=1_000) as server:
        said = await server.raw(HEAD + b"Content-Length: 1001\r\n\r\n")
        chunk = b"200\r\n" + b" " * 0x200 + b"\r\n"
        unsaid = await server.raw(HEAD + b"Transfer-Encoding: chunked\r\n\r\n", *[chunk] * 2)
        packed = await server.post(TELEMETRY, gzip.compress(b" " * 1_001), Content_Encoding="gzip")

        assert [(each.status, kind(each)) for each in (said, unsaid, packed)] == [(413, "too-large")] * 3


async def test_what_was_written_while_nobody_waited_is_not_read() -> None:
    """A watch begins at the end of the topics."""
    async with serving() as server:
        await server.post("/sensor/data", SENSOR)
        (message_id,) = await message_ids(server)
        await commit(server, True, [conflict(message_id)] * 3)
        asking = asyncio.create_task(server.ask("POST", "/sensor/data", SENSOR))
        while len(await server.appended()) < 2:
            await asyncio.sleep(0.005)
        await commit(server, True)

        assert (await asking).status == 201


async def test_many_at_once_get_their_own_verdicts() -> None:
    """Whoever waits is told of its own message."""
    async with serving() as server:
        asking = [
            asyncio.create_task(server.ask("POST", "/sensor/data", SENSOR | {"sensor_id": f"s{each}"}))
            for each in range(20)
        ]
        while len(await server.appended()) < 20:
            await asyncio.sleep(0.005)
        ids = await message_ids(server)
        await commit(server, True, [conflict(ids[0]), dead_letter(ids[1])])
        found = {}
        for each in asking:
            answer = await each
            found[answer.document["message_id"].encode()] = answer.status

        assert found == dict.fromkeys(ids, 201) | {ids[0]: 409, ids[1]: 400}
