"""What a sink must do: take records out of the log into another system, with its position kept there."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from headrace.engine.errors import HeadraceError, RetryLater
from headrace.engine.log import Fetched, TopicPartition

SinkState = Literal["connecting", "running", "retrying", "probing", "standby"]


class Refused(HeadraceError):
    """The other side will never take something in this batch. Nothing of the batch was stored; write it in halves."""


class PositionMoved(RetryLater):
    """The stored position is not the one this sink continued from; read the positions again.

    Either another sink has the partition and wrote first, or the database was restored to an earlier state. Nothing of
    the batch was stored.
    """


class Standby(RetryLater):
    """Another process has this sink. Nothing is wrong: wait, and take over when it ends."""


class Sink(Protocol):
    """A system that records go to. `SinkRunner` drives it: one call at a time, and `open` again after every failure.

    Args:
        name: stable; positions are kept under it.
        topics: what it reads, all partitions.
    """

    name: str
    topics: Sequence[str]

    async def open(self) -> None:
        """Connect, or connect again; may be called any number of times.

        Raises:
            Disconnected, RetryLater: not now; the runner tries again.
            Standby: another process has the sink; likewise.
            ConfigError: never, the way it is set up; the runner stops.
        """
        ...

    async def positions(self, targets: Sequence[TopicPartition]) -> dict[TopicPartition, int]:
        """Per partition the offset after the last record stored, from the sink's own store; 0 where it has none."""
        ...

    async def write(self, fetched: Sequence[Fetched]) -> None:
        """Store records and the positions after them, together or not at all; when it returns they are durable.

        Each partition continues where the last write ended; one may appear several times, in order. No records in it
        means only the position moves.

        Raises:
            Refused: the batch holds something that can never be stored.
            PositionMoved: the stored position is not the expected one.
            Disconnected, RetryLater: unknown whether it was stored; `open`, then ask for the positions.
        """
        ...

    async def close(self) -> None:
        """Let go of connections; never raises."""
        ...


@dataclass(frozen=True, slots=True)
class SinkStatistics:
    """A snapshot of a running sink.

    Args:
        state: `retrying` from a failure until the wait after it is over, `probing` from then until something went well,
            `standby` while another process has the sink; see `headrace.engine.circuit_breaker`.
        written: records stored by this process, count.
        dead_lettered: records that the other side refused, count.
        retries: failures since the last write that went well, count.
        last_error: what went wrong last, for a person; empty if nothing did.
        positions: by partition, the offset after the last record stored.
        lost: offsets that the log had dropped before they were stored, count.
        passed_over: dead letters that the other side refused, count: they stay in the log alone.
    """

    state: SinkState
    written: int
    dead_lettered: int
    retries: int
    last_error: str
    positions: dict[TopicPartition, int]
    lost: int = 0
    passed_over: int = 0


def record_count(batch: Sequence[Fetched]) -> int:
    """Records in all of `batch`."""
    return sum(len(fetched.records) for fetched in batch)


def halves(batch: Sequence[Fetched]) -> tuple[list[Fetched], list[Fetched]]:
    """`batch` cut in the middle, in order. Holds at least two records; either half has some."""
    room = record_count(batch) // 2
    first: list[Fetched] = []
    second: list[Fetched] = []
    for fetched in batch:
        size = len(fetched.records)
        if room >= size:
            first.append(fetched)
        elif room <= 0:
            second.append(fetched)
        else:
            first.append(fetched.part(0, room))
            second.append(fetched.part(room, size))
        room -= size
    return first, second
