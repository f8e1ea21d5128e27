"""Faust's consumer on a `Log`: shares partitions with its group, reads them in batches, commits what is finished."""

import asyncio
import contextlib
from collections.abc import Awaitable, Iterable, Mapping, Set
from typing import Any, NamedTuple, cast

import structlog
from faust.transport.consumer import Consumer
from faust.types.tuples import TP, ConsumerMessage

from headrace.engine.batch import Send
from headrace.engine.cancel import cancel_and_wait
from headrace.engine.clock import Clock
from headrace.engine.errors import CommitRefused, first
from headrace.engine.health import Health
from headrace.engine.log import Log, Member, Membership, TopicPartition
from headrace.engine.metrics import Metrics
from headrace.engine.runtime.commits import Commits
from headrace.engine.runtime.conductor import BatchConductor
from headrace.engine.runtime.lanes import Lanes
from headrace.engine.runtime.pumps import Pumps
from headrace.engine.runtime.settings import RuntimeSettings
from headrace.engine.shared_log import SharedLog

#: Seconds between two looks for a partition that is not known.
LOOK_PAUSE = 0.2
#: Seconds from the first finished batch of the priority lane to its commit: other partitions may have one, too.
URGENT_INTERVAL = 0.005
#: Seconds that the log gets for the last commit of a worker that stops.
LAST_COMMIT_TIMEOUT = 3.0

log_ = structlog.get_logger()


class _Assignment(NamedTuple):
    """Partitions, as whom we have them, and those of others whose tables we keep copies of."""

    targets: frozenset[TopicPartition]
    member: Member
    standbys: frozenset[TopicPartition]


