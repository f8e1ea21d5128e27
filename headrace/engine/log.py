"""What a transport must do: a partitioned log with atomic commits. `tests/contract` holds the promises as tests."""

from collections.abc import AsyncIterator, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

from headrace.engine.errors import HeadraceError
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
        retention: seconds a record is kept, or None for as long as the log's own limit says. Of a compacted topic:
            seconds for which a value stays that was replaced, or deleted. Only with that do all transports let a
            compacted topic be read in order, by a `Reader`.
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

    In a compacted topic each sets its key, or deletes it (value None), one after the other; all need a key. Readers of
    the topic are shown every one, with its append time, but without its headers where the log is the embedded one.

    `tallies` says what the records add to the topic's counters (see `Log.tallies`); it is counted in the same
    transaction as the append.
    """

    target: TopicPartition
    records: Records
    tallies: Mapping[Tally, int] = field(default_factory=dict)


@dataclass(slots=True)
class Changes:
    """Newest values for keys of one partition of a compacted topic; None deletes the key.

    `time_ms` is their append time, ms since 1970 UTC; if left out, the time at which the log carries them out.
    """

    target: TopicPartition
    entries: Mapping[bytes, bytes | None]
    time_ms: int | None = None


class Member(NamedTuple):
    """Who a worker is in its consumer group, as of one assignment.

    Args:
        id: given by the group; another one after the group forgot the worker.
        generation: grows with every assignment.
        instance: stable name across restarts, or None.
    """

    id: str = ""
    generation: int = -1
    instance: str | None = None


@dataclass(slots=True)
class Transaction:
    """What becomes visible together or not at all.

    Args:
        appends: records.
        changes: newest values for compacted topics; newer than what `appends` has for the same keys.
        group: consumer group that `positions` belong to.
        positions: by partition, the offset after the last finished record.
        member: who finished the records; the log refuses it when the group has moved on. None for readers that share
            their partitions with nobody.
        claim: name that this process has claimed, for a transaction without positions; see `Log.claim`.
    """

    appends: Sequence[Append] = ()
    changes: Sequence[Changes] = ()
    group: str = ""
    positions: Mapping[TopicPartition, int] = field(default_factory=dict)
    member: Member | None = None
    claim: str = ""


class Fetched(NamedTuple):
    """What one read of a partition brought: everything from `base_offset` up to `next_offset`, where the next starts.

    Record `i` has offset `base_offset + i` unless `offsets` says otherwise: Kafka gives some to transaction markers.
    Without records only the position moves on.
    """

    target: TopicPartition
    base_offset: int
    next_offset: int
    records: Records
    offsets: Sequence[int] | None = None

    def offset(self, index: int) -> int:
        """Offset of record `index`."""
        return self.base_offset + index if self.offsets is None else self.offsets[index]

    def part(self, start: int, stop: int) -> "Fetched":
        """Records `start` to `stop` (not included)."""
        if start == 0 and stop == len(self.records):
            return self
        base_offset = self.base_offset if start == 0 else self.offset(start - 1) + 1
        next_offset = self.next_offset if stop == len(self.records) else self.offset(stop - 1) + 1
        offsets = None if self.offsets is None else self.offsets[start:stop]
        return Fetched(self.target, base_offset, next_offset, self.records.slice(start, stop), offsets)

    @staticmethod
    def joined(pieces: Sequence["Fetched"]) -> "Fetched":
        """Pieces that follow each other, at least one, as one."""
        if len(pieces) == 1:
            return pieces[0]
        full = [piece for piece in pieces if len(piece.records)]
        records = Records.concat([piece.records for piece in full]) if full else pieces[0].records
        base_offset = pieces[0].base_offset
        offsets: list[int] = []
        for piece in full:
            first = piece.base_offset
            offsets += range(first, first + len(piece.records)) if piece.offsets is None else piece.offsets
        return Fetched(
            pieces[0].target, base_offset, pieces[-1].next_offset, records, given_offsets(base_offset, offsets)
        )


def given_offsets(base_offset: int, offsets: Sequence[int]) -> Sequence[int] | None:
    """`Fetched.offsets` for records with these offsets, ascending: None where they follow from the base."""
    gapless = not offsets or offsets[-1] - base_offset == len(offsets) - 1
    return None if gapless else offsets


class Known(NamedTuple):
    """How far somebody knows a compacted partition: what `position` brings is known, and `key` has `value`."""

    position: int
    key: bytes
    value: bytes


class Piece(NamedTuple):
    """Some of what changed in a compacted partition, from `position` on, in the order of the log; None deletes a key.

    `anew` says that nobody knows what changed: forget what you know, this is the first piece of all there is.
    """

    entries: Sequence[tuple[bytes, bytes | None]]
    position: int
    anew: bool


class Reader(Protocol):
    """Reads partitions from given offsets on. Each reader is on its own: two never take each other's records."""

    async def read(self, target: TopicPartition, offset: int, max_records: int) -> Fetched | None:
        """Records from `offset` on, about `max_records` at most; None when there are none yet.

        An offset that retention has dropped reads from the oldest record kept. A reader fetches ahead: reading on where
        the last read ended is fast, anywhere else starts anew.
        """
        ...

    async def wait(self, positions: Mapping[TopicPartition, int], timeout: float) -> bool:
        """Wait until one of the partitions has something to read at its position; False after `timeout` seconds."""
        ...

    def forget(self, targets: Iterable[TopicPartition]) -> None:
        """Fetch these no more: somebody else reads them now."""
        ...

    async def close(self) -> None:
        """Stop fetching."""
        ...


