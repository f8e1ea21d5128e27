"""Takes by a schedule what a broker has kept for us: connect, drain the session, disconnect, wait for the next tick."""

import asyncio
from collections.abc import Awaitable, Callable
from random import Random

import structlog

from headrace.connectors.mqtt.connection import MqttConnection
from headrace.connectors.mqtt.schedule import Ticks, interval_ms
from headrace.connectors.mqtt.settings import MqttSettings
from headrace.connectors.mqtt.unsettled import Unsettled
from headrace.engine.cancel import cancel_and_wait
from headrace.engine.clock import Clock
from headrace.engine.errors import ConfigError, Disconnected
from headrace.engine.health import Health
from headrace.engine.metrics import Metrics

log = structlog.get_logger(__name__)

#: Times that a failed run is tried again before it is left to the next tick.
RETRIES = 2
#: Longest wait before the first of these, seconds; it doubles, and half of it is random.
FIRST_RETRY = 10.0
#: Seconds that what has come gets for being appended when a run has taken too long.
LAST_APPENDS = 1.0


class Pull:
    """Runs the schedule, one run after the other; at most once per tick, and at once when it starts.

    Nothing hangs on when a run takes the session for drained: what the broker keeps it sends in the next one.

    Args:
        settings: schedule, timeout, quality of service.
        open_session: connects and subscribes; gives the connection.
        abandon: gives up what `open_session` has begun, after it was cancelled.
        received: messages that came so far, count.
        round_trip: returns when the broker has answered something that was sent after all acknowledgements, and whether
            it did.
        unsettled: told of messages by the source.
        clock: for ticks and waiting.
        random: jitter of the backoff.
        metrics, health: of the process; told of every run.
        name: of the source.
    """

    def __init__(
        self,
        settings: MqttSettings,
        open_session: Callable[[], Awaitable[MqttConnection]],
        abandon: Callable[[], None],
        received: Callable[[], int],
        round_trip: Callable[[MqttConnection], Awaitable[bool]],
        unsettled: Unsettled,
        clock: Clock,
        random: Random,
        *,
        metrics: Metrics,
        health: Health,
        name: str,
    ) -> None:
        assert settings.schedule is not None
        self._interval = interval_ms(settings.schedule)
        self._timeout = settings.schedule_timeout
        self._open_session = open_session
        self._abandon = abandon
        self._received = received
        self._round_trip = round_trip
        self._unsettled = unsettled
        self._clock = clock
        self._random = random
        self._metrics = metrics
        self._health = health
        self._name = name
        #: Runs that drained the session, and tries that did not.
        self.runs = self.failures = 0

    async def run(self) -> None:
        """Run at every tick, until cancelled.

        Raises:
            ConfigError: the broker refuses us, and has never taken us.
        """
        ticks = Ticks(self._interval, self._clock)
        while True:
            await self._run_until_done()
            if passed := await ticks.wait_next():
                log.warning(
                    "mqtt_ticks_passed", ticks=passed, reason="the run took longer than the schedule's interval"
                )

    async def _run_until_done(self) -> None:
        longest = FIRST_RETRY
        for retry in range(RETRIES + 1):
            before = self._received()
            try:
                await self._run()
            except (Disconnected, ConfigError) as error:
                if isinstance(error, ConfigError) and not self.runs:
                    raise
                self._note_failure(error, self._received() - before, RETRIES - retry)
            else:
                self._note_run(self._received() - before)
                return
            if retry < RETRIES:
                await self._clock.sleep(self._random.uniform(longest / 2, longest))
                longest *= 2

    async def _run(self) -> None:
        """Take what the broker has kept, and leave.

        Raises:
            Disconnected: not everything was taken; it comes again, but for what is acknowledged.
            ConfigError: the broker refuses us.
        """
        connection: MqttConnection | None = None
        try:
            async with asyncio.timeout(self._timeout):
                await self._unsettled.wait_acknowledged()  # an earlier run may have left a batch to a log that is away
                self._unsettled.connect()
                connection = await self._open_session()
                await self._drain_unless_lost(connection)
            await connection.disconnect()
        except TimeoutError as error:
            if connection is None:
                self._abandon()
            else:
                await self._leave(connection)
            raise Disconnected(f"the session was not drained in schedule_timeout, {self._timeout:g} s") from error
        except Disconnected as error:
            if connection is not None:
                connection.abort(error)
            raise

    async def _drain_unless_lost(self, connection: MqttConnection) -> None:
        lost = asyncio.ensure_future(connection.wait_closed())
        draining = asyncio.ensure_future(self._drain(connection))
        try:
            await asyncio.wait([lost, draining], return_when=asyncio.FIRST_COMPLETED)
            if draining.done():
                draining.result()
            else:
                lost.result()
                raise Disconnected("the MQTT broker closed the connection")
        finally:
            await cancel_and_wait(lost, draining)

    async def _drain(self, connection: MqttConnection) -> None:
        """Return when the broker has nothing left for us, and what came is in the log and acknowledged.

        In rounds. Each begins when everything is acknowledged, so that the broker may send as many messages as it ever
        does without acknowledgement (its window), and ends with an answer to something that was sent behind the
        acknowledgements. As many as were unacknowledged at a time fit into the window. Had the broker still had
        something waiting, it would have filled the window before it answered; so a round with fewer messages than that,
        or none, was the last. This holds too where the answer overtakes messages that wait, and while devices publish.
        """
        drained = False
        while not drained:
            await self._unsettled.wait_none()
            before, most = self._unsettled.came, max(1, self._unsettled.most)
            drained = await self._round_trip(connection) and self._unsettled.came - before < most
        await self._unsettled.wait_none()
        # In the same step: a message that came now would be acknowledged behind our goodbye, and come again.
        connection.pause()

    async def _leave(self, connection: MqttConnection) -> None:
        """Acknowledge what has come, if that can be done soon, and disconnect."""
        connection.pause()
        try:
            async with asyncio.timeout(LAST_APPENDS):
                await self._unsettled.wait_acknowledged()
                await connection.disconnect()
        except TimeoutError as error:
            connection.abort(error)

    def _note_run(self, messages: int) -> None:
        self.runs += 1
        self._metrics.count("headrace_source_runs_total", source=self._name)
        self._metrics.set("headrace_source_run_messages", messages, source=self._name)
        self._metrics.set("headrace_source_run_timestamp_seconds", self._clock.now_ms() / 1000, source=self._name)
        self._metrics.set("headrace_source_connected", 0, source=self._name)
        self._health.repaired(self._name)
        self._health.ready(self._name)
        log.debug("mqtt_run", messages=messages)

    def _note_failure(self, error: Disconnected | ConfigError, messages: int, tries_left: int) -> None:
        self.failures += 1
        self._metrics.count("headrace_source_run_failures_total", source=self._name)
        self._metrics.set("headrace_source_connected", 0, source=self._name)
        then = "it is tried again soon" if tries_left else "it is left to the next tick"
        self._health.not_ready(self._name, f"the last run failed, {then}: {error}")
        log.warning("mqtt_run_failed", messages=messages, tries_left=tries_left, reason=str(error))
