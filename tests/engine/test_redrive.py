"""Sending dead letters back, on the embedded log in memory."""

import asyncio
from collections.abc import AsyncIterator, Sequence

import pytest

from headrace.engine.clock import ManualClock
from headrace.engine.dead_letter_reader import DeadLetter, LetterId, Selection, find
from headrace.engine.dead_letters import dead_letter_records
from headrace.engine.embedded.database import MEMORY
from headrace.engine.embedded.log import EmbeddedLog
from headrace.engine.errors import LogError
from headrace.engine.log import Append, Tally, TopicPartition, TopicSpec, Transaction
from headrace.engine.partitioner import Partitioner
from headrace.engine.records import Header, Record, Records
from headrace.engine.redrive import AHEAD_MS, CHUNK_RECORDS, REDRIVES, Plan, Redrive, forget_dropped, plan, redriven
from headrace.engine.turn import Turn, take_turn
from headrace.schemas import topics

NOW = 1_750_000_000_000
READERS = {topics.RAW: ["ingest"], topics.READINGS: ["rollup", "timescale"]}
#: A key of each partition of `telemetry.raw`.
KEYS = {Partitioner(2).partition(b"device-%d" % number): b"device-%d" % number for number in range(8)}


@pytest.fixture
async def log() -> AsyncIterator[EmbeddedLog]:
    """A log with two partitions of everything."""
    log = EmbeddedLog(MEMORY, retention=1e9)
    await log.create_topics([TopicSpec(name, 2) for name in (topics.RAW, topics.READINGS, topics.DEAD_LETTERS)])
    yield log
    await log.close()


async def refuse(
    log: EmbeddedLog,
    values: Sequence[bytes],
    offsets: Sequence[int],
    *,
    partition: int = 0,
    key: bytes | None = KEYS[0],
    topic: str = topics.RAW,
    agent: str = "ingest",
) -> None:
    """Dead letters about records of `topic` at these offsets, with what a source gave them."""
    headers: dict[str, Header] = {
        topics.DEVICE_TYPE: b"environmental",
        topics.MESSAGE_ID: [b"m-%d" % offset for offset in offsets],
    }
    refused = Records([key] * len(values), list(values), [NOW + offset for offset in offsets], headers)
    send = dead_letter_records(topic, partition, offsets, refused, ["why"] * len(values), agent, counted=True)
    append = Append(TopicPartition(topics.DEAD_LETTERS, partition), send.records, send.tallies)
    await log.commit(Transaction([append]))


async def planned(log: EmbeddedLog, *, again: bool = False) -> Plan:
    return await plan(log, find(log, Selection()), READERS, again=again)


async def redrive(log: EmbeddedLog, *, again: bool = False) -> int:
    """Send back what there is; how many were sent."""
    found = await planned(log, again=again)
    async with take_turn(log, "test", REDRIVES) as turn:
        work = Redrive(turn, ManualClock(NOW), found.letters, await redriven(log))
        await work.run(asyncio.Event())
    return work.sent


async def records(log: EmbeddedLog, topic: str, partition: int) -> list[Record]:
    found: list[Record] = []
    while fetched := await log.read(TopicPartition(topic, partition), len(found), 10_000):
        found += list(fetched.records)
    return found


async def test_what_was_repaired_goes_where_it_belongs_now(log: EmbeddedLog) -> None:
    """A message that got a device goes to that device's partition, with what else was repaired."""
    await refuse(log, [b"0"], [0], key=b"?")
    found = await planned(log)

    async with take_turn(log, "test", REDRIVES) as turn:
        await Redrive(
            turn, ManualClock(NOW), found.letters, {}, lambda record: [record._replace(key=KEYS[1], value=b"repaired")]
        ).run(asyncio.Event())

    assert [(record.key, record.value) for record in await records(log, topics.RAW, 1)] == [(KEYS[1], b"repaired")]
    assert await records(log, topics.RAW, 0) == []


class CrashingTurn(Turn):
    """A turn whose process dies before its third commit."""

    commits = 0

    async def commit(self, appends: list[Append], notes: dict[bytes, bytes | None]) -> None:
        CrashingTurn.commits += 1
        if CrashingTurn.commits == 3:
            raise LogError("crashed")
        await super().commit(appends, notes)


async def test_a_record_comes_back_as_it_was(log: EmbeddedLog) -> None:
    """Key, value, append time and headers; without those of the letter, and with its id and when it came back."""
    await refuse(log, [b"{}"], [7])

    await redrive(log)

    (record,) = await records(log, topics.RAW, 0)
    assert int(record.headers.pop(topics.REDRIVEN_AT)) == NOW + AHEAD_MS
    headers = {topics.DEVICE_TYPE: b"environmental", topics.MESSAGE_ID: b"m-7", "redriven-from": b"0-0"}
    assert record == Record(KEYS[0], b"{}", NOW + 7, headers)


async def test_the_order_is_that_of_the_first_time(log: EmbeddedLog) -> None:
    """Per partition of the topic, whatever the order in which letters were written."""
    await refuse(log, [b"c", b"d"], [30, 40])
    await refuse(log, [b"a", b"b"], [10, 20])
    await refuse(log, [b"y", b"x"], [9, 8], partition=1, key=KEYS[1])

    await redrive(log)

    assert [record.value for record in await records(log, topics.RAW, 0)] == [b"a", b"b", b"c", b"d"]
    assert [record.value for record in await records(log, topics.RAW, 1)] == [b"x", b"y"]


