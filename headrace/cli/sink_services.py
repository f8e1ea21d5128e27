"""The outbound services that the configuration has: sinks, and what else takes data out of the log on its own."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import Any, Protocol

from headrace.cli.logs import open_log, topic_specs
from headrace.cli.opened_database import schema_keeper, table_specs
from headrace.cli.opened_log import UNLIMITED, log_folder
from headrace.cli.running import Setup, finishes
from headrace.connectors.archive.object_store import open_store
from headrace.connectors.postgres_server import PostgresServer
from headrace.connectors.redis.sink import MAX_RECORDS, RedisSink
from headrace.connectors.redis.verifier import CacheVerifier
from headrace.connectors.timescale.sink import TimescaleSink
from headrace.engine.clock import Clock, SystemClock
from headrace.engine.collectors import Reads
from headrace.engine.embedded.log import EmbeddedLog
from headrace.engine.kafka.instance import instance_name
from headrace.engine.ledger import lag
from headrace.engine.log import Log
from headrace.engine.monitoring import Monitoring
from headrace.engine.sink import Sink
from headrace.engine.sink_runner import SinkRunner


class Service(Protocol):
    """Something that `headrace sink` runs."""

    name: str

    async def run(self, stop: asyncio.Event) -> None:
        """Work until `stop` is set; then finish what is in hand."""
        ...

    async def status(self) -> Mapping[str, Any]:
        """What it does now, for one line: names and values. Never waits for the other side."""
        ...

    def statistics(self) -> Mapping[str, Any]:
        """What it has done, for the end."""
        ...

    @property
    def reads(self) -> Reads | None:
        """What it reads of the log, for lag and health; None for nothing."""
        ...


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What services are made of.

    Args:
        setup: configuration and device types.
        data: data folder; None on Kafka.
        log: where from.
        database: arguments of `asyncpg.connect`, timeouts included.
        monitoring: of the process.
        clock: real time.
        resources: closed after the services have ended.
    """

    setup: Setup
    data: Path | None
    log: Log
    database: Mapping[str, Any]
    monitoring: Monitoring
    clock: Clock
    resources: AsyncExitStack


class SinkService:
    """A sink and its runner.

    Args:
        sink: what to run.
        around: what it runs in.
        options: of the runner.
    """

    def __init__(self, sink: Sink, around: Surroundings, **options: Any) -> None:
        self.name = sink.name
        self._sink = sink
        self._log, self._clock = around.log, around.clock
        metrics, health = around.monitoring.metrics, around.monitoring.health
        self.runner = SinkRunner(around.log, sink, around.clock, metrics=metrics, health=health, **options)
        self._before = (0, around.clock.monotonic())

    async def run(self, stop: asyncio.Event) -> None:
        await self.runner.run(stop)

    async def status(self) -> Mapping[str, Any]:
        now, seconds = self.runner.statistics(), self._clock.monotonic()
        written, since = self._before
        self._before = (now.written, seconds)
        behind = sum([await lag(self._log, self.name, topic) for topic in self._sink.topics])
        trouble = {} if now.state == "running" or not self.runner.trouble else {"why": self.runner.trouble}
        rate = round((now.written - written) / max(seconds - since, 1e-3))
        return {"records/s": rate, "lag": behind, "state": now.state, "stored": now.written, **trouble}

    def statistics(self) -> Mapping[str, Any]:
        now = self.runner.statistics()
        counts = {"stored": now.written, "dead_lettered": now.dead_lettered, "passed_over": now.passed_over}
        return {"state": now.state, **counts, "lost": now.lost, "retries": now.retries, "last_error": now.last_error}

    @property
    def reads(self) -> Reads | None:
        return Reads(self.name, lambda: self.runner.targets, lambda: self.runner.trouble)


def timescale(around: Surroundings) -> Service:
    """The TimescaleDB sink; always there."""
    schema, tables = schema_keeper(around.setup.settings), table_specs(around.setup.device_types)
    return SinkService(TimescaleSink(around.database, tables, around.clock, alone=True, schema=schema), around)


def archive(around: Surroundings) -> Service | None:
    """The daily archive job, where [archive] asks for it."""
    settings = around.setup.settings
    if not settings.archive.daily:
        return None
    # Polars, for those who have an archive.
    from headrace.connectors.archive.job import ArchiveJob  # noqa: PLC0415
    from headrace.connectors.archive.service import ArchiveService  # noqa: PLC0415

    store = open_store(settings.archive, around.data)
    types, rows = around.setup.device_types, settings.archive.part_rows
    schema = schema_keeper(settings)
    job = ArchiveJob(around.database, store, settings.retention, around.clock, types, part_rows=rows, schema=schema)
    return ArchiveService(job, settings.archive, around.clock, around.monitoring.metrics)


def cache(around: Surroundings) -> Service | None:
    """The cache sink, where [redis] url is set."""
    settings = around.setup.settings.redis
    if settings.url is None:
        return None
    sink = RedisSink(settings, around.log, around.clock, metrics=around.monitoring.metrics)
    return SinkService(sink, around, max_records=MAX_RECORDS)


def cache_verifier(around: Surroundings) -> Service | None:
    """What compares the cache with the database, likewise."""
    settings = around.setup.settings
    if settings.redis.url is None:
        return None
    kinds, metrics = settings.rollup.kinds(), around.monitoring.metrics
    return CacheVerifier(settings.redis, around.database, kinds, around.clock, metrics=metrics)


#: Every service there is, in the order they are shown; None where the configuration does not ask for it.
SERVICES: Sequence[Callable[[Surroundings], Service | None]] = (timescale, cache, cache_verifier, archive)


def check_services(setup: Setup, data: Path | None) -> None:
    """Look for mistakes.

    Raises:
        ConfigError: no log, or no database.
    """
    log_folder(setup.settings, data)


@asynccontextmanager
async def opened_services(
    setup: Setup, data: Path | None, monitoring: Monitoring, stop: asyncio.Event
) -> AsyncIterator[Sequence[Service]]:
    """The services, ready to run; none if `stop` was set before their log was there."""
    async with AsyncExitStack() as resources:
        settings = setup.settings
        log = await resources.enter_async_context(_opened_log(setup, data, monitoring))
        # Takes as long as Kafka is away.
        if not await finishes(log.create_topics(topic_specs(settings)), stop):
            yield []
            return
        if settings.database.dsn is not None:
            database: dict[str, Any] = {"dsn": settings.database.dsn.get_secret_value()}
        else:
            assert data is not None
            database = (await resources.enter_async_context(PostgresServer(data))).connect_arguments()
        database |= settings.database.timeouts()
        around = Surroundings(setup, data, log, database, monitoring, SystemClock(), resources)
        services = [service for make in SERVICES if (service := make(around)) is not None]
        monitoring.watch_lag(log, [reads for service in services if (reads := service.reads) is not None])
        yield services


@asynccontextmanager
async def _opened_log(setup: Setup, data: Path | None, monitoring: Monitoring) -> AsyncIterator[Log]:
    settings = setup.settings
    folder = log_folder(settings, data)
    if folder is not None:
        # What may be dropped is for the worker to say: its settings may keep more than ours.
        log: Log = EmbeddedLog(folder, retention=inf, retention_bytes=UNLIMITED)
        try:
            yield log
        finally:
            await log.close()
        return
    with instance_name(settings.kafka.instance, "sink", settings.log.url) as name:
        kafka = settings.kafka.model_copy(update={"instance": name})
        log = await open_log(settings.model_copy(update={"kafka": kafka}), None, "sink", monitoring)
        try:
            yield log
        finally:
            await log.close()
