"""Delivery of notifications as a service: the channels that are configured, on one log."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from headrace.cli.settings import Settings
from headrace.connectors.notifications.channels import open_channels
from headrace.connectors.notifications.content import make_renderer
from headrace.connectors.notifications.delivery import Delivery
from headrace.connectors.notifications.journal import GROUP
from headrace.engine.clock import Clock, SystemClock
from headrace.engine.collectors import Reads
from headrace.engine.errors import ConfigError
from headrace.engine.file_lock import LockHeld, lock_file
from headrace.engine.log import Log
from headrace.engine.monitoring import Monitoring

#: Seconds between two tries to take over from another process.
TAKE_OVER = 0.5


class NotifyService:
    """One delivery, as `headrace.cli.sink_services.Service`. On the embedded log the others stand by.

    Args:
        settings: configuration.
        folder: data folder; None on Kafka, where each process has some of the recipients.
        log: with the topics of delivery.
        clock: dates what is written.
        monitoring: of the process.
    Raises:
        ConfigError: a template is wrong.
    """

    name = GROUP

    def __init__(self, settings: Settings, folder: Path | None, log: Log, clock: Clock, monitoring: Monitoring) -> None:
        self._settings = settings
        self._folder = folder
        self._log = log
        self._clock = clock
        self._real = SystemClock()
        self._monitoring = monitoring
        self._renderer = make_renderer(settings.channels)
        self._delivery: Delivery | None = None
        self._state, self._other = "connecting", ""
        self._before = (0, self._real.monotonic())

    async def run(self, stop: asyncio.Event) -> None:
        """Work until `stop` is set; then attempts under way may end.

        Raises:
            ConfigError: a channel cannot be opened, or the folder cannot be written.
            LogError: the log failed.
        """
        async with self._sole(stop) as alone, open_channels(self._settings.channels, self._clock) as channels:
            if not alone:
                return
            metrics, health = self._monitoring.metrics, self._monitoring.health
            self._delivery = Delivery(
                self._log, channels, self._renderer.render, self._clock, self._settings.delivery,
                metrics=metrics, health=health,
            )  # fmt: skip
            self._state = "running"
            await self._delivery.run(stop)

    async def status(self) -> Mapping[str, Any]:
        """For one line."""
        if self._delivery is None:
            return {"state": self._state, **({"why": self._other} if self._other else {})}
        now, seconds = self._delivery.statistics(), self._real.monotonic()
        sent, since = self._before
        self._before = (now.sent, seconds)
        rate = round((now.sent - sent) / max(seconds - since, 1e-3))
        trouble = {"why": self._delivery.trouble} if self._delivery.trouble else {}
        return {"messages/s": rate, "waiting": now.waiting, "sent": now.sent, "dead": now.dead, **trouble}

    def statistics(self) -> Mapping[str, Any]:
        """What it has done."""
        return {} if self._delivery is None else self._delivery.summary()

    @property
    def reads(self) -> Reads:
        """What it reads of the log."""
        return Reads(
            self.name,
            lambda: self._delivery.targets if self._delivery else (),
            lambda: self._delivery.trouble if self._delivery else "",
        )

    @asynccontextmanager
    async def _sole(self, stop: asyncio.Event) -> AsyncIterator[bool]:
        """Wait until no other process delivers from the folder; False if `stop` came first."""
        if self._folder is None:
            yield True
            return
        while not stop.is_set():
            try:
                file = lock_file(self._folder / "notify.lock")
            except LockHeld as held:
                self._state, self._other = "standby", f"process {held.owner} delivers from {self._folder}"
                await self._real.sleep(TAKE_OVER)
                continue
            except OSError as error:
                raise ConfigError(f"data folder {self._folder} cannot be written: {error.strerror}") from error
            self._other = ""
            with file:
                yield True
                return
        yield False
