"""Runs one agent over a stretch of the log again, in a fresh instance, beside the live one."""

import asyncio
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import msgspec

from headrace.engine.batch import Batch, Send, Shared
from headrace.engine.clock import Clock
from headrace.engine.errors import AgentStopped, BadRecord, CutBatch
from headrace.engine.health import Health
from headrace.engine.log import Append, Fetched, Reader, TopicPartition
from headrace.engine.log_range import read_range, reading, split
from headrace.engine.metrics import Metrics
from headrace.engine.operator import Operator
from headrace.engine.partitioner import Partitioner
from headrace.engine.records import Records
from headrace.engine.replay_stretches import Stretch
from headrace.engine.replicas import Replicas
from headrace.engine.runtime.batches import MAX_CONSECUTIVE_FAILURES
from headrace.engine.turn import Turn

#: Compacted topic of how far replays that are under way have come: key `NAME/PARTITION`, value a `Progress`.
REPLAYS = "headrace.replays"
#: A commit is made when so many records are to be sent, or after so many seconds.
COMMIT_RECORDS = 5_000
COMMIT_INTERVAL = 1.0
#: How often the live agents are followed to where they went on to meanwhile.
MAX_FOLLOWS = 100
#: Failures that are kept to be shown.
MAX_SHOWN = 10


class Progress(msgspec.Struct, frozen=True):
    """How far one partition of a replay has come.

    Args:
        next_offset: what records before it lead to was sent.
        finished: the partition is done.
    """

    next_offset: int
    finished: bool = False


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Progress).decode


@dataclass(slots=True)
class Outcome:
    """What came of a replay so far; records are counts.

    Args:
        read: records that were read, those of the warm-up included.
        sent: records sent, by topic.
        failed: records behind the warm-up that the agent failed on; they were left out.
        failures: the first of them, with why.
        finished: everything was read.
    """

    read: int = 0
    sent: Counter[str] = field(default_factory=Counter)
    failed: int = 0
    failures: list[str] = field(default_factory=list)
    finished: bool = False


