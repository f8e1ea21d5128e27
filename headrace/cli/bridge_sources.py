"""The inbound connectors that the configuration has, and where their messages go."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from math import inf
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import click

from headrace.cli.bridge_http import http_source
from headrace.cli.bridge_sparkplug import ask_through, check_sparkplug, host_state, with_sparkplug
from headrace.cli.logs import open_log, topic_specs
from headrace.cli.opened_log import UNLIMITED, log_folder
from headrace.cli.running import Mistakes, Setup, finishes
from headrace.cli.settings import Settings
from headrace.connectors.http.source import HttpSource
from headrace.connectors.kinesis.append import check_topic
from headrace.connectors.kinesis.sink import open_kinesis
from headrace.connectors.kinesis.source import KinesisSource, open_kinesis_source
from headrace.connectors.mqtt.listener import MqttListener
from headrace.connectors.mqtt.settings import MqttSettings
from headrace.connectors.mqtt.source import MqttSource
from headrace.connectors.routed_intake import RoutedIntake
from headrace.engine.clock import SystemClock
from headrace.engine.embedded.log import EmbeddedLog
from headrace.engine.health import Progress
from headrace.engine.intake import Intake, MessageIntake
from headrace.engine.kafka.instance import instance_name
from headrace.engine.log import Log
from headrace.engine.log_time import note_clock
from headrace.engine.monitoring import Monitoring


class Source(Protocol):
    """An inbound connector, as the bridge runs it."""

    name: str

    async def run(self, stop: asyncio.Event) -> None:
        """Take messages until `stop` is set; then append and acknowledge what has come."""
        ...

    def statistics(self) -> Any:
        """What it did so far: a dataclass of counts with `appended`."""
        ...

    def progress(self) -> Progress:
        """How far it has come, for health."""
        ...


class Share(NamedTuple):
    """Which of how many processes this one is, from 0."""

    number: int
    processes: int


def source_names(settings: Settings) -> list[str]:
    """The connectors that are configured."""
    named = {
        MqttListener.name: settings.listener.wanted,
        HttpSource.name: settings.http.wanted,
        MqttSource.name: settings.mqtt.host is not None,
        KinesisSource.name: settings.kinesis_source.stream is not None,
    }
    return [name for name, wanted in named.items() if wanted]


def check_sources(settings: Settings, data: Path | None, processes: int) -> None:
    """Look for mistakes.

    Raises:
        ConfigError: all of them.
    """
    wrong = Mistakes()
    names = source_names(settings)
    if not names:
        wrong.add(
            "nothing to take messages from: name a broker as mqtt.host, a port to listen on as listener.port or "
            "http.port, or a stream as kinesis_source.stream"
        )
    if MqttSource.name in names:
        wrong.take(lambda: settings.mqtt.address)
        if settings.mqtt.schedule is not None and processes > 1:
            wrong.add("--processes: one process drains the session of mqtt.schedule; leave one of the two out")
    if MqttListener.name in names:
        wrong.take(settings.listener.access)
        wrong.take(settings.listener.tls)
        if processes > 1:
            wrong.add("--processes: one process has the ports of [listener]; give [mqtt] a configuration of its own")
    if KinesisSource.name in names and processes > 1:
        wrong.add(
            "--processes: one process reads the stream of [kinesis_source]; give the others a configuration without"
        )
    if KinesisSource.name in names:
        wrong.take(lambda: check_topic(settings.kinesis_source, settings.profiles))
    if KinesisSource.name in names and settings.bridge.into == "kinesis":
        wrong.add("[kinesis_source] goes into the log, which keeps how far it has read; bridge.into is kinesis")
    if HttpSource.name in names:
        wrong.take(settings.http.tls)
        if settings.bridge.into != "log":
            wrong.add('[http] answers with what ingest says, and for that needs bridge.into = "log"')
        if processes > 1:
            wrong.add("--processes: one process has the port of [http]; give [mqtt] a configuration of its own")
    wrong.take(lambda: check_sparkplug(settings, processes))
    if _needs_log(settings):
        wrong.take(lambda: log_folder(settings, data, make=True))
    wrong.check()


def _needs_log(settings: Settings) -> bool:
    """The listener keeps presence and commands there, wherever telemetry goes."""
    return settings.bridge.into == "log" or settings.listener.wanted or settings.http.wanted


@asynccontextmanager
async def opened_sources(
    setup: Setup, data: Path | None, share: Share, monitoring: Monitoring, stop: asyncio.Event
) -> AsyncIterator[Sequence[Source]]:
    """The connectors, ready to run; none if `stop` was set before their log was there."""
    async with AsyncExitStack() as stack:
        settings = setup.settings
        clock, metrics, health = SystemClock(), monitoring.metrics, monitoring.health
        log: Log | None = None
        if _needs_log(settings):
            log = await stack.enter_async_context(_opened_log(settings, data, monitoring))
            specs = [*topic_specs(settings), *MqttListener.topic_specs(settings.log.partitions)]
            specs += HttpSource.topic_specs()
            # Takes as long as Kafka is away.
            if not await finishes(log.create_topics(specs), stop):
                yield []
                return
        if settings.bridge.into == "kinesis":
            intake: MessageIntake = await stack.enter_async_context(open_kinesis(settings.kinesis, clock, metrics))
            target = f"Kinesis stream {settings.kinesis.stream}"
        else:
            assert log is not None
            await note_clock(log, clock)
            intake = Intake(log, clock, metrics)
            target = settings.log.url if data is None else str(data)
        ordinary = RoutedIntake(intake, settings.profiles, metrics, clock)
        routed, sparkplug = await with_sparkplug(settings, ordinary, log, data, stack, clock, metrics)
        host = host_state(settings, clock)
        names, sources = source_names(settings), list[Source]()
        if settings.listener.wanted:
            assert log is not None
            listener = MqttListener(settings.listener, routed, log, clock, metrics=metrics, health=health, host=host)
            click.echo(f"listener: {settings.listener.where} into {target}; Ctrl-C stops", err=True)
            sources.append(listener)
        if settings.http.wanted:
            assert log is not None
            sources.append(await stack.enter_async_context(http_source(setup, data, log, monitoring, target)))
        if MqttSource.name in names:
            mqtt, filters = _of_process(settings.mqtt, share), [each.topic_filter for each in settings.profiles]
            wanted = ", ".join(filters)
            when = "" if mqtt.schedule is None else f", {mqtt.schedule},"
            click.echo(
                f"bridge {mqtt.client_id}: {wanted} from {mqtt.address}{when} into {target}; Ctrl-C stops", err=True
            )
            sources.append(MqttSource(mqtt, filters, routed, clock, metrics=metrics, health=health, host=host))
        if KinesisSource.name in names:
            assert log is not None
            lock = (
                None
                if data is None
                else data / f"kinesis-{(settings.kinesis_source.stream or '').rpartition('/')[2]}.lock"
            )
            reading = open_kinesis_source(
                settings.kinesis_source,
                Intake(log, clock, metrics),
                clock,
                lock,
                profiles=settings.profiles,
                metrics=metrics,
                health=health,
            )
            sources.append(await stack.enter_async_context(reading))
            click.echo(f"kinesis: {settings.kinesis_source.stream} into {target}; Ctrl-C stops", err=True)
        yield [*sources, *ask_through(sparkplug, sources)]


def _of_process(settings: MqttSettings, share: Share) -> MqttSettings:
    """The settings of one process: of several, each has a session, and all one subscription."""
    if share.processes == 1:
        return settings
    own = {"client_id": f"{settings.client_id}-{share.number}", "share": settings.share or settings.client_id}
    return settings.model_copy(update=own)


@asynccontextmanager
async def _opened_log(settings: Settings, data: Path | None, monitoring: Monitoring) -> AsyncIterator[Log]:
    folder = log_folder(settings, data, make=True)
    if folder is not None:
        # What may be dropped is for the worker to say: its settings may keep more than ours.
        log: Log = EmbeddedLog(folder, retention=inf, retention_bytes=UNLIMITED)
        try:
            yield log
        finally:
            await log.close()
        return
    with instance_name(settings.kafka.instance, "bridge", settings.log.url) as name:
        named = settings.model_copy(update={"kafka": settings.kafka.model_copy(update={"instance": name})})
        log = await open_log(named, None, "bridge", monitoring)
        try:
            yield log
        finally:
            await log.close()
