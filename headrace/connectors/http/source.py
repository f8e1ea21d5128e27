"""HTTP ingest: whatever devices post goes into the log, and is answered when it is there."""

import asyncio
import contextlib
import errno
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import structlog

from headrace.connectors.http.access import Access
from headrace.connectors.http.appender import Appender
from headrace.connectors.http.batches import Batches
from headrace.connectors.http.delivery import Delivery
from headrace.connectors.http.guard import Guard
from headrace.connectors.http.idempotency import IdempotencyKeys
from headrace.connectors.http.judge import Judge, NewestValues
from headrace.connectors.http.room import Room
from headrace.connectors.http.routing import Routing
from headrace.connectors.http.settings import HttpSettings
from headrace.connectors.http.singles import Singles
from headrace.connectors.http.verdicts import Verdicts
from headrace.connectors.mqtt.descriptors import queue_up, room
from headrace.connectors.topic_routes import TopicRoutes
from headrace.engine.cancel import cancel_and_wait
from headrace.engine.clock import Clock
from headrace.engine.errors import ConfigError, first
from headrace.engine.health import Health, Progress
from headrace.engine.intake import Intake
from headrace.engine.log import Log, TopicSpec
from headrace.engine.metrics import Metrics
from headrace.schemas.device_type import DeviceType

log = structlog.get_logger(__name__)

#: Seconds between two looks at the figures.
TICK = 0.5
#: Seconds that a stop may take for what is in hand.
STOP_TIMEOUT = 10.0


@dataclass(frozen=True, slots=True)
class HttpStatistics:
    """What the source did so far, counts.

    Args:
        connections: now.
        received: messages taken.
        appended: of these, in the log.
        commits: in which they came there.
        refused: connections that were too many or too slow.
        waiting_bytes: of requests in hand, now.
    """

    connections: int
    received: int
    appended: int
    commits: int
    refused: int
    waiting_bytes: int


class HttpSource:
    """Serves HTTP until told to stop. At least once: who got no answer sends again; with an `Idempotency-Key` once.

    Messages of one connection are appended in the order in which they came. What requests hold is bounded in bytes and
    number; behind that they are told to come later, before their bodies are read.

    Args:
        settings: where to listen, who may post, limits.
        intake: appends.
        log: of what ingest says, and of answers under idempotency keys.
        judge: refuses before the append what ingest would refuse.
        routes: what topics lead to.
        device_types: by name.
        group: that ingest reads in.
        clock: for waiting and times.
        values: the newest, where a database has them.
        metrics, health: told how it goes; ones of its own if left out.
        on_listening: told the port as soon as clients can connect.
    """

    name = "http"

    def __init__(
        self,
        settings: HttpSettings,
        intake: Intake,
        log: Log,
        judge: Judge,
        routes: TopicRoutes,
        device_types: Mapping[str, DeviceType],
        group: str,
        clock: Clock,
        *,
        values: NewestValues | None = None,
        metrics: Metrics | None = None,
        health: Health | None = None,
        on_listening: Callable[[int], None] | None = None,
    ) -> None:
        self._settings = settings
        self._clock = clock
        self._metrics = metrics = metrics or Metrics()
        self._health = health = health or Health(clock, expects=[self.name])
        self._room = Room(settings.max_requests, settings.max_waiting_bytes, clock)
        self._appender = Appender(intake, clock)
        self._verdicts = Verdicts(log, group, clock)
        self._keys = IdempotencyKeys(log, clock, seconds=settings.idempotency, most=settings.max_keys)
        delivery = Delivery(self._appender, self._verdicts, clock, settings.append_timeout)
        singles = Singles(settings, self._room, judge, routes, device_types, delivery, self._keys, clock, metrics)
        batches = Batches(settings, self._room, judge, device_types, delivery, self._keys, clock, metrics)
        self._routing = Routing(settings, Access(settings.api_keys), singles, batches, values, health, metrics)
        self._space = room(settings.max_connections)
        self._guard = Guard(self._routing.handle, settings, clock, self._space.clients, settings.tls())
        self._on_listening = on_listening
        self._listening: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    @staticmethod
    def topic_specs() -> list[TopicSpec]:
        """The topics it needs beside those of the intake and of the agents."""
        return IdempotencyKeys.topic_specs()

    def statistics(self) -> HttpStatistics:
        """A snapshot of the counters."""
        appender, guard = self._appender, self._guard
        return HttpStatistics(
            len(guard.open), appender.taken, appender.appended, appender.commits, guard.refused, self._room.bytes
        )

    def progress(self) -> Progress:
        """How far it has come, for health: what waits for the log is still to do."""
        return Progress(self._appender.appended, self._appender.taken - self._appender.appended)

    async def wait_listening(self) -> int:
        """Wait until clients can connect; the port."""
        return await asyncio.shield(self._listening)

    async def run(self, stop: asyncio.Event) -> None:
        """Take requests until `stop` is set; then answer those in hand.

        Raises:
            LogError: an append failed; nothing of it was answered as done.
            ConfigError: the port is taken.
        """
        server: asyncio.Server | None = None
        try:
            await self._keys.restore()
            async with asyncio.TaskGroup() as group:
                appending = group.create_task(self._appender.run())
                others = [group.create_task(each) for each in (self._verdicts.run(), self._guard.watch(), self._tell())]
                server = await self._listen()
                await stop.wait()
                server.close()
                self._guard.stopping = self._routing.stopping = True
                await self._finish()
                self._appender.close()
                await asyncio.wait([appending], timeout=STOP_TIMEOUT)
                await cancel_and_wait(appending, *others)
        except ExceptionGroup as errors:
            raise first(errors) from None
        finally:
            if server is not None:
                server.close()
            await self._guard.end()

    async def _finish(self) -> None:
        """Let what is in hand be answered, then say goodbye to everybody."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(STOP_TIMEOUT):
                while any(connection.has_request() for connection in self._guard.open):
                    await self._clock.sleep(0.01)
                return
        log.warning("http_stopped_unfinished", seconds=STOP_TIMEOUT)

    async def _listen(self) -> asyncio.Server:
        loop, settings = asyncio.get_running_loop(), self._settings
        try:
            server = await loop.create_server(self._guard, settings.host, settings.port, backlog=self._space.accepted)
        except OSError as error:
            is_taken = error.errno == errno.EADDRINUSE
            what = "is taken; set another http.port" if is_taken else f"cannot be listened on: {error}"
            raise ConfigError(f"http: {settings.host}:{settings.port} {what}") from error
        queue_up(server)
        if "max_connections" in settings.model_fields_set and self._space.clients < settings.max_connections:
            log.warning("http_few_descriptors", clients=self._space.clients, wanted=settings.max_connections)
        self._health.ready(self.name)
        port = server.sockets[0].getsockname()[1]
        self._listening.set_result(port)
        if self._on_listening is not None:
            self._on_listening(port)
        return server

    async def _tell(self) -> None:
        before = 0
        while True:
            await self._clock.sleep(TICK)
            appended = self._appender.appended
            self._metrics.count("headrace_source_appended_total", appended - before, source=self.name)
            before = appended
            self._metrics.set("headrace_source_waiting_bytes", self._room.bytes, source=self.name)
            self._metrics.set("headrace_http_connections", len(self._guard.open))
