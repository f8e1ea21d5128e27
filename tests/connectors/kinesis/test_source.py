"""The Kinesis source, against a server that speaks for AWS, splits and merges."""

import asyncio
import random
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson
import pytest
import structlog
from pydantic import ValidationError

from headrace.connectors.kinesis.position import Position
from headrace.connectors.kinesis.source import LOOK_INTERVAL, open_kinesis_source
from headrace.connectors.kinesis.source_settings import KinesisSourceSettings
from headrace.connectors.topic_profile import Alarm, TopicProfile
from headrace.engine.clock import ManualClock, SystemClock
from headrace.engine.embedded.database import MEMORY
from headrace.engine.embedded.log import EmbeddedLog
from headrace.engine.errors import ConfigError
from headrace.engine.intake import Intake, Mark
from headrace.engine.log import TopicPartition
from headrace.engine.records import Record
from headrace.schemas import topics
from tests.connectors.kinesis.aggregate import aggregate
from tests.connectors.kinesis.aws import Stream, client
from tests.connectors.kinesis.reading import (
    HurriedClock,
    Reading,
    ReadWay,
    merge,
    open_ids,
    put,
    sharded_moto,
    source_settings,
    split,
)
from tests.contract.source_contract import GatedIntake, arrived, by_device, made, until, until_arrived

HOUR_MS = 3_600_000


class StillClock(HurriedClock):
    """Nothing takes any time but waiting."""

    def monotonic(self) -> float:
        return 0.0


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """Where the server listens."""
    with sharded_moto() as found:
        yield found


@pytest.fixture
async def kinesis(url: str) -> AsyncIterator[Any]:
    """A plain client; the stream `fleet` is empty and has two shards."""
    async with client(url) as made_client:
        await Stream(made_client, "fleet").make()
        yield made_client


@pytest.fixture
async def log() -> AsyncIterator[EmbeddedLog]:
    """An empty log."""
    log = EmbeddedLog(MEMORY)
    await log.create_topics(Intake.topic_specs(4))
    yield log
    await log.close()


def intake(log: EmbeddedLog) -> Intake:
    """Into this log."""
    return Intake(log, SystemClock())


async def raw_records(log: EmbeddedLog) -> dict[bytes, list[Record]]:
    """What is in the raw topic, by device."""
    found: dict[bytes, list[Record]] = {}
    for target, end in (await log.end_offsets(topics.RAW)).items():
        read = await log.read(TopicPartition(*target), 0, 100) if end else None
        for record in read.records if read is not None else ():
            found.setdefault(record.key or b"", []).append(record)
    return found


async def positions(log: EmbeddedLog) -> dict[str, Position]:
    """What the log has of each shard."""
    found = await intake(log).positions("kinesis:")
    return {name.rpartition(":")[2]: Position.loads(value) for name, value in found.items() if "shardId" in name}


async def move_back(log: EmbeddedLog, until_ms: int) -> None:
    """As if every shard had been read last then."""
    kept = await intake(log).positions("kinesis:")
    for name, value in kept.items():
        if "shardId" in name:
            position = Position.loads(value)._replace(until_ms=until_ms)
            await intake(log).append([], [], device_type="", profile="", mark=Mark(name, position.dumps()))


@pytest.mark.parametrize(
    "faults",
    [
        ["throttled"] * 5,
        ["error", "reset", "error"],
        ["lost_reset", "lost_reset"],
        ["expired", "expired", "throttled", "expired"],
        ["silent", "lost_silent"],
    ],
    ids="-".join,
)
async def test_failed_reads_lose_and_repeat_nothing(
    kinesis: Any, url: str, log: EmbeddedLog, faults: list[str]
) -> None:
    """Requests that are refused, hang, or break before or after they were carried out."""
    messages = made(300, 7)
    async with (
        ReadWay(url, patience=10) as way,
        Reading(way.url, intake(log), max_records=50, request_timeout=10) as reading,
    ):
        await put(kinesis, messages[:100])
        await until_arrived(log, 100)
        asked = way.seen["GetShardIterator"]
        for some in (messages[100:200], messages[200:]):
            way.fail("GetRecords", faults)
            await put(kinesis, some)
            await until_arrived(log, messages.index(some[-1]) + 1)

    # Requests for iterators that were under way with a silent one time out as well, and are repeated.
    assert "silent" in faults or way.seen["GetShardIterator"] - asked <= 2 * faults.count("expired")
    assert by_device(await arrived(log)) == by_device(messages)
    assert reading.source.statistics().retries >= 2 * len([each for each in faults if each != "expired"])


