"""What a transport must do: a partitioned log with atomic commits. `tests/contract` holds the promises as tests."""

from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from headrace.engine.records import Records


class TopicPartition(NamedTuple):
    """One partition of one topic."""

    topic: str
    partition: int


class TopicSpec(NamedTuple):
    """How a topic is kept.

    Args:
        name: topic name.
        partitions: count; 1 or more.
        compacted: keep the newest value per key instead of every record.
        retention: seconds a record is kept, or None for as long as the log's own limit says.
    """

    name: str
    partitions: int = 4
    compacted: bool = False
    retention: float | None = None


class Tally(NamedTuple):
    """Key of one counter of the ledger: minute of append time (ms of its start) and device type."""

    minute_ms: int
    device_type: str


@dataclass(slots=True)
class Append:
    """Records for one partition.

    `tallies` says what the records add to the topic's counters (see `Log.tallies`); it is counted in the same
    transaction as the append.
    """

    target: TopicPartition
    records: Records
    tallies: Mapping[Tally, int] = field(default_factory=dict)


@dataclass(slots=True)
class Changes:
    """Newest values for keys of one partition of a compacted topic; None deletes the key."""

    target: TopicPartition
    entries: Mapping[bytes, bytes | None]


@dataclass(slots=True)
class Transaction:
    """What becomes visible together or not at all.

    Args:
        appends: records for ordinary topics.
        changes: newest values for compacted topics.
        group: consumer group that `positions` belong to.
        positions: by partition, the offset after the last finished record.
    """

    appends: Sequence[Append] = ()
    changes: Sequence[Changes] = ()
    group: str = ""
    positions: Mapping[TopicPartition, int] = field(default_factory=dict)


class Fetched(NamedTuple):
    """Records read from one partition; `next_offset` is where the next read starts."""

    target: TopicPartition
    base_offset: int
    next_offset: int
    records: Records


class Log(Protocol):
    """A durable, partitioned, append-only log with consumer groups and compacted topics.

    Offsets start at 0 and grow by one per record. Everything that changes the log goes through `commit`, which returns
    only when it would survive a power cut. Safe for many tasks of one event loop.
    """

    async def create_topics(self, topics: Iterable[TopicSpec]) -> None:
        """Make the topics that do not exist yet. A topic that exists keeps its partitions."""
        ...

    def partitions(self, topic: str) -> int:
        """How many partitions `topic` has; KeyError if it does not exist."""
        ...

    async def commit(self, transaction: Transaction) -> None:
        """Carry out all of `transaction`, durably.

        Raises:
            LogError: it could not be made durable. Nothing of it is visible and the log takes nothing more.
        """
        ...

    async def read(self, target: TopicPartition, offset: int, max_records: int) -> Fetched | None:
        """Records from `offset` on, at least one and about `max_records` at most; None when there are none yet.

        An offset that retention has dropped reads from the oldest record kept.
        """
        ...

    async def wait(self, positions: Mapping[TopicPartition, int], timeout: float) -> bool:
        """Wait until one of the partitions has a record at or after its position; False after `timeout` seconds."""
        ...

    def restore(self, target: TopicPartition) -> AsyncIterator[Sequence[tuple[bytes, bytes]]]:
        """Every key and newest value of a compacted partition, in chunks, in no particular order."""
        ...

    async def end_offsets(self, topic: str) -> dict[TopicPartition, int]:
        """Per partition the offset that the next record will get."""
        ...

    async def positions(self, group: str, topic: str) -> dict[TopicPartition, int]:
        """Per partition the committed position of the group; 0 where it has none."""
        ...

    async def tallies(self, topic: str) -> dict[Tally, int]:
        """The ledger counters that appends to `topic` added up to."""
        ...

    async def close(self) -> None:
        """Finish what was started and let go of the files or connections."""
        ...
