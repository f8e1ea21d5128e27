"""What every transport promises; each transport's test module subclasses this and gives a `log` fixture."""

import asyncio
import os
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import NamedTuple

import pytest

from headrace.engine.errors import LogError
from headrace.engine.log import (
    Append,
    Changes,
    Fetched,
    Log,
    Member,
    Reader,
    Tally,
    TopicPartition,
    TopicSpec,
    Transaction,
)
from headrace.engine.records import Records

#: Seconds for what takes milliseconds: records to come, a group to be shared out.
PATIENCE = 30.0


class Names(NamedTuple):
    """Topics and a group of one test's own, as a cluster is shared by many."""

    events: str
    state: str
    other: str
    group: str

    @property
    def p0(self) -> TopicPartition:
        return TopicPartition(self.events, 0)

    @property
    def p1(self) -> TopicPartition:
        return TopicPartition(self.events, 1)

    @property
    def s0(self) -> TopicPartition:
        return TopicPartition(self.state, 0)

    @property
    def s1(self) -> TopicPartition:
        return TopicPartition(self.state, 1)

    @property
    def o0(self) -> TopicPartition:
        return TopicPartition(self.other, 0)

    @classmethod
    def new(cls) -> "Names":
        suffix = os.urandom(4).hex()
        return cls(*(f"headrace-test-{name}-{suffix}" for name in cls._fields))

    def specs(self) -> list[TopicSpec]:
        """Two partitions of events and of state, one of the other topic."""
        return [TopicSpec(self.events, 2), TopicSpec(self.state, 2, compacted=True), TopicSpec(self.other, 1)]


def records(*values: bytes, key: bytes = b"k") -> Records:
    """Records with these values, appended at 1, 2, 3 … ms."""
    return Records([key] * len(values), list(values), [n + 1 for n in range(len(values))], {"h": b"x"})


def numbers(count: int, start: int = 0) -> list[bytes]:
    """Values that tell where a record belongs."""
    return [b"%d" % n for n in range(start, start + count)]


async def append(log: Log, target: TopicPartition, *values: bytes) -> None:
    await log.commit(Transaction(appends=[Append(target, records(*values))]))


@asynccontextmanager
async def open_reader(log: Log) -> AsyncIterator[Reader]:
    reader = log.reader()
    try:
        yield reader
    finally:
        await reader.close()


async def fetch(reader: Reader, target: TopicPartition, offset: int, max_records: int = 1000) -> Fetched:
    """The next thing there is to read, which moves on and keeps to the rules."""
    async with asyncio.timeout(PATIENCE):
        while (fetched := await reader.read(target, offset, max_records)) is None:
            await reader.wait({target: offset}, 1)
    assert fetched.target == target
    assert fetched.next_offset > offset
    offsets = [fetched.offset(index) for index in range(len(fetched.records))]
    assert offsets == sorted(set(offsets))
    assert all(offset <= each < fetched.next_offset for each in offsets)
    return fetched


async def read_all(log: Log, target: TopicPartition, offset: int = 0, max_records: int = 1000) -> list[bytes | None]:
    """The values from `offset` to the end, where nothing is left to read."""
    found = await read_records(log, target, offset, max_records)
    return found.values


async def read_records(log: Log, target: TopicPartition, offset: int = 0, max_records: int = 1000) -> Records:
    end = (await log.end_offsets(target.topic))[target]
    found = [Records([], [], [])]
    async with open_reader(log) as reader:
        while offset < end:
            fetched = await fetch(reader, target, offset, max_records)
            found.append(fetched.records)
            offset = fetched.next_offset
        rest = await reader.read(target, offset, max_records)
    assert rest is None or not len(rest.records)
    return Records.concat([part for part in found if len(part)] or found[:1])


async def offsets_of(log: Log, target: TopicPartition) -> list[int]:
    """The offset of each record of a partition."""
    end = (await log.end_offsets(target.topic))[target]
    offset, offsets = 0, []
    async with open_reader(log) as reader:
        while offset < end:
            fetched = await fetch(reader, target, offset)
            offsets += [fetched.offset(index) for index in range(len(fetched.records))]
            offset = fetched.next_offset
    return offsets


async def restore_all(log: Log, target: TopicPartition) -> dict[bytes, bytes]:
    entries: dict[bytes, bytes] = {}
    async for chunk in log.restore(target):
        entries.update(chunk)
    return entries


