"""What delivery writes, many rows at a time: durable, whole, and refused once somebody else has the partitions."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from headrace.engine.clock import Clock
from headrace.engine.errors import HeadraceError
from headrace.engine.log import Append, Changes, Log, Member, TopicPartition, Transaction
from headrace.engine.partitioner import Partitioner
from headrace.engine.records import Record, Records
from headrace.schemas import topics

GROUP = "notify"
#: Writes of one transaction at most.
MOST_TOGETHER = 2_000


@dataclass(slots=True)
class Entry:
    """What is written together or not at all.

    Args:
        partition: of the outbox, and of all topics but those partitioned by a key of their own.
        pending: rows by key; None: finished.
        states: likewise, of the delivery log.
        records: by topic, partitioned by their keys; timestamps are given when they are written.
        dead: contacts by key.
        position: of the outbox.
    """

    partition: int
    pending: dict[bytes, bytes | None] = field(default_factory=dict)
    states: dict[bytes, bytes | None] = field(default_factory=dict)
    records: list[tuple[str, Record]] = field(default_factory=list)
    dead: dict[bytes, bytes | None] = field(default_factory=dict)
    position: int | None = None


class Journal:
    """Writes entries in the order in which they were given; those that come while one is written go together.

    Args:
        log: where to.
        clock: dates records.
        member: who has the partitions; the log refuses it once it has not.
        positions: of the outbox, by partition; all that the member has.
    """

    def __init__(self, log: Log, clock: Clock, member: Member, positions: Mapping[int, int]) -> None:
        self._log = log
        self._clock = clock
        self._member = member
        self.positions = dict(positions)
        self._partitioners = {
            topic: Partitioner(log.partitions(topic))
            for topic in (topics.NOTIFICATIONS, topics.ALERT_COMMANDS, topics.NOTIFICATION_DEAD_LETTERS)
        }
        self._states = log.partitions(topics.NOTIFICATION_STATES)
        self._waiting: list[tuple[Sequence[Entry], asyncio.Future[None]]] = []
        self._some = asyncio.Event()
        self._failure: HeadraceError | None = None

    async def write(self, *entries: Entry) -> None:
        """Write them, together; durable on return. Cancelling the caller does not cancel the write.

        Raises:
            CommitRefused, LogError: nothing was written, and nothing more is.
        """
        if self._failure is not None:
            raise self._failure
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((entries, done))
        self._some.set()
        await asyncio.shield(done)

    async def run(self) -> None:
        """Work until cancelled.

        Raises:
            CommitRefused: the partitions are somebody else's; nothing more is written.
            LogError: the log failed.
        """
        while True:
            await self._some.wait()
            self._some.clear()
            while self._waiting:
                await self._next()

    async def _next(self) -> None:
        group, self._waiting = self._waiting[:MOST_TOGETHER], self._waiting[MOST_TOGETHER:]
        entries = [entry for found, _ in group for entry in found]
        for entry in entries:
            if entry.position is not None:
                self.positions[entry.partition] = entry.position
        try:
            await self._log.commit(self._transaction(entries))
        except HeadraceError as error:
            self._failure = error
            for _, done in (*group, *self._waiting):
                if not done.done():
                    done.set_exception(error)
                    done.exception()  # a caller that was cancelled meanwhile does not take it
            raise
        for _, done in group:
            if not done.done():
                done.set_result(None)

    def _transaction(self, entries: list[Entry]) -> Transaction:
        now_ms = self._clock.now_ms()
        changes: dict[TopicPartition, dict[bytes, bytes | None]] = {}
        records: dict[TopicPartition, list[Record]] = {}

        def change(topic: str, partition: int, found: Mapping[bytes, bytes | None]) -> None:
            if found:
                changes.setdefault(TopicPartition(topic, partition), {}).update(found)

        for entry in entries:
            change(topics.NOTIFICATIONS_PENDING, entry.partition, entry.pending)
            change(topics.NOTIFICATION_STATES, entry.partition % self._states, entry.states)
            change(topics.DEAD_CONTACTS, 0, entry.dead)
            for topic, record in entry.records:
                target = TopicPartition(topic, self._partitioners[topic].partition(record.key or b""))
                records.setdefault(target, []).append(record)
        return Transaction(
            [Append(target, columns(found, now_ms)) for target, found in records.items()],
            [Changes(target, found, now_ms) for target, found in changes.items()],
            GROUP,
            # Those that did not move too: with them the log looks whether the member still has the partitions.
            {TopicPartition(topics.OUTBOX, number): each for number, each in self.positions.items()},
            self._member,
        )


def columns(records: list[Record], now_ms: int) -> Records:
    """Records as columns, all appended at `now_ms`."""
    names = {name for record in records for name in record.headers}
    return Records(
        [record.key for record in records],
        [record.value for record in records],
        [now_ms] * len(records),
        {name: [record.headers.get(name) for record in records] for name in names},
    )
