"""`headrace notify`: sends notifications, on the log of a worker that runs elsewhere."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from math import inf
from pathlib import Path

import click
import orjson
from rich.console import Console
from rich.text import Text

from headrace.cli.listing import status_text
from headrace.cli.logs import open_log, topic_specs
from headrace.cli.notify_bounce import bounce
from headrace.cli.notify_service import NotifyService
from headrace.cli.notify_trial import try_
from headrace.cli.opened_log import UNLIMITED, log_data_option, log_folder
from headrace.cli.running import (
    Mistakes,
    Setup,
    config_option,
    consoles,
    finishes,
    json_option,
    set_up,
    stop_on_signals,
)
from headrace.connectors.notifications.content import make_renderer
from headrace.engine.cancel import cancel_and_wait
from headrace.engine.clock import SystemClock
from headrace.engine.embedded.log import EmbeddedLog
from headrace.engine.errors import first
from headrace.engine.kafka.instance import instance_name
from headrace.engine.log import Log
from headrace.engine.monitoring import Monitoring
from headrace.engine.runtime.garbage import rare_collections

#: Seconds between two looks at how it goes.
INTERVAL = 0.5
#: Seconds that attempts under way get when the command is to end.
LAST_ATTEMPTS = 12.0


@click.group(invoke_without_command=True)
@log_data_option
@config_option
@json_option
@click.pass_context
def notify(context: click.Context, data: Path | None, config: Path | None, as_json: bool) -> None:
    """Send notifications by the channels of [channels], until Ctrl-C.

    Runs beside a worker on the same Kafka, or on the same data folder; a demo, and a worker on a data folder, send by
    themselves where channels are configured. On Kafka several may run, and each has some of the people; on a data
    folder a second one stands by. See docs/guides/notification-delivery.md.
    """
    if context.invoked_subcommand is not None:
        return
    wrong = Mistakes()
    setup = wrong.take(lambda: set_up(config))
    if setup is not None:
        wrong.take(lambda: log_folder(setup.settings, data))
        wrong.take(lambda: make_renderer(setup.settings.channels))
    wrong.check()
    assert setup is not None
    asyncio.run(Notify(setup, data, as_json).run())


notify.add_command(bounce)
notify.add_command(try_)


class Notify:
    """One run of the command.

    Args:
        setup: what it is configured with.
        data: folder of the embedded log; None where the log is on Kafka.
        as_json: end with one JSON object.
    """

    def __init__(self, setup: Setup, data: Path | None, as_json: bool) -> None:
        self._settings = setup.settings
        self._data = log_folder(setup.settings, data)
        self._as_json = as_json
        self._clock = SystemClock()

    async def run(self) -> None:
        """Deliver until told to stop, then say what was done."""
        stop = stop_on_signals()
        screen, result = consoles(self._as_json)
        monitoring = Monitoring(self._settings.monitor, expects=())
        async with self._opened_log(monitoring) as log:
            # Takes as long as Kafka is away.
            if not await finishes(log.create_topics(topic_specs(self._settings)), stop):
                return
            service = NotifyService(self._settings, self._data, log, self._clock, monitoring)
            monitoring.watch_lag(log, [service.reads])
            click.echo(f"notify: from {self._data or self._settings.log.url}; Ctrl-C stops", err=True)
            began = self._clock.monotonic()
            try:
                with rare_collections(self._settings.runtime.collect_after):
                    await self._run(service, monitoring, screen, stop)
            finally:
                self._report(service, self._clock.monotonic() - began, result)

    async def _run(self, service: NotifyService, monitoring: Monitoring, screen: Console, stop: asyncio.Event) -> None:
        try:
            async with monitoring, asyncio.TaskGroup() as group:
                watching = group.create_task(self._watch(service, screen))
                running = group.create_task(service.run(stop))
                await stop.wait()
                await asyncio.wait([running], timeout=LAST_ATTEMPTS)
                await cancel_and_wait(running, watching)
        except ExceptionGroup as errors:
            raise first(errors) from errors

    async def _watch(self, service: NotifyService, screen: Console) -> None:
        status = screen.status("connecting") if screen.is_terminal else None
        told = ""
        if status is not None:
            status.start()
        try:
            while True:
                await self._clock.sleep(INTERVAL)
                found = await service.status()
                if status is not None:
                    status.update(Text(f"notify: {status_text(found)}"))
                # Once for every time: somebody who has started two should know why this one sends nothing.
                why = str(found.get("why", "")) if found.get("state") == "standby" else ""
                if why and why != told:
                    click.echo(f"notify stands by: {why}", err=True)
                told = why
        finally:
            if status is not None:
                status.stop()

    def _report(self, service: NotifyService, seconds: float, result: Console) -> None:
        found = dict(service.statistics())
        if self._as_json:
            click.echo(orjson.dumps({"seconds": round(seconds, 2), service.name: found}).decode())
            return
        shown = {name: value for name, value in found.items() if value or name == "sent"} or {"sent": 0}
        down = shown.pop("down", {})
        result.print(f"notify: {status_text(shown)} in {seconds:.1f} s", highlight=False, markup=False)
        for server, error in dict(down).items():
            result.print(f"notify: {server} is down: {error}", highlight=False, markup=False)

    @asynccontextmanager
    async def _opened_log(self, monitoring: Monitoring) -> AsyncIterator[Log]:
        settings = self._settings
        if self._data is not None:
            # What may be dropped is for the worker to say: its settings may keep more than ours.
            log: Log = EmbeddedLog(self._data, retention=inf, retention_bytes=UNLIMITED)
            try:
                yield log
            finally:
                await log.close()
            return
        with instance_name(settings.kafka.instance, NotifyService.name, settings.log.url) as name:
            kafka = settings.kafka.model_copy(update={"instance": name})
            log = await open_log(settings.model_copy(update={"kafka": kafka}), None, "notify", monitoring)
            try:
                yield log
            finally:
                await log.close()