class Assignments:
    """A `Listener` that remembers what it was told."""

    def __init__(self) -> None:
        self.targets: set[TopicPartition] = set()
        self.member = Member()
        self.revocations = 0
        self._assigned = asyncio.Event()

    async def on_assigned(self, targets: Iterable[TopicPartition], member: Member) -> None:
        self.targets, self.member = set(targets), member
        self._assigned.set()

    async def on_revoked(self) -> None:
        self.revocations += 1
        self.targets = set()

    async def wait_for(self, targets: set[TopicPartition]) -> None:
        async with asyncio.timeout(PATIENCE):
            while self.targets != targets:
                self._assigned.clear()
                await self._assigned.wait()


class LogContract:
    """The promises, one test each."""

    @pytest.fixture
    async def names(self, log: Log) -> Names:
        names = Names.new()
        await log.create_topics(names.specs())
        return names

    # -- records

    async def test_append_is_read_back_in_order(self, log: Log, names: Names) -> None:
        """Records come back as they were sent: values, keys, append times and headers, in order."""
        await append(log, names.p0, b"a", b"b")
        await append(log, names.p0, b"c")

        found = await read_records(log, names.p0)

        assert found.values == [b"a", b"b", b"c"]
        assert found[0].key == b"k"
        assert found.timestamps == [1, 2, 1]
        assert found[0].headers == {"h": b"x"}

    async def test_null_keys_and_values_survive(self, log: Log, names: Names) -> None:
        """No key, no value, empty value and absent header stay what they are."""
        odd = Records([None, b""], [None, b""], [1, 2], {"h": [None, b"v"]})

        await log.commit(Transaction(appends=[Append(names.p0, odd)]))

        assert list(await read_records(log, names.p0)) == list(odd)

    async def test_headers_of_every_kind_survive(self, log: Log, names: Names) -> None:
        """One value for all, one per record, absent here and there, empty, odd names: in small and large batches."""
        for count in (3, 700):
            some = [None if n % 3 else b"%d" % n for n in range(count)]
            every: list[bytes | None] = [b"%d" % n for n in range(count)]
            sent = Records(
                [b"%d" % (n % 7) for n in range(count)],
                list(numbers(count)),
                list(range(count)),
                {"all": b"one", "each": every, "some": some, "empty": b"", "größe": b"\xff\x00"},
            )
            start = (await log.end_offsets(names.events))[names.p0]

            await log.commit(Transaction(appends=[Append(names.p0, sent)]))

            assert list(await read_records(log, names.p0, start)) == list(sent)

    async def test_append_times_may_be_of_any_age(self, log: Log, names: Names) -> None:
        """A replay brings old times, a simulation future ones, in any order; none is changed and no record dropped."""
        stamps = [4_000_000_000_000, 0, 1_700_000_000_000, 1]
        await log.commit(Transaction([Append(names.p0, Records([b"k"] * 4, [b"v"] * 4, stamps))]))

        assert (await read_records(log, names.p0)).timestamps == stamps

    async def test_large_records_survive(self, log: Log, names: Names) -> None:
        """Records of a megabyte, and of many megabytes together, come back whole and in order."""
        sent: list[bytes | None] = [b"%d" % n + os.urandom(1 << 20) for n in range(6)]
        await log.commit(Transaction([Append(names.p0, Records([b"k"] * 6, sent, [1] * 6))]))
        await append(log, names.p0, b"small")

        assert await read_all(log, names.p0) == [*sent, b"small"]

    async def test_many_records_survive(self, log: Log, names: Names) -> None:
        """An append of many record batches comes back whole and in order."""
        sent: list[bytes | None] = [b"%d" % n * 20 for n in range(30_000)]
        await log.commit(Transaction([Append(names.p0, Records([None] * 30_000, sent, list(range(30_000))))]))

        assert await read_all(log, names.p0, max_records=5_000) == sent

    # -- reading

    async def test_read_from_any_offset(self, log: Log, names: Names) -> None:
        """Reading may start inside what was appended together."""
        await append(log, names.p0, *numbers(10))
        await append(log, names.p0, b"10", b"11")

        for number, offset in enumerate(await offsets_of(log, names.p0)):
            assert await read_all(log, names.p0, offset) == numbers(12 - number, number)

    async def test_nothing_is_read_behind_the_end(self, log: Log, names: Names) -> None:
        """At the end of a partition there is nothing, until something is appended."""
        await append(log, names.p0, b"a")
        end = (await log.end_offsets(names.events))[names.p0]

        async with open_reader(log) as reader:
            assert not await reader.wait({names.p0: end}, 0.2)
            assert await reader.read(names.p0, end, 10) is None

            await append(log, names.p0, b"b")

            assert (await fetch(reader, names.p0, end)).records.values == [b"b"]

    async def test_small_reads_see_every_record_once(self, log: Log, names: Names) -> None:
        """A low `max_records` changes how much comes at once, never what comes."""
        for start in range(0, 30, 3):
            await append(log, names.p0, *numbers(3, start))

        assert await read_all(log, names.p0, max_records=1) == numbers(30)
        assert await read_all(log, names.p0, max_records=4) == numbers(30)

    async def test_partitions_are_apart(self, log: Log, names: Names) -> None:
        """An append to one partition is not seen in another."""
        await append(log, names.p0, b"a")
        await append(log, names.p1, b"b")

        assert await read_all(log, names.p0) == [b"a"]
        assert await read_all(log, names.p1) == [b"b"]

    async def test_one_reader_reads_many_partitions(self, log: Log, names: Names) -> None:
        """A reader goes to and fro between partitions, and keeps its place in each."""
        places = {names.p0: 0, names.p1: 0, names.o0: 0}
        found: dict[TopicPartition, list[bytes | None]] = {target: [] for target in places}

        async with open_reader(log) as reader:
            for start in range(0, 20, 5):
                for target, values in found.items():
                    await append(log, target, *numbers(5, start))
                    while values[-1:] != [b"%d" % (start + 4)]:
                        fetched = await fetch(reader, target, places[target], 3)
                        values.extend(fetched.records.values)
                        places[target] = fetched.next_offset

        assert all(values == numbers(20) for values in found.values())

    async def test_readers_do_not_disturb_each_other(self, log: Log, names: Names) -> None:
        """Readers at different places, at once, each see everything from there on; closing one stops no other."""
        for start in range(0, 200, 20):
            await append(log, names.p0, *numbers(20, start))
        starts = (await offsets_of(log, names.p0))[::40]
        idle = log.reader()
        await idle.read(names.p0, 0, 10)

        found = await asyncio.gather(*(read_all(log, names.p0, start, max_records=7) for start in starts))
        await idle.close()

        assert found == [numbers(200 - start, start) for start in range(0, 200, 40)]
        assert await read_all(log, names.p0) == numbers(200)

    async def test_reader_goes_back(self, log: Log, names: Names) -> None:
        """What was read can be read again by the same reader."""
        await append(log, names.p0, *numbers(50))
        await append(log, names.p0, b"last")

        async with open_reader(log) as reader:
            first = await fetch(reader, names.p0, 0, 20)
            await fetch(reader, names.p0, first.next_offset, 20)
            again = await fetch(reader, names.p0, 0, 20)

        assert again == first

    async def test_a_part_of_what_was_read(self, log: Log, names: Names) -> None:
        """What was read can be cut, and the parts say where the next read starts."""
        await append(log, names.p0, *numbers(5))
        await append(log, names.p0, *numbers(5, 5))
        end = (await log.end_offsets(names.events))[names.p0]
        async with open_reader(log) as reader:
            pieces = [await fetch(reader, names.p0, 0, 100)]
            while pieces[-1].next_offset < end:
                pieces.append(await fetch(reader, names.p0, pieces[-1].next_offset, 100))
        whole = Fetched.joined(pieces)

        head, tail = whole.part(0, 7), whole.part(7, 10)

        assert head.records.values + tail.records.values == numbers(10)
        assert await read_all(log, names.p0, head.next_offset) == tail.records.values
        assert tail.next_offset == whole.next_offset

    async def test_closing_a_reader_twice(self, log: Log, names: Names) -> None:
        """A reader may be closed again, and before it was used."""
        reader = log.reader()

        await reader.close()
        await reader.close()

    async def test_wait_returns_when_a_record_arrives(self, log: Log, names: Names) -> None:
        """A waiting reader wakes up for the partition that it waits for, and only then."""
        await append(log, names.p0, b"first")
        end = (await log.end_offsets(names.events))[names.p0]
        async with open_reader(log) as reader:
            waiting = asyncio.create_task(reader.wait({names.p0: end}, PATIENCE))
            await append(log, names.p1, b"elsewhere")
            assert not waiting.done()

            await append(log, names.p0, b"second")

            assert await waiting
            assert (await fetch(reader, names.p0, end)).records.values == [b"second"]

    async def test_wait_for_one_of_many(self, log: Log, names: Names) -> None:
        """Whichever partition has something ends the wait; nothing does when there is nothing."""
        async with open_reader(log) as reader:
            assert not await reader.wait({names.p0: 0, names.p1: 0}, 0.01)

            await append(log, names.p1, b"x")

            assert await reader.wait({names.p0: 0, names.p1: 0}, PATIENCE)

    async def test_two_waiters_both_wake_up(self, log: Log, names: Names) -> None:
        """Waiters do not take each other's wake-up."""
        async with open_reader(log) as one, open_reader(log) as two:
            all_waiters = asyncio.gather(*(reader.wait({names.p0: 0}, PATIENCE) for reader in (one, one, two)))
            await asyncio.sleep(0)

            await append(log, names.p0, b"x")

            assert all(await all_waiters)

    # -- commits

    async def test_one_commit_is_one_step(self, log: Log, names: Names) -> None:
        """Outputs, changelog and positions become visible together."""
        await log.commit(
            Transaction(
                [Append(names.p0, records(b"out"))], [Changes(names.s0, {b"k": b"v"})], names.group, {names.o0: 5}
            )
        )

        assert await read_all(log, names.p0) == [b"out"]
        assert await restore_all(log, names.s0) == {b"k": b"v"}
        assert await log.positions(names.group, names.other) == {names.o0: 5}

    async def test_one_commit_reaches_many_partitions(self, log: Log, names: Names) -> None:
        """A transaction over many partitions and topics is whole in all of them."""
        outputs, changelog = f"{names.events}-wide", f"{names.state}-wide"
        await log.create_topics([TopicSpec(outputs, 16), TopicSpec(changelog, 16, compacted=True)])
        targets = [TopicPartition(outputs, number) for number in range(16)]
        tables = [TopicPartition(changelog, number) for number in range(16)]

        for start in range(0, 60, 20):
            await log.commit(
                Transaction(
                    [Append(target, records(*numbers(20, start))) for target in targets],
                    [Changes(target, {b"k": b"%d" % start}) for target in tables],
                    names.group,
                    dict.fromkeys(targets, start + 20),
                )
            )

        assert [await read_all(log, target) for target in targets] == [numbers(60)] * 16
        assert [await restore_all(log, target) for target in tables] == [{b"k": b"40"}] * 16
        assert await log.positions(names.group, outputs) == dict.fromkeys(targets, 60)

    async def test_several_appends_to_one_partition(self, log: Log, names: Names) -> None:
        """A transaction may name a partition more than once; the order stays."""
        await log.commit(Transaction([Append(names.p0, records(b"a", b"b")), Append(names.p0, records(b"c"))]))

        assert await read_all(log, names.p0) == [b"a", b"b", b"c"]

    async def test_empty_commit_leaves_nothing(self, log: Log, names: Names) -> None:
        """A transaction of nothing, or of empty parts, is none."""
        await log.commit(Transaction())
        await log.commit(Transaction([Append(names.p0, Records([], [], []))], [Changes(names.s0, {})], names.group))

        assert set((await log.end_offsets(names.events)).values()) == {0}
        assert await restore_all(log, names.s0) == {}

    async def test_refused_commit_leaves_nothing(self, log: Log, names: Names) -> None:
        """A transaction that names an unknown partition has no effect at all."""
        missing = TopicPartition(f"{names.events}-missing", 0)
        with pytest.raises(LogError):
            await log.commit(Transaction([Append(names.p0, records(b"x")), Append(missing, records(b"y"))]))
        with pytest.raises(LogError):
            await log.commit(Transaction([Append(TopicPartition(names.events, 2), records(b"x"))]))

        await append(log, names.p0, b"still works")
        assert await read_all(log, names.p0) == [b"still works"]

    async def test_appends_of_many_tasks_keep_each_task_in_order(self, log: Log, names: Names) -> None:
        """Concurrent commits neither lose nor reorder what one task appends."""

        async def task(name: int) -> None:
            for n in range(20):
                await append(log, names.p0, b"%d:%d" % (name, n))

        await asyncio.gather(*(task(name) for name in range(5)))

        values = [value or b"" for value in await read_all(log, names.p0)]
        assert len(values) == 100
        for name in range(5):
            assert [v for v in values if v.startswith(b"%d:" % name)] == [b"%d:%d" % (name, n) for n in range(20)]

    async def test_commits_keep_the_order_of_asking(self, log: Log, names: Names) -> None:
        """Commits asked for one after another are carried out so, though nobody waits for one before the next."""

        def transaction(number: int) -> Transaction:
            positions = {names.o0: number} if number % 3 else {}
            return Transaction([Append(names.p0, records(b"%d" % number))], [], names.group, positions)

        await asyncio.gather(*(log.commit(transaction(number)) for number in range(12)))

        assert await read_all(log, names.p0) == numbers(12)
        assert await log.positions(names.group, names.other) == {names.o0: 11}

    async def test_cancelled_commit_happens_whole_or_not_at_all(self, log: Log, names: Names) -> None:
        """Who stops waiting for a commit changes neither that one nor those after it."""
        for number in range(5):
            caller = asyncio.create_task(
                log.commit(
                    Transaction(
                        [Append(target, records(b"%d" % number)) for target in (names.p0, names.p1)],
                        [Changes(names.s0, {b"%d" % number: b"v"})],
                    )
                )
            )
            for _ in range(number):
                await asyncio.sleep(0)
            caller.cancel()
            await asyncio.gather(caller, return_exceptions=True)
        await log.commit(Transaction([Append(target, records(b"last")) for target in (names.p0, names.p1)]))

        found = await read_all(log, names.p0)
        assert found == await read_all(log, names.p1)
        assert found[-1] == b"last"
        assert found[:-1] == [key for key in numbers(5) if key in await restore_all(log, names.s0)]

    # -- compacted topics

    async def test_compacted_topic_keeps_the_newest_value(self, log: Log, names: Names) -> None:
        """Later values replace earlier ones; None deletes, an empty value does not."""
        await log.commit(Transaction(changes=[Changes(names.s0, {b"a": b"1", b"b": b"1", b"c": b"1", b"d": b"1"})]))
        await log.commit(Transaction(changes=[Changes(names.s0, {b"a": b"2", b"b": None, b"d": b""})]))

        assert await restore_all(log, names.s0) == {b"a": b"2", b"c": b"1", b"d": b""}
        assert await restore_all(log, names.s1) == {}

    async def test_deleted_key_comes_back_when_it_is_set(self, log: Log, names: Names) -> None:
        """A key that was deleted can be set again, in the same transaction or later."""
        for value in (b"1", None, b"2"):
            await log.commit(Transaction(changes=[Changes(names.s0, {b"a": value})]))

        assert await restore_all(log, names.s0) == {b"a": b"2"}

    async def test_restore_is_complete_for_many_keys(self, log: Log, names: Names) -> None:
        """More keys than one chunk come back, each once."""
        entries: dict[bytes, bytes | None] = {b"%07d" % n: b"v" for n in range(25_000)}
        await log.commit(Transaction(changes=[Changes(names.s0, entries)]))

        found = [key async for chunk in log.restore(names.s0) for key, _ in chunk]

        assert len(found) == 25_000
        assert set(found) == set(entries)

    async def test_restore_sees_what_was_just_committed(self, log: Log, names: Names) -> None:
        """A commit that has returned is in a restore that begins then, every time."""
        for number in range(20):
            await log.commit(Transaction(changes=[Changes(names.s0, {b"k": b"%d" % number})]))
            assert await restore_all(log, names.s0) == {b"k": b"%d" % number}

    async def test_many_restores_at_once(self, log: Log, names: Names) -> None:
        """Restores do not disturb each other, nor the commits beside them."""
        await log.commit(Transaction(changes=[Changes(names.s0, dict.fromkeys(numbers(3_000), b"0"))]))

        async def change() -> None:
            for number in range(10):
                await log.commit(Transaction(changes=[Changes(names.s1, {b"k": b"%d" % number})]))

        *found, _ = await asyncio.gather(*(restore_all(log, names.s0) for _ in range(5)), change())

        assert found == [dict.fromkeys(numbers(3_000), b"0")] * 5
        assert await restore_all(log, names.s1) == {b"k": b"9"}

    # -- groups

    async def test_positions_belong_to_groups(self, log: Log, names: Names) -> None:
        """Each consumer group has its own position; one that never committed starts at 0."""
        await log.commit(Transaction(group=names.group, positions={names.p0: 7}))

        assert await log.positions(names.group, names.events) == {names.p0: 7, names.p1: 0}
        assert await log.positions(f"{names.group}-2", names.events) == {names.p0: 0, names.p1: 0}
        assert await log.positions(names.group, names.other) == {names.o0: 0}

    async def test_newest_position_counts(self, log: Log, names: Names) -> None:
        """A position can be moved on, and back to read again."""
        for position in (3, 9, 4):
            await log.commit(Transaction(group=names.group, positions={names.p0: position}))
            assert (await log.positions(names.group, names.events))[names.p0] == position

    async def test_lone_member_has_every_partition(self, log: Log, names: Names) -> None:
        """Who joins a group alone gets all partitions of its topics, commits as its member, and may leave."""
        listener = Assignments()
        membership = await log.join(names.group, [names.events, names.other], listener)
        await listener.wait_for({names.p0, names.p1, names.o0})

        await log.commit(
            Transaction([Append(names.p0, records(b"out"))], [], names.group, {names.o0: 3}, listener.member)
        )
        await membership.leave()

        assert await read_all(log, names.p0) == [b"out"]
        assert await log.positions(names.group, names.other) == {names.o0: 3}
        assert await log.owners(names.group) == {}

    async def test_who_shares_with_nobody_commits_without_joining(self, log: Log, names: Names) -> None:
        """A reader on its own commits positions with no member, even beside a member of the group."""
        listener = Assignments()
        membership = await log.join(names.group, [names.events], listener)
        await listener.wait_for({names.p0, names.p1})

        await log.commit(Transaction(group=names.group, positions={names.o0: 3}))
        await membership.leave()

        assert await log.positions(names.group, names.other) == {names.o0: 3}

    # -- what there is

    async def test_creating_a_topic_again_changes_nothing(self, log: Log, names: Names) -> None:
        """Topics that exist keep partitions and records."""
        await append(log, names.p0, b"a")

        await log.create_topics([TopicSpec(names.events, 8)])

        assert log.partitions(names.events) == 2
        assert await read_all(log, names.p0) == [b"a"]

    async def test_unknown_topic_has_no_partitions(self, log: Log, names: Names) -> None:
        """A topic that does not exist is a KeyError."""
        with pytest.raises(KeyError):
            log.partitions(f"{names.events}-missing")

    async def test_topics_are_listed(self, log: Log, names: Names) -> None:
        """Every topic is there with its partitions and kind, sorted by name."""
        listed = await log.topics()

        assert [spec.name for spec in listed] == sorted(spec.name for spec in listed)
        mine = {spec.name: spec for spec in listed if spec.name in names}
        assert mine.keys() == {names.events, names.state, names.other}
        assert [mine[name].partitions for name in names[:3]] == [2, 2, 1]
        assert [mine[name].compacted for name in names[:3]] == [False, True, False]

    async def test_end_counts_what_was_just_committed(self, log: Log, names: Names) -> None:
        """The end of a partition is behind every record whose commit has returned, and moves with every one."""
        ends = [0]
        for number in range(10):
            await append(log, names.p0, b"%d" % number)
            ends.append((await log.end_offsets(names.events))[names.p0])

        assert ends == sorted(set(ends))
        assert len(await offsets_of(log, names.p0)) == 10
        assert (await log.end_offsets(names.events))[names.p1] == 0

    async def test_offsets_by_append_time(self, log: Log, names: Names) -> None:
        """The first record of a time or later, or the end: of each partition."""
        for start in (1_000, 2_000, 3_000):
            stamped = records(*numbers(3))
            stamped.timestamps = [start, start + 1, start + 2]
            await log.commit(Transaction([Append(names.p0, stamped)]))
        offsets = await offsets_of(log, names.p0)
        end = (await log.end_offsets(names.events))[names.p0]

        found = [(await log.offsets_at(names.events, time))[names.p0] for time in (0, 1_001, 1_500, 3_002, 3_003)]

        assert found == [offsets[0], offsets[1], offsets[3], offsets[8], end]
        assert (await log.offsets_at(names.events, 0))[names.p1] == 0

    async def test_tallies_add_up(self, log: Log, names: Names) -> None:
        """Ledger counters grow with the appends that carry them."""
        tally, later = Tally(60_000, "environmental"), Tally(120_000, "environmental")
        elsewhere = Append(names.o0, records(b"d"), {tally: 1})
        await log.commit(Transaction([Append(names.p0, records(b"a"), {tally: 1})]))
        await log.commit(Transaction([Append(names.p1, records(b"b", b"c"), {tally: 2}), elsewhere]))
        await asyncio.gather(
            *(log.commit(Transaction([Append(names.p0, records(b"e"), {tally: 1, later: 1})])) for _ in range(5))
        )

        assert await log.tallies(names.events) == {tally: 8, later: 5}
        assert await log.tallies(names.other) == {tally: 1}
        assert await log.tallies(names.state) == {}