class Listener(Protocol):
    """What a member of a consumer group does when its partitions change."""

    async def on_assigned(self, targets: Set[TopicPartition], member: Member) -> None:
        """These partitions, and no others, are the member's from now on. Returns quickly."""
        ...

    async def on_revoked(self) -> None:
        """All partitions are about to be given out anew: finish and commit what is in hand, then return, soon.

        Most come back with the next `on_assigned`.
        """
        ...


class Membership(Protocol):
    """A worker's place in a consumer group."""

    async def leave(self) -> None:
        """Take no more part. With a stable instance name the partitions stay reserved for the session timeout."""
        ...

    async def wait_lost(self) -> HeadraceError:
        """Wait until this worker cannot take part any more; why. It has its partitions no longer then."""
        ...


class Log(Protocol):
    """A durable, partitioned, append-only log with consumer groups and compacted topics.

    Offsets start at 0 and grow by one per record. Everything that changes the log goes through `commit`, which returns
    only when it would survive a power cut. Safe for many tasks of one event loop.
    """

    @property
    def largest_value(self) -> int:
        """Bytes that the value of a record may have, beside a key and headers of the usual size."""
        ...

    async def create_topics(self, topics: Iterable[TopicSpec]) -> None:
        """Make the topics that do not exist yet. A topic that exists keeps its partitions; one may be named twice."""
        ...

    async def extend_topic(self, name: str, partitions: int) -> None:
        """Give a topic more partitions, `partitions` in all. Keys go elsewhere from then on.

        Writers that run already keep to the number they know.
        """
        ...

    def partitions(self, topic: str) -> int:
        """How many partitions `topic` has; KeyError if it does not exist."""
        ...

    async def commit(self, transaction: Transaction) -> Mapping[TopicPartition, int]:
        """Carry out all of `transaction`, durably; returns where the last entry of its `changes` is, for `catch_up`.

        Raises:
            LogError: it could not be made durable. Nothing of it is visible and the log takes nothing more.
            CommitRefused: nothing of it is visible, as the group has moved on; see there.
        """
        ...

    async def claim(self, name: str) -> None:
        """Be the only process whose transactions with `claim=name` are carried out.

        On Kafka the last to claim a name has it; the next commit of another one raises LogInUse. On a data folder it
        is for file locks to keep others away. When this returns, everything that was committed under the name is there
        to be read, and no more of it comes from elsewhere.

        Raises:
            LogInUse: this process had it, and another has it now.
            LogError: the log takes nothing more.
        """
        ...

    def reader(self) -> Reader:
        """A new reader; close it when done."""
        ...

    async def join(self, group: str, topics: Iterable[str], listener: Listener, assignor: Any = None) -> Membership:
        """Take part in a consumer group, which shares out the partitions of `topics` among its members.

        Args:
            topics: names; one that does not exist yet is taken up when it does.
            assignor: decides who gets what, where there is more than one member; aiokafka's interface.
        """
        ...

    def restore(self, target: TopicPartition) -> AsyncIterator[Sequence[tuple[bytes, bytes]]]:
        """Every key and newest value of a compacted partition, in chunks, in no particular order."""
        ...

    def catch_up(self, target: TopicPartition, known: Known | None = None) -> AsyncIterator[Piece]:
        """What changed in a compacted partition since `known`, up to its end; without it, everything.

        The newest entry of `known.key` is always in it, unless that was deleted long ago: whether it leads to what is
        known is for the caller to say. Memory is bounded by one piece.
        """
        ...

    async def end_offsets(self, topic: str) -> dict[TopicPartition, int]:
        """Per partition the offset that the next record will get."""
        ...

    async def offsets_at(self, topic: str, time_ms: int) -> dict[TopicPartition, int]:
        """Per partition the offset of the first record appended at `time_ms` (ms since 1970 UTC) or later.

        The end where there is none.
        """
        ...

    async def topics(self) -> list[TopicSpec]:
        """Every topic of the log, those of others included, by name."""
        ...

    async def owners(self, group: str) -> dict[TopicPartition, str]:
        """Who in the group has which partition, as text for people; empty when nobody works."""
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
