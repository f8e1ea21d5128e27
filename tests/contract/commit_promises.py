"""What every transport promises about commits, and about compacted topics."""

import asyncio

import pytest

from headrace.engine.errors import LogError
from headrace.engine.log import (
    Append,
    Changes,
    Log,
    TopicPartition,
    TopicSpec,
    Transaction,
)
from headrace.engine.records import Records
from tests.contract.log_access import (
    Names,
    append,
    numbers,
    read_all,
    records,
    restore_all,
)


class CommitPromises:
    """One promise, one test."""

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
        """Who stops waiting for a commit changes neither that one nor those after it; what it wrote is seen at once."""
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
        await append(log, names.o0, b"behind them all")

        found = await read_all(log, names.p0)
        assert found == [key for key in numbers(5) if key in await restore_all(log, names.s0)]
        await log.commit(Transaction([Append(target, records(b"last")) for target in (names.p0, names.p1)]))
        assert await read_all(log, names.p0) == [*found, b"last"]
        assert await read_all(log, names.p1) == [*found, b"last"]

    async def test_a_name_that_is_claimed_again_has_nothing_under_way(self, log: Log, names: Names) -> None:
        """What a caller that was cancelled has left to be done is done before the claim returns, or never."""
        for number in range(5):
            await log.claim(names.group)
            change = Changes(names.s0, {b"k": b"%d" % number})
            caller = asyncio.create_task(log.commit(Transaction(changes=[change], claim=names.group)))
            for _ in range(number):
                await asyncio.sleep(0)
            caller.cancel()
            await log.claim(names.group)
            found = await restore_all(log, names.s0)
            await append(log, names.o0, b"behind")
            assert await restore_all(log, names.s0) == found
        assert found == {b"k": b"4"}

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
