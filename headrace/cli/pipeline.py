"""The whole path in one process: log, intake, agents, database and sink, wired and run together."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from headrace.cli.agents import GROUP, build_agents
from headrace.cli.logs import open_log, topic_specs
from headrace.cli.notify_service import NotifyService
from headrace.cli.opened_database import schema_keeper, table_specs
from headrace.cli.own_agents import own_agents, own_topics
from headrace.cli.report import Latency, Report
from headrace.cli.settings import Settings
from headrace.connectors.postgres_server import PostgresServer
from headrace.connectors.timescale.sink import TimescaleSink
from headrace.engine.app import App
from headrace.engine.clock import Clock
from headrace.engine.collectors import Reads
from headrace.engine.embedded.lock import WorkerLock
from headrace.engine.errors import AgentStopped, ConfigError, first
from headrace.engine.intake import Intake
from headrace.engine.ledger import Ledger, lag, read_ledger
from headrace.engine.log_time import note_clock
from headrace.engine.monitoring import Monitoring
from headrace.engine.operator import Operator, topics_of
from headrace.engine.sink import Standby
from headrace.engine.sink_runner import SinkRunner
from headrace.schemas import topics
from headrace.schemas.device_type import DeviceType
from headrace.schemas.readings import Readings
from headrace.schemas.rule import AlertRule

#: How often a run looks whether everything has arrived, seconds.
ARRIVED_POLL = 0.05

#: Seconds that the sink's running write gets when the pipeline stops.
SINK_STOP = 3.0

#: Seconds that attempts to send get then.
NOTIFY_STOP = 12.0

#: A source that can go faster than the agents waits when they are this many records behind.
MOST_BEHIND = 50_000

#: Feeds messages in until it has no more or the event is set.
Feed = Callable[[asyncio.Event], Awaitable[None]]


class Pipeline:
    """headrace on an embedded log, for as long as the `async with` lasts.

    Args:
        folder: data folder; made if missing, one worker at a time.
        settings: configuration.
        device_types: by name.
        rules: alert rules.
        clock: gives append times; agents see event time only.
        on_committed: called with readings right after the database has them.
        notify: send notifications, where channels are configured; nobody is to be told of what is long past.
    Raises:
        ConfigError, LogInUse, LogError: on entering, when it cannot start.
    """

    def __init__(
        self,
        folder: Path,
        settings: Settings,
        device_types: Mapping[str, DeviceType],
        rules: Sequence[AlertRule],
        clock: Clock,
        *,
        on_committed: Callable[[Sequence[Readings]], None] | None = None,
        notify: bool = False,
    ) -> None:
        self._folder = folder
        self._settings = settings
        self._clock = clock
        self._device_types = device_types
        self._rules = rules
        self._on_committed = on_committed
        self._notify = notify and settings.channels.configured
        self.delivery: NotifyService | None = None
        self._resources = AsyncExitStack()
        self.monitoring = Monitoring(settings.monitor)

    async def __aenter__(self) -> Self:
        try:
            await self._open()
        except BaseException:
            await self._resources.aclose()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._resources.aclose()

    async def _open(self) -> None:
        settings = self._settings
        self.own_agents = own_agents(settings)
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(f"data folder {self._folder} cannot be made: {error.strerror}; name another") from error
        lock = WorkerLock(self._folder)
        lock.acquire()
        self._resources.callback(lock.release)
        self.log = await open_log(settings, self._folder, "pipeline", self.monitoring)
        self._resources.push_async_callback(self.log.close)
        metrics, health = self.monitoring.metrics, self.monitoring.health
        self.agents = build_agents(settings, self._device_types, self._rules, metrics)
        self.app = App(GROUP, self.log, clock=self._clock, runtime=settings.runtime, metrics=metrics, health=health)
        self.app.add([*self.agents, *(each.operator for each in self.own_agents)])
        partitions = settings.log.partitions
        specs = [*topic_specs(settings), *own_topics(self.own_agents, partitions)]
        await self.app.create_topics(specs, partitions=partitions)
        await note_clock(self.log, self._clock)
        self.intake = Intake(self.log, self._clock, metrics)
        await self._open_sink()
        if self._notify:
            self.delivery = NotifyService(settings, self._folder, self.log, self._clock, self.monitoring)
        runner = self.sink_runner
        self.monitoring.watch_lag(
            self.log,
            [
                Reads(GROUP, lambda: self.app.assigned),
                Reads(self.sink.name, lambda: runner.targets, lambda: runner.trouble),
                *([] if self.delivery is None else [self.delivery.reads]),
            ],
        )
        self.monitoring.watch_ledger(self.ledger)

    async def _open_sink(self) -> None:
        dsn = self._settings.database.dsn
        if dsn is None:
            server = PostgresServer(self._folder)
            address = await server.start()
            self._resources.push_async_callback(server.stop)
            self.database: dict[str, Any] = address.connect_arguments()
        else:
            self.database = {"dsn": dsn.get_secret_value()}
        schema, tables = schema_keeper(self._settings), table_specs(self._device_types)
        connect = {**self.database, **self._settings.database.timeouts()}
        self.sink = TimescaleSink(
            connect, tables, self._clock, alone=True, schema=schema, on_committed=self._on_committed
        )
        self._resources.push_async_callback(self.sink.close)
        with suppress(Standby):  # `headrace sink` stores for us, for as long as it runs
            await self.sink.open()
        self.sink_runner = SinkRunner(
            self.log, self.sink, self._clock, metrics=self.monitoring.metrics, health=self.monitoring.health
        )

    async def run(self, feed: Feed, stop: asyncio.Event) -> None:
        """Run until `feed` returns and everything it fed has arrived, or `stop` is set.

        On `stop` the input stops, running batches finish and are committed; the rest stays in the log, in flight.
        """
        agents_stop, sink_stop, notify_stop = asyncio.Event(), asyncio.Event(), asyncio.Event()
        try:
            async with self.monitoring, asyncio.TaskGroup() as group:
                agents = group.create_task(self.app.run(agents_stop))
                sink = group.create_task(self.sink_runner.run(sink_stop))
                notifying = [group.create_task(self.delivery.run(notify_stop))] if self.delivery else []
                await feed(stop)
                while not stop.is_set() and not await self.arrived():
                    for reason in self.app.stopped_partitions.values():
                        raise AgentStopped(reason)
                    await self._clock.sleep(ARRIVED_POLL)
                agents_stop.set()
                if not stop.is_set():
                    await agents
                notify_stop.set()
                if notifying:  # what waits stays in the log
                    await asyncio.wait(notifying, timeout=NOTIFY_STOP)
                    notifying[0].cancel()
                sink_stop.set()
                await asyncio.wait([sink], timeout=SINK_STOP)
                sink.cancel()  # a database that hangs: the write is rolled back, and repeated by the next run
        except ExceptionGroup as errors:
            raise first(errors) from None

    async def arrived(self) -> bool:
        """Whether every message is stored or accounted for, and what the agents made of them is stored too."""
        return not await self.left()

    async def left(self) -> int:
        """Records that the agents and the sink have still to go through; agents first, as what they do makes more."""
        operators: list[Operator] = [*self.agents, *(each.operator for each in self.own_agents)]
        read = dict.fromkeys(topic for each in operators for topic in topics_of(each))
        agents = [(GROUP, topic) for topic in read]
        sink = [(self.sink.name, topic) for topic in self.sink.topics]
        return sum([await lag(self.log, group, topic) for group, topic in (*agents, *sink)])

    async def wait_capacity(self, most_behind: int = MOST_BEHIND) -> None:
        """Wait while the agents have more than `most_behind` raw records to go."""
        while await lag(self.log, GROUP, topics.RAW) > most_behind:
            await self._clock.sleep(ARRIVED_POLL)

    async def report(self, stored_before: int, seconds: float, latency: Latency | None = None) -> Report:
        """The figures of this data folder; rates are of this run.

        Args:
            stored_before: `stored` of the ledger when the run began.
            seconds: how long it took, real.
        """
        ledger, counts, sent = await self.ledger(), await self.sink.counts(), await self.sent()
        rate = (ledger.stored - stored_before) / seconds if seconds else 0.0
        stored = (counts["alerts"], counts["anomalies"], counts["rollups"])
        return Report(ledger, *stored, round(rate, 1), round(seconds, 2), latency, sent)

    async def sent(self) -> dict[str, int]:
        """Records in each topic that agents of the user's own send to."""
        names = dict.fromkeys(name for each in self.own_agents for name in each.outputs)
        return {name: sum((await self.log.end_offsets(name)).values()) for name in names}

    async def ledger(self) -> Ledger:
        """The ledger of this data folder, from its first message on."""
        decided: Counter[str] = Counter()
        for outcomes in self.agents.ingest.counters.totals().values():
            decided.update(outcomes)
        return await read_ledger(self.log, GROUP, self.sink.name, decided, await self.sink.ledger())
