"""What every transport promises; each transport's test module subclasses this and gives a `log` fixture."""

import asyncio

import pytest

from headrace.engine.errors import LogError
from headrace.engine.log import Append, Changes, Log, Tally, TopicPartition, TopicSpec, Transaction
from headrace.engine.records import Records

EVENTS, STATE, OTHER = "events", "state", "other"
P0, P1 = TopicPartition(EVENTS, 0), TopicPartition(EVENTS, 1)
S0 = TopicPartition(STATE, 0)


def records(*values: bytes, key: bytes = b"k") -> Records:
    """Records with these values, appended at 1, 2, 3 … ms."""
    return Records([key] * len(values), list(values), [n + 1 for n in range(len(values))], {"h": b"x"})


async def append(log: Log, target: TopicPartition, *values: bytes) -> None:
    await log.commit(Transaction(appends=[Append(target, records(*values))]))


async def read_all(log: Log, target: TopicPartition, offset: int = 0, max_records: int = 1000) -> list[bytes | None]:
    values: list[bytes | None] = []
    while (fetched := await log.reader().read(target, offset, max_records)) is not None:
        assert fetched.base_offset >= offset
        assert fetched.next_offset - fetched.base_offset >= len(fetched.records) > 0
        values += fetched.records.values
        offset = fetched.next_offset
    return values


async def restore_all(log: Log, target: TopicPartition) -> dict[bytes, bytes]:
    entries: dict[bytes, bytes] = {}
    async for chunk in log.restore(target):
        entries.update(chunk)
    return entries


