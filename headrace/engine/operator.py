"""What an agent of headrace is made of: an operator over batches, with the tables it alone writes."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

from headrace.engine.batch import Batch, Send
from headrace.engine.log import Known


class State(Protocol):
    """Changelog-backed state of one agent, kept per input partition."""

    name: str

    def restore(self, partition: int, entries: Sequence[tuple[bytes, bytes]]) -> None:
        """Take entries of the changelog, in no particular order; called any number of times before the first batch."""
        ...

    def restored(self, partition: int) -> None:
        """Every entry of the partition's changelog was given to `restore`."""
        ...

    def changes(self, partition: int) -> dict[bytes, bytes | None]:
        """Newest value per key that finished batches changed since the last call; None deletes. Called per commit."""
        ...

    def forget(self, partition: int) -> None:
        """The partition belongs to another worker now: drop its state."""
        ...


@runtime_checkable
class Readable(State, Protocol):
    """State that can say what its changelog holds."""

    def rows(self, entries: Mapping[bytes, bytes]) -> Iterator[dict[str, Any]]:
        """The entries of a partition's changelog, in the order of their keys, as what JSON can hold.

        Times are ms since 1970 UTC, a device is `device_id`. Looks at `entries` alone, not at this state.
        """
        ...


#: Version of a table that is not `Versioned`.
FIRST_VERSION = 1


@runtime_checkable
class Versioned(State, Protocol):
    """State whose changelog has held something else before: other keys, or other values.

    When entries of an older version are restored they are migrated first, and written anew with the partition's next
    commit. A program that knows only older versions refuses them.
    """

    #: 2 or more; each change of what keys or values mean adds 1.
    version: int

    def migrate(self, version: int, entries: Mapping[bytes, bytes]) -> dict[bytes, bytes]:
        """All entries of a partition, as this version writes them, from what `version` wrote. The same every time."""
        ...


@runtime_checkable
class Idling(Protocol):
    """An operator with something to do when its partition gets no records.

    While `is_waiting`, `process` gets a batch without records, with `Batch.idle` set, each time the partition was idle
    for `idle_timeout` seconds, as fast as the app's clock runs (None: never). What it stages is committed as always, in
    one step with its tables: a restart finds it done, or not begun. If that is nothing, nothing is committed.

    One that `ReadsSeveral` is told when nothing came from the first of its topics, whatever comes from the others; see
    `IdlesOnSeveral` for more.
    """

    idle_timeout: float | None

    def is_waiting(self, partition: int) -> bool:
        """Whether time alone may lead to something."""
        ...


@runtime_checkable
class Viewed(Protocol):
    """An operator that sends something with every commit of a partition."""

    def view(self, partition: int) -> list[Send]:
        """What shall be sent with the changes that `State.changes` gives; called once per commit, after it."""
        ...


@runtime_checkable
class Stored(State, Protocol):
    """State that is restored in the order of the log, and may have a copy of its own that outlives the process.

    The copy is behind the changelog, or as far, never ahead: `changes` leaves it as it is, `committed` brings it on.
    `restored` runs in a thread, so that the loop goes on; nobody else uses that partition meanwhile.
    """

    #: 1 or more; see `Versioned`. Entries of older versions are migrated by `restored`.
    version: int

    def known(self, partition: int) -> Known | None:
        """How far the copy is; None if there is none. Called first, when a partition is to be restored."""
        ...

    def clear(self, partition: int) -> None:
        """Nothing that is known of the partition is so: empty its copy."""
        ...

    def restore(self, partition: int, entries: Sequence[tuple[bytes, bytes | None]], position: int = 0) -> None:
        """Take what changed from `position` on, in the order of the log; notes such as the version's are in it."""
        ...

    def proven(self, partition: int) -> bool:
        """Whether what was restored since `known` shows that the copy is what the changelog says."""
        ...

    def written(self, partition: int) -> int:
        """The version that the entries are of."""
        ...

    def committed(self, partition: int, position: int) -> None:
        """The last `changes` are durable, their last entry at `position`. Not called if nobody knows."""
        ...

    def close(self) -> None:
        """Let go of the copies."""
        ...


@runtime_checkable
class OnDisk(Protocol):
    """A table that may be kept on disk, being larger than memory: then no other worker keeps a copy of it."""

    @property
    def on_disk(self) -> bool:
        """Whether it is."""
        ...


class Operator(Protocol):
    """An agent as a pure operator: it computes on a batch (may raise), and stages what shall happen (`Batch`).

    `process` must not change its own state directly: it computes, then hands the change to `Batch.on_finish`, which
    runs only if the whole batch went well. The same log gives the same output for any batch boundaries.
    """

    name: str
    topic: str

    @property
    def tables(self) -> Iterable[State]:
        """The tables that this operator alone writes."""
        ...

    def process(self, batch: Batch) -> None:
        """Work on one batch.

        Raises:
            BadRecord: a record can never be processed.
            CutBatch: it is to come in two.
        """
        ...


@runtime_checkable
class Joint(Protocol):
    """An operator that costs less when it gets batches of several partitions at once than one after the other."""

    def process_together(self, batches: Sequence[Batch]) -> None:
        """Do with each, of different partitions and none of them idle, what `process` does.

        Whatever it raises, each of them is then offered to `process` alone.
        """
        ...


@runtime_checkable
class ReadsSeveral(Protocol):
    """An operator that reads several topics, with as many partitions each; `Operator.topic` is the first.

    It gets their batches in turns, each from the partition of one topic (`Batch.topic`); `process` and what the batch
    finishes with run without anything between them. Its tables are of that partition of all the topics, which one
    worker has, and which are committed together.
    """

    topics: Sequence[str]


def topics_of(operator: "Operator") -> Sequence[str]:
    """The topics that an operator reads."""
    return operator.topics if isinstance(operator, ReadsSeveral) else (operator.topic,)


@runtime_checkable
class IdlesOnSeveral(Idling, Protocol):
    """An `Idling` operator of several topics that is told of each of these when nothing came from it (`Batch.topic`).

    Time then is that of one topic, read to its end: nothing that waits in another is taken for silence.
    """

    idle_topics: Sequence[str]


def idle_topics_of(operator: "Operator") -> Sequence[str]:
    """The topics on which time passes for an operator that is `Idling`."""
    return operator.idle_topics if isinstance(operator, IdlesOnSeveral) else (operator.topic,)


@runtime_checkable
class HasWatermark(Protocol):
    """An operator that keeps a watermark per partition."""

    name: str

    def watermark_of(self, partition: int) -> int | None:
        """The watermark of a partition, ms since 1970 UTC; None before its first reading."""
        ...
