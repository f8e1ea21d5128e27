"""What every transport promises about compacted topics that are read in order."""

import os
from collections.abc import Mapping

from headrace.engine.log import Changes, Log, TopicPartition, TopicSpec, Transaction
from tests.contract.log_access import offsets_of, read_records, restore_all


async def ordered_topic(log: Log, partitions: int = 1) -> TopicPartition:
    """The first partition of a new compacted topic that can be read in order."""
    name = f"headrace-test-changes-{os.urandom(4).hex()}"
    await log.create_topics([TopicSpec(name, partitions, compacted=True, retention=3600.0)])
    return TopicPartition(name, 0)


async def change(log: Log, target: TopicPartition, time_ms: int | None, entries: Mapping[bytes, bytes | None]) -> None:
    await log.commit(Transaction(changes=[Changes(target, entries, time_ms)]))


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
