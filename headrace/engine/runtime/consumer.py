"""Faust's consumer on a `Log`: one pump per partition, one batch of it in flight, commits in between."""

import asyncio
import contextlib
from collections.abc import Iterable, Mapping
from typing import Any, cast

import structlog
from faust.transport.consumer import Consumer
from faust.types.tuples import TP, ConsumerMessage

from headrace.engine.clock import Clock
from headrace.engine.errors import AgentStopped, first
from headrace.engine.log import Fetched, Log, TopicPartition
from headrace.engine.runtime.commits import Commits
from headrace.engine.runtime.conductor import BatchConductor
from headrace.engine.runtime.settings import RuntimeSettings

#: Seconds that a commit waits for batches in hand; a partition whose agent takes longer comes with a later commit.
MAX_GATE_WAIT = 0.25

log_ = structlog.get_logger()


class BatchConsumer(Consumer):
    """Reads every assigned partition in batches and commits what is finished.

    Faust commits offsets that its ack bookkeeping found, and it acknowledges cancelled work and an agent's failure too.
    Here a position is what `Commits` says: the offset after the last batch that every agent finished.
    """

    _assigned: frozenset[TopicPartition] = frozenset()
    _commits: Commits

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        app = cast(Any, self.app)
        self._headrace_log: Log = app.record_log
        self._clock: Clock = app.clock
        self._settings: RuntimeSettings = app.runtime
        self._commits = Commits(self._headrace_log, app.conf.id, app.tables.changes)
        self._draining = asyncio.Event()
        self._something_finished = asyncio.Event()
        self._nothing_busy = asyncio.Event()
        self._gate = asyncio.Event()
        self._gate.set()
        self._pumps_done: asyncio.Future[None] | None = None
        self.stopped_partitions: dict[TopicPartition, str] = {}

    # -- assignment

    async def subscribe(self, topics: Iterable[str]) -> None:
        targets = frozenset(
            TopicPartition(topic, number) for topic in topics for number in range(self._headrace_log.partitions(topic))
        )
        # Not awaited here: the assignment handler waits for something that happens only after subscribe returned.
        self.add_future(self._assign(targets))

    async def _assign(self, targets: frozenset[TopicPartition]) -> None:
        app = cast(Any, self.app)
        app.on_rebalance_start()
        app.consumer_generation_id += 1
        self._assigned = targets
        await self.on_partitions_assigned({TP(*target) for target in targets}, app.consumer_generation_id)
        app.on_rebalance_end()

    def assignment(self) -> set[TP]:
        return {TP(*target) for target in self._assigned}

    # -- reading and delivering

    async def _drain_messages(self, fetcher: Any) -> None:
        self._pumps_done = asyncio.get_running_loop().create_future()
        try:
            async with asyncio.TaskGroup() as group:
                committer = group.create_task(self._commit_when_finished())
                pumps = [group.create_task(self._pump(target)) for target in sorted(self._assigned)]
                await asyncio.gather(*pumps)
                committer.cancel()
        except ExceptionGroup as errors:
            raise first(errors) from None
        finally:
            if not self._pumps_done.done():
                self._pumps_done.set_result(None)

    async def _pump(self, target: TopicPartition) -> None:
        """Give the partition's records to its agents, batch after batch, until told to drain."""
        position = (await self._headrace_log.positions(cast(Any, self.app).conf.id, target.topic))[target]
        conductor = cast(BatchConductor, self.app.topics)
        while not self._draining.is_set():
            fetched = await self._fetch(target, position)
            await self._gate.wait()
            if fetched is None or self._draining.is_set():
                continue
            self._commits.begin(target)
            try:
                sends = await conductor.deliver(fetched).wait_finished()
            except AgentStopped as stopped:
                self.stopped_partitions[target] = str(stopped)
                log_.error("partition stopped", topic=target.topic, partition=target.partition, error=str(stopped))
                return
            position = fetched.next_offset
            self._commits.finish(target, position, sends)
            self._something_finished.set()
            if not self._commits.busy:
                self._nothing_busy.set()
            await self._clock.sleep(0)  # a saturated partition must not keep the others from running

    async def _fetch(self, target: TopicPartition, position: int) -> Fetched | None:
        settings, log = self._settings, self._headrace_log
        fetched = await log.read(target, position, settings.max_batch_records)
        if fetched is None:
            await log.wait({target: position}, settings.poll_timeout)
            fetched = await log.read(target, position, settings.max_batch_records)
        if fetched is not None and len(fetched.records) < settings.linger_records:
            await self._clock.sleep(settings.linger)
            fetched = await log.read(target, position, settings.max_batch_records)
        return fetched

    # -- committing

    async def _commit_when_finished(self) -> None:
        """Close the gate, let batches in hand finish, cut, open the gate, and write while the next batches run."""
        while True:
            await self._something_finished.wait()
            await self._clock.sleep(self._settings.commit_interval)
            self._something_finished.clear()
            self._gate.clear()
            if self._commits.busy:
                self._nothing_busy.clear()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(MAX_GATE_WAIT):
                        await self._nothing_busy.wait()
            cut = self._commits.cut()
            self._gate.set()
            await self._commits.write(cut)

    async def commit(self, topics: Any = None, start_new_transaction: bool = True) -> bool:
        """Commit what is finished (Faust's name for it)."""
        await self._commits.write(self._commits.cut())
        return True

    @property
    def committed(self) -> Mapping[TopicPartition, int]:
        """Committed position by partition, of this run."""
        return self._commits.committed

    async def drain(self) -> None:
        """Take no new batch, let running ones finish within `drain_timeout`, commit. The rest stays in the log."""
        self._draining.set()
        if self._pumps_done is not None:
            await asyncio.wait([self._pumps_done], timeout=self._settings.drain_timeout)
        await self.commit()

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
        found: dict[TP, int] = {}
        for topic in {target.topic for target in self._assigned}:
            positions = await self._headrace_log.positions(cast(Any, self.app).conf.id, topic)
            found.update({TP(*target): offset for target, offset in positions.items()})
        return found

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