async def test_nothing_is_sent_twice_unless_asked(log: EmbeddedLog) -> None:
    """A second run leaves out what the first sent; `again` does not, and the note counts."""
    await refuse(log, [b"a", b"b"], [1, 2])

    assert await redrive(log) == 2
    assert await redrive(log) == 0
    assert await redrive(log, again=True) == 2

    assert len(await records(log, topics.RAW, 0)) == 4
    assert {str(letter): note.times for letter, note in (await redriven(log)).items()} == {"0-0": 2, "0-1": 2}


async def test_killed_between_chunks_nothing_is_sent_twice(log: EmbeddedLog) -> None:
    """A chunk and the note about it are one commit, so the next run goes on behind it."""
    total = 4 * CHUNK_RECORDS + 1
    await refuse(log, [b"%d" % number for number in range(total)], range(total))
    CrashingTurn.commits = 0
    async with take_turn(log, "test", REDRIVES) as turn:
        crashing = CrashingTurn(turn.log, turn.group, turn.topic, turn.member)
        with pytest.raises(LogError, match="crashed"):
            await Redrive(crashing, ManualClock(NOW), (await planned(log)).letters, {}).run(asyncio.Event())
    assert len(await records(log, topics.RAW, 0)) == 2 * CHUNK_RECORDS

    assert await redrive(log) == total - 2 * CHUNK_RECORDS

    assert [record.value for record in await records(log, topics.RAW, 0)] == [b"%d" % n for n in range(total)]


async def test_told_to_stop_it_ends_with_a_whole_chunk(log: EmbeddedLog) -> None:
    """What was sent is noted; the rest is for the next run."""
    await refuse(log, [b"a"], [1])
    stop = asyncio.Event()
    stop.set()

    async with take_turn(log, "test", REDRIVES) as turn:
        work = Redrive(turn, ManualClock(NOW), (await planned(log)).letters, {})
        await work.run(stop)

    assert work.sent == 0
    assert await redriven(log) == {}


async def test_large_payloads_do_not_share_a_commit(log: EmbeddedLog) -> None:
    """A chunk is bounded in bytes; one record always fits."""
    for offset in range(3):
        await refuse(log, [bytes(5 << 20)], [offset])

    assert await redrive(log) == 3
    assert [len(record.value or b"") for record in await records(log, topics.RAW, 0)] == [5 << 20] * 3


async def test_messages_count_as_accepted_once_more(log: EmbeddedLog) -> None:
    """The dead letter stays counted, so the ledger has two of each: in the minute of the first time."""
    await refuse(log, [b"a", b"b"], [1, 2])

    await redrive(log)

    minute = Tally(NOW // 60_000 * 60_000, "environmental")
    assert await log.tallies(topics.RAW) == {minute: 2}
    assert await log.tallies(topics.DEAD_LETTERS) == {minute: 2}


async def test_a_record_that_others_took_stays(log: EmbeddedLog) -> None:
    """A reading on which one agent failed was counted by the others; whose topic is gone, or unknown, stays too."""
    await refuse(log, [b"a"], [1], topic=topics.READINGS, agent="rollup")
    await refuse(log, [b"b"], [2], topic="gone")
    await refuse(log, [b"c"], [3], agent="mine")
    await log.commit(Transaction([Append(TopicPartition(topics.DEAD_LETTERS, 1), Records([b"k"], [b"foreign"], [1]))]))

    found = await planned(log)

    assert not found.letters
    reasons = {str(letter.id): reason for letter, reason in found.kept}
    assert "timescale took it" in reasons["0-0"]
    assert "gone is not there" in reasons["0-1"]
    assert "ingest took it" in reasons["0-2"]
    assert "does not say" in reasons["1-0"]


async def test_a_topic_that_nobody_shares_takes_its_records_back(log: EmbeddedLog) -> None:
    """Topics of the user's own applications; nothing is counted as accepted there."""
    await log.create_topics([TopicSpec("mine", 1)])
    await refuse(log, [b"a"], [1], topic="mine", agent="my-agent")

    assert await redrive(log) == 1

    assert [record.value for record in await records(log, "mine", 0)] == [b"a"]
    assert await log.tallies("mine") == {}


@pytest.mark.parametrize(("key", "partition"), [(KEYS[1], 1), (None, 0)])
async def test_partitions_may_have_changed(log: EmbeddedLog, key: bytes | None, partition: int) -> None:
    """A key goes where the topic has it now; a record without one to its partition, or the first if that is gone."""
    await refuse(log, [b"a"], [1], key=key)
    letters = [letter async for letter in find(log, Selection())]
    moved = [
        DeadLetter(each.id, each.time_ms, each.key, each.agent, each.origin._replace(partition=7), "", 1)
        for each in letters
    ]

    async with take_turn(log, "test", REDRIVES) as turn:
        await Redrive(turn, ManualClock(NOW), moved, {}).run(asyncio.Event())

    assert [record.value for record in await records(log, topics.RAW, partition)] == [b"a"]
    note = (await redriven(log))[LetterId(0, 0)]
    assert (note.topic, note.partition, note.at_ms) == (topics.RAW, partition, NOW)


async def test_notes_about_letters_that_are_gone_are_deleted() -> None:
    """They would be kept for ever otherwise."""
    log = EmbeddedLog(MEMORY, retention=0.001)
    await log.create_topics([TopicSpec(name, 2) for name in (topics.RAW, topics.DEAD_LETTERS)])
    await refuse(log, [b"a"], [1])
    await refuse(log, [b"b"], [1000])
    await redrive(log)
    assert await log.apply_retention()

    async with take_turn(log, "test", REDRIVES) as turn:
        await forget_dropped(turn, await redriven(log))

    assert [str(letter) for letter in await redriven(log)] == ["0-1"]
    await log.close()
