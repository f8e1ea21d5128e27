"""What every transport promises about consumer groups, and about what there is in it."""

import asyncio

import pytest

from headrace.engine.log import (
    Append,
    Log,
    Tally,
    TopicSpec,
    Transaction,
)
from tests.contract.log_access import (
    Assignments,
    Names,
    append,
    numbers,
    offsets_of,
    read_all,
    records,
)


class GroupPromises:
    """One promise, one test."""

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
