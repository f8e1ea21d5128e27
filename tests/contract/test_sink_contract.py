"""The sink contract catches sinks that break it: wrong ones, each in one way, fail the tests made for that."""

import inspect
from collections.abc import Awaitable, Callable, Sequence

import pytest

from headrace.engine.embedded.database import MEMORY
from headrace.engine.embedded.log import EmbeddedLog
from headrace.engine.errors import Disconnected
from headrace.engine.log import Fetched, TopicPartition, TopicSpec
from headrace.engine.sink import Refused
from headrace.engine.sink_runner import SinkRunner
from headrace.schemas import topics
from tests.contract.sink_contract import SinkContract, opened
from tests.contract.sink_traffic import PARTITIONS
from tests.contract.test_memory_sink import CutMemorySink, MemoryWorld


class PositionFirst(CutMemorySink):
    """Moves the position in a request of its own, before it stores the records."""

    async def write(self, fetched: Sequence[Fetched]) -> None:
        before = dict(self.store)
        self.world.request(self)
        self._check()
        self.store |= {part.target: part.next_offset for part in fetched}
        if self.world.is_cut():
            raise Disconnected("gone")
        self.store.clear()
        self.store |= before
        await super().write(fetched)


class Unfenced(CutMemorySink):
    """Takes whatever position it finds for its own."""

    async def write(self, fetched: Sequence[Fetched]) -> None:
        self._positions |= {part.target: self.store.get(part.target, 0) for part in fetched}
        await super().write(fetched)


class Piecemeal(CutMemorySink):
    """Stores what stands before a refused record."""

    async def write(self, fetched: Sequence[Fetched]) -> None:
        try:
            await super().write(fetched)
        except Refused:
            for part in fetched:
                good = [record for record in part.records if not self._refuses(record)]
                self.stored.setdefault(part.target, []).extend(good)
            raise


class LastCome(CutMemorySink):
    """Keeps the record of a key that came last, not the newest."""

    async def write(self, fetched: Sequence[Fetched]) -> None:
        await super().write(fetched)
        for target, records in self.stored.items():
            self.stored[target] = list({record.key: record for record in records}.values())


class FirstOfBatch(CutMemorySink):
    """Keeps one record per key of a write."""

    async def write(self, fetched: Sequence[Fetched]) -> None:
        before = {target: len(records) for target, records in self.stored.items()}
        await super().write(fetched)
        for target, records in self.stored.items():
            new = records[before.get(target, 0) :]
            records[before.get(target, 0) :] = {record.key: record for record in reversed(new)}.values()


class StandsStill(CutMemorySink):
    """Has nothing to do where there are no records."""

    async def write(self, fetched: Sequence[Fetched]) -> None:
        full = [part for part in fetched if len(part.records)]
        if full:
            await super().write(full)


class Optimist(CutMemorySink):
    """Takes a lost connection for an answer."""

    async def write(self, fetched: Sequence[Fetched]) -> None:
        try:
            await super().write(fetched)
        except Disconnected:
            self._positions |= {part.target: part.next_offset for part in fetched}


class FromMemory(CutMemorySink):
    """Remembers its positions itself instead of asking."""

    async def positions(self, targets: Sequence[TopicPartition]) -> dict[TopicPartition, int]:
        return await super().positions(targets) if not self._positions else dict(self._positions)


class Forgets(CutMemorySink):
    """Begins anew in every process."""

    async def positions(self, targets: Sequence[TopicPartition]) -> dict[TopicPartition, int]:
        if not self._positions:
            self.store.clear()
        return await super().positions(targets)


@pytest.mark.parametrize(
    ("wrong", "test"),
    [
        (PositionFirst, SinkContract.test_cut_at_every_request),
        (Unfenced, SinkContract.test_a_stale_process_cannot_write),
        (Piecemeal, SinkContract.test_a_write_is_all_or_nothing),
        (LastCome, SinkContract.test_the_newest_of_each_key),
        (LastCome, SinkContract.test_an_older_record_after_a_newer_one),
        (FirstOfBatch, SinkContract.test_the_newest_of_each_key),
        (StandsStill, SinkContract.test_nothing_but_a_position),
        (Optimist, SinkContract.test_cut_at_every_request),
        (FromMemory, SinkContract.test_a_stale_process_cannot_write),
        (Forgets, SinkContract.test_a_new_process_goes_on),
    ],
    ids=lambda value: value.__name__,
)
async def test_catches(wrong: type[CutMemorySink], test: Callable[..., Awaitable[None]]) -> None:
    """A sink that is wrong in this way fails this test, which one that is right passes."""
    await run(CutMemorySink, test)

    with pytest.raises((AssertionError, pytest.fail.Exception)):
        await run(wrong, test)


async def run(kind: type[CutMemorySink], test: Callable[..., Awaitable[None]]) -> None:
    """Run a test of the suite on a sink of this kind."""
    world, log = MemoryWorld(), EmbeddedLog(MEMORY)
    world.kind = kind
    names = [topics.READINGS, topics.ROLLUPS, topics.DEAD_LETTERS]
    await log.create_topics([*(TopicSpec(name, PARTITIONS) for name in names), *SinkRunner.topic_specs()])
    given = {"self": SinkContract(), "world": world, "log": log, "sink": await opened(world, log)}
    try:
        await test(**{name: given[name] for name in inspect.signature(test).parameters})
    finally:
        await log.close()