class AgentReplay:
    """One replay.

    Partition by partition, in log order. What the agent sends goes to the topics that it always goes to; the same log
    gives the same records as the first time, so whoever knows them by their keys drops them. A commit holds what was
    sent and how far the partition has come. A replay that was stopped goes on: it warms up again to where it was.
    Records that the agent fails on are left out and counted. The live agent, its tables and its positions are not
    touched.

    Where newest counts (an alert's state), a live agent's later record must not be followed by an earlier one of the
    replay's. So it goes on until it has passed, without sending anything, all that the live agent did in the meantime:
    then whatever that sends from now on is behind the replay's last record
    (see `test_it_follows_the_live_agent_until_nothing_was_missed`).

    Args:
        turn: in the topic `REPLAYS`.
        clock: for the interval of commits.
        operator: the agent, with empty tables.
        name: of this replay; one of the same name goes on.
        group: of the live agents.
        plan: from `stretches`.
        to_ms: as given to `stretches`; None follows the live agents to where they are at the end.
        max_batch_records: about how many records the agent gets at once, count.
    """

    def __init__(
        self,
        turn: Turn,
        clock: Clock,
        operator: Operator,
        name: str,
        group: str,
        plan: Sequence[Stretch],
        to_ms: int | None,
        max_batch_records: int = 5_000,
    ) -> None:
        self._turn = turn
        self._log = turn.log
        self._clock = clock
        self._operator = operator
        self._replicas = Replicas(turn.log, clock, Metrics(), Health(clock))
        self._gate = self._replicas.add(operator)
        self._name = name
        self._group = group
        self._plan = plan
        self._follow = to_ms is None
        self._max_batch_records = max_batch_records
        self._partitioners: dict[str, Partitioner] = {}
        self._failures_in_a_row = 0
        self.outcome = Outcome()

    async def run(self, stop: asyncio.Event) -> None:
        """Replay everything, or until `stop` is set.

        Raises:
            AgentStopped: the agent fails on everything.
            CommitRefused: another process replays this now.
            LogError: the log failed.
        """
        before = await self.progress()
        async with reading(self._log) as reader, self._replicas:
            for stretch in self._plan:
                known = before.get(stretch.target.partition, Progress(0))
                if not known.finished and not await self._replay(reader, stretch, known.next_offset, stop):
                    return
        await self._turn.commit([], {self._key(partition): None for partition in await self.progress()})
        self.outcome.finished = True

    async def progress(self) -> dict[int, Progress]:
        """How far an earlier run of the same name has come, by partition."""
        found: dict[int, Progress] = {}
        async for entries in self._log.restore(self._turn.notes):
            for key, value in entries:
                name, _, partition = key.decode().rpartition("/")
                if name == self._name:
                    found[int(partition)] = _decode(value)
        return found

    async def _replay(self, reader: Reader, stretch: Stretch, known: int, stop: asyncio.Event) -> bool:
        """Replay one partition; whether it was done to its end."""
        target, position, end = stretch.target, stretch.warm_up, stretch.end
        first = max(stretch.first, known)
        for _ in range(MAX_FOLLOWS if self._follow else 1):
            sent = self.outcome.sent.total()
            position = await self._read_to(reader, target, position, first, end, stop)
            if stop.is_set():
                return False
            if position > stretch.end and self.outcome.sent.total() == sent:
                break
            end = max(end, (await self._log.positions(self._group, target.topic))[target])
            if position >= end:
                break
        await self._commit(target, [], Progress(position, finished=True))
        for table in self._operator.tables:
            table.forget(target.partition)
        return True

    async def _read_to(
        self, reader: Reader, target: TopicPartition, position: int, first: int, end: int, stop: asyncio.Event
    ) -> int:
        """Work from `position` to `end`, sending what comes of records from `first` on; where it came to."""
        sends: list[Send] = []
        committed_at = self._clock.monotonic()
        async for fetched in read_range(reader, target, position, end, self._max_batch_records):
            warm_up, rest = split(fetched, first)
            if self._gate is not None:
                await self._gate.wait_current(fetched.records)
            self._process(warm_up)
            sends += self._process(rest, count=True)
            position = fetched.next_offset
            self.outcome.read += len(fetched.records)
            if stop.is_set():
                break
            late = self._clock.monotonic() - committed_at > COMMIT_INTERVAL
            if position > first and (late or sum(len(send.records) for send in sends) >= COMMIT_RECORDS):
                await self._commit(target, sends, Progress(position))
                sends, committed_at = [], self._clock.monotonic()
            await self._clock.sleep(0)  # others of the loop want to run, too
        if position > first:
            await self._commit(target, sends, Progress(position))
        return position

    def _process(self, fetched: Fetched, *, count: bool = False) -> list[Send]:
        """Give records to the agent; what it sends. Leaves out those it fails on, and counts them if told to."""
        sends: list[Send] = []
        parts = deque([fetched])
        while parts:
            part = parts.popleft()
            if not len(part.records):
                continue
            batch = Batch(Shared(part))
            try:
                self._operator.process(batch)
            except Exception as error:
                parts.extendleft(reversed(self._parts(part, error, count)))
                continue
            batch.finish()
            for table in self._operator.tables:
                table.changes(part.target.partition)  # nobody keeps them, but tables drop what is past on this occasion
            self._failures_in_a_row = 0
            for index, reason in batch.dead_letters:
                self._failed(batch.offset(index), reason, count)
            sends += batch.sends
        return sends

    def _parts(self, fetched: Fetched, error: Exception, count: bool) -> list[Fetched]:
        """What to offer after an error: all but the record that it is about, which is looked for by halves."""
        total = len(fetched.records)
        if isinstance(error, CutBatch) and error.is_within(total):
            return [fetched.part(0, error.row), fetched.part(error.row, total)]
        if isinstance(error, BadRecord) and 0 <= error.index < total:
            self._failed(fetched.offset(error.index), error.reason, count)
            parts = [fetched.part(0, error.index)] if error.index else []
            return [*parts, fetched.part(error.index + 1, total)] if error.index + 1 < total else parts
        if total > 1:
            return [fetched.part(0, total // 2), fetched.part(total // 2, total)]
        self._failures_in_a_row += 1
        if self._failures_in_a_row >= MAX_CONSECUTIVE_FAILURES:
            raise AgentStopped(
                f"agent {self._operator.name} failed on {self._failures_in_a_row} records in a row of "
                f"{fetched.target.topic}/{fetched.target.partition}, last with {error!r}. Repair the agent and "
                "start again: what was sent before stays"
            ) from error
        self._failed(fetched.offset(0), f"{type(error).__name__}: {error}", count)
        return []

    def _failed(self, offset: int, reason: str, count: bool) -> None:
        if count:
            self.outcome.failed += 1
            if len(self.outcome.failures) < MAX_SHOWN:
                self.outcome.failures.append(f"{self._operator.topic}@{offset}: {reason}")

    async def _commit(self, target: TopicPartition, sends: Sequence[Send], progress: Progress) -> None:
        await self._turn.commit(self._appends(sends), {self._key(target.partition): _encode(progress)})
        for send in sends:
            self.outcome.sent[send.topic] += len(send.records)

    def _appends(self, sends: Sequence[Send]) -> list[Append]:
        parts: dict[TopicPartition, list[Records]] = {}
        for send in sends:
            for partition, records in self._split(send):
                parts.setdefault(TopicPartition(send.topic, partition), []).append(records)
        return [Append(target, Records.concat(records)) for target, records in parts.items()]

    def _split(self, send: Send) -> list[tuple[int, Records]]:
        total = self._log.partitions(send.topic)
        if send.partition is not None and total == self._log.partitions(self._operator.topic):
            return [(send.partition, send.records)]
        partitioner = self._partitioners.get(send.topic)
        if partitioner is None:
            partitioner = self._partitioners[send.topic] = Partitioner(total)
        rows: Mapping[int, Sequence[int]] = partitioner.split([key or b"" for key in send.records.keys])
        return [(partition, send.records.take(indices)) for partition, indices in rows.items()]

    def _key(self, partition: int) -> bytes:
        return f"{self._name}/{partition}".encode()
