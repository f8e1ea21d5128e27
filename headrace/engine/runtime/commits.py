"""Collects what finished batches want to happen, and commits it in one step."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from headrace.engine.batch import Send
from headrace.engine.log import Append, Changes, Log, Tally, TopicPartition, Transaction
from headrace.engine.partitioner import Partitioner
from headrace.engine.records import Records

#: Gives the table changes of finished batches of one input partition.
CollectChanges = Callable[[TopicPartition], Sequence[Changes]]


@dataclass(slots=True)
class _Finished:
    """What finished batches of one input partition want, since its last commit."""

    position: int
    sends: list[Send] = field(default_factory=list)


class Commits:
    """The open end of the log for one consumer group.

    A partition is committed only between two of its batches, when every agent that reads it is done with the same
    records: then its tables, its outputs and its position agree. See `test_one_commit_is_one_step`.
    """

    def __init__(self, log: Log, group: str, collect: CollectChanges) -> None:
        self._log = log
        self._group = group
        self._collect = collect
        self._finished: dict[TopicPartition, _Finished] = {}
        self._busy: set[TopicPartition] = set()
        self._partitioners: dict[str, Partitioner] = {}
        self.committed: dict[TopicPartition, int] = {}

    def begin(self, target: TopicPartition) -> None:
        """A batch of `target` is given to its agents: from now on its tables may be half-way."""
        self._busy.add(target)

    def finish(self, target: TopicPartition, position: int, sends: Sequence[Send]) -> None:
        """Every agent is done with the records before `position`.

        Without this call after `begin` nothing more of the partition is committed.
        """
        finished = self._finished.setdefault(target, _Finished(position))
        finished.position = position
        finished.sends += sends
        self._busy.discard(target)

    @property
    def busy(self) -> bool:
        """Whether a partition is inside a batch."""
        return bool(self._busy)

    def cut(self) -> Transaction | None:
        """Everything that is finished, taken out at one instant; None when there is nothing. Pass it to `write`."""
        sends: list[Send] = []
        changes: list[Changes] = []
        positions: dict[TopicPartition, int] = {}
        for target in [target for target in self._finished if target not in self._busy]:
            finished = self._finished.pop(target)
            sends += finished.sends
            changes += self._collect(target)
            positions[target] = finished.position
        return Transaction(self._appends(sends), changes, self._group, positions) if positions else None

    async def write(self, transaction: Transaction | None) -> None:
        """Make a cut durable and visible. Cuts must be written in the order in which they were taken.

        Raises:
            LogError: nothing of it is.
        """
        if transaction is not None:
            await self._log.commit(transaction)
            self.committed.update(transaction.positions)

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

    def _split(self, send: Send) -> list[tuple[int, Records]]:
        if send.partition is not None:
            return [(send.partition, send.records)]
        partitioner = self._partitioners.get(send.topic)
        if partitioner is None:
            partitioner = self._partitioners[send.topic] = Partitioner(self._log.partitions(send.topic))
        rows = partitioner.split([key or b"" for key in send.records.keys])
        if len(rows) == 1:
            return [(next(iter(rows)), send.records)]
        return [(partition, send.records.take(indices)) for partition, indices in rows.items()]
