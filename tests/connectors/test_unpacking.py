"""Messages that hold several records, on their way into the log: whole, counted, and in order."""

import asyncio
from collections.abc import Sequence

import orjson
import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from headrace.agents.ingest import Ingest
from headrace.connectors import unpacking
from headrace.connectors.formats import Message, NotUnpacked, Part
from headrace.connectors.formats.parts import MAX_ITEMS, OUTPUT_FACTOR, OUTPUT_FLOOR
from headrace.connectors.routed_intake import RoutedIntake
from headrace.connectors.topic_profile import SHIPPED, Alarm, TopicProfile
from headrace.connectors.topic_routes import Route
from headrace.engine.clock import ManualClock
from headrace.engine.embedded.database import MEMORY
from headrace.engine.embedded.log import EmbeddedLog
from headrace.engine.errors import LogError
from headrace.engine.intake import Intake
from headrace.engine.log import TopicPartition, Transaction
from headrace.engine.metrics import Metrics
from headrace.engine.records import Record
from headrace.engine.testkit import drive
from headrace.schemas import topics
from headrace.tables.device_types import load_device_types
from tests.connectors.test_routed_intake import records

T0 = 1_704_067_200_000
PROFILES = [
    *SHIPPED,
    TopicProfile(
        name="gateways",
        topic="v1/gateway/#",
        device_type="environmental",
        format="thingsboard-gateway",
        alarm=Alarm(field="status", values=("alarm",)),
    ),
    TopicProfile(
        name="lorawan", topic="application/+/device/{device}/event/+", device_type="environmental", format="chirpstack"
    ),
    TopicProfile(name="senml", topic="senml", device_type="environmental", format="senml-json"),
    TopicProfile(
        name="numbered",
        topic="numbered/{device}",
        device_type="environmental",
        sequence={"field": "seq", "modulo": 256},
    ),
]
GOOD = orjson.dumps({"timestamp": T0, "temp": 20})


class World:
    """A log, and messages on their way into it."""

    def __init__(self, log: EmbeddedLog) -> None:
        self.log = log
        self.metrics = Metrics()
        clock = ManualClock(T0)
        self.intake = RoutedIntake(Intake(self.log, clock), PROFILES, self.metrics, clock)

    @classmethod
    async def made(cls) -> "World":
        """A new one."""
        log = EmbeddedLog(MEMORY)
        await log.create_topics(Intake.topic_specs(3))
        return cls(log)

    async def append(self, messages: Sequence[tuple[bytes, bytes]]) -> None:
        """Append them in one call."""
        await self.intake.append([topic for topic, _ in messages], [payload for _, payload in messages])

    async def read(self, topic: str) -> list[Record]:
        """What is in a topic, in the order in which it was accepted."""
        parts = [await self.log.read(TopicPartition(topic, partition), 0, 100_000) for partition in range(3)]
        found = [record for part in parts if part for record in part.records]
        return sorted(found, key=lambda record: record.headers[topics.MESSAGE_ID])


def gateway(*devices: str, time: int = T0, **values: object) -> tuple[bytes, bytes]:
    """A message of a gateway, the same for each device."""
    entry = {"ts": time, "values": {"temperature": 20, **values}}
    return b"v1/gateway/telemetry", orjson.dumps({device: [entry] for device in devices})


async def test_one_message_becomes_records_of_several_devices() -> None:
    """Each under its own key, with the headers of the message, beside what comes as one."""
    world = await World.made()

    await world.append([(b"dt/devices/roof/telemetry", GOOD), gateway("a", "b"), (b"dt/devices/roof/telemetry", GOOD)])

    found = await world.read(topics.RAW)
    assert [(each.key, each.headers[topics.PROFILE], each.value) for each in found] == [
        (b"roof", b"devices", GOOD),
        (b"a", b"gateways", b'{"timestamp":1704067200000,"temperature":20}'),
        (b"b", b"gateways", b'{"timestamp":1704067200000,"temperature":20}'),
        (b"roof", b"devices", GOOD),
    ]
    assert found[1].headers[topics.SOURCE] == b"v1/gateway/telemetry"
    assert len({each.headers[topics.MESSAGE_ID] for each in found}) == 4
    assert {name.device_type: count for name, count in (await world.log.tallies(topics.RAW)).items()} == {
        "environmental": 4
    }


