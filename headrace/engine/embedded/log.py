"""The embedded log: `headrace.engine.log.Log` on one SQLite file."""

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from headrace.engine.cancel import cancel_and_wait
from headrace.engine.clock import SystemClock
from headrace.engine.embedded import changed, codec, compacted, operations
from headrace.engine.embedded.database import MEMORY, connect
from headrace.engine.embedded.merge import MERGING, Merger, Merging
from headrace.engine.embedded.ordered_changes import read_changes
from headrace.engine.embedded.reader import ReadThread
from headrace.engine.embedded.restore import Restore
from headrace.engine.embedded.sole_member import SharedReader, SoleMember
from headrace.engine.embedded.tail import MAX_TAIL_BYTES, Tail
from headrace.engine.embedded.writer import Job, Writer
from headrace.engine.errors import LogError
from headrace.engine.log import (
    Append,
    Fetched,
    Known,
    Listener,
    Member,
    Membership,
    Piece,
    Reader,
    Tally,
    TopicPartition,
    TopicSpec,
    Transaction,
)
from headrace.engine.records import Records

#: How often a waiting reader looks for appends of other processes, seconds.
POLL_INTERVAL = 0.02
#: Bytes, see `Log.largest_value`. SQLite takes 1e9 in a row, and a row holds all that one append puts into a partition.
LARGEST_VALUE = 1 << 28
#: Records deleted by retention are looked for after this many commits.
RETENTION_EVERY = 500


