"""Replicated tables: compacted topics that every worker holds whole, and what keeps them up to date."""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Protocol, Self, runtime_checkable

import structlog

from headrace.engine.cancel import cancel_and_wait
from headrace.engine.clock import Clock
from headrace.engine.errors import TopicChanged
from headrace.engine.health import Health, Progress
from headrace.engine.log import Fetched, Log, Reader, TopicPartition, TopicSpec
from headrace.engine.log_range import read_range
from headrace.engine.metrics import Metrics
from headrace.engine.records import Records
from headrace.schemas import topics

#: Seconds between two looks at the topic while nobody asks.
LOOK = 1.0
#: Seconds that the log gets to say where the topic ends, and seconds until it is asked again after an error.
PATIENCE, PAUSE = 5.0, 0.5
#: By how much the clocks of those who append may be behind this process's, ms: what was appended so much before the
#: last look was appended before it.
SKEW_MS = 5_000
#: Newer than any answer.
_NOW = 1 << 62

log_ = structlog.get_logger(__name__)


class Replica(Protocol):
    """A table that is a copy of a whole compacted topic."""

    topic: str

    @property
    def entries(self) -> int:
        """Keys with a value, count."""
        ...

    def spec(self) -> TopicSpec:
        """How its topic is to be made."""
        ...

    def take(self, changes: Fetched) -> int:
        """Take the next changes of a partition; how many were refused. Raises `TableFull`."""
        ...

    def start_over(self) -> None:
        """Forget everything: the topic is read from its beginning."""
        ...


@runtime_checkable
class HasReplicas(Protocol):
    """An operator that reads replicated tables; it never writes them."""

    replicas: Sequence[Replica]


class Follower:
    """Keeps one table up to date: reads its topic to the end, then whenever somebody asks, and every `LOOK` seconds.

    A topic that does not exist is empty until it does. One that was made anew is read anew, as soon as that is noticed
    (by its end, or within some seconds); while there is none the table keeps what it had. Whatever fails is tried
    again, for ever; meanwhile agents that read the table wait, and `Health` says why.

    Args:
        clock: of those who append.
        metrics, health: told about entries, lag and errors.
    """

    def __init__(self, log: Log, table: Replica, clock: Clock, metrics: Metrics, health: Health) -> None:
        self._log = log
        self._table = table
        self._clock = clock
        self._metrics = metrics
        self._health = health
        self._name = f"replica {table.topic}"
        self._positions: dict[TopicPartition, int] = {}
        #: Append times before this are complete but for what clocks are apart; None: the table is not.
        self._looked_ms: int | None = None
        self._waiting: list[asyncio.Future[None]] = []
        self._asked = asyncio.Event()
        self._trouble = ""
        health.not_ready(self._name, f"restoring {table.topic}")

    @property
    def table(self) -> Replica:
        """The table that it keeps."""
        return self._table

    async def wait_current(self, newest_ms: int) -> None:
        """Wait until the table has every change that was committed when this was called; for ever, if need be.

        Costs one question to the log, which all who ask at the same time share; nothing for records whose append time
        says that an earlier answer will do.

        Args:
            newest_ms: append time of the newest record that is to be worked on, ms.
        """
        if self._looked_ms is not None and newest_ms < self._looked_ms - SKEW_MS:
            return
        answered = asyncio.get_running_loop().create_future()
        self._waiting.append(answered)
        self._asked.set()
        await answered

    async def run(self) -> None:
        """Follow the topic, from its beginning, until cancelled."""
        self._looked_ms = None
        self._positions.clear()
        self._table.start_over()
        reader = self._log.reader()
        try:
            while True:
                self._asked.clear()
                waiting, self._waiting = self._waiting, []
                if await self._update(reader):
                    for answered in waiting:
                        if not answered.done():
                            answered.set_result(None)
                    await self._wait_asked()
                else:
                    self._waiting += waiting
                    await self._clock.sleep(PAUSE)
        finally:
            await reader.close()

    async def _wait_asked(self) -> None:
        try:
            async with asyncio.timeout(LOOK):
                await self._asked.wait()
        except TimeoutError:
            pass

    async def _update(self, reader: Reader) -> bool:
        """Read to where the topic ends now; whether that went well."""
        moment = self._clock.now_ms()
        try:
            async with asyncio.timeout(PATIENCE):
                ends = await self._ends()
            if any(position > ends.get(target, 0) for target, position in self._positions.items()) and ends:
                raise TopicChanged(f"topic {self._table.topic} was made anew")
            self._report(ends)
            for target, end in sorted(ends.items()):
                await self._read(reader, target, end)
                self._report(ends)
        except TopicChanged as changed:
            log_.warning("replica_starts_over", topic=self._table.topic, reason=str(changed))
            self._start_over(reader)
            return False
        except TimeoutError:
            # Not broken: the log may be on its way back. `Health` notices when that takes long.
            log_.warning("replica_waits_for_the_log", topic=self._table.topic)
            return False
        except Exception as error:
            self._failed(str(error) or repr(error))
            self._looked_ms = None
            return False
        self._looked_ms = moment
        if self._positions and not ends:
            self._failed(f"there is no topic {self._table.topic} any more; the table keeps what it had")
        elif self._trouble:
            self._trouble = ""
            self._health.repaired(self._name)
        self._health.ready(self._name)
        return True

    async def _ends(self) -> Mapping[TopicPartition, int]:
        try:
            return await self._log.end_offsets(self._table.topic)
        except KeyError:
            return {}

    async def _read(self, reader: Reader, target: TopicPartition, end: int) -> None:
        async for changes in read_range(reader, target, self._positions.get(target, 0), end):
            refused = self._table.take(changes)
            self._positions[target] = changes.next_offset
            if refused:
                self._metrics.count("headrace_replica_refused_total", refused, topic=self._table.topic)
            await self._clock.sleep(0)  # a large topic must not keep the agents from running

    def _start_over(self, reader: Reader) -> None:
        self._looked_ms = None
        self._health.not_ready(self._name, f"restoring {self._table.topic}")
        reader.forget(list(self._positions))
        self._positions.clear()
        self._table.start_over()

    def _failed(self, what: str) -> None:
        if what != self._trouble:
            log_.error("replica_failed", topic=self._table.topic, error=what)
        self._trouble = what
        self._health.broken(self._name, what, "repair what the message names; the agents that read it go on by then")

    def _report(self, ends: Mapping[TopicPartition, int]) -> None:
        behind = sum(max(0, end - self._positions.get(target, 0)) for target, end in ends.items())
        self._health.observe(self._name, {self._name: Progress(sum(self._positions.values()), behind)})
        self._metrics.set("headrace_replica_entries", self._table.entries, topic=self._table.topic)
        self._metrics.set("headrace_replica_lag_records", behind, topic=self._table.topic)


