"""What every transport promises about compacted topics that are read in order, and about records sent to them."""

import asyncio
import os
from collections.abc import Mapping, Sequence

import pytest

from headrace.engine.clock import SystemClock
from headrace.engine.errors import LogError
from headrace.engine.log import Append, Changes, Log, Tally, TopicPartition, TopicSpec, Transaction
from headrace.engine.log_range import reading
from headrace.engine.records import Records
from headrace.engine.replicas import read_replicas
from headrace.tables.replicated import Replicated
from tests.contract.log_access import PATIENCE, Names, offsets_of, read_all, read_records, records, restore_all

T0 = 1_700_000_000_000


async def ordered_topic(log: Log, partitions: int = 1) -> TopicPartition:
    """The first partition of a new compacted topic that can be read in order."""
    name = f"headrace-test-changes-{os.urandom(4).hex()}"
    await log.create_topics([TopicSpec(name, partitions, compacted=True, retention=3600.0)])
    return TopicPartition(name, 0)


async def change(log: Log, target: TopicPartition, time_ms: int | None, entries: Mapping[bytes, bytes | None]) -> None:
    await log.commit(Transaction(changes=[Changes(target, entries, time_ms)]))


def sent(target: TopicPartition, *rows: tuple[bytes | None, bytes | None, int]) -> Append:
    """Records for a compacted topic: key, value, and append time in ms behind `T0`."""
    keys, values, times = zip(*rows, strict=True)
    return Append(target, Records(list(keys), list(values), [T0 + time for time in times], {"h": b"x"}))


class Reading:
    """What an agent that reads a replicated table names."""

    def __init__(self, topic: str) -> None:
        self.table = Replicated(topic, bytes.decode)
        self.replicas: Sequence[Replicated[str]] = (self.table,)


class ChangePromises:
    """One promise, one test."""

    async def test_changes_are_read_in_order(self, log: Log) -> None:
        """With replaced values, deletions and append times; the newest values are restored as ever."""
        target = await ordered_topic(log)
        await change(log, target, 1_700_000_000_000, {b"a": b"1", b"b": b"1"})
        await change(log, target, 1_700_000_000_001, {b"a": b"2"})
        await change(log, target, 1_700_000_000_002, {b"b": None})

        found = await read_records(log, target)

        assert found.keys == [b"a", b"b", b"a", b"b"]
        assert found.values == [b"1", b"1", b"2", None]
        assert [time - 1_700_000_000_000 for time in found.timestamps] == [0, 0, 1, 2]
        assert await restore_all(log, target) == {b"a": b"2"}

    async def test_changes_are_read_on_from_any_offset(self, log: Log) -> None:
        """Whoever reads on misses none and gets none twice, however little a read brings."""
        target = await ordered_topic(log)
        for number in range(5):
            await change(log, target, None, {b"k%d" % place: b"%d" % number for place in range(3)})
        offsets = await offsets_of(log, target)

        parts = [(await read_records(log, target, offset, max_records=2)).values for offset in offsets]

        assert parts[0] == [b"%d" % number for number in range(5) for _ in range(3)]
        assert parts == [parts[0][place:] for place in range(15)]

    async def test_records_that_are_sent_set_and_delete_keys(self, log: Log, names: Names) -> None:
        """The newest of a key holds; readers are told, and shown every record with the append time of its own."""
        target = await ordered_topic(log)
        rows = [(b"a", b"1", 0), (b"b", b"1", 1), (b"a", b"2", 1), (b"c", b"", 2), (b"b", None, 5)]

        async with reading(log) as reader:
            waiting = asyncio.create_task(reader.wait({target: 0}, PATIENCE))
            await log.commit(Transaction([sent(target, *rows[:3]), sent(target, *rows[3:])]))
            assert await waiting
        await log.commit(Transaction([sent(names.s0, *rows)]))

        found = await read_records(log, target)
        assert list(zip(found.keys, found.values, [time - T0 for time in found.timestamps], strict=True)) == rows
        assert await restore_all(log, target) == {b"a": b"2", b"c": b""}
        assert await restore_all(log, names.s0) == {b"a": b"2", b"c": b""}

    async def test_records_that_are_sent_come_with_all_of_their_transaction(self, log: Log, names: Names) -> None:
        """Counters and positions too; changes of the same transaction are newer. Refused, nothing is to be seen."""
        target = await ordered_topic(log)
        minute = Tally(60_000, "pump")
        append = sent(target, (b"a", b"sent", 0), (b"b", b"sent", 0))
        append.tallies = {minute: 2}
        missing = Append(TopicPartition(names.events, 7), records(b"x"))
        with pytest.raises(LogError):
            await log.commit(Transaction([append, missing], (), names.group, {names.o0: 3}))
        assert [await restore_all(log, target), await read_all(log, target)] == [{}, []]

        await log.commit(
            Transaction(
                [append, Append(names.p0, records(b"x"))],
                [Changes(target, {b"a": b"changed"}, T0)],
                names.group,
                {names.o0: 3},
            )
        )

        assert await restore_all(log, target) == {b"a": b"changed", b"b": b"sent"}
        assert await read_all(log, target) == [b"sent", b"sent", b"changed"]
        assert await read_all(log, names.p0) == [b"x"]
        assert await log.tallies(target.topic) == {minute: 2}
        assert await log.positions(names.group, names.other) == {names.o0: 3}

    async def test_the_last_asked_for_sets_a_key_last(self, log: Log, names: Names) -> None:
        """Whether by a record or by a change, also when nobody waits for one commit before the next."""
        target = await ordered_topic(log)

        def transaction(number: int) -> Transaction:
            value = b"%d" % number
            if number % 2:
                return Transaction([sent(target, (b"k", value, number))])
            return Transaction(changes=[Changes(target, {b"k": value}, T0 + number)])

        await asyncio.gather(*(log.commit(transaction(number)) for number in range(9)))

        assert await read_all(log, target) == [b"%d" % number for number in range(9)]
        assert await restore_all(log, target) == {b"k": b"8"}

    async def test_a_replicated_table_has_what_was_sent(self, log: Log) -> None:
        """As of the append time of each record."""
        target = await ordered_topic(log)
        await log.commit(Transaction([sent(target, (b"a", b"old", 10), (b"a", b"new", 20), (b"a", None, 30))]))
        operator = Reading(target.topic)

        await read_replicas(log, operator, SystemClock())

        found = [operator.table.get("a", T0 + time_ms) for time_ms in (9, 10, 19, 20, 29, 30)]
        assert found == [None, "old", "old", "new", "new", None]

    async def test_a_record_without_a_key_is_refused(self, log: Log, names: Names) -> None:
        """By a compacted topic; nothing of its transaction is to be seen."""
        with pytest.raises(LogError):
            await log.commit(
                Transaction([Append(names.p0, records(b"x")), sent(names.s0, (b"a", b"1", 0), (None, b"1", 0))])
            )

        assert await restore_all(log, names.s0) == {}
        assert await read_all(log, names.p0) == []
