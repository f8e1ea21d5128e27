"""Collects what finished batches want to happen, and commits it in one step."""

import asyncio
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass, field

from headrace.engine.batch import Send
from headrace.engine.clock import Clock
from headrace.engine.errors import CommitRefused, LogError
from headrace.engine.log import Append, Changes, Log, Member, Tally, TopicPartition, Transaction
from headrace.engine.metrics import Metrics
from headrace.engine.partitioner import Partitioner
from headrace.engine.records import Records

#: Records that may be with agents or finished, and not yet committed, over all partitions: it bounds memory, and while
#: the log is slow, or down, agents wait.
MOST_UNCOMMITTED = 50_000

#: Gives the table changes of finished batches of one input partition.
CollectChanges = Callable[[TopicPartition], Sequence[Changes]]
#: Gives what agents send with a commit of an input partition.
View = Callable[[TopicPartition], Sequence[Send]]
#: Says which partitions write the same tables: one is not committed while another is half-way.
Coupled = Callable[[TopicPartition], Set[TopicPartition]]
#: Hears that a commit is durable, with what `Log.commit` returned.
OnCommitted = Callable[[Mapping[TopicPartition, int]], None]


@dataclass(slots=True)
class _Finished:
    """What finished batches of one input partition want, since its last commit."""

    position: int
    sends: list[Send] = field(default_factory=list)
    count: int = 0