async def test_alarms_are_found_in_the_parts() -> None:
    """Of a message of several devices those alone overtake that are alarms."""
    world = await World.made()
    payload = orjson.dumps(
        {
            "a": [{"ts": T0, "values": {"temperature": 1}}],
            "b": [{"ts": T0, "values": {"temperature": 1, "status": "alarm"}}],
        }
    )

    await world.append([(b"v1/gateway/telemetry", payload)])

    assert [each.key for each in await world.read(topics.RAW)] == [b"a", b"b"]
    assert [each.key for each in await world.read(topics.RAW_PRIORITY)] == [b"b"]


async def test_what_is_no_reading_goes_aside() -> None:
    """Into its own topic, with what it is about; the ledger does not count it."""
    world = await World.made()
    payload = b'{"deviceInfo": {"devEui": "0101"}}'

    await world.append([(b"application/7/device/0101/event/join", payload), (b"v1/gateway/connect", b"{")])

    found = await world.read(topics.EVENTS)
    assert [(each.key, each.value, each.headers[topics.EVENT]) for each in found] == [
        (b"0101", payload, b"join"),
        (b"?", b"{", b"connect"),
    ]
    assert found[0].headers[topics.SOURCE] == b"application/7/device/0101/event/join"
    assert await world.log.tallies(topics.RAW) == {}
    assert world.metrics.value("headrace_device_events_total", profile="lorawan") == 1


async def test_what_cannot_be_unpacked_is_dead_lettered_with_the_reason() -> None:
    """As it came, with what to do; nobody else is touched."""
    world = await World.made()
    uplink = orjson.dumps({"deviceInfo": {"devEui": "0101"}, "time": "2024-01-01T00:00:00Z", "data": "qg==", "fCnt": 7})

    await world.append([gateway("a"), (b"application/7/device/0101/event/up", uplink), (b"senml", b"{")])

    found = await world.read(topics.RAW)
    driven = drive(Ingest(load_device_types()), records(found))
    assert [record.key for record in driven.sent[topics.READINGS]] == [b"a"]
    assert [found[place].value for place, _ in driven.dead_letters] == [uplink, b"{"]
    assert [reason for _, reason in driven.dead_letters] == [
        "profile lorawan: the uplink has no decoded object: set a codec in the device profile of ChirpStack (device "
        "profiles, Codec), so that it does not send bytes alone",
        "profile senml: payload is not JSON: unexpected end of data at character 1",
    ]
    assert found[1].key == b"0101"
    assert found[1].headers[topics.SEQUENCE] == b"7 4294967296 1704067200000"
    assert world.metrics.value("headrace_unpack_refused_total", profile="senml") == 1


async def test_a_number_of_plain_json_travels_in_a_header() -> None:
    """The payload stays as it was sent; what is no number of so many has a header that says so."""
    world = await World.made()
    payloads = [b'{"seq": 5, "temp": 1}', b'{"seq": 256}', b'{"seq": true}', b'{"seq": 5.5}', b'{"temp": 1}', b"{", b""]

    await world.append([(b"numbered/d", payload) for payload in payloads])

    found = await world.read(topics.RAW)
    assert [each.value for each in found] == payloads
    said = [each.headers.get(topics.SEQUENCE) for each in found]
    wrong = [b"? %b is no whole number from 0 to 255" % each for each in (b"256", b"a boolean", b"5.5")]
    assert said == [b"5 256", *wrong, *[None] * 3]


DEVICES = st.sets(st.sampled_from("abcd"))
MESSAGES = st.one_of(
    st.just((b"dt/devices/roof/telemetry", GOOD)),
    st.just((b"stranger", GOOD)),
    st.just((b"senml", b"[")),
    st.just((b"application/1/device/d1/event/join", b"{}")),
    st.builds(lambda devices, time: gateway(*devices, time=T0 - time), DEVICES, st.integers(0, 3)),
)


@given(st.lists(st.lists(MESSAGES, min_size=1, max_size=12), max_size=4))
def test_the_ledger_balances(batches: list[list[tuple[bytes, bytes]]]) -> None:
    """Whatever comes: what was appended is what ingest passes on, knows already, or dead-letters."""

    async def run() -> tuple[int, list[Record]]:
        world = await World.made()
        for batch in batches:
            await world.append(batch)
        found = await world.read(topics.RAW)
        accepted = sum((await world.log.tallies(topics.RAW)).values())
        joins = sum(topic.endswith(b"join") for batch in batches for topic, _ in batch)
        assert len(await world.read(topics.EVENTS)) == joins
        await world.log.close()
        return accepted, found

    accepted, found = asyncio.run(run())

    ingest = Ingest(load_device_types())
    driven = drive(ingest, records(found))
    duplicates = sum(counts.get("duplicate", 0) for counts in ingest.counters.totals().values())
    assert accepted == len(found)
    assert accepted == len(driven.sent.get(topics.READINGS, [])) + len(driven.dead_letters) + duplicates
    wanted = sum(
        max(1, len(orjson.loads(payload))) if topic == b"v1/gateway/telemetry" else not topic.endswith(b"join")
        for batch in batches
        for topic, payload in batch
    )
    assert accepted == wanted


