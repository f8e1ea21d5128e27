"""Collects what finished batches want to happen, and commits it in one step."""

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence, Set
from dataclasses import dataclass, field
from operator import attrgetter

from headrace.engine.batch import Send
from headrace.engine.clock import Clock
from headrace.engine.errors import CommitRefused, LogError
from headrace.engine.log import Append, Changes, Log, Member, Tally, TopicPartition, Transaction
from headrace.engine.metrics import Metrics
from headrace.engine.partitioner import Partitioner
from headrace.engine.records import Records
from headrace.engine.runtime.lanes import Lanes, is_urgent

#: Records that may be with agents or finished, and not yet committed, over all partitions of a lane: it bounds memory,
#: and while the log is slow, or down, agents wait.
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
    #: Whether agents worked on it, be it that time passed; else only the position has moved.
    worked: bool = False


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
        lanes: Lanes,
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
        self._given_up: set[TopicPartition] = set()
        self._refused: set[TopicPartition] = set()
        self._partitioners: dict[str, Partitioner] = {}
        self._writing = asyncio.Lock()
        self._lanes = lanes
        #: Not to begin before the next cut: a commit of the priority lane waits for them.
        self._wanted: frozenset[TopicPartition] = frozenset()
        #: By whether it is the priority lane.
        self._uncommitted = {False: 0, True: 0}
        self._something_finished = asyncio.Event()
        self._something_urgent = asyncio.Event()
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
        self._uncommitted[is_urgent(target)] += count

    def finish(self, target: TopicPartition, position: int, sends: Sequence[Send]) -> None:
        """Every agent is done with the records before `position`.

        Without this call after `begin` nothing more of the partition is committed.
        """
        finished = self._finished.setdefault(target, _Finished(position))
        finished.position = position
        finished.sends += sends
        finished.worked |= target in self._busy
        finished.count += self._busy.pop(target, 0)
        (self._something_urgent if is_urgent(target) else self._something_finished).set()
        self._look_for_urgent()

    def give_up(self, target: TopicPartition) -> None:
        """The batch in hand will never be finished; nothing more is committed of the partition, and of its coupled."""
        self._uncommitted[is_urgent(target)] -= self._busy[target]
        self._busy[target] = 0
        self._given_up.add(target)
        self._look_for_urgent()

    def gave_up(self, target: TopicPartition) -> TopicPartition | None:
        """The coupled partition that was given up, so that nothing more of `target` is committed; None if none was."""
        return next(iter(self._given_up & self._coupled(target)), None)

    def move(self, target: TopicPartition, position: int) -> None:
        """There is nothing to do before `position`: Kafka's own markers. Committed too, or lag would never reach 0."""
        self.finish(target, position, [])

    async def wait_finished(self) -> None:
        """Wait until there is something to commit."""
        await self._something_finished.wait()

    async def wait_urgent(self) -> None:
        """Wait until there is something of the priority lane that can be committed."""
        while not self._urgent():
            self._something_urgent.clear()
            await self._something_urgent.wait()

    async def wait_written(self) -> None:
        """Wait until no commit is being written: cut off, it would be durable without anybody here knowing."""
        async with self._writing:
            pass

    async def wait_room(self, target: TopicPartition) -> None:
        """Wait while `MOST_UNCOMMITTED` records are not committed, or the priority lane waits to commit with `target`.

        Begin at once when this returns.
        """
        while self._uncommitted[is_urgent(target)] >= MOST_UNCOMMITTED or target in self._wanted:
            self._room.clear()
            await self._room.wait()

    async def commit(
        self, member: Member, on_cut: Callable[[], None] = lambda: None, *, urgent_only: bool = False
    ) -> None:
        """Take everything that is finished at one instant, and make it durable and visible.

        Args:
            member: as whom the partitions were read.
            on_cut: called when batches may run again, before anything is written.
            urgent_only: only what is of the priority lane, with what is coupled to it.
        Raises:
            CommitRefused: nothing of it is visible; the partitions in it are not committed any more, until `forget`.
            LogError: nothing of it is visible, and the log is no good.
        """
        async with self._writing:
            if not urgent_only:
                self._something_finished.clear()
            transaction, counts = self._cut(member, self._urgent() if urgent_only else self._finished.keys())
            self._look_for_urgent()
            self._room.set()
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
                for urgent, count in counts.items():
                    self._uncommitted[urgent] -= count
                self._room.set()
            self._lanes.end(transaction.positions)
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
        ahead = self._refused | {target for target, finished in self._finished.items() if finished.worked}
        for target, finished in self._finished.items():
            self._uncommitted[is_urgent(target)] -= finished.count
        for target, count in self._busy.items():
            self._uncommitted[is_urgent(target)] -= count
        self._finished.clear()
        self._busy.clear()
        self._given_up.clear()
        self._refused = set()
        self._look_for_urgent()
        self._room.set()
        return ahead

    def _urgent(self) -> set[TopicPartition]:
        """What is finished of the priority lane and can be committed, with what is coupled to it."""
        apart = self._busy.keys() | self._refused
        groups = ({each, *self._coupled(each)} for each in self._finished if is_urgent(each))
        return {target for group in groups if not apart & group for target in group}

    def _look_for_urgent(self) -> None:
        """Say what a commit of the priority lane waits for."""
        waiting = [each for each in self._finished if is_urgent(each) and not self.gave_up(each)]
        self._wanted = frozenset(other for each in waiting for other in self._coupled(each) if not is_urgent(other))
        self._lanes.want(self._wanted & self._busy.keys())
        if waiting:
            self._something_urgent.set()
        else:
            self._room.set()

    def _cut(
        self, member: Member, targets: Collection[TopicPartition]
    ) -> tuple[Transaction | None, Mapping[bool, int]]:
        sends: list[Send] = []
        views: list[Send] = []
        changes: list[Changes] = []
        positions: dict[TopicPartition, int] = {}
        counts = {False: 0, True: 0}
        apart = self._busy.keys() | self._refused
        for target in [each for each in self._finished if each in targets and not apart & {each, *self._coupled(each)}]:
            finished = self._finished.pop(target)
            changed, viewed = self._collect(target), self._view(target)
            if finished.position == self.committed.get(target) and not (finished.sends or changed or viewed):
                self._lanes.end([target])
                continue  # time has passed, and led to nothing
            sends += finished.sends
            changes += changed
            views += viewed
            positions[target] = finished.position
            counts[is_urgent(target)] += finished.count
        if not positions:
            return None, counts
        sends.sort(key=attrgetter("order"))
        return Transaction(self._appends([*sends, *views]), changes, self._group, positions, member), counts

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