class LogContract:
    """The promises, one test each."""

    @pytest.fixture
    async def topics(self, log: Log) -> None:
        await log.create_topics([TopicSpec(EVENTS, 2), TopicSpec(STATE, 2, compacted=True), TopicSpec(OTHER, 1)])

    async def test_append_is_read_back_in_order(self, log: Log, topics: None) -> None:
        """Records come back as they were sent: values, keys, append times and headers, in order."""
        await append(log, P0, b"a", b"b")
        await append(log, P0, b"c")

        fetched = await log.reader().read(P0, 0, 10)

        assert fetched is not None
        assert await read_all(log, P0) == [b"a", b"b", b"c"]
        assert fetched.records[0].key == b"k"
        assert fetched.records[1].timestamp == 2
        assert fetched.records[0].headers == {"h": b"x"}

    async def test_read_from_any_offset(self, log: Log, topics: None) -> None:
        """Reading may start inside what was appended together."""
        await append(log, P0, *[b"%d" % n for n in range(10)])
        await append(log, P0, b"10", b"11")

        assert await read_all(log, P0, 7) == [b"7", b"8", b"9", b"10", b"11"]
        assert await read_all(log, P0, 11) == [b"11"]
        assert await log.reader().read(P0, 12, 10) is None

    async def test_small_reads_see_every_record_once(self, log: Log, topics: None) -> None:
        """A low `max_records` changes how much comes at once, never what comes."""
        for start in range(0, 30, 3):
            await append(log, P0, *[b"%d" % n for n in range(start, start + 3)])

        assert await read_all(log, P0, max_records=1) == [b"%d" % n for n in range(30)]

    async def test_partitions_are_apart(self, log: Log, topics: None) -> None:
        """An append to one partition is not seen in another."""
        await append(log, P0, b"a")
        await append(log, P1, b"b")

        assert await read_all(log, P1) == [b"b"]
        assert await log.end_offsets(EVENTS) == {P0: 1, P1: 1}

    async def test_null_keys_and_values_survive(self, log: Log, topics: None) -> None:
        """No key, no value, empty value and absent header stay what they are."""
        odd = Records([None, b""], [None, b""], [1, 2], {"h": [None, b"v"]})

        await log.commit(Transaction(appends=[Append(P0, odd)]))

        fetched = await log.reader().read(P0, 0, 10)
        assert fetched is not None
        assert list(fetched.records) == list(odd)

    async def test_one_commit_is_one_step(self, log: Log, topics: None) -> None:
        """Outputs, changelog and positions become visible together."""
        await log.commit(
            Transaction([Append(P0, records(b"out"))], [Changes(S0, {b"k": b"v"})], "g", {TopicPartition(OTHER, 0): 5})
        )

        assert await read_all(log, P0) == [b"out"]
        assert await restore_all(log, S0) == {b"k": b"v"}
        assert await log.positions("g", OTHER) == {TopicPartition(OTHER, 0): 5}

    async def test_refused_commit_leaves_nothing(self, log: Log, topics: None) -> None:
        """A transaction that names an unknown partition has no effect at all."""
        with pytest.raises(LogError):
            await log.commit(Transaction([Append(P0, records(b"x")), Append(TopicPartition("none", 0), records(b"y"))]))

        assert await log.reader().read(P0, 0, 10) is None
        await append(log, P0, b"still works")
        assert await read_all(log, P0) == [b"still works"]

    async def test_compacted_topic_keeps_the_newest_value(self, log: Log, topics: None) -> None:
        """Later values replace earlier ones; None deletes."""
        await log.commit(Transaction(changes=[Changes(S0, {b"a": b"1", b"b": b"1", b"c": b"1"})]))
        await log.commit(Transaction(changes=[Changes(S0, {b"a": b"2", b"b": None})]))

        assert await restore_all(log, S0) == {b"a": b"2", b"c": b"1"}
        assert await restore_all(log, TopicPartition(STATE, 1)) == {}

    async def test_restore_is_complete_for_many_keys(self, log: Log, topics: None) -> None:
        """More keys than one chunk come back, each once."""
        entries: dict[bytes, bytes | None] = {b"%07d" % n: b"v" for n in range(25_000)}
        await log.commit(Transaction(changes=[Changes(S0, entries)]))

        count = 0
        async for chunk in log.restore(S0):
            count += len(chunk)

        assert count == 25_000

    async def test_positions_belong_to_groups(self, log: Log, topics: None) -> None:
        """Each consumer group has its own position; one that never committed starts at 0."""
        await log.commit(Transaction(group="a", positions={P0: 7}))

        assert (await log.positions("a", EVENTS))[P0] == 7
        assert (await log.positions("b", EVENTS))[P0] == 0

    async def test_tallies_add_up(self, log: Log, topics: None) -> None:
        """Ledger counters grow with the appends that carry them."""
        tally = Tally(60_000, "environmental")
        await log.commit(Transaction([Append(P0, records(b"a"), {tally: 1})]))
        await log.commit(Transaction([Append(P1, records(b"b", b"c"), {tally: 2})]))

        assert await log.tallies(EVENTS) == {tally: 3}
        assert await log.tallies(OTHER) == {}

    async def test_wait_returns_when_a_record_arrives(self, log: Log, topics: None) -> None:
        """A waiting reader wakes up for the partition that it waits for, and only then."""
        waiting = asyncio.create_task(log.reader().wait({P0: 1}, 5))
        await append(log, P0, b"first")
        await append(log, P1, b"elsewhere")
        assert not waiting.done()

        await append(log, P0, b"second")

        assert await waiting
        assert not await log.reader().wait({P0: 2}, 0.01)

    async def test_two_waiters_both_wake_up(self, log: Log, topics: None) -> None:
        """Waiters do not take each other's wake-up."""
        both = asyncio.gather(log.reader().wait({P0: 0}, 5), log.reader().wait({P0: 0}, 5))
        await asyncio.sleep(0)

        await append(log, P0, b"x")

        assert all(await both)

    async def test_creating_a_topic_again_changes_nothing(self, log: Log, topics: None) -> None:
        """Topics that exist keep partitions and records."""
        await append(log, P0, b"a")

        await log.create_topics([TopicSpec(EVENTS, 8)])

        assert log.partitions(EVENTS) == 2
        assert await read_all(log, P0) == [b"a"]

    async def test_appends_of_many_tasks_keep_each_task_in_order(self, log: Log, topics: None) -> None:
        """Concurrent commits neither lose nor reorder what one task appends."""

        async def task(name: int) -> None:
            for n in range(20):
                await append(log, P0, b"%d:%d" % (name, n))

        await asyncio.gather(*(task(name) for name in range(5)))

        values = [value or b"" for value in await read_all(log, P0)]
        assert len(values) == 100
        for name in range(5):
            assert [v for v in values if v.startswith(b"%d:" % name)] == [b"%d:%d" % (name, n) for n in range(20)]
