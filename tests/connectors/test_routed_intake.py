"""Messages by their topics into the log: nothing is lost, nothing overtakes, and strangers are kept aside."""

import asyncio
from collections.abc import Sequence

import orjson
import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from headrace.agents.ingest import Ingest
from headrace.connectors import topic_routes
from headrace.connectors.routed_intake import RoutedIntake
from headrace.connectors.topic_profile import SHIPPED, Alarm, TopicProfile
from headrace.connectors.topic_routes import UNKNOWN, TopicRoutes
from headrace.engine.clock import ManualClock
from headrace.engine.embedded.database import MEMORY
from headrace.engine.embedded.log import EmbeddedLog
from headrace.engine.errors import LogError
from headrace.engine.intake import Intake
from headrace.engine.log import TopicPartition
from headrace.engine.metrics import Metrics
from headrace.engine.records import Header, Record, Records
from headrace.engine.testkit import drive
from headrace.schemas import topics
from headrace.tables.device_types import load_device_types

T0 = 1_704_067_200_000
PROFILES = [
    *SHIPPED,
    TopicProfile(name="siren", topic="dt/devices/{device}/alarm", device_type="environmental", alarm=Alarm()),
    TopicProfile(name="tilt", topic="tilt/{device}", device_type="tilt", alarm=Alarm(field="status", values=["alarm"])),
]


class FullIntake:
    """Takes nothing."""

    async def append(self, device_ids: Sequence[bytes], payloads: Sequence[bytes], **rest: object) -> None:
        """As `headrace.engine.intake.Intake.append`."""
        raise LogError("the disk is full")


async def into_log(
    batches: Sequence[Sequence[tuple[bytes, bytes]]], metrics: Metrics | None = None
) -> dict[str, list[list[Record]]]:
    """Append batches of (topic, payload); by log topic the records of each partition."""
    log = EmbeddedLog(MEMORY)
    await log.create_topics(Intake.topic_specs(3))
    routed = RoutedIntake(Intake(log, ManualClock(T0)), PROFILES, metrics)
    for batch in batches:
        await routed.append([topic for topic, _ in batch], [payload for _, payload in batch])
    found: dict[str, list[list[Record]]] = {}
    for name in (topics.RAW, topics.RAW_PRIORITY):
        parts = [await log.read(TopicPartition(name, partition), 0, 10_000) for partition in range(3)]
        found[name] = [list(part.records) if part else [] for part in parts]
    assert sum((await log.tallies(topics.RAW)).values()) == sum(map(len, batches))
    await log.close()
    return found


def records(rows: Sequence[Record]) -> Records:
    """Rows as columns."""
    names = dict.fromkeys(name for row in rows for name in row.headers)
    headers: dict[str, Header] = {name: [row.headers.get(name) for row in rows] for name in names}
    return Records([row.key for row in rows], [row.value for row in rows], [row.timestamp for row in rows], headers)


def expected(topic: bytes, payload: bytes) -> tuple[bytes, bytes, bytes, bool]:
    """Key, profile, device type and alarm of a message, said once more in the plainest way."""
    match topic.split(b"/"):
        case [b"dt", b"devices", device, b"telemetry"] if device.isalnum():
            return device, b"devices", b"environmental", False
        case [b"dt", b"devices", device, b"alarm"] if device.isalnum():
            return device, b"siren", b"environmental", True
        case [b"tilt", device] if device.isalnum():
            return device, b"tilt", b"tilt", payload == b'{"status":"alarm"}'
        case [b"iot", b"data"]:
            return b"c" if b"device_id" in payload else b"?", b"collector", b"collector", False
    return b"?", b"", b"", False


LEVELS = st.sampled_from([*b"dt devices d1 d2 tilt telemetry alarm iot data \xff".split(), b""])
TOPICS = st.one_of(
    st.sampled_from(b"dt/devices/d1/telemetry dt/devices/d2/telemetry dt/devices/d1/alarm tilt/d1 iot/data".split()),
    st.lists(LEVELS, min_size=1, max_size=5).map(b"/".join),
)
PAYLOADS = st.sampled_from([b'{"status":"alarm"}', b'{"status":"normal"}', b'{"device_id":"c"}', b"{", b""])