class Commits:
    """The open end of the log for one consumer group.

    A partition is committed only between two of its batches, when every agent that reads it is done with the same
    records: then its tables, its outputs and its position agree. See `test_one_commit_is_one_step`.
    """

    def __init__(
        self,
        log: Log,
        group: str,
        collect: CollectChanges,
        view: View,
        coupled: Coupled,
        clock: Clock,
        metrics: Metrics,
        on_committed: OnCommitted = lambda positions: None,
    ) -> None:
        self._clock = clock
        self._metrics = metrics
        self._log = log
        self._group = group
        self._collect = collect
        self._view = view
        self._coupled = coupled
        self._on_committed = on_committed
        self._finished: dict[TopicPartition, _Finished] = {}
        self._busy: dict[TopicPartition, int] = {}
        self._refused: set[TopicPartition] = set()
        self._partitioners: dict[str, Partitioner] = {}
        self._writing = asyncio.Lock()
        self._uncommitted = 0
        self._something_finished = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()
        self.committed: dict[TopicPartition, int] = {}
        self._reached: dict[TopicPartition, int] = {}

    def begin_at(self, positions: Mapping[TopicPartition, int]) -> set[TopicPartition]:
        """Work on these partitions from their committed positions on. Those that somebody else moved on meanwhile.

        A worker that slept through its session gets partitions back as if nothing had happened; its tables are old
        (see `test_paused_worker_has_no_effect_when_it_wakes`).
        """
        moved = {target for target, position in positions.items() if self.committed.get(target) != position}
        self.committed = dict(positions)
        for target, position in positions.items():
            self._reached[target] = max(position, self._reached.get(target, 0))
        return moved

    def lost(self, target: TopicPartition) -> int:
        """By how much the committed position has gone back, offsets; 0 while the topic is the same."""
        return self._reached[target] - self.committed[target]

    def begin(self, target: TopicPartition, count: int) -> None:
        """A batch of `count` records is given to its agents: from now on the tables of `target` may be half-way."""
        self._busy[target] = count
        self._add_uncommitted(count)

    def finish(self, target: TopicPartition, position: int, sends: Sequence[Send]) -> None:
        """Every agent is done with the records before `position`.

        Without this call after `begin` nothing more of the partition is committed.
        """
        finished = self._finished.setdefault(target, _Finished(position))
        finished.position = position
        finished.sends += sends
        finished.count += self._busy.pop(target, 0)
        self._something_finished.set()

    def give_up(self, target: TopicPartition) -> None:
        """The batch in hand will never be finished; nothing more of the partition is committed."""
        self._add_uncommitted(-self._busy[target])
        self._busy[target] = 0

    def move(self, target: TopicPartition, position: int) -> None:
        """There is nothing to do before `position`: Kafka's own markers. Committed too, or lag would never reach 0."""
        self.finish(target, position, [])

    async def wait_finished(self) -> None:
        """Wait until there is something to commit."""
        await self._something_finished.wait()

    async def wait_written(self) -> None:
        """Wait until no commit is being written: cut off, it would be durable without anybody here knowing."""
        async with self._writing:
            pass

    async def wait_room(self) -> None:
        """Wait while `MOST_UNCOMMITTED` records are not committed. Begin at once when this returns."""
        while self._uncommitted >= MOST_UNCOMMITTED:
            self._room.clear()
            await self._room.wait()

    async def commit(self, member: Member, on_cut: Callable[[], None] = lambda: None) -> None:
        """Take everything that is finished at one instant, and make it durable and visible.

        Args:
            member: as whom the partitions were read.
            on_cut: called when batches may run again, before anything is written.
        Raises:
            CommitRefused: nothing of it is visible; the partitions in it are not committed any more, until `forget`.
            LogError: nothing of it is visible, and the log is no good.
        """
        async with self._writing:
            self._something_finished.clear()
            transaction, count = self._cut(member)
            on_cut()
            if transaction is None:
                return
            began = self._clock.monotonic()
            try:
                self._on_committed(await self._log.commit(transaction))
            except CommitRefused:
                self._metrics.count("headrace_commit_failures_total", group=self._group, reason="refused")
                self._refused |= transaction.positions.keys()
                raise
            except LogError:
                self._metrics.count("headrace_commit_failures_total", group=self._group, reason="failed")
                raise
            finally:
                self._add_uncommitted(-count)
            self.committed.update(transaction.positions)
            self._reached.update(transaction.positions)
            self._note(transaction, self._clock.monotonic() - began)

    def _note(self, transaction: Transaction, seconds: float) -> None:
        self._metrics.count("headrace_commits_total", group=self._group)
        self._metrics.observe("headrace_commit_seconds", seconds, group=self._group)
        for append in transaction.appends:
            self._metrics.count("headrace_records_written_total", len(append.records), topic=append.target.topic)

    def forget(self) -> set[TopicPartition]:
        """Start anew with all partitions. Those whose tables changed without a commit."""
        ahead = self._refused | {target for target, finished in self._finished.items() if finished.count}
        self._add_uncommitted(-sum(finished.count for finished in self._finished.values()) - sum(self._busy.values()))
        self._finished.clear()
        self._busy.clear()
        self._refused = set()
        return ahead

    def _add_uncommitted(self, count: int) -> None:
        self._uncommitted += count
        if self._uncommitted < MOST_UNCOMMITTED:
            self._room.set()

    def _cut(self, member: Member) -> tuple[Transaction | None, int]:
        sends: list[Send] = []
        changes: list[Changes] = []
        positions: dict[TopicPartition, int] = {}
        count = 0
        apart = self._busy.keys() | self._refused
        for target in [each for each in self._finished if not apart & {each, *self._coupled(each)}]:
            finished = self._finished.pop(target)
            sends += finished.sends
            changes += self._collect(target)
            sends += self._view(target)
            positions[target] = finished.position
            count += finished.count
        if not positions:
            return None, 0
        return Transaction(self._appends(sends), changes, self._group, positions, member), count

    def _appends(self, sends: Sequence[Send]) -> list[Append]:
        parts: dict[TopicPartition, list[Records]] = {}
        tallies: dict[TopicPartition, dict[Tally, int]] = {}
        for send in sends:
            for partition, records in self._split(send):
                target = TopicPartition(send.topic, partition)
                parts.setdefault(target, []).append(records)
                if send.tallies:
                    counts = tallies.setdefault(target, {})
                    for key, count in send.tallies.items():
                        counts[key] = counts.get(key, 0) + count
                    send.tallies = {}  # counted once, with the first partition the send goes to
        return [Append(target, Records.concat(records), tallies.get(target, {})) for target, records in parts.items()]

    def _partitions(self, topic: str) -> int:
        try:
            return self._log.partitions(topic)
        except KeyError as error:
            raise LogError(
                f"an agent sends to topic {topic!r}, which does not exist; create it, or name it in `outputs`"
            ) from error

    def _split(self, send: Send) -> list[tuple[int, Records]]:
        if send.partition is not None:
            return [(send.partition, send.records)]
        partitioner = self._partitioners.get(send.topic)
        if partitioner is None:
            partitioner = self._partitioners[send.topic] = Partitioner(self._partitions(send.topic))
        rows = partitioner.split([key or b"" for key in send.records.keys])
        if len(rows) == 1:
            return [(next(iter(rows)), send.records)]
        return [(partition, send.records.take(indices)) for partition, indices in rows.items()]
