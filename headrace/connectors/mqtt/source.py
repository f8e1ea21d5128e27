"""Takes device messages from an MQTT broker into the log, and acknowledges them when they are there."""

import asyncio
import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Protocol, Self

import structlog
from pydantic import Field, model_validator

from headrace.connectors.mqtt.connection import MqttConnection
from headrace.connectors.mqtt.packets import Publish
from headrace.connectors.mqtt.settings import MqttSettings
from headrace.connectors.topic_profile import Route, TopicProfile, TopicRoutes
from headrace.engine.clock import Clock
from headrace.engine.errors import Disconnected
from headrace.engine.health import Health, Progress
from headrace.engine.metrics import Metrics

log = structlog.get_logger(__name__)

#: Batches that may wait behind the one being appended; beyond it the connection is not read.
MAX_WAITING_BATCHES = 4
#: First and longest wait before connecting again, seconds; the wait is drawn between 0 and a doubling limit.
FIRST_BACKOFF = 0.2
LONGEST_BACKOFF = 30.0


class MqttSourceConfig(MqttSettings):
    """Configuration of `MqttSource`: the broker, and the topics to take from it; they must not overlap."""

    profiles: tuple[TopicProfile, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _check_profiles(self) -> Self:
        for place, profile in enumerate(self.profiles):
            for other in self.profiles[place + 1 :]:
                if profile.name == other.name:
                    raise ValueError(f"two profiles are named {profile.name}")
                if profile.overlaps(other):
                    raise ValueError(f"profiles {profile.name} and {other.name} take the same topics")
        return self

    @property
    def filters(self) -> list[str]:
        """What to subscribe to."""
        start = "" if self.share is None else f"$share/{self.share}/"
        return [start + profile.topic_filter for profile in self.profiles]


class MessageIntake(Protocol):
    """The part of `headrace.engine.intake.Intake` that a source of messages needs."""

    async def append(
        self,
        device_ids: Sequence[bytes],
        payloads: Sequence[bytes],
        *,
        device_type: str,
        profile: str,
        sources: Sequence[bytes] | bytes = b"",
    ) -> None:
        """Append messages in order; when this returns they are in the log for good."""
        ...


@dataclass(frozen=True, slots=True)
class MqttStatistics:
    """What a source did so far, counts.

    Args:
        received: messages that came, repeats included.
        appended: messages put into the log.
        unmatched: messages on topics that no profile takes; acknowledged and dropped.
        repeated: redeliveries of messages already appended; acknowledged and dropped.
        reconnects: connections lost.
    """

    received: int
    appended: int
    unmatched: int
    repeated: int
    reconnects: int


@dataclass(slots=True)
class _Columns:
    """Messages of one profile, as `append` takes them."""

    device_ids: list[bytes] = field(default_factory=list)
    payloads: list[bytes] = field(default_factory=list)
    topics: list[bytes] = field(default_factory=list)


class MqttSource:
    """Subscribes with a session that the broker keeps, and appends what comes, in order.

    A message is acknowledged only when it is in the log, so one that was not is sent again: at least once. What waits
    here is bounded; behind that TCP holds the broker back. A lost connection is made again, for ever.

    Args:
        config: broker, topics, batches.
        intake: appends; `headrace.engine.intake.Intake`.
        clock: for waiting.
        random: jitter of the backoff.
        metrics, health: of the process; told how it goes.
    """

    name = "mqtt"

    def __init__(
        self,
        config: MqttSourceConfig,
        intake: MessageIntake,
        clock: Clock,
        random: Random | None = None,
        *,
        metrics: Metrics | None = None,
        health: Health | None = None,
    ) -> None:
        self._config = config
        self._intake = intake
        self._clock = clock
        self._random = random or Random()
        self._metrics = metrics or Metrics()
        self._health = health or Health(clock, expects=[self.name])
        self._routes = TopicRoutes(config.profiles)
        self._connection: MqttConnection | None = None
        self._waiting: list[tuple[MqttConnection, Publish]] = []
        self._waiting_bytes = 0
        self._arrived, self._full = asyncio.Event(), asyncio.Event()
        self._subscribed = asyncio.Event()
        self._stopping = False
        # Appended, but their connection was gone before the PUBACK; by packet id. The broker sends them again.
        self._in_doubt: dict[int, Publish] = {}
        self._received = self._appended = self._unmatched = self._repeated = self._reconnects = 0

    def statistics(self) -> MqttStatistics:
        """A snapshot of the counters."""
        return MqttStatistics(self._received, self._appended, self._unmatched, self._repeated, self._reconnects)

    def progress(self) -> Progress:
        """How far it has come, for health: what waits for the log is still to do."""
        return Progress(self._appended + self._unmatched + self._repeated, len(self._waiting))

    async def wait_subscribed(self) -> None:
        """Wait until the broker has the subscriptions: what is published from now on is kept for us."""
        await self._subscribed.wait()

    async def run(self, stop: asyncio.Event) -> None:
        """Receive until `stop` is set; then append and acknowledge what has come, and disconnect.

        The subscription stays, so the broker keeps what is published until the next run. Runs once per object. When
        cancelled, nothing more is acknowledged.

        Raises:
            LogError: an append failed; the connection is closed and nothing of that batch acknowledged.
            ConfigError: the broker refuses us.
        """
        try:
            async with asyncio.TaskGroup() as group:
                connecting = group.create_task(self._stay_connected())
                group.create_task(self._append_batches())
                await stop.wait()
                if self._connection is not None:
                    self._connection.pause()
                connecting.cancel()
                self._stopping = True
                self._arrived.set()
                self._full.set()
            if self._connection is not None:
                await self._connection.disconnect()
        except ExceptionGroup as group_error:
            raise group_error.exceptions[0] from None
        finally:
            if self._connection is not None:
                self._connection.abort()

    async def _stay_connected(self) -> None:
        backoff = FIRST_BACKOFF
        while True:
            since = self._clock.monotonic()
            try:
                await self._connect()
            except Disconnected as error:
                self._note_lost(str(error))
                log.warning("mqtt_disconnected", host=self._config.host, port=self._config.port, reason=str(error))
            if self._clock.monotonic() - since > LONGEST_BACKOFF:
                backoff = FIRST_BACKOFF
            await self._clock.sleep(self._random.uniform(0, backoff))
            backoff = min(2 * backoff, LONGEST_BACKOFF)

    async def _connect(self) -> None:
        """Connect and stay so until the connection breaks."""
        self._connection = None
        self._connection = await MqttConnection.open(
            self._config.address,
            client_id=self._config.client_id,
            keepalive=self._config.keepalive,
            filters=self._config.filters,
            qos=self._config.qos,
            deliver=self._receive,
        )
        if not self._connection.session_present:
            self._in_doubt.clear()
        self._subscribed.set()
        self._metrics.set("headrace_source_connected", 1, source=self.name)
        self._health.ready(self.name)
        await self._connection.wait_closed()

    def _note_lost(self, reason: str) -> None:
        self._metrics.set("headrace_source_connected", 0, source=self.name)
        self._health.not_ready(self.name, reason)
        if self._connection is not None:
            self._reconnects += 1
            self._metrics.count("headrace_source_reconnects_total", source=self.name)

    def _receive(self, connection: MqttConnection, message: Publish) -> None:
        self._received += 1
        self._connection = connection  # a kept session delivers before the subscription is answered
        self._waiting.append((connection, message))
        self._waiting_bytes += len(message.payload)
        self._arrived.set()
        if len(self._waiting) >= self._config.max_batch:
            self._full.set()
        if self._too_much(1.0):
            connection.pause()

    def _too_much(self, share: float) -> bool:
        limit = MAX_WAITING_BATCHES * self._config.max_batch * share
        return len(self._waiting) >= limit or self._waiting_bytes >= self._config.max_waiting_bytes * share

    async def _append_batches(self) -> None:
        while True:
            await self._arrived.wait()
            if not self._waiting:
                return  # woken without a message: stopping, and nothing is left
            if not self._full.is_set():
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(self._config.linger):
                        await self._full.wait()
            await self._append(self._take_batch())

    def _take_batch(self) -> list[tuple[MqttConnection, Publish]]:
        batch, self._waiting = self._waiting[: self._config.max_batch], self._waiting[self._config.max_batch :]
        self._waiting_bytes -= sum(len(message.payload) for _, message in batch)
        if not self._stopping:
            if not self._waiting:
                self._arrived.clear()
            if len(self._waiting) < self._config.max_batch:
                self._full.clear()
            if self._connection is not None and not self._too_much(0.5):
                self._connection.resume()
        return batch

    async def _append(self, batch: list[tuple[MqttConnection, Publish]]) -> None:
        """Append a batch, then acknowledge it in the order it came (MQTT 4.6)."""
        columns_of: dict[TopicProfile, _Columns] = {}
        for connection, message in batch:
            route = self._routes.find(message.topic)
            if route is None:
                self._drop_unmatched(message)
            elif self._is_repeated(message):
                self._repeated += 1
            else:
                self._sort_in(columns_of, route, message)
                if connection.closed and message.packet_id:
                    self._in_doubt[message.packet_id] = message
        for profile, columns in columns_of.items():
            await self._intake.append(
                columns.device_ids,
                columns.payloads,
                device_type=profile.device_type,
                profile=profile.name,
                sources=columns.topics,
            )
            self._appended += len(columns.payloads)
        self._count(len(batch), sum(len(columns.payloads) for columns in columns_of.values()))
        packet_ids: dict[MqttConnection, list[int]] = {}
        for connection, message in batch:
            if connection.closed and message.packet_id:
                self._in_doubt[message.packet_id] = message
            elif message.packet_id:
                packet_ids.setdefault(connection, []).append(message.packet_id)
        for connection, ids in packet_ids.items():
            connection.acknowledge(ids)

    def _count(self, taken: int, appended: int) -> None:
        self._metrics.count("headrace_source_messages_total", taken, source=self.name)
        self._metrics.count("headrace_source_appended_total", appended, source=self.name)
        self._metrics.set("headrace_source_waiting_bytes", self._waiting_bytes, source=self.name)

    def _is_repeated(self, message: Publish) -> bool:
        """Whether the broker sent again what is in the log and could not be acknowledged.

        Only then: once a PUBACK is on its way the id may soon name another message with the same bytes.
        """
        doubted = self._in_doubt.pop(message.packet_id, None) if message.packet_id else None
        return doubted is not None and message.duplicate and doubted[:2] == message[:2]

    def _drop_unmatched(self, message: Publish) -> None:
        if not self._unmatched:
            log.warning("mqtt_unmatched_topic", topic=message.topic.decode(errors="replace"))
        self._unmatched += 1

    @staticmethod
    def _sort_in(columns_of: dict[TopicProfile, _Columns], route: Route, message: Publish) -> None:
        columns = columns_of.setdefault(route.profile, _Columns())
        columns.device_ids.append(route.device_id)
        columns.payloads.append(message.payload)
        columns.topics.append(message.topic)