@pytest.mark.parametrize("operation", ["DescribeStreamSummary", "ListShards", "GetShardIterator"])
async def test_it_waits_for_a_kinesis_that_is_away(kinesis: Any, url: str, log: EmbeddedLog, operation: str) -> None:
    """It is not ready meanwhile, and then it is."""
    await put(kinesis, made(20, 2))
    async with ReadWay(url, patience=10) as way:
        way.fail(operation, ["silent", "error", "reset", "throttled", "lost_reset", "error", "reset", "throttled"])
        async with Reading(way.url, intake(log), request_timeout=10) as reading:
            assert reading.health.unready() != []
            await until_arrived(log, 20)
            while reading.health.unready():  # a slow machine may have had requests time out since
                await asyncio.sleep(0.01)

    assert reading.source.statistics().retries >= 8


@pytest.mark.parametrize(("operation", "name"), [("GetRecords", "fleet"), ("DescribeStreamSummary", "fleet")])
async def test_denied_access_ends_it(kinesis: Any, url: str, log: EmbeddedLog, operation: str, name: str) -> None:
    """With what the credentials must be allowed."""
    async with ReadWay(url) as way:
        way.fail(operation, ["denied"])
        with pytest.raises(ConfigError, match=r"\[kinesis_source\] stream fleet.*ListShards, GetShardIterator"):
            async with Reading(way.url, intake(log), stream=name) as reading:
                await reading.task


async def test_a_stream_that_is_not_there_ends_it(url: str, log: EmbeddedLog) -> None:
    """It says so."""
    with pytest.raises(ConfigError, match="stream nowhere: there is no such stream"):
        async with Reading(url, intake(log), stream="nowhere") as reading:
            await reading.task


async def test_resharding_under_load(kinesis: Any, url: str, log: EmbeddedLog) -> None:
    """Splits and merges, while devices publish and the source is killed again and again: all once, and in order."""
    messages, chance = made(1_200, 23), random.Random(20)

    async def publish() -> None:
        for start in range(0, 1_200, 80):
            await put(kinesis, messages[start : start + 80])
            count = len(await open_ids(kinesis))
            if count > 1 and chance.random() < 0.4:
                await merge(kinesis, chance.randrange(count - 1))
            elif count < 6:
                await split(kinesis, chance.randrange(count))

    publishing = asyncio.create_task(publish())
    for kill in range(8):
        async with Reading(url, intake(log), max_records=40, max_batch=13) as reading:
            source = reading.source
            while source.statistics().appended <= 20 * kill and not publishing.done():
                await asyncio.sleep(0.002)
            await reading.kill()
    await publishing
    async with Reading(url, intake(log)) as reading:
        await until_arrived(log, 1_200)
        open_shards = {shard for shard, _, _ in await open_ids(kinesis)}
        await until(lambda: set(reading.source._reading) == open_shards)

    assert by_device(await arrived(log)) == by_device(messages)
    found = await positions(log)
    assert sum(position.ended for position in found.values()) >= 8
    assert {name for name, position in found.items() if not position.ended} <= open_shards


async def test_children_wait_until_their_parents_are_in_the_log(kinesis: Any, url: str, log: EmbeddedLog) -> None:
    """While the log takes nothing of the parent, no child is read, though it has records."""
    before, after = made(60, 6), [(f"d{place % 6}", b'{"seq": %d}' % place) for place in range(60, 120)]
    await put(kinesis, before)
    await merge(kinesis)
    await put(kinesis, after)
    gated = GatedIntake(log)
    gated.before.clear()
    async with ReadWay(url) as way, Reading(way.url, gated) as reading:
        await gated.entered.wait()
        for _ in range(50):
            await asyncio.sleep(0.002)
        assert way.seen["GetShardIterator"] <= 2
        gated.before.set()
        await until_arrived(log, 120)
        assert reading.source.statistics().shards_ended == 2

    assert by_device(await arrived(log)) == by_device([*before, *after])