class Replicas:
    """The replicated tables of some operators, each followed once, from `start` to `stop`.

    Args: as for `Follower`.
    """

    def __init__(self, log: Log, clock: Clock, metrics: Metrics, health: Health) -> None:
        self._make = partial(Follower, log, clock=clock, metrics=metrics, health=health)
        self._followers: dict[int, Follower] = {}
        self._tasks: list[asyncio.Task[None]] = []

    def add(self, operator: object) -> "Gate | None":
        """Follow what `operator` reads, from `start` on; None if it reads no replicated table."""
        if not isinstance(operator, HasReplicas) or not operator.replicas:
            return None
        for table in operator.replicas:
            if id(table) not in self._followers:
                self._followers[id(table)] = self._make(table)
        return Gate([self._followers[id(table)] for table in operator.replicas])

    def topic_specs(self) -> list[TopicSpec]:
        """The topics of the tables."""
        return list({each.table.topic: each.table.spec() for each in self._followers.values()}.values())

    def start(self) -> None:
        """Begin to read."""
        if not self._tasks:
            self._tasks = [asyncio.create_task(follower.run()) for follower in self._followers.values()]

    async def stop(self) -> None:
        """Read no more."""
        await cancel_and_wait(*self._tasks)
        self._tasks.clear()

    async def __aenter__(self) -> Self:
        self.start()
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.stop()


async def read_replicas(log: Log, operator: object, clock: Clock) -> None:
    """Read the replicated tables of an operator once, to where their topics end now."""
    replicas = Replicas(log, clock, Metrics(), Health(clock))
    gate = replicas.add(operator)
    if gate is not None:
        async with replicas:
            await gate.wait_current(Records([], [], []))


class Gate:
    """Holds an operator's batches until its replicated tables have what was changed before them."""

    def __init__(self, followers: Iterable[Follower]) -> None:
        self._followers = list(followers)

    async def wait_current(self, records: Records) -> None:
        """Wait; work on the records must begin in the same turn of the event loop."""
        newest_ms = max(records.timestamps, default=0)
        if topics.REDRIVEN_AT in records.headers:
            newest_ms = _NOW
        for follower in self._followers:
            await follower.wait_current(newest_ms)
