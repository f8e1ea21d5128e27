"""What every transport promises about records and reading them."""

import asyncio
import os

from headrace.engine.log import (
    Append,
    Fetched,
    Log,
    TopicPartition,
    Transaction,
)
from headrace.engine.log_range import reading
from headrace.engine.records import Records
from tests.contract.log_access import (
    PATIENCE,
    Names,
    append,
    fetch,
    numbers,
    offsets_of,
    read_all,
    read_records,
)


class RecordPromises:
    """One promise, one test."""

    async def test_append_is_read_back_in_order(self, log: Log, names: Names) -> None:
        """Records come back as they were sent: values, keys, append times and headers, in order."""
        await append(log, names.p0, b"a", b"b")
        await append(log, names.p0, b"c")

        found = await read_records(log, names.p0)

        assert found.values == [b"a", b"b", b"c"]
        assert found[0].key == b"k"
        assert found.timestamps == [1, 2, 1]
        assert found[0].headers == {"h": b"x"}

    async def test_a_topic_named_twice_is_made_once(self, log: Log) -> None:
        """Those who collect topics from several places need not compare them."""
        names = Names.new()

        await log.create_topics([*names.specs(), *names.specs()])

        assert log.partitions(names.events) == 2

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

        async with reading(log) as reader:
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

        async with reading(log) as reader:
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

        async with reading(log) as reader:
            first = await fetch(reader, names.p0, 0, 20)
            await fetch(reader, names.p0, first.next_offset, 20)
            again = await fetch(reader, names.p0, 0, 20)

        assert again == first

    async def test_a_part_of_what_was_read(self, log: Log, names: Names) -> None:
        """What was read can be cut, and the parts say where the next read starts."""
        await append(log, names.p0, *numbers(5))
        await append(log, names.p0, *numbers(5, 5))
        end = (await log.end_offsets(names.events))[names.p0]
        async with reading(log) as reader:
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
        async with reading(log) as reader:
            waiting = asyncio.create_task(reader.wait({names.p0: end}, PATIENCE))
            await append(log, names.p1, b"elsewhere")
            assert not waiting.done()

            await append(log, names.p0, b"second")

            assert await waiting
            assert (await fetch(reader, names.p0, end)).records.values == [b"second"]

    async def test_wait_for_one_of_many(self, log: Log, names: Names) -> None:
        """Whichever partition has something ends the wait; nothing does when there is nothing."""
        async with reading(log) as reader:
            assert not await reader.wait({names.p0: 0, names.p1: 0}, 0.01)

            await append(log, names.p1, b"x")

            assert await reader.wait({names.p0: 0, names.p1: 0}, PATIENCE)

    async def test_two_waiters_both_wake_up(self, log: Log, names: Names) -> None:
        """Waiters do not take each other's wake-up."""
        async with reading(log) as one, reading(log) as two:
            all_waiters = asyncio.gather(*(reader.wait({names.p0: 0}, PATIENCE) for reader in (one, one, two)))
            await asyncio.sleep(0)

            await append(log, names.p0, b"x")

            assert all(await all_waiters)