class BatchConsumer(Consumer):
    """Member of the app's consumer group.

    Faust commits offsets that its ack bookkeeping found, and it acknowledges cancelled work and an agent's failure too.
    Here a position is what `Commits` says: the offset after the last batch that every agent finished.

    When partitions are given out anew, work is suspended and committed, not torn down: tables of partitions that come
    back are kept. A commit that was refused leaves tables ahead of their changelog; those are restored
    (see `test_tables_are_restored_after_a_refused_commit`).
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        app = cast(Any, self.app)
        self._headrace_log: Log = app.record_log
        self._clock: Clock = app.clock
        self._settings: RuntimeSettings = app.runtime
        self._metrics: Metrics = app.metrics
        self._lanes: Lanes = app.lanes
        self._health: Health = app.health
        self._group: str = app.conf.id
        tables = app.tables
        self._commits = Commits(
            self._headrace_log,
            self._group,
            tables.changes,
            self._view,
            tables.coupled,
            self._clock,
            self._metrics,
            self._lanes,
            tables.committed,
        )
        self._pumps = Pumps(
            self._headrace_log,
            self._commits,
            self._settings,
            self._clock,
            self._metrics,
            self._stop_partition,
            self._lanes,
        )
        #: What the group gave us last; None while it gives out anew.
        self._assignment: _Assignment | None = None
        #: What we took over last, and as whom.
        self._assigned: frozenset[TopicPartition] = frozenset()
        self._member = Member()
        #: Partitions of others whose tables we keep copies of.
        self._standbys: frozenset[TopicPartition] = frozenset()
        self._membership: Membership | None = None
        self._watching: asyncio.Task[None] | None = None
        self._taking_over: asyncio.Future[Any] | None = None
        self._suspending: asyncio.Future[Any] | None = None
        self._drained = asyncio.Event()
        self.rebalances = 0
        self.stopped_partitions: dict[TopicPartition, str] = {}

    # -- assignment

    async def subscribe(self, topics: Iterable[str]) -> None:
        await self._leave()
        app = cast(Any, self.app)
        self._membership = await self._headrace_log.join(app.conf.id, topics, self, assignor=app.assignor)
        self._watching = asyncio.create_task(self._end_when_lost(self._membership))

    async def _end_when_lost(self, membership: Membership) -> None:
        error = await membership.wait_lost()
        # What is in hand cannot be committed any more.
        await self.crash(error)

    async def _leave(self) -> None:
        await cancel_and_wait(self._watching)
        if self._membership is not None:
            await self._membership.leave()

    async def on_assigned(self, targets: Set[TopicPartition], member: Member) -> None:
        """The group gave out partitions. Takes them over in the background: the group waits for this to return."""
        self.rebalances += 1
        self._metrics.count("headrace_rebalances_total", group=self._group)
        self._assignment = _Assignment(frozenset(targets), member, cast(Any, self.app).assignor.standbys)
        self._begin_take_over(self._assignment)

    async def on_revoked(self) -> None:
        """Finish and commit what is in hand; what takes too long is dropped, and left to whoever is next."""
        self._assignment = None
        self._health.not_ready("agents", "the group gives out its partitions anew")
        await self._cancel_take_over()
        await self._suspend(self._settings.drain_timeout)
        await cast(Any, self.app).on_partitions_revoked.send(self.assignment())

    def _begin_take_over(self, assignment: "_Assignment") -> None:
        # Not awaited: Faust's assignment handler waits for something that happens only after subscribe returned.
        if not self._drained.is_set():
            self._taking_over = self.add_future(self._take_over(assignment, self._taking_over))

    async def _cancel_take_over(self) -> None:
        await cancel_and_wait(self._taking_over)

    async def _take_over(self, assignment: "_Assignment", before: asyncio.Future[Any] | None) -> None:
        await cancel_and_wait(before)
        # There is something to suspend only if the group had forgotten us: then nobody asked for the partitions back.
        await self._suspend(0)
        app = cast(Any, self.app)
        app.on_rebalance_start()
        app.consumer_generation_id += 1
        targets, self._member, standbys = assignment
        self._pumps.forget(self._assigned - targets)
        self._assigned = targets
        self._health.not_ready("agents", "restoring tables")
        began = self._clock.monotonic()
        # Positions first: they wait for the last transaction of whoever had the partitions. Tables are restored to an
        # end that is looked up afterwards, so they contain it too.
        positions = await self._positions(targets)
        app.tables.drop(self._commits.begin_at(positions))
        await self.on_partitions_assigned({TP(*target) for target in targets}, app.consumer_generation_id)
        if app.should_stop:
            return  # the handler above did nothing, or crashed the app
        for target in self.stopped_partitions.keys() - targets:
            del self.stopped_partitions[target]
            self._health.repaired(f"{self._group} {target.topic}[{target.partition}]")
        async for target in app.tables.restore(targets, self._standbys):
            problem = app.tables.problem(target) or self._problem(target)
            if problem is not None:
                self._stop_partition(target, problem)
            elif target not in self.stopped_partitions:
                self._pumps.start(target, positions[target])
        await app.tables.on_restored()
        app.on_rebalance_end()
        self._metrics.observe("headrace_restore_seconds", self._clock.monotonic() - began, group=self._group)
        self._metrics.set("headrace_partitions_assigned", len(targets), group=self._group)
        self._metrics.set("headrace_partitions_stopped", len(self.stopped_partitions), group=self._group)
        self._metrics.remove("headrace_watermark_delay_seconds")
        self._health.ready("agents")
        # Not before: whoever waits for a table comes first. Until now copies are kept of what has become ours.
        await self._stand_by(standbys)

    async def _stand_by(self, standbys: frozenset[TopicPartition]) -> None:
        self._standbys = standbys
        if isinstance(self._headrace_log, SharedLog):
            await self._headrace_log.stand_by(cast(Any, self.app).tables.changelogs(standbys))

    def _problem(self, target: TopicPartition) -> str | None:
        """Why a partition is not what it was, or None. Kafka forgets positions in a topic that is deleted."""
        if not self._commits.lost(target):
            return None
        return (
            f"the committed position of {target.topic}/{target.partition} has gone back to "
            f"{self._commits.committed[target]}: the topic was deleted and made anew, or its group reset. "
            f"`headrace topics reset {target.topic} --group {self._group}` starts it over"
        )

    async def _positions(self, targets: frozenset[TopicPartition]) -> dict[TopicPartition, int]:
        """Committed positions; waits while the log does not know a partition, or not any more."""
        while True:
            found: dict[TopicPartition, int] = {}
            for topic in {target.topic for target in targets}:
                with contextlib.suppress(KeyError):
                    found |= await self._headrace_log.positions(self._group, topic)
            if targets <= found.keys():
                return {target: found[target] for target in targets}
            # The group has given out what this worker has not heard of, or what is gone by now: it will speak again.
            await self._clock.sleep(LOOK_PAUSE)

    async def _suspend(self, timeout: float) -> None:
        """Stop all partitions, commit what they finished. Tables that are ahead of the log then are dropped.

        Goes on when its caller is cancelled: half suspended, state could neither be kept nor dropped. One at a time;
        a second one finds nothing left to do.
        """
        self._suspending = self.add_future(self._suspend_after(self._suspending, timeout))
        await asyncio.shield(self._suspending)

    async def _suspend_after(self, before: asyncio.Future[Any] | None, timeout: float) -> None:
        if before is not None:
            await asyncio.wait([before])
        unfinished = await self._pumps.stop(timeout)
        try:
            await self._commits.commit(self._member)
        except CommitRefused as refused:
            log_.warning("commit_refused", error=str(refused))
        cast(Any, self.app).tables.drop(unfinished | self._commits.forget())

    async def _start_over(self) -> None:
        """Take over anew what we have, after a commit was refused; unless the group gives it out anew meanwhile."""
        assignment = self._assignment
        if assignment is not None:
            await self._cancel_take_over()  # what is ready works while the rest is restored
            await self._suspend(0)
            # With a stale member and partitions of others, whoever owns them now would get our records besides its own
            # (see `test_paused_worker_has_no_effect_when_it_wakes`).
            if self._assignment is assignment:
                self._begin_take_over(assignment)

    def _stop_partition(self, target: TopicPartition, reason: str) -> None:
        self.stopped_partitions[target] = reason
        self._metrics.set("headrace_partitions_stopped", len(self.stopped_partitions), group=self._group)
        remedy = "repair what the message names, then start again: nothing was lost"
        self._health.broken(f"{self._group} {target.topic}[{target.partition}]", reason, remedy)
        log_.error("partition stopped", topic=target.topic, partition=target.partition, error=reason)

    @property
    def assigned(self) -> frozenset[TopicPartition]:
        """Partitions that this worker has now."""
        return self._assigned

    def assignment(self) -> set[TP]:
        return {TP(*target) for target in self._assigned}

    # -- reading, delivering, committing

    async def _drain_messages(self, fetcher: Any) -> None:
        try:
            async with asyncio.TaskGroup() as group:
                self._pumps.open(group, cast(BatchConductor, self.app.topics))
                committers = [
                    group.create_task(self._commit_when_finished()),
                    group.create_task(self._commit_urgent()),
                ]
                await self._drained.wait()
                await self._commits.wait_written()
                for committer in committers:
                    committer.cancel()
        except ExceptionGroup as errors:
            raise first(errors) from None
        except asyncio.CancelledError:
            # Told to stop, and the log is away: the commit that it waited for will not come. In the middle of a
            # rebalance Faust would take the cancellation for a crash (see test_worker_stops_while_kafka_is_away).
            if not self._drained.is_set():
                raise

    def _view(self, target: TopicPartition) -> list[Send]:
        return cast(BatchConductor, self.app.topics).view(target)

    async def _commit_when_finished(self) -> None:
        while True:
            await self._commits.wait_finished()
            await self._clock.sleep(self._settings.commit_interval)
            await self._lanes.wait_calm()
            await self._pumps.pause()
            await self._commit_or_start_over(self._commits.commit(self._member, self._pumps.resume))

    async def _commit_urgent(self) -> None:
        """Commit what is finished of the priority lane, beside whatever else is under way."""
        while True:
            await self._commits.wait_urgent()
            await self._clock.sleep(min(URGENT_INTERVAL, self._settings.commit_interval))
            await self._commit_or_start_over(self._commits.commit(self._member, urgent_only=True))

    async def _commit_or_start_over(self, committing: Awaitable[None]) -> None:
        try:
            await committing
        except CommitRefused as refused:
            log_.warning("commit_refused", error=str(refused))
            await self._start_over()

    async def commit(self, topics: Any = None, start_new_transaction: bool = True) -> bool:
        """Commit what is finished (Faust's name for it)."""
        await self._commits.commit(self._member)
        return True

    @property
    def committed(self) -> Mapping[TopicPartition, int]:
        """Committed position by partition, of this run."""
        return self._commits.committed

    async def drain(self) -> None:
        """Take no new batch, let running ones finish within `drain_timeout`, commit. The rest stays in the log."""
        if not self._drained.is_set():
            self._drained.set()
            self._assignment = None
            self._health.not_ready("agents", "stopping")
            await self._cancel_take_over()
            await self._suspend_at_last()
            await self._leave()
            await self._pumps.close()

    async def _suspend_at_last(self) -> None:
        try:
            async with asyncio.timeout(self._settings.drain_timeout + LAST_COMMIT_TIMEOUT):
                await self._suspend(self._settings.drain_timeout)
        except TimeoutError:
            # The next owner begins at the position before it.
            log_.warning("stopped_without_last_commit", group=self._group)
            await cancel_and_wait(self._suspending)

    async def on_stop(self) -> None:
        """Everything was committed by `drain`; what was not finished must not be."""

    @Consumer.task
    async def _commit_handler(self) -> None:
        """Replaces Faust's timer."""

    @Consumer.task
    async def _commit_livelock_detector(self) -> None:
        """Replaces Faust's detector, which looks at its own ack sets."""

    # -- what else the base class asks for

    async def create_topic(self, topic: str, partitions: int, replication: int, **kwargs: Any) -> None:
        await cast(Any, self.app).producer.create_topic(topic, partitions, replication, **kwargs)

    async def _commit(self, offsets: Mapping[TP, int]) -> bool:
        return await self.commit()

    async def seek_to_committed(self) -> Mapping[TP, int]:
        return {TP(*target): offset for target, offset in (await self._positions(self._assigned)).items()}

    async def _seek(self, partition: TP, offset: int) -> None:
        raise NotImplementedError("batches are read from the committed position")

    async def seek_wait(self, partitions: Mapping[TP, int]) -> None:
        raise NotImplementedError("batches are read from the committed position")

    async def position(self, tp: TP) -> int | None:
        return self._commits.committed.get(TopicPartition(*tp))

    async def earliest_offsets(self, *partitions: TP) -> Mapping[TP, int]:
        return dict.fromkeys(partitions, 0)

    async def highwaters(self, *partitions: TP) -> Mapping[TP, int]:
        ends: dict[TP, int] = {}
        for topic in {tp.topic for tp in partitions}:
            ends.update({TP(*target): end for target, end in (await self._headrace_log.end_offsets(topic)).items()})
        return {tp: ends[tp] for tp in partitions}

    def highwater(self, tp: TP) -> int:
        return self._commits.committed.get(TopicPartition(*tp), 0)

    def topic_partitions(self, topic: str) -> int | None:
        return self._headrace_log.partitions(topic)

    def key_partition(self, topic: str, key: bytes | None, partition: int | None = None) -> int | None:
        return (
            partition
            if partition is not None
            else cast(Any, self.app).producer.key_partition(topic, key or b"").partition
        )

    def _new_topicpartition(self, topic: str, partition: int) -> TP:
        return TP(topic, partition)

    async def _getmany(self, active_partitions: set[TP] | None, timeout: float) -> Any:
        raise NotImplementedError("records are read by the pumps")

    def _to_message(self, tp: TP, record: Any) -> ConsumerMessage:
        raise NotImplementedError("records are read by the pumps")
