"""Takes device messages from an MQTT broker into the log, and acknowledges them when they are there."""

import asyncio
import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

import structlog

from headrace.connectors.mqtt.codec.packets import V3, V5, Filter, Publish
from headrace.connectors.mqtt.connection import Login, MqttConnection
from headrace.connectors.mqtt.held import Held
from headrace.connectors.mqtt.host_state import HostState
from headrace.connectors.mqtt.probe import Probe, ProbeLost
from headrace.connectors.mqtt.pull import Pull
from headrace.connectors.mqtt.refusals import VersionRefused
from headrace.connectors.mqtt.settings import MqttSettings
from headrace.connectors.mqtt.subscribing import subscribe
from headrace.connectors.mqtt.topic_intake import TopicIntake, append_until_taken
from headrace.connectors.mqtt.unsettled import Unsettled
from headrace.connectors.mqtt.waiting import Batch, WaitingMessages
from headrace.engine.cancel import cancel_and_wait
from headrace.engine.clock import Clock
from headrace.engine.errors import ConfigError, Disconnected, first
from headrace.engine.health import Health, Progress
from headrace.engine.metrics import Metrics

log = structlog.get_logger(__name__)

#: First and longest wait before connecting again, seconds; the wait is drawn between 0 and a doubling limit.
FIRST_BACKOFF = 0.2
LONGEST_BACKOFF = 30.0
#: Seconds that appends under way get when the source is stopped.
STOP_TIMEOUT = 10.0
#: And the broker, to take what we say of our end.
GOODBYE_TIMEOUT = 1.0


@dataclass(frozen=True, slots=True)
class MqttStatistics:
    """What a source did so far, counts.

    Args:
        received: messages that came, repeats included.
        appended: messages that the log took.
        repeated: redeliveries of messages already appended; acknowledged and dropped.
        reconnects: connections lost.
        probes_lost: of these, connections given up because a message to ourselves did not come back.
        runs: with a schedule, how often it drained the session.
        failed_runs: tries of these that did not.
    """

    received: int
    appended: int
    repeated: int
    reconnects: int
    probes_lost: int
    runs: int = 0
    failed_runs: int = 0