async def test_latest_begins_with_what_comes_from_now_on(kinesis: Any, url: str, log: EmbeddedLog) -> None:
    """And a second start goes on there: what came meanwhile is not passed over, also on a shard that had nothing."""
    await put(kinesis, [("d1", b'{"seq": 0}')])
    await asyncio.sleep(0.01)
    async with Reading(url, intake(log), start="latest") as reading:
        await until(lambda: reading.health.unready() == [])
    await put(kinesis, [(f"d{place}", b'{"seq": %d}' % place) for place in range(1, 9)])
    async with Reading(url, intake(log), start="latest"):
        await until_arrived(log, 8)

    assert sorted(orjson.loads(payload)["seq"] for _, payload in await arrived(log)) == list(range(1, 9))


async def test_a_timestamp_begins_with_what_arrived_since(kinesis: Any, url: str, log: EmbeddedLog) -> None:
    """Records before it are left."""
    await put(kinesis, made(10, 5))
    await asyncio.sleep(0.01)
    since = datetime.now(UTC)
    await asyncio.sleep(0.01)
    await put(kinesis, [("d1", b'{"seq": 11}')])
    async with Reading(url, intake(log), start="timestamp", start_timestamp=since.isoformat()):
        await until_arrived(log, 1)

    assert await arrived(log) == [("d1", b'{"seq": 11}')]


async def test_a_clock_that_is_ahead_of_kinesis(kinesis: Any, url: str, log: EmbeddedLog) -> None:
    """Kinesis refuses a time that it has not reached: asked again until it has, nothing is passed over."""
    async with ReadWay(url) as way, Reading(way.url, intake(log), start="latest") as reading:
        way.fail("GetShardIterator", ["early"] * 4)
        await until(lambda: reading.source.statistics().retries >= 4)
        await put(kinesis, [("d1", b"1"), ("d2", b"2")])
        await until_arrived(log, 2)


async def test_a_position_that_fell_out_of_retention_is_said(kinesis: Any, url: str, log: EmbeddedLog) -> None:
    """Loudly, with the time that is lost, and counted; then it goes on with the oldest record there is."""
    await put(kinesis, made(10, 5))
    async with Reading(url, intake(log)):
        await until_arrived(log, 10)
    long_ago_ms = SystemClock().now_ms() - 30 * HOUR_MS
    await move_back(log, long_ago_ms)
    with structlog.testing.capture_logs() as logs:
        async with Reading(url, intake(log)) as reading:
            await until(lambda: reading.source.statistics().lost_ranges == 2)
            await put(kinesis, [("d1", b'{"seq": 11}')])
            await until_arrived(log, 11)

    lost = [each for each in logs if each["event"] == "kinesis_records_lost"]
    assert [each["from_ms"] for each in lost] == [long_ago_ms] * 2
    assert all(5.9 * HOUR_MS < each["until_ms"] - each["from_ms"] < 6.1 * HOUR_MS for each in lost)
    assert reading.metrics.value("headrace_source_lost_ranges_total", source="kinesis") == 2
    assert all(position.until_ms > long_ago_ms + 29 * HOUR_MS for position in (await positions(log)).values())


async def test_a_sequence_number_that_is_gone(kinesis: Any, url: str, log: EmbeddedLog) -> None:
    """Kinesis refuses it: the shard is read from its oldest record, and that is counted as lost."""
    await put(kinesis, [("d1", b'{"seq": 1}')])
    async with Reading(url, intake(log)):
        await until_arrived(log, 1)
    async with ReadWay(url) as way:
        way.fail("GetShardIterator", ["gone"])
        async with Reading(way.url, intake(log)) as reading:
            await until(lambda: reading.source.statistics().lost_ranges == 1)
            await put(kinesis, [("d1", b'{"seq": 2}')])
            await until_arrived(log, 2)

    assert (b'{"seq": 2}') in [payload for _, payload in await arrived(log)]


async def test_a_stream_that_was_made_anew_is_another_one(kinesis: Any, url: str, log: EmbeddedLog) -> None:
    """Its positions are not those of the old one; it is said and counted."""
    await put(kinesis, [("d1", b'{"seq": 1}')])
    async with Reading(url, intake(log)):
        await until_arrived(log, 1)
    await Stream(kinesis, "fleet").make()
    await put(kinesis, [("d1", b'{"seq": 2}')])
    with structlog.testing.capture_logs() as logs:
        async with Reading(url, intake(log)) as reading:
            await until_arrived(log, 2)

    assert reading.source.statistics().lost_ranges == 1
    assert "kinesis_stream_replaced" in [each["event"] for each in logs]


