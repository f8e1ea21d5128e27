"""Takes device messages from an MQTT broker into the log, and acknowledges them when they are there."""

import asyncio
import contextlib
from dataclasses import dataclass
from random import Random

import structlog
from pydantic import BaseModel, ConfigDict, Field, SecretStr

from headrace.connectors.mqtt.connection import BrokerAddress, MqttConnection
from headrace.connectors.mqtt.packets import Publish
from headrace.connectors.routed_intake import RoutedIntake
from headrace.connectors.topic_profile import TopicProfiles
from headrace.engine.clock import Clock
from headrace.engine.errors import Disconnected
from headrace.engine.intake import MessageIntake
from headrace.engine.metrics import Metrics

log = structlog.get_logger(__name__)

#: Batches that may wait behind the one being appended; beyond it the connection is not read.
MAX_WAITING_BATCHES = 4
#: Payload bytes that may wait; one message more than that is always taken, whatever its size.
MAX_WAITING_BYTES = 32 * 1024 * 1024
#: First and longest wait before connecting again, seconds; the wait is drawn between 0 and a doubling limit.
FIRST_BACKOFF = 0.2
LONGEST_BACKOFF = 30.0


class MqttSourceConfig(BaseModel):
    """Configuration of `MqttSource`.

    Args:
        host, port: the broker.
        username, password: who we are there.
        client_id: names the session that the broker keeps for us; one running source per id.
        profiles: the topics to take; they must not overlap.
        linger: longest wait for more messages before a batch is appended, seconds.
        max_batch: messages appended at once.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    host: str = "127.0.0.1"
    port: int = Field(default=1883, ge=1, le=65535)
    username: str | None = None
    password: SecretStr | None = None
    client_id: str = Field(default="headrace", min_length=1, max_length=128)
    profiles: TopicProfiles
    linger: float = Field(default=0.015, ge=0, le=1)
    max_batch: int = Field(default=2000, ge=1, le=50_000)

    @property
    def address(self) -> BrokerAddress:
        """Where to connect."""
        password = None if self.password is None else self.password.get_secret_value()
        return BrokerAddress(self.host, self.port, self.username, password)


@dataclass(frozen=True, slots=True)
class MqttStatistics:
    """What a source did so far, counts.

    Args:
        received: messages that came, repeats included.
        appended: messages put into the log.
        unmatched: of these, messages on topics that no profile takes.
        repeated: redeliveries of messages already appended; acknowledged and dropped.
        reconnects: connections lost.
    """

    received: int
    appended: int
    unmatched: int
    repeated: int
    reconnects: int


class MqttSource:
    """Subscribes with QoS 1 and a session that the broker keeps, and appends what comes, in order.

    A message is acknowledged only when it is in the log, so one that was not is sent again: at least once. What waits
    here is bounded; behind that TCP holds the broker back. A lost connection is made again, for ever.

    Args:
        config: broker, topics, batches.
        intake: appends; `headrace.engine.intake.Intake`.
        clock: for waiting.
        metrics: told of unknown topics.
        random: jitter of the backoff.
    """

    def __init__(
        self,
        config: MqttSourceConfig,
        intake: MessageIntake,
        clock: Clock,
        random: Random | None = None,
        metrics: Metrics | None = None,
    ) -> None:
        self._config = config
        self._intake = RoutedIntake(intake, config.profiles, metrics)
        self._clock = clock
        self._random = random or Random()
        self._connection: MqttConnection | None = None
        self._waiting: list[tuple[MqttConnection, Publish]] = []
        self._waiting_bytes = 0
        self._arrived, self._full = asyncio.Event(), asyncio.Event()
        self._subscribed = asyncio.Event()
        self._stopping = False
        # Appended, but their connection was gone before the PUBACK; by packet id. The broker sends them again.
        self._in_doubt: dict[int, Publish] = {}
        self._received = self._appended = self._repeated = self._reconnects = 0

    def statistics(self) -> MqttStatistics:
        """A snapshot of the counters."""
        return MqttStatistics(self._received, self._appended, self._intake.unknown, self._repeated, self._reconnects)

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
                self._reconnects += self._connection is not None
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
            filters=[profile.topic_filter for profile in self._config.profiles],
            deliver=self._receive,
        )
        if not self._connection.session_present:
            self._in_doubt.clear()
        self._subscribed.set()
        await self._connection.wait_closed()

    def _receive(self, connection: MqttConnection, message: Publish) -> None:
        self._received += 1
        self._waiting.append((connection, message))
        self._waiting_bytes += len(message.payload)
        self._arrived.set()
        if len(self._waiting) >= self._config.max_batch:
            self._full.set()
        if self._too_much(1.0):
            connection.pause()

    def _too_much(self, share: float) -> bool:
        limit = MAX_WAITING_BATCHES * self._config.max_batch * share
        return len(self._waiting) >= limit or self._waiting_bytes >= MAX_WAITING_BYTES * share

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
        fresh: list[Publish] = []
        for connection, message in batch:
            if self._is_repeated(message):
                self._repeated += 1
            else:
                fresh.append(message)
                if connection.closed and message.packet_id:
                    self._in_doubt[message.packet_id] = message
        await self._intake.append([message.topic for message in fresh], [message.payload for message in fresh])
        self._appended += len(fresh)
        packet_ids: dict[MqttConnection, list[int]] = {}
        for connection, message in batch:
            if connection.closed and message.packet_id:
                self._in_doubt[message.packet_id] = message
            elif message.packet_id:
                packet_ids.setdefault(connection, []).append(message.packet_id)
        for connection, ids in packet_ids.items():
            connection.acknowledge(ids)

    def _is_repeated(self, message: Publish) -> bool:
        """Whether the broker sent again what is in the log and could not be acknowledged.

        Only then: once a PUBACK is on its way the id may soon name another message with the same bytes.
        """
        doubted = self._in_doubt.pop(message.packet_id, None) if message.packet_id else None
        return doubted is not None and message.duplicate and doubted[:2] == message[:2]