async def test_a_message_is_in_the_log_whole_or_not_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """All its records, in any partitions, and the events beside them are one transaction."""
    world = await World.made()
    taken: list[Transaction] = []
    commit = world.log.commit

    async def noted(transaction: Transaction) -> object:
        taken.append(transaction)
        return await commit(transaction)

    await world.append([gateway("warm-up")])
    monkeypatch.setattr(world.log, "commit", noted)

    await world.append([gateway(*"abcdefgh"), (b"application/1/device/x/event/join", b"{}")])

    (transaction,) = taken
    assert {append.target.topic for append in transaction.appends} == {topics.RAW, topics.EVENTS}
    assert len({append.target.partition for append in transaction.appends}) > 1
    assert sum(len(append.records) for append in transaction.appends) == 9


async def test_when_the_log_refuses_nothing_is_counted() -> None:
    """The error comes through, and the message counts when it comes again."""

    class Full:
        async def append(self, *given: object, **rest: object) -> None:
            raise LogError("the disk is full")

    metrics = Metrics()
    with pytest.raises(LogError):
        await RoutedIntake(Full(), PROFILES, metrics).append([b"senml"], [b"{"])

    assert metrics.value("headrace_unpack_refused_total", profile="senml") == 0


def test_a_fault_of_a_format_blocks_nobody() -> None:
    """What it cannot handle is dead-lettered, logged as a fault, and what comes behind it goes on."""

    def broken(message: Message) -> list[Part]:
        raise RecursionError("of the test")

    route = Route(b"d", "environmental", "p", None, broken)
    with structlog.testing.capture_logs() as logs:
        made = unpacking.unpack([route, Route(b"e", "environmental", "p", None)], [b"x", b"y"], [b"{", b"{}"], T0)

    assert made.payloads == [b"{", b"{}"]
    assert made.reasons == [
        b"it could not be unpacked, which is a fault of headrace: RecursionError('of the test')",
        None,
    ]
    assert [each["event"] for each in logs] == ["unpack_failed"]


def pack(first: bytes, *others: bytes) -> bytes:
    """A SenML pack."""
    return b"[" + b",".join([first, *others]) + b"]"


BOMBS = {
    "base names": pack(
        b'{"bn":"%s:","n":"a","v":1}' % (b"x" * 500), *(b'{"n":"a%d","v":1,"t":%d}' % (n, n) for n in range(9_000))
    ),
    "records": pack(*[b'{"n":"d:a","v":1}'] * (MAX_ITEMS + 1)),
    "long name": pack(b'{"bn":"%s","n":"a","v":1}' % (b"x" * 600)),
    "nesting": b"[" * 100_000,
    "digits": pack(b'{"n":"d:a","v":%s}' % (b"9" * 5_000)),
    "bytes": b" " * (1 << 20) + b"[]",
}


@pytest.mark.parametrize("payload", BOMBS.values(), ids=BOMBS)
async def test_bombs_are_refused_whole(payload: bytes) -> None:
    """What would become too much is one dead letter; no part of it is appended."""
    world = await World.made()

    await world.append([(b"senml", payload)])

    (found,) = await world.read(topics.RAW)
    assert topics.REFUSED in found.headers
    assert found.value is not None
    assert len(found.value) <= len(payload)


@given(st.integers(1, 400), st.integers(1, 600))
def test_output_is_bounded_by_input(count: int, name: int) -> None:
    """Whatever is made of a message is at most so many times its size."""
    unpack = PROFILES[4].unpacker()
    assert unpack is not None
    base = "x" * name + ":"
    payload = orjson.dumps([{"bn": base, "n": "a", "v": 1}, *({"n": "a", "v": 1, "t": each} for each in range(count))])

    try:
        parts = unpack(Message(["senml"], "", payload, T0))
    except NotUnpacked:
        parts = []

    assert isinstance(parts, list)
    size = sum(len(part.payload) + len(part.device_id) for part in parts)
    assert size <= OUTPUT_FACTOR * len(payload) + OUTPUT_FLOOR
    assert parts or name > 100
