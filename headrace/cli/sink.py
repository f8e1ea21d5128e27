"""`headrace sink`: the outbound connectors, on the log of a worker that runs elsewhere."""

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click
import orjson
from rich.console import Console
from rich.text import Text

from headrace.cli.listing import status_text
from headrace.cli.opened_log import OpenedLog, log_data_option
from headrace.cli.running import (
    Mistakes,
    Setup,
    config_option,
    consoles,
    json_option,
    set_up,
    stop_on_signals,
)
from headrace.cli.sink_services import Service, check_services, opened_services
from headrace.engine.cancel import cancel_and_wait
from headrace.engine.clock import SystemClock
from headrace.engine.errors import HeadraceError, first
from headrace.engine.monitoring import Monitoring
from headrace.engine.runtime.garbage import rare_collections

#: Seconds between two looks at the services.
INTERVAL = 0.5
#: Seconds that running writes get when the command is to end; what a database has not confirmed by then is rolled back.
LAST_WRITE = 10.0


@click.command()
@log_data_option
@config_option
@json_option
def sink(data: Path | None, config: Path | None, as_json: bool) -> None:
    """Store what is in the log, until Ctrl-C: in the database of [database], or in the data folder's own.

    Runs beside a worker on the same Kafka, or on the same data folder; `headrace demo` and `headrace replay` store by
    themselves. A database that is away is tried again for ever, and only storing waits. A second process of the same
    sink stands by, and takes over when the first one ends.
    """
    wrong = Mistakes()
    setup = wrong.take(lambda: set_up(config))
    if setup is not None:
        wrong.take(lambda: check_services(setup, data))
    wrong.check()
    assert setup is not None
    asyncio.run(Sinks(setup, data, as_json).run())


class Sinks:
    """One run of the command.

    Args:
        setup: what it is configured with.
        data: folder of the embedded log; None where the log is on Kafka.
        as_json: end with one JSON object.
    """

    def __init__(self, setup: Setup, data: Path | None, as_json: bool) -> None:
        self._setup = setup
        self._data = data
        self._as_json = as_json
        self._clock = SystemClock()
        self._standby: set[str] = set()

    async def run(self) -> None:
        """Run every service until told to stop, then say what was done."""
        stop = stop_on_signals()
        screen, result = consoles(self._as_json)
        settings = self._setup.settings
        monitoring = Monitoring(settings.monitor, expects=())
        async with opened_services(self._setup, self._data, monitoring, stop) as services:
            if not services:
                return
            into = "the server of [database] dsn" if settings.database.dsn else f"the database in {self._data}"
            names = ", ".join(service.name for service in services)
            source = self._data or settings.log.url
            click.echo(f"sink {names}: from {source} into {into}; Ctrl-C stops", err=True)
            began = self._clock.monotonic()
            try:
                with rare_collections(settings.runtime.collect_after):
                    await self._run(services, monitoring, screen, stop)
            finally:
                self._report(services, self._clock.monotonic() - began, result)

    async def _run(
        self, services: Sequence[Service], monitoring: Monitoring, screen: Console, stop: asyncio.Event
    ) -> None:
        try:
            async with monitoring, asyncio.TaskGroup() as group:
                watching = group.create_task(self._watch(services, screen))
                running = [group.create_task(service.run(stop)) for service in services]
                await stop.wait()
                await asyncio.wait(running, timeout=LAST_WRITE)
                await cancel_and_wait(*running, watching)
        except ExceptionGroup as errors:
            raise first(errors) from errors

    async def _watch(self, services: Sequence[Service], screen: Console) -> None:
        status = screen.status("connecting") if screen.is_terminal else None
        if status is not None:
            status.start()
        try:
            while True:
                await self._clock.sleep(INTERVAL)
                lines = []
                for service in services:
                    try:
                        found = await service.status()
                    except HeadraceError as error:  # the log is coming up or going down: the next look will tell
                        found = {"state": str(error)}
                    self._say_standby(service.name, found)
                    lines.append(f"{service.name}: {status_text(found)}")
                if status is not None:
                    status.update(Text("\n".join(lines)))
        finally:
            if status is not None:
                status.stop()

    def _say_standby(self, name: str, found: Mapping[str, Any]) -> None:
        """Once for every time: somebody who has started two should know why this one stores nothing."""
        if found.get("state") != "standby":
            self._standby.discard(name)
        elif name not in self._standby:
            self._standby.add(name)
            why = str(found.get("why", "")).removeprefix("standby: ")
            worker = None if self._data is None else OpenedLog.worker_of(self._data)
            hint = f"; {worker} works on {self._data}: a demo or replay stores by itself" if worker else ""
            click.echo(f"sink {name} stands by: {why}{hint}", err=True)

    def _report(self, services: Sequence[Service], seconds: float, result: Console) -> None:
        found = {service.name: dict(service.statistics()) for service in services}
        if self._as_json:
            click.echo(orjson.dumps({"seconds": round(seconds, 2), **found}).decode())
            return
        for name, counts in found.items():
            shown = {key: value for key, value in counts.items() if value or key == "stored"}
            result.print(f"{name}: {status_text(shown)} in {seconds:.1f} s", highlight=False, markup=False)