async def test_aggregated_records_are_unpacked(kinesis: Any, url: str, log: EmbeddedLog) -> None:
    """Each message under its own key, in order, also where the source is killed in the middle of a record."""
    messages = made(90, 4)
    await put(kinesis, [("a", aggregate(messages[:50])), ("a", aggregate([])), ("a", aggregate(messages[50:]))])
    gated = GatedIntake(log)
    gated.after.clear()
    async with Reading(url, gated, max_batch=20) as reading:
        await gated.durable.wait()
        await reading.kill()
    assert len(await arrived(log)) == 20
    async with Reading(url, intake(log), max_batch=20):
        await until_arrived(log, 90)

    assert by_device(await arrived(log)) == by_device(messages)


async def test_a_damaged_aggregate_goes_in_as_it_is(kinesis: Any, url: str, log: EmbeddedLog) -> None:
    """With the reason that ingest dead-letters it for, and the log says it too."""
    damaged = aggregate([("d1", b"1")])[:-1] + b"?"
    with structlog.testing.capture_logs() as logs:
        async with Reading(url, intake(log)):
            await put(kinesis, [("d0", b"{}"), ("batch", damaged)])
            await until_arrived(log, 2)

    assert sorted(await arrived(log)) == [("batch", damaged), ("d0", b"{}")]
    found = await raw_records(log)
    reasons = {key: records[0].headers.get(topics.REFUSED) for key, records in found.items()}
    why = b"a record of the Kinesis Producer Library that is damaged: the checksum does not fit"
    assert reasons == {b"d0": None, b"batch": why}
    assert [each["reason"] for each in logs if each["event"] == "kinesis_aggregate_damaged"] == [
        "the checksum does not fit"
    ]


async def test_device_and_alarm_of_the_payload(kinesis: Any, url: str, log: EmbeddedLog) -> None:
    """Where the partition key is no device id; headers say what the settings and the stream do."""
    rows = [{"deviceId": "wall-3", "status": "alarm"}, {"deviceId": "wall-4", "status": "normal"}, {"status": "alarm"}]
    settings: dict[str, Any] = {
        "device_type": "tilt",
        "profile": "plant",
        "device_field": "deviceId",
        "alarm": {"field": "status", "values": ["alarm"]},
    }
    async with Reading(url, intake(log), **settings):
        await put(kinesis, [("any", orjson.dumps(row)) for row in rows])
        await until_arrived(log, 3)

    assert sorted(device for device, _ in await arrived(log)) == ["?", "wall-3", "wall-4"]
    ends = await log.end_offsets(topics.RAW_PRIORITY)
    (target,) = [target for target, end in ends.items() if end]
    found = await log.read(TopicPartition(*target), 0, 10)
    assert found is not None
    headers = found.records[0].headers
    assert (found.records[0].key, headers[topics.DEVICE_TYPE], headers[topics.PROFILE]) == (
        b"wall-3",
        b"tilt",
        b"plant",
    )
    assert headers[topics.SOURCE].startswith(b"fleet/shardId-00000000000")


async def test_records_as_messages_of_a_topic(kinesis: Any, url: str, log: EmbeddedLog) -> None:
    """Its profile says type, format and alarms: a record becomes several, in order, or is refused."""
    profile = TopicProfile(name="board", topic="tb/{device}", device_type="tilt", format="thingsboard", alarm=Alarm())
    rows = [{"ts": 1_750_000_000_000 + place, "values": {"tilt_angle": place}} for place in range(3)]
    async with Reading(url, intake(log), profiles=[profile], topic="tb/{key}") as reading:
        await put(kinesis, [("wall-1", orjson.dumps(rows)), ("wall-2", b"?"), ("no/level", b"{}")])
        await put(kinesis, [("all", aggregate([("wall-3", orjson.dumps(rows[:1]))]))])
        await until_arrived(log, 6)

    found = await raw_records(log)
    angles = [orjson.loads(each.value or b"")["tilt_angle"] for each in found[b"wall-1"]]
    assert angles == [0, 1, 2]
    assert [len(found[key]) for key in (b"wall-2", b"wall-3", b"?")] == [1, 1, 1]
    (refused,) = found[b"wall-2"]
    assert refused.value == b"?"
    assert refused.headers[topics.REFUSED]
    assert reading.metrics.value("headrace_unpack_refused_total", profile="board") == 1
    assert reading.metrics.value("headrace_unknown_topics_total") == 1
    headers = found[b"wall-3"][0].headers
    assert (headers[topics.DEVICE_TYPE], headers[topics.PROFILE], headers[topics.SOURCE]) == (
        b"tilt",
        b"board",
        b"tb/wall-3",
    )
    assert sum((await log.end_offsets(topics.RAW_PRIORITY)).values()) >= 4
    assert reading.source.statistics().received == 4


