"""The application object: a Faust app whose agents get batches and whose commits are one step."""

import asyncio
from collections.abc import Callable, Iterable, Set
from functools import cached_property, partial
from typing import Any, cast

import faust
from faust.types.tuples import TP

from headrace.engine.batch import Batch
from headrace.engine.cancel import cancel_and_wait
from headrace.engine.clock import Clock, SystemClock
from headrace.engine.health import Health
from headrace.engine.log import Log, TopicPartition, TopicSpec
from headrace.engine.metrics import Metrics
from headrace.engine.operator import HasWatermark, Joint, Operator, topics_of
from headrace.engine.replicas import Gate, Replicas
from headrace.engine.runtime.agent import AgentFunction, BatchAgent, BatchTopic
from headrace.engine.runtime.assignor import StickyAssignor
from headrace.engine.runtime.batches import Batches
from headrace.engine.runtime.consumer import BatchConsumer
from headrace.engine.runtime.event_stream import EventStream
from headrace.engine.runtime.event_table_manager import EventTableManager
from headrace.engine.runtime.event_tables import EventTable
from headrace.engine.runtime.event_topic import EventTopic
from headrace.engine.runtime.garbage import rare_collections
from headrace.engine.runtime.lanes import Lanes
from headrace.engine.runtime.large_arrays import release_large_arrays
from headrace.engine.runtime.replies import LogReplies
from headrace.engine.runtime.routing import LocalRouter
from headrace.engine.runtime.settings import RuntimeSettings
from headrace.engine.runtime.tables import BatchTableManager
from headrace.engine.runtime.together import Together
from headrace.engine.runtime.transport import LogTransport

#: Seconds that starting gets to end once the app is stopped.
START_ENDS = 1.0


