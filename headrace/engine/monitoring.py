"""Everything that watches a worker, put together: metrics, health, what is read at intervals, and the HTTP server."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Self

from headrace.engine.clock import Clock, SystemClock
from headrace.engine.collectors import Collectors, LagCollector, Reads, ledger_collector
from headrace.engine.free_memory import keep_releasing
from headrace.engine.health import Health
from headrace.engine.heart import Heart
from headrace.engine.ledger import Ledger
from headrace.engine.log import Log
from headrace.engine.metrics import Metrics
from headrace.engine.monitor import Monitor, MonitorSettings
from headrace.engine.operator import Operator
from headrace.engine.queries import Queries
from headrace.engine.table_server import TableServer

if TYPE_CHECKING:
    from headrace.engine.app import App


class Monitoring:
    """Watches a worker for as long as the `async with` lasts, on the worker's event loop.

    A blocked event loop is noticed and logged in any case, and memory that is free is given back; the rest runs if a
    port is configured.

    Args:
        settings: whether and where to serve, and what is not healthy.
        clock: real time, even where the agents have another; the machine's own if left out.
        expects: components that are not ready until they say so.
        index: of the worker on this machine, from 0.
    """

    def __init__(
        self,
        settings: MonitorSettings,
        clock: Clock | None = None,
        *,
        expects: Iterable[str] = ("agents",),
        index: int = 0,
    ) -> None:
        self._settings = settings
        clock = clock or SystemClock()
        self.metrics = Metrics()
        self.health = Health(
            clock, stuck_after=settings.stuck_after, blocked_after=settings.blocked_after, expects=expects
        )
        self.monitor = Monitor(settings, self.metrics, self.health, clock, index=index)
        self._heart = Heart(self.health, self.metrics, clock)
        self._collectors = Collectors(self.metrics, clock)
        self._tasks: list[asyncio.Task[None]] = []
        self._group = asyncio.TaskGroup()

    def watch_lag(self, log: Log, reads: Sequence[Reads]) -> None:
        """Read lag and positions of these groups from now on; call before entering."""
        collector = LagCollector(log, self.metrics, self.health, reads)
        self._collectors.add("lag", collector.collect, self._settings.interval)

    def watch_ledger(self, read: Callable[[], Awaitable[Ledger]]) -> None:
        """Read the ledger from now on; call before entering."""
        self._collectors.add("ledger", ledger_collector(self.metrics, read), self._settings.interval)

    def answer_about(self, app: "App", operators: Sequence[Operator]) -> None:
        """Answer questions about the tables of these operators from now on; call on the app's event loop."""
        self.monitor.tables = TableServer(Queries(app, operators))

    async def __aenter__(self) -> Self:
        """Raises ConfigError when the address cannot be listened on."""
        self.monitor.start()
        await self._group.__aenter__()
        self._tasks.append(self._group.create_task(self._heart.run()))
        self._tasks.append(self._group.create_task(keep_releasing(SystemClock())))
        if self.monitor.port:
            self._tasks.append(self._group.create_task(self._collectors.run()))
        return self

    async def __aexit__(self, *error: object) -> None:
        for task in self._tasks:
            task.cancel()
        try:
            await self._group.__aexit__(None, None, None)
        finally:
            self.monitor.stop()