async def test_a_damaged_aggregate_on_a_topic(kinesis: Any, url: str, log: EmbeddedLog) -> None:
    """Is refused for that, whatever the format would say."""
    profile = TopicProfile(name="board", topic="tb/{device}", device_type="tilt", format="thingsboard")
    async with Reading(url, intake(log), profiles=[profile], topic="tb/{key}"):
        await put(kinesis, [("wall-1", aggregate([("d1", b"1")])[:-1] + b"?")])
        await until_arrived(log, 1)

    (record,) = (await raw_records(log))[b"wall-1"]
    assert b"Kinesis Producer Library that is damaged" in record.headers[topics.REFUSED]


async def test_the_limits_of_a_shard_are_kept(kinesis: Any, url: str, log: EmbeddedLog) -> None:
    """Behind, it reads five times a second and no more than 2 MB of it; else every `read_interval`."""
    clock = StillClock()
    await put(kinesis, [("d1", orjson.dumps({"seq": place, "pad": "x" * 500_000})) for place in range(6)])
    async with Reading(url, intake(log), clock, max_records=3, read_interval=0.7):
        await until_arrived(log, 6)
        await until(lambda: clock.waits.count(0.7) >= 3)

    waits = [wait for wait in clock.waits if wait < LOOK_INTERVAL]
    assert [wait for wait in waits if wait > 0.7] == pytest.approx([0.75, 0.75], abs=0.001)  # of two reads with 1.5 MB
    assert min(waits) >= 0.2


async def test_reads_that_fail_ask_for_less(kinesis: Any, url: str, log: EmbeddedLog) -> None:
    """Where ten MiB do not come through in time less may; when it does, more is asked for again."""
    await Stream(kinesis, "fleet").make(1)
    async with ReadWay(url) as way:
        way.fail("GetRecords", ["error"] * 6)
        async with Reading(way.url, intake(log), max_records=1_000):
            await until(lambda: len(way.limits) >= 12)

    assert way.limits[:12] == [1_000, 500, 250, 125, 62, 50, 50, 100, 200, 400, 800, 1_000]


async def test_how_far_it_is_behind(kinesis: Any, url: str, log: EmbeddedLog) -> None:
    """The gauge is what Kinesis says of the slowest shard; a source that has read everything is behind nothing."""
    await put(kinesis, [("d1", b'{"seq": 1}')])
    await asyncio.sleep(0.05)
    await put(kinesis, [("d1", b'{"seq": 2}')])
    gated = GatedIntake(log)
    gated.before.clear()
    async with Reading(url, gated, max_records=1) as reading:
        await gated.entered.wait()
        assert reading.source.progress().behind >= 50
        assert reading.metrics.value("headrace_source_behind_seconds", source="kinesis") >= 0.05
        gated.before.set()
        await until_arrived(log, 2)
        await until(lambda: reading.source.progress().behind == 0)


async def test_a_second_process_is_refused(tmp_path: Path, log: EmbeddedLog, url: str) -> None:
    """On the same stream and the same data folder."""
    lock, settings = tmp_path / "kinesis-fleet.lock", source_settings(url)
    async with open_kinesis_source(settings, intake(log), ManualClock(), lock):
        with pytest.raises(ConfigError, match="takes it into the same log already"):
            async with open_kinesis_source(settings, intake(log), ManualClock(), lock):
                pass
    async with open_kinesis_source(settings, intake(log), ManualClock(), lock):
        pass


@pytest.mark.parametrize(
    ("given", "mistake"),
    [
        ({"start": "timestamp"}, "come together"),
        ({"start_timestamp": "2026-01-18T10:30:00Z"}, "come together"),
        ({"start": "timestamp", "start_timestamp": "2026-01-18T10:30:00"}, "timezone"),
        ({"topic": "tb/{key}", "device_type": "tilt"}, "its topic profile says device_type"),
        ({"topic": "tb/+"}, "should match pattern"),
        ({"read_interval": 0.1}, "greater than or equal to 0.2"),
        ({"stream": "my stream"}, "must be the name of a stream"),
    ],
)
def test_mistakes_in_settings(given: dict[str, object], mistake: str) -> None:
    """Each says what is wrong."""
    with pytest.raises(ValidationError, match=mistake):
        KinesisSourceSettings.model_validate(given)