class App(faust.App):
    """A Faust application on a `Log`.

    Args:
        group: consumer group; also the prefix of changelogs.
        log: where records are; the caller closes it.
        clock: gives append times to what Faust itself sends.
        metrics, health: told how it goes; ones of its own if left out.
        runtime: batching and commit.

    >>> app = App("example", log)                                             # doctest: +SKIP
    >>> @app.agent(app.batches("telemetry.readings"))                         # doctest: +SKIP
    ... async def overheating(batches):
    ...     async for batch in batches:
    ...         for reading in batch.readings("temperature", above=80.0):
    ...             batch.send("overheating", reading.device_id.encode(), b"{}")
    """

    def __init__(
        self,
        group: str,
        log: Log,
        *,
        clock: Clock | None = None,
        runtime: RuntimeSettings | None = None,
        metrics: Metrics | None = None,
        health: Health | None = None,
        **settings: Any,
    ) -> None:
        self.record_log = log
        self.clock = clock or SystemClock()
        self.runtime = runtime or RuntimeSettings()
        self.metrics = metrics or Metrics()
        self.lanes = Lanes(self.clock)
        self.health = health or Health(SystemClock())
        self._replicas = Replicas(log, self.clock, self.metrics, self.health)
        fixed: dict[str, Any] = {
            "broker": "log://",
            "Agent": BatchAgent,
            "PartitionAssignor": StickyAssignor,
            "Router": LocalRouter,
            "Stream": EventStream,
            "Table": EventTable,
            "TableManager": EventTableManager,
            "Topic": EventTopic,
            "stream_publish_on_commit": False,  # everything is
            "stream_wait_empty": False,
            "table_standby_replicas": self.runtime.standbys,
            "topic_disable_leader": True,
        }
        super().__init__(group, **{"web_enabled": False, "web_bind": "127.0.0.1", **settings, **fixed})

    def batches(self, *topics: str) -> BatchTopic:
        """A topic whose agents loop over `Batch` objects."""
        return BatchTopic(self, topics=topics)

    def agent(self, channel: Any = None, **options: Any) -> Callable[[AgentFunction], BatchAgent]:
        """Decorate an `async def` that loops over the batches of `channel`, a topic made by `batches`.

        On a topic made by `topic`, or a channel, it loops over Faust's events.
        """
        return cast(Callable[[AgentFunction], BatchAgent], super().agent(channel, **options))

    def add(self, operators: Iterable[Operator]) -> None:
        """Run each operator as an agent of its own, and keep its tables in changelogs.

        The replicated tables that it reads (`HasReplicas`) are kept up to date.
        """
        for operator in operators:
            topics = topics_of(operator)
            tables = cast(BatchTableManager, self.tables)
            for topic in topics:
                tables.register(topic, operator.tables)
            tables.couple(topics)
            agent = self.agent(self.batches(*topics), name=operator.name)(
                _loop(operator, self._replicas.add(operator), self)
            )
            agent.operator = operator

    async def create_topics(self, topics: Iterable[TopicSpec], *, partitions: int) -> None:
        """Make these topics, and those of the tables of all agents added so far, where they do not exist yet."""
        tables = cast(BatchTableManager, self.tables).topic_specs(partitions)
        specs = [*topics, *tables, *self._replicas.topic_specs()]
        await self.record_log.create_topics(specs)

    async def start(self) -> None:
        self._replicas.start()
        await super().start()

    async def stop(self) -> None:
        await super().stop()
        await self._replicas.stop()

    async def run(self, stop: asyncio.Event) -> None:
        """Run the agents until `stop` is set, then finish running batches and commit.

        Raises:
            LogError, ConfigError: whatever the app crashed on.
        """
        release_large_arrays()
        with rare_collections(self.runtime.collect_after):
            await self._run(stop)
        if self.crash_reason is not None:
            raise self.crash_reason

    async def _run(self, stop: asyncio.Event) -> None:
        ended = asyncio.create_task(self.wait_until_stopped())
        stopping = asyncio.create_task(stop.wait())
        starting = asyncio.create_task(self.start())
        try:
            # Starting waits for restored tables: forever, if the log goes away meanwhile.
            await asyncio.wait([starting, stopping, ended], return_when=asyncio.FIRST_COMPLETED)
            if starting.done():
                starting.result()
                await asyncio.wait([stopping, ended], return_when=asyncio.FIRST_COMPLETED)
        finally:
            stopping.cancel()
            await self.stop()
            await _ended(starting)
            await ended

    @property
    def assigned(self) -> Set[TopicPartition]:
        """Partitions that this worker has now; none before it has joined its group."""
        return cast(BatchConsumer, self._consumer).assigned if self._consumer is not None else frozenset()

    @property
    def stopped_partitions(self) -> dict[Any, str]:
        """Partitions whose agent failed too often, with why."""
        return cast(BatchConsumer, self.consumer).stopped_partitions

    def is_leader(self) -> bool:
        """Whether `on_leader=True` timers run here: on the worker that has partition 0 of the first topic."""
        topics = sorted({topic for channel in self.topics for topic in channel.topics})
        return not topics or TP(topics[0], 0) in self.consumer.assignment()

    @cached_property
    def _reply_consumer(self) -> LogReplies:
        return LogReplies(self, loop=self.loop, beacon=self.beacon)

    def _create_directories(self) -> None:
        """Faust would make a data folder in the current one; nothing of ours lies there."""

    def _new_transport(self) -> LogTransport:
        return LogTransport(self.conf.broker_consumer, self)

    def _new_producer_transport(self) -> LogTransport:
        return LogTransport(self.conf.broker_producer, self)

    async def _stop_consumer(self) -> None:
        if self._consumer is not None:
            await cast(BatchConsumer, self._consumer).drain()
        await super()._stop_consumer()


async def _ended(starting: asyncio.Task[None]) -> None:
    """Wait until `start` has seen that the app was stopped."""
    await asyncio.wait([starting], timeout=START_ENDS)
    await cancel_and_wait(starting)
    if not starting.cancelled():
        starting.exception()  # of no interest any more


def _loop(operator: Operator, gate: Gate | None, app: App) -> Any:
    together = Together(operator, app.lanes, app.clock) if isinstance(operator, Joint) else None

    async def run(batches: Batches) -> None:
        async for batch in batches:
            if gate is not None:
                await gate.wait_current(batch.records)
            if together is None or batches.alone:
                operator.process(batch)
            else:
                await together.process(batch)
            if isinstance(operator, HasWatermark):
                batch.on_finish(partial(_note_watermark, operator, batch, app.metrics))

    return run


def _note_watermark(operator: HasWatermark, batch: Batch, metrics: Metrics) -> None:
    """Export how far the watermark is behind what was read; runs when the batch is finished."""
    watermark = operator.watermark_of(batch.partition)
    if watermark is not None and len(batch):
        delay = (batch.records.timestamps[-1] - watermark) / 1000
        metrics.set("headrace_watermark_delay_seconds", delay, agent=operator.name, partition=batch.partition)
