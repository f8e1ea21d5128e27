"""`headrace bridge`: the inbound connectors that the configuration has, on the log of a worker that runs elsewhere."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import click
import orjson
from rich.console import Console

from headrace.cli.bridge_sources import Share, Source, check_sources, opened_sources, source_names
from headrace.cli.opened_log import log_data_option
from headrace.cli.running import (
    Mistakes,
    Setup,
    config_arguments,
    config_option,
    consoles,
    json_option,
    set_up,
    stop_on_signals,
)
from headrace.cli.workers import Workers
from headrace.engine.cancel import cancel_and_wait
from headrace.engine.clock import SystemClock
from headrace.engine.errors import first
from headrace.engine.monitoring import Monitoring
from headrace.engine.runtime.garbage import rare_collections

#: Seconds between two looks at the sources.
INTERVAL = 0.5


@click.command()
@click.option("--processes", type=click.IntRange(1, 64), default=1, show_default=True, help="Processes to run.")
@click.option("--number", type=click.IntRange(0, 63), hidden=True, help="Run process NUMBER of these, and only it.")
@log_data_option
@config_option
@json_option
def bridge(processes: int, number: int | None, data: Path | None, config: Path | None, as_json: bool) -> None:
    """Take messages of devices into the log, until Ctrl-C: from MQTT, a Kinesis stream or HTTP.

    With [mqtt] in --config they come from that broker, with [kinesis_source] from that stream; with [listener] devices
    connect straight to headrace, with [http] they post. A message is acknowledged when it is in the log; a worker on
    the same Kafka, or on the same data folder, processes it. With --processes a broker shares its messages out among
    them.
    """
    wrong = Mistakes()
    setup = wrong.take(lambda: set_up(config))
    if setup is not None:
        wrong.take(lambda: check_sources(setup.settings, data, processes))
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
    asyncio.run(Bridge(setup, data, Share(number or 0, processes), as_json).run())


class Bridge:
    """One process of the bridge.

    Args:
        setup: what it is configured with.
        data: folder of the embedded log; None where the log is on Kafka.
        share: which of how many processes it is.
        as_json: end with one JSON object.
    """

    def __init__(self, setup: Setup, data: Path | None, share: Share, as_json: bool) -> None:
        self._setup = setup
        self._settings = setup.settings
        self._data = data
        self._share = share
        self._as_json = as_json
        self._clock = SystemClock()

    async def run(self) -> None:
        """Run every source until told to stop, then say what was done."""
        stop = stop_on_signals()
        screen, result = consoles(self._as_json)
        settings, names = self._settings, source_names(self._settings)
        monitoring = Monitoring(settings.monitor, expects=names, index=self._share.number)
        async with opened_sources(self._setup, self._data, self._share, monitoring, stop) as sources:
            if not sources:
                return
            began = self._clock.monotonic()
            try:
                with rare_collections(settings.runtime.collect_after):
                    await self._run(sources, monitoring, screen, stop)
            finally:
                self._report(sources, self._clock.monotonic() - began, result)

    async def _run(
        self, sources: Sequence[Source], monitoring: Monitoring, screen: Console, stop: asyncio.Event
    ) -> None:
        try:
            async with monitoring, asyncio.TaskGroup() as group:
                watching = group.create_task(self._watch(sources, monitoring, screen))
                running = [group.create_task(source.run(stop)) for source in sources]
                await asyncio.wait(running)
                await cancel_and_wait(watching)
        except ExceptionGroup as errors:
            raise first(errors) from errors

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
            click.echo(orjson.dumps({"process": self._share.number, "seconds": seconds, **found}).decode())
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
