"""A log as tests use it: topics of their own, appending, and reading to the end."""

import asyncio
import os
from collections.abc import Iterable
from typing import NamedTuple

from headrace.engine.log import (
    Append,
    Fetched,
    Log,
    Member,
    Reader,
    TopicPartition,
    TopicSpec,
    Transaction,
)
from headrace.engine.log_range import reading
from headrace.engine.records import Records

#: Seconds for what takes milliseconds: records to come, a group to be shared out.
PATIENCE = 120.0


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
    async with reading(log) as reader:
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
    async with reading(log) as reader:
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