class MqttSource:
    """Subscribes with a session that the broker keeps, and appends what comes, in order.

    A message is acknowledged only when it is in the log, so one that was not is sent again: at least once. What waits
    here is bounded; behind that TCP, and with MQTT 5 the receive maximum, holds the broker back. A lost connection is
    made again, for ever, and so is one on which messages to ourselves do not come back.

    With a schedule it is connected only for as long as the broker has something for it, at every tick: see `Pull`.

    Args:
        settings: broker, session, batches.
        filters: topic filters to subscribe to.
        intake: appends.
        clock: for waiting.
        random: jitter of the backoff.
        metrics, health: of the process; told how it goes.
        host: says of us whether we are there, where edge nodes wait for that.
    """

    name = "mqtt"

    def __init__(
        self,
        settings: MqttSettings,
        filters: Sequence[str],
        intake: TopicIntake,
        clock: Clock,
        random: Random | None = None,
        *,
        metrics: Metrics | None = None,
        health: Health | None = None,
        host: HostState | None = None,
    ) -> None:
        self._settings = settings
        self._address = settings.address
        self._host = host
        share = "" if settings.share is None else f"$share/{settings.share}/"
        # Retain handling 1: what is retained comes with the first subscription and not with every reconnect.
        self._filters = [Filter(share + each, settings.qos, retain_handling=1) for each in filters]
        if host is not None:
            self._filters.append(Filter(host.topic))
        self._intake = intake
        self._clock = clock
        self._random = random or Random()
        self._metrics = metrics or Metrics()
        self._health = health or Health(clock, expects=[self.name])
        self._version = V3 if settings.version == "3.1.1" else V5
        self._connection: MqttConnection | None = None
        self._waiting = WaitingMessages(settings.max_batch, settings.max_waiting_bytes, settings.linger)
        self._held = Held()
        self._subscribed = asyncio.Event()
        self._probe = Probe(f"{settings.probe}/{settings.client_id}", settings.keepalive, clock)
        self._unsettled = Unsettled()
        self._pull: Pull | None = None
        if settings.schedule is not None:
            self._pull = Pull(
                settings,
                self._open,
                self._abandon,
                lambda: self._received,
                self._round_trip,
                self._unsettled,
                clock,
                self._random,
                metrics=self._metrics,
                health=self._health,
                name=self.name,
            )
        self._received = self._appended = self._repeated = self._reconnects = self._probes_lost = 0

    def statistics(self) -> MqttStatistics:
        """A snapshot of the counters."""
        runs, failed = (0, 0) if self._pull is None else (self._pull.runs, self._pull.failures)
        return MqttStatistics(
            self._received, self._appended, self._repeated, self._reconnects, self._probes_lost, runs, failed
        )

    def progress(self) -> Progress:
        """How far it has come, for health: what waits for the log is still to do."""
        return Progress(self._appended + self._repeated, self._waiting.count)

    async def wait_subscribed(self) -> None:
        """Wait until the broker has the subscriptions: what is published from now on is kept for us."""
        await self._subscribed.wait()

    def command(self, topic: str, payload: bytes) -> None:
        """Publish to devices, at QoS 0, through the connection that there is; nothing without one."""
        if self._connection is not None:
            self._connection.send(topic.encode(), payload)

    async def run(self, stop: asyncio.Event) -> None:
        """Receive until `stop` is set; then append and acknowledge what has come, and disconnect.

        The subscription stays, so the broker keeps what is published until the next run. Runs once per object. When
        cancelled, nothing more is acknowledged.

        Raises:
            LogError: an append failed; the connection is closed and nothing of that batch acknowledged.
            ConfigError: the broker refuses us from the start.
        """
        try:
            async with asyncio.TaskGroup() as group:
                connecting = group.create_task(self._stay_connected() if self._pull is None else self._pull.run())
                appending = group.create_task(self._append_batches())
                await stop.wait()
                if self._connection is not None:
                    self._connection.pause()
                connecting.cancel()
                self._waiting.close()
                await asyncio.wait([appending], timeout=STOP_TIMEOUT)
                if not appending.done():
                    log.warning("mqtt_left_unacknowledged", messages=self._waiting.count)
                    await cancel_and_wait(appending)
            if self._connection is not None:
                await self._say_goodbye(self._connection)
                await self._connection.disconnect()
        except ExceptionGroup as errors:
            raise first(errors) from None
        finally:
            if self._connection is not None:
                self._connection.abort()

    async def _stay_connected(self) -> None:
        backoff = FIRST_BACKOFF
        while True:
            since = self._clock.monotonic()
            try:
                await self._connect()
            except (Disconnected, ConfigError) as error:
                refused = isinstance(error, ConfigError) and not self._subscribed.is_set()
                if refused or isinstance(error, VersionRefused):
                    raise
                self._note_lost(error)
            if self._clock.monotonic() - since > LONGEST_BACKOFF:
                backoff = FIRST_BACKOFF
            await self._clock.sleep(self._random.uniform(0, backoff))
            backoff = min(2 * backoff, LONGEST_BACKOFF)

    async def _connect(self) -> None:
        """Connect and stay so until the connection breaks."""
        connection = await self._open()
        watching = asyncio.create_task(self._watch(connection))
        announcing = asyncio.create_task(self._announce(connection))
        try:
            await connection.wait_closed()
        finally:
            await cancel_and_wait(watching)
            await cancel_and_wait(announcing)

    async def _announce(self, connection: MqttConnection) -> None:
        if self._host is not None:
            with contextlib.suppress(Disconnected):  # whoever waits for the connection says so
                await self._host.say_online(connection)

    async def _say_goodbye(self, connection: MqttConnection) -> None:
        if self._host is not None and not connection.closed:
            connection.resume()
            with contextlib.suppress(Disconnected, TimeoutError):
                async with asyncio.timeout(GOODBYE_TIMEOUT):
                    await self._host.say_offline(connection)

    async def _open(self) -> MqttConnection:
        """Connect, in the newest version that the broker speaks, and subscribe."""
        while True:
            try:
                return await self._open_session()
            except VersionRefused:
                if self._settings.version is not None or self._version == V3:
                    raise
                self._version = V3
                log.info("mqtt_version", version="3.1.1", reason="the broker does not speak MQTT 5")

    async def _open_session(self) -> MqttConnection:
        self._connection = None
        connection = await MqttConnection.open(self._address, self._login(), self._receive, self._release)
        self._connection = connection
        if not connection.welcome.session_present:
            self._held.clear()
            if self._subscribed.is_set() and self._settings.qos and self._settings.session_expiry:
                log.warning(
                    "mqtt_session_gone",
                    client_id=self._settings.client_id,
                    reason="the broker has forgotten our session: what was published since we left did not wait for us",
                    remedy="let it keep sessions over its restarts, and for longer than we are away",
                )
        try:
            probes = await subscribe(connection, self._filters, self._probe.topic.decode() if self._probes else "")
        except (ConfigError, Disconnected) as error:
            connection.abort(error)
            raise
        if self._probes and not probes:
            self._probe.give_up("the broker does not let us subscribe there")
        self._subscribed.set()
        self._metrics.set("headrace_source_connected", 1, source=self.name)
        self._health.ready(self.name)
        return connection

    def _abandon(self) -> None:
        """Give up a connection that is not ready yet."""
        if self._connection is not None:
            self._connection.abort()

    @property
    def _probes(self) -> bool:
        return bool(self._settings.probe) and not self._probe.hopeless

    def _login(self) -> Login:
        settings = self._settings
        limits = {"receive_maximum": settings.receive_maximum, "session_expiry_interval": settings.session_expiry}
        will = None if self._host is None else self._host.will()
        return Login(settings.client_id, self._version, False, settings.keepalive, limits, will)

    async def _watch(self, connection: MqttConnection) -> None:
        """Prove again and again that messages come through, and give up a connection on which they do not."""
        try:
            while self._probes:
                await self._prove(connection)
                await self._probe.wait_quiet(connection)
        except ProbeLost as error:
            connection.abort(error)
        except Disconnected:
            pass  # whoever waits for the connection says so

    async def _prove(self, connection: MqttConnection) -> None:
        try:
            await self._probe.prove(connection)
        except ProbeLost as error:
            self._probes_lost += 1
            self._metrics.count("headrace_source_probes_lost_total", source=self.name)
            self._health.broken(self.name, str(error), "look at the broker: its log, its access control, its queues")
            raise
        self._health.repaired(self.name)

    async def _round_trip(self, connection: MqttConnection) -> bool:
        """Let the broker answer, behind all acknowledgements sent so far; False if it did not because it may not."""
        if not self._probes:
            await connection.ping()
            return True
        await self._prove(connection)
        return self._probes

    def _note_lost(self, error: Disconnected | ConfigError) -> None:
        if self._connection is not None:
            self._reconnects += 1
            self._metrics.count("headrace_source_reconnects_total", source=self.name)
        self._metrics.set("headrace_source_connected", 0, source=self.name)
        self._health.not_ready(self.name, str(error))
        log.warning("mqtt_disconnected", host=self._address.host, port=self._address.port, reason=str(error))

    def _receive(self, connection: MqttConnection, messages: Sequence[Publish]) -> None:
        self._connection = connection  # a kept session may deliver before `open` returns
        if self._probes:
            messages = self._probe.take(messages)
        if self._host is not None:
            self._host.look_at(messages)
        self._received += len(messages)
        if self._pull is not None:
            self._unsettled.come(messages)
        self._waiting.put(connection, messages)

    def _release(self, packet_ids: Sequence[int]) -> None:
        self._held.release(packet_ids)
        self._unsettled.release(packet_ids)

    async def _append_batches(self) -> None:
        while (batch := await self._waiting.take()) is not None:
            await self._append(batch)

    async def _append(self, batch: Batch) -> None:
        """Append a batch, then acknowledge it in the order it came (MQTT 4.6)."""
        connection, messages = batch
        fresh = [message for message in messages if not self._is_repeated(connection, message)]
        if fresh:
            await append_until_taken(self._intake, fresh, self._clock)
        self._appended += len(fresh)
        self._repeated += len(messages) - len(fresh)
        if connection.closed:
            self._held.hold(fresh)
        else:
            self._held.hold([message for message in fresh if message.qos == 2])
        connection.acknowledge(messages)
        if self._pull is not None:
            self._unsettled.acknowledge(messages)
        self._count(len(fresh), len(messages) - len(fresh))

    def _is_repeated(self, connection: MqttConnection, message: Publish) -> bool:
        """Whether the broker sends again what is in the log."""
        if message.packet_id and self._held.is_repeated(message):
            return True
        # 3.1.1 sends what is retained with every subscription, ours after each reconnect included.
        again = message.retain and not message.duplicate and connection.welcome.session_present
        return again and connection.version == V3

    def _count(self, appended: int, repeated: int) -> None:
        self._metrics.count("headrace_source_appended_total", appended, source=self.name)
        self._metrics.count("headrace_source_repeated_total", repeated, source=self.name)
        self._metrics.set("headrace_source_waiting_bytes", self._waiting.bytes, source=self.name)