class EmbeddedLog:
    """A durable log in `folder`, or in memory for tests.

    Appends of one event loop turn share one SQLite transaction and one sync. Reads of what was just appended come from
    memory. Other processes may append to and read the same folder at the same time.

    Args:
        folder: data folder, made if missing; `MEMORY` keeps everything in memory.
        retention: seconds (of append time) that records are kept, unless the topic says otherwise.
        retention_bytes: bytes kept per partition.
        merging: when changes of compacted topics are merged, and how much at once.
        newest_bytes: memory for the newest records of all partitions, which readers that keep up get from there.
    Neither limit of retention drops a record that a consumer group with a committed position has not passed.
    """

    largest_value = LARGEST_VALUE

    def __init__(
        self,
        folder: Path,
        *,
        retention: float = 7 * 86_400,
        retention_bytes: int = 1 << 30,
        merging: Merging = MERGING,
        newest_bytes: int = MAX_TAIL_BYTES,
    ) -> None:
        if folder != MEMORY:
            folder.mkdir(parents=True, exist_ok=True)
        connection = connect(folder)
        self._clock = SystemClock()
        self._writer = Writer(connection, Merger(merging, self._clock).step)
        self._reader = ReadThread(None if folder == MEMORY else connect(folder), self._writer)
        self._retention = operations.Retention(retention, retention_bytes)
        self._partitions: dict[TopicPartition, operations.Partition] = {}
        self._ends: dict[TopicPartition, int] = {}
        self._tail = Tail(newest_bytes)
        self._waiters: set[asyncio.Event] = set()
        self._commits = 0
        self._looking = asyncio.Lock()
        self._poller: asyncio.Task[None] | None = None

    async def create_topics(self, topics: Iterable[TopicSpec]) -> None:
        specs = list(topics)
        await self._write(lambda connection: operations.create_topics(connection, specs))
        await self._load()

    async def extend_topic(self, name: str, partitions: int) -> None:
        await self._write(lambda connection: operations.extend_topic(connection, name, partitions))
        await self._load()

    def partitions(self, topic: str) -> int:
        count = sum(1 for target in self._partitions if target.topic == topic)
        if not count:
            raise KeyError(topic)
        return count

    async def commit(self, transaction: Transaction) -> Mapping[TopicPartition, int]:
        appends: list[tuple[operations.Partition, bytes, Append]] = []
        changes: list[operations.Changed] = []
        for append in transaction.appends:
            partition = self._known(append.target) if len(append.records) else None
            if partition is not None and partition.compacted:
                changes.append(changed.by_append(partition, append))
            elif partition is not None:
                appends.append((partition, codec.encode(append.records), append))
        now_ms = self._clock.now_ms()
        for change in transaction.changes:
            partition = self._compacted(change.target)
            if change.entries:
                changes.append(changed.by_changes(partition, change, now_ms))
        positions = [(self._known(target).id, offset) for target, offset in transaction.positions.items()]

        def show(committed: operations.Committed) -> None:
            for (_, body, append), base in zip(appends, committed.bases, strict=True):
                next_offset = base + len(append.records)
                self._tail.put(Fetched(append.target, base, next_offset, append.records), len(body))
                self._move_end(append.target, next_offset)
            for target, end in committed.ends.items():
                self._move_end(target, end)
            if appends or committed.ends:
                self._notify()

        # Shown also if the caller was cancelled: see test_cancelled_commit_happens_whole_or_not_at_all.
        await self._writer.run(
            lambda connection: operations.commit(connection, appends, changes, transaction.group, positions), show
        )
        self._commits += 1
        if self._commits % RETENTION_EVERY == 0:
            await self.apply_retention()
        return {change.target: 0 for change in transaction.changes}

    async def claim(self, name: str) -> None:
        await self._write(lambda connection: None)  # behind what a caller that was cancelled has left to be written

    async def read(self, target: TopicPartition, offset: int, max_records: int) -> Fetched | None:
        recent = self._tail.get(target, offset, max_records)
        if recent is not None:
            return recent
        if offset >= self._ends.get(target, 0):
            return None
        end = self._ends[target]  # as of now: what is appended while reading is not to be passed over
        if self._known(target).ordered:
            job = partial(read_changes, target=target, offset=offset, max_records=max_records)
            found = await self._reader.run(partial(job, partition_id=self._known(target).id))
        else:
            partition = self._ordinary(target)
            read = partial(operations.read, partition=partition, offset=offset, max_records=max_records)
            found = operations.assemble(target, offset, await self._reader.run(read))
        # Nothing there although the end is further on: retention dropped it all.
        return found or Fetched(target, offset, end, Records([], [], []))

    async def wait(self, positions: Mapping[TopicPartition, int], timeout: float) -> bool:
        changed = asyncio.Event()
        self._waiters.add(changed)
        try:
            deadline = asyncio.get_running_loop().time() + timeout
            while True:
                if self._writer.failure is not None:
                    raise self._writer.failure
                if any(self._ends.get(target, 0) > offset for target, offset in positions.items()):
                    return True
                left = deadline - asyncio.get_running_loop().time()
                if left <= 0:
                    return False
                changed.clear()
                self._poll_others()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(left):
                        await changed.wait()
        finally:
            self._waiters.discard(changed)

    def reader(self) -> Reader:
        return SharedReader(self)

    async def join(self, group: str, topics: Iterable[str], listener: Listener, assignor: Any = None) -> Membership:
        """One worker has the folder: every partition is its own, for good."""
        names = set(topics)
        await listener.on_assigned({target for target in self._partitions if target.topic in names}, Member())
        return SoleMember()

    async def restore(self, target: TopicPartition) -> AsyncIterator[Sequence[tuple[bytes, bytes]]]:
        reading = Restore(self._compacted(target).id)
        while (chunk := await self._reader.run(reading.chunk)) is not None:
            if chunk:
                yield chunk

    async def catch_up(self, target: TopicPartition, known: Known | None = None) -> AsyncIterator[Piece]:
        """There are no positions here, only the newest entries: all of them, unless `known` is as new."""
        if known is not None:
            partition_id = self._compacted(target).id
            value = await self._reader.run(partial(compacted.value, partition_id=partition_id, key=known.key))
            if value == known.value:
                yield Piece([(known.key, known.value)], 0, False)
                return
        anew = True
        async for chunk in self.restore(target):
            yield Piece(chunk, 0, anew)
            anew = False
        if anew:
            yield Piece([], 0, True)

    async def end_offsets(self, topic: str) -> dict[TopicPartition, int]:
        await self._look()
        return {target: self._ends.get(target, 0) for target in self._partitions if target.topic == topic}

    async def offsets_at(self, topic: str, time_ms: int) -> dict[TopicPartition, int]:
        ends = await self.end_offsets(topic)
        found: dict[TopicPartition, int] = {}
        for target, end in ends.items():
            partition = self._ordinary(target)
            row = await self._reader.run(partial(operations.row_at, partition=partition, time_ms=time_ms))
            fetched = operations.assemble(target, 0, row)
            found[target] = end if fetched is None else _first_at(fetched, time_ms)
        return found

    async def topics(self) -> list[TopicSpec]:
        await self._load()
        counts = Counter((target.topic, partition.compacted) for target, partition in self._partitions.items())
        return [TopicSpec(name, count, compacted) for (name, compacted), count in sorted(counts.items())]

    async def owners(self, group: str) -> dict[TopicPartition, str]:
        return {}

    async def positions(self, group: str, topic: str) -> dict[TopicPartition, int]:
        found: dict[int, int] = await self._reader.run(lambda connection: operations.positions(connection, group))
        return {
            target: found.get(partition.id, 0)
            for target, partition in self._partitions.items()
            if target.topic == topic
        }

    async def tallies(self, topic: str) -> dict[Tally, int]:
        found: dict[Tally, int] = await self._reader.run(lambda connection: operations.tallies(connection, topic))
        return found

    async def apply_retention(self) -> int:
        """Drop records that are older, or more, than is kept; returns how many."""
        dropped: int = await self._write(lambda connection: operations.retain(connection, self._retention))
        return dropped

    async def close(self) -> None:
        await cancel_and_wait(self._poller)
        await self._reader.close()
        await self._writer.close()

    async def _write(self, job: Job) -> Any:
        return await self._writer.run(job)

    async def _load(self) -> None:
        """Read which partitions there are and where they end; other processes may have added to both."""
        for partition in await self._reader.run(operations.partitions):
            self._partitions[partition.target] = partition
            self._move_end(partition.target, partition.next_offset)
        self._notify()

    async def _look(self) -> None:
        """Know what other processes have committed by now."""
        async with self._looking:  # whoever comes second waits for what the first one was told of
            if await self._reader.others_changed():
                await self._load()

    def _move_end(self, target: TopicPartition, end: int) -> None:
        self._ends[target] = max(self._ends.get(target, 0), end)

    def _poll_others(self) -> None:
        """Keep one task looking for appends of other processes while anybody waits."""
        if self._poller is None or self._poller.done():
            self._poller = asyncio.get_running_loop().create_task(self._poll())

    async def _poll(self) -> None:
        while self._waiters:
            await self._clock.sleep(POLL_INTERVAL)
            if self._writer.failure is not None:
                self._notify()
            else:
                await self._look()

    def _notify(self) -> None:
        for waiter in self._waiters:
            waiter.set()

    def _known(self, target: TopicPartition) -> operations.Partition:
        try:
            return self._partitions[target]
        except KeyError:
            raise LogError(f"there is no partition {target.partition} of topic {target.topic!r}") from None

    def _ordinary(self, target: TopicPartition) -> operations.Partition:
        partition = self._known(target)
        if partition.compacted:
            raise LogError(f"topic {target.topic!r} is compacted: it can be restored, not read like this")
        return partition

    def _compacted(self, target: TopicPartition) -> operations.Partition:
        partition = self._known(target)
        if not partition.compacted:
            raise LogError(f"topic {target.topic!r} is not compacted: append to it, not by key")
        return partition


def _first_at(fetched: Fetched, time_ms: int) -> int:
    return next(
        (fetched.offset(index) for index, stamp in enumerate(fetched.records.timestamps) if stamp >= time_ms),
        fetched.next_offset,
    )
