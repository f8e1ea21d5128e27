"""The intake appends what devices send, whatever its size."""

from collections.abc import AsyncIterator
from uuid import UUID

import orjson
import pytest

from headrace.agents.ingest import Ingest
from headrace.engine.clock import ManualClock
from headrace.engine.embedded.database import MEMORY
from headrace.engine.embedded.log import EmbeddedLog
from headrace.engine.intake import KEPT, Intake, MessageIds
from headrace.engine.kafka.log import KafkaLog
from headrace.engine.kafka.settings import KafkaSettings
from headrace.engine.log import Log, Tally, TopicPartition
from headrace.engine.log_range import read_range, reading
from headrace.engine.records import Records
from headrace.engine.testkit import drive
from headrace.schemas import topics
from headrace.tables.device_types import load_device_types
from tests.conftest import KafkaServer

T0 = 1_704_067_200_000
GOOD = orjson.dumps({"timestamp": T0, "co2": 400})


class NarrowLog(EmbeddedLog):
    """A log that takes little."""

    largest_value = 100_000


@pytest.fixture
async def narrow() -> AsyncIterator[NarrowLog]:
    """With the topics of an intake."""
    log = NarrowLog(MEMORY)
    await log.create_topics(Intake.topic_specs(1))
    yield log
    await log.close()


async def appended(log: Log, *batches: list[bytes]) -> Records:
    """What is in the log after these appends, each message of a device of its own; only what is new, by device."""
    before = await log.end_offsets(topics.RAW)
    intake, sent = Intake(log, ManualClock(T0)), 0
    for batch in batches:
        devices = [b"d%d" % (sent + place) for place in range(len(batch))]
        await intake.append(devices, batch, device_type="environmental", profile="test")
        sent += len(batch)
    parts = []
    async with reading(log) as reader:
        for target, end in (await log.end_offsets(topics.RAW)).items():
            async for fetched in read_range(reader, target, before[target], end):
                parts.append(fetched.records)
    found = Records.concat([part for part in parts if len(part)])
    return found.take(sorted(range(sent), key=lambda place: found.keys[place] or b""))


def refused_by_ingest(records: Records) -> list[tuple[int, str]]:
    """Places and reasons; checks that every other message is a reading."""
    driven = drive(Ingest(load_device_types()), records)
    assert len(driven.sent.get(topics.READINGS, [])) + len(driven.dead_letters) == len(records)
    return driven.dead_letters


async def test_payload_at_the_limit_is_whole(narrow: NarrowLog) -> None:
    """What the log just takes is not touched."""
    largest = GOOD.ljust(narrow.largest_value)

    records = await appended(narrow, [GOOD, largest])

    assert records.values == [GOOD, largest]
    assert topics.PAYLOAD_BYTES not in records.headers
    assert refused_by_ingest(records) == []


async def test_larger_payload_is_cut_and_dead_lettered(narrow: NarrowLog) -> None:
    """Of what the log does not take the beginning is kept, and the size; even one that reads as a message."""
    large = GOOD.ljust(narrow.largest_value + 1)

    records = await appended(narrow, [GOOD, large, GOOD], [large])

    assert records.values == [GOOD, large[:KEPT], GOOD, large[:KEPT]]
    assert records.header(topics.PAYLOAD_BYTES) == [None, b"100001", None, b"100001"]
    why = "payload has 100001 bytes, more than the log takes; the beginning is kept"
    assert refused_by_ingest(records) == [(1, why), (3, why)]


def test_size_that_is_one_for_all() -> None:
    """A header that all records share refuses them all, whatever it says."""
    records = Records([b"d"], [GOOD], [T0], {topics.DEVICE_TYPE: b"environmental", topics.PAYLOAD_BYTES: b"\xff"})

    ((_, why),) = refused_by_ingest(records)

    assert why.startswith("payload has \N{REPLACEMENT CHARACTER} bytes")


async def test_one_append_of_several_profiles(narrow: NarrowLog) -> None:
    """Messages of several profiles are one batch in the order given, each with headers and a tally of its own."""
    types, profiles = ["environmental", "tilt", "environmental"], ["devices", "slopes", "devices"]

    await Intake(narrow, ManualClock(T0)).append(
        [b"a", b"b", b"a"], [b"1", b"2", b"3"], device_type=types, profile=profiles, sources=[b"t/a", b"t/b", b"t/a"]
    )

    fetched = await narrow.read(TopicPartition(topics.RAW, 0), 0, 100)
    assert fetched is not None
    records = fetched.records
    assert records.values == [b"1", b"2", b"3"]
    assert records.header(topics.DEVICE_TYPE) == [each.encode() for each in types]
    assert records.header(topics.PROFILE) == [each.encode() for each in profiles]
    assert records.header(topics.SOURCE) == [b"t/a", b"t/b", b"t/a"]
    assert await narrow.tallies(topics.RAW) == {Tally(T0, "environmental"): 2, Tally(T0, "tilt"): 1}


async def test_alarms_are_copied_and_counted_once() -> None:
    """An alarm is in both lanes, the same in both, in the same partition; the ledger counts it once."""
    log = EmbeddedLog(MEMORY)
    await log.create_topics(Intake.topic_specs(4))
    devices = [b"d%d" % number for number in range(40)]
    alarms = [3, 4, 17, 39]

    await Intake(log, ManualClock(T0)).append(
        devices, [b"%d" % number for number in range(40)], device_type="tilt", profile="test", alarms=alarms
    )

    copies = 0
    for partition in range(4):
        everything = await log.read(TopicPartition(topics.RAW, partition), 0, 100)
        priority = await log.read(TopicPartition(topics.RAW_PRIORITY, partition), 0, 100)
        copied = list(priority.records) if priority else []
        assert everything is not None
        assert copied == [record for record in everything.records if int(record.value or b"") in alarms]
        copies += len(copied)
    assert copies == len(alarms)
    assert await log.tallies(topics.RAW) == {Tally(T0, "tilt"): 40}
    assert await log.tallies(topics.RAW_PRIORITY) == {}
    await log.close()


def test_message_ids_ascend_and_are_uuids() -> None:
    """Ids are UUIDs of version 7, in order however many are taken at a time."""
    source = MessageIds(ManualClock(T0))

    ids = [each.decode() for total in (1, 600, 0, 255, 256, 1) for each in source.take(total)]

    assert len(ids) == 1113
    assert ids == sorted(set(ids))
    assert {UUID(each).version for each in ids} == {7}
    assert {str(UUID(each)) for each in ids} == set(ids)


@pytest.mark.integration
async def test_payload_that_kafka_does_not_take(kafka: KafkaServer) -> None:
    """10 MB are cut, and the log goes on: behind them, and with what it just takes."""
    log = KafkaLog(f"kafka://{kafka.bootstrap}", KafkaSettings(compression="none"))
    await log.start()
    await log.create_topics(Intake.topic_specs(1))
    large = b"x" * 10_000_000
    largest = b"x" * log.largest_value

    records = await appended(log, [large], [GOOD], [largest, GOOD])

    assert records.values == [large[:KEPT], GOOD, largest, GOOD]
    cut, too_large = refused_by_ingest(records)
    assert cut == (0, "payload has 10000000 bytes, more than the log takes; the beginning is kept")
    assert too_large[0] == 2
    await log.close()