@given(st.lists(st.lists(st.tuples(TOPICS, PAYLOADS), max_size=30), max_size=4))
def test_nothing_is_lost_and_nothing_overtakes(batches: list[list[tuple[bytes, bytes]]]) -> None:
    """For any topics: each message is in the log once, in the order it came, strangers marked, alarms copied."""
    metrics = Metrics()

    found = asyncio.run(into_log(batches, metrics))

    given_ = [(topic, payload, *expected(topic, payload)) for batch in batches for topic, payload in batch]
    keys = {each[2] for each in given_}
    for lane, chosen in ((topics.RAW, given_), (topics.RAW_PRIORITY, [each for each in given_ if each[-1]])):
        assert sum(map(len, found[lane])) == len(chosen)
        for key in keys:
            own = [each for part in found[lane] for each in part if each.key == key]
            names = (topics.PROFILE, topics.DEVICE_TYPE)
            told = [(each.headers[topics.SOURCE], each.value, *map(each.headers.get, names)) for each in own]
            assert told == [(topic, payload, *said[:2]) for topic, payload, whose, *said in chosen if whose == key]
    assert metrics.value("headrace_unknown_topics_total") == sum(each[3] == b"" for each in given_)


async def test_reasons_name_the_topic() -> None:
    """Ingest dead-letters what no profile takes, whatever the payload, and says which topic it was."""
    good = orjson.dumps({"timestamp": T0, "temp": 20})
    row = orjson.dumps({"device_id": "c", "sensor_type": "temp", "value": 20, "unit": "C", "timestamp": T0})
    messages = [
        (b"dt/device/roof-7/telemetry", good),
        (b"dt/devices//telemetry", good),
        (b"dt/devices/\xff/telemetry", b"{"),
        ("dt/ü/".encode() * 2000, good),
        (b"iot/data", good),
        (b"iot/data", b"{"),
        (b"iot/data", row),
        (b"dt/devices/roof-7/telemetry", good),
    ]

    parts = (await into_log([messages]))[topics.RAW]

    driven = [drive(Ingest(load_device_types()), records(part)) for part in parts]
    assert sum(len(each.sent.get(topics.READINGS, [])) for each in driven) == 2
    reasons = [reason for each in driven for _, reason in each.dead_letters]
    assert sorted(reasons) == sorted([
        "no topic profile takes the topic 'dt/device/roof-7/telemetry'",
        "no topic profile takes the topic 'dt/devices//telemetry'",
        "no topic profile takes the topic b'dt/devices/\\xff/telemetry', which is not UTF-8",
        f"no topic profile takes the topic '{'dt/ü/' * 42}dt/... (12000 bytes)'",
        "the message names no device",
        "payload is not JSON: unexpected end of data at character 1",
    ])  # fmt: skip


async def test_what_was_not_appended_is_not_counted() -> None:
    """When the log refuses, the error comes through, and the message counts when it comes again."""
    metrics = Metrics()

    with structlog.testing.capture_logs() as logs, pytest.raises(LogError):
        await RoutedIntake(FullIntake(), SHIPPED, metrics).append([b"x"], [b"{}"])

    assert metrics.value("headrace_unknown_topics_total") == 0
    assert logs == []


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Strangers and long topics are not remembered, and what is known starts over at the limit."""
    monkeypatch.setattr(topic_routes, "MAX_CACHED_TOPICS", 10)
    routes = TopicRoutes(SHIPPED)
    known = [b"dt/devices/d%d/telemetry" % number for number in range(25)]

    found = routes.find([*known, b"stranger", b"dt/devices/" + b"x" * 300 + b"/telemetry", b"iot/data"])

    assert [route.device_id for route in found[:25]] == [b"d%d" % number for number in range(25)]
    assert found[25] == UNKNOWN
    assert found[26].device_id == b"x" * 300
    assert list(routes._known) == [*known[20:], b"iot/data"]
