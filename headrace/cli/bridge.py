"""`headrace bridge`: the inbound connectors that the configuration has, on the log of a worker that runs elsewhere."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict
from math import inf
from pathlib import Path
from typing import Any, Protocol

import click
import orjson
from rich.console import Console

from headrace.cli.logs import open_log, topic_specs
from headrace.cli.opened_log import UNLIMITED, log_data_option, log_folder
from headrace.cli.running import (
    Mistakes,
    Setup,
    config_arguments,
    config_option,
    consoles,
    finishes,
    json_option,
    set_up,
    stop_on_signals,
)
from headrace.cli.settings import Settings
from headrace.cli.workers import Workers
from headrace.connectors.kinesis import open_kinesis
from headrace.connectors.mqtt.settings import MqttSettings
from headrace.connectors.mqtt.source import MqttSource
from headrace.connectors.mqtt.topic_intake import ProfileIntake
from headrace.connectors.topic_profile import TopicProfile
from headrace.engine.cancel import cancel_and_wait
from headrace.engine.clock import SystemClock
from headrace.engine.embedded.log import EmbeddedLog
from headrace.engine.errors import first
from headrace.engine.health import Progress
from headrace.engine.intake import Intake, MessageIntake
from headrace.engine.kafka.instance import instance_name
from headrace.engine.log import Log
from headrace.engine.monitoring import Monitoring

#: Seconds between two looks at the sources.
INTERVAL = 0.5
#: Profiles of topics that are taken.
PROFILES = (TopicProfile(name="devices", topic_filter="dt/devices/+/telemetry", device_type="environmental"),)


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


@click.command()
@click.option("--processes", type=click.IntRange(1, 64), default=1, show_default=True, help="Processes to run.")
@click.option("--number", type=click.IntRange(0, 63), hidden=True, help="Run process NUMBER of these, and only it.")
@log_data_option
@config_option
@json_option
def bridge(processes: int, number: int | None, data: Path | None, config: Path | None, as_json: bool) -> None:
    """Take messages from an MQTT broker into the log, or into Kinesis, until Ctrl-C.

    The broker is that of [mqtt] in --config. A message is acknowledged when it is in the log; a worker on the same
    Kafka, or on the same data folder, processes it. With --processes the broker shares the messages out among them.
    """
    wrong = Mistakes()
    setup = wrong.take(lambda: set_up(config))
    if setup is not None:
        wrong.take(lambda: _check(setup.settings, data))
    wrong.check()
    assert setup is not None
    if processes > 1 and number is None:
        if setup.settings.mqtt.qos == 0:
            click.echo("note: at QoS 0 the broker keeps nothing for a process that is started again", err=True)
        arguments = ["bridge", "--processes", str(processes), *config_arguments(config)]
        arguments += ["--data", str(data)] if data is not None else []
        arguments += ["--json"] if as_json else []
        asyncio.run(Workers([[*arguments, "--number", str(each)] for each in range(processes)]).run())
        return
    asyncio.run(Bridge(setup, data, processes, number or 0, as_json).run())


def _check(settings: Settings, data: Path | None) -> None:
    wrong = Mistakes()
    wrong.take(lambda: settings.mqtt.address)
    if settings.bridge.into == "log":
        wrong.take(lambda: log_folder(settings, data, make=True))
    wrong.check()


class Bridge:
    """One process of the bridge.

    Args:
        setup: what it is configured with.
        data: folder of the embedded log; None where the log is on Kafka.
        processes, number: how many there are, and which this is.
        as_json: end with one JSON object.
    """

    def __init__(self, setup: Setup, data: Path | None, processes: int, number: int, as_json: bool) -> None:
        self._settings = setup.settings
        self._data = data
        self._processes = processes
        self._number = number
        self._as_json = as_json
        self._clock = SystemClock()

    async def run(self) -> None:
        """Run every source until told to stop, then say what was done."""
        stop = stop_on_signals()
        screen, result = consoles(self._as_json)
        monitoring = Monitoring(self._settings.monitor, expects=["mqtt"], index=self._number)
        async with self._intake(monitoring, stop) as intake:
            if intake is None:
                return
            sources = self._sources(intake, monitoring)
            began = self._clock.monotonic()
            try:
                async with monitoring, asyncio.TaskGroup() as group:
                    watching = group.create_task(self._watch(sources, monitoring, screen))
                    running = [group.create_task(source.run(stop)) for source in sources]
                    await asyncio.wait(running)
                    await cancel_and_wait(watching)
            except ExceptionGroup as errors:
                raise first(errors) from errors
            finally:
                self._report(sources, self._clock.monotonic() - began, result)

    @asynccontextmanager
    async def _intake(self, monitoring: Monitoring, stop: asyncio.Event) -> AsyncIterator[MessageIntake | None]:
        """Where messages go, as [bridge] says; None if told to stop before that is there."""
        if self._settings.bridge.into == "kinesis":
            async with open_kinesis(self._settings.kinesis, self._clock, monitoring.metrics) as stream:
                yield stream
            return
        async with self._log(monitoring) as log:
            # Takes as long as Kafka is away.
            made = await finishes(log.create_topics(topic_specs(self._settings)), stop)
            yield Intake(log, self._clock, monitoring.metrics) if made else None

    @asynccontextmanager
    async def _log(self, monitoring: Monitoring) -> AsyncIterator[Log]:
        settings = self._settings
        folder = log_folder(settings, self._data, make=True)
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

    def _sources(self, intake: MessageIntake, monitoring: Monitoring) -> Sequence[Source]:
        """The connectors that the configuration has; one line each."""
        metrics, health = monitoring.metrics, monitoring.health
        filters = [profile.topic_filter for profile in PROFILES]
        mqtt = self._mqtt()
        target: object = self._settings.log.url if self._data is None else self._data
        if self._settings.bridge.into == "kinesis":
            target = f"Kinesis, stream {self._settings.kinesis.stream}"
        click.echo(
            f"bridge {mqtt.client_id}: {', '.join(filters)} from {mqtt.address} into {target}; Ctrl-C stops", err=True
        )
        routed = ProfileIntake(intake, PROFILES)
        return [MqttSource(mqtt, filters, routed, self._clock, metrics=metrics, health=health)]

    def _mqtt(self) -> MqttSettings:
        """The settings of this process: of several, each has a session, and all one subscription."""
        settings = self._settings.mqtt
        if self._processes == 1:
            return settings
        own = {"client_id": f"{settings.client_id}-{self._number}", "share": settings.share or settings.client_id}
        return settings.model_copy(update=own)

    async def _watch(self, sources: Sequence[Source], monitoring: Monitoring, screen: Console) -> None:
        status = screen.status("connecting") if screen.is_terminal else None
        before = {source.name: 0 for source in sources}
        if status is not None:
            status.start()
        try:
            while True:
                await self._clock.sleep(INTERVAL)
                monitoring.health.observe("source", {f"source {each.name}": each.progress() for each in sources})
                if status is not None:
                    status.update(_line(sources, before))
        finally:
            if status is not None:
                status.stop()

    def _report(self, sources: Sequence[Source], seconds: float, result: Console) -> None:
        found = {source.name: asdict(source.statistics()) for source in sources}
        if self._as_json:
            click.echo(orjson.dumps({"process": self._number, "seconds": seconds, **found}).decode())
            return
        for name, counts in found.items():
            result.print(f"{name}: {_counts(counts)} in {seconds:.1f} s", highlight=False)


def _line(sources: Sequence[Source], before: dict[str, int]) -> str:
    parts = []
    for source in sources:
        counts = source.statistics()
        rate = (counts.appended - before[source.name]) / INTERVAL
        before[source.name] = counts.appended
        parts.append(f"{source.name}: {rate:,.0f} messages/s, {_counts(asdict(counts))}")
    return "   ".join(parts)


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in counts.items() if count or name == "appended")
