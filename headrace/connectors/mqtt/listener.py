"""headrace's own MQTT listener: devices connect straight to it, and what it acknowledges is in the log.

It speaks MQTT 3.1.1 and 5 with QoS 0, 1 and 2, and is no general broker: telemetry goes into the log, commands go to
the devices they are for. Retained messages, shared subscriptions and subscriptions to anything else are refused.
"""

import asyncio
import errno
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import structlog

from headrace.connectors.mqtt.access import Identity
from headrace.connectors.mqtt.codec.packets import Connect, Filter, Publish, Will
from headrace.connectors.mqtt.codec.reasons import BadPacket, Reason
from headrace.connectors.mqtt.codec.topic import matches
from headrace.connectors.mqtt.command_delivery import CommandDelivery
from headrace.connectors.mqtt.commands import Commands
from headrace.connectors.mqtt.descriptors import queue_up, room
from headrace.connectors.mqtt.host_state import HostState
from headrace.connectors.mqtt.inflow import Inflow
from headrace.connectors.mqtt.listener_config import ListenerConfig
from headrace.connectors.mqtt.presence import MAX_WAITING, PresenceLog
from headrace.connectors.mqtt.reception import Reception
from headrace.connectors.mqtt.server_connection import ServerConnection
from headrace.connectors.mqtt.session import Session
from headrace.connectors.mqtt.sessions import Sessions
from headrace.connectors.mqtt.topic_intake import TopicIntake, append_until_taken
from headrace.engine.cancel import cancel_and_wait
from headrace.engine.clock import Clock
from headrace.engine.errors import ConfigError, first
from headrace.engine.health import Health, Progress
from headrace.engine.log import Log, TopicSpec
from headrace.engine.metrics import Metrics

log = structlog.get_logger(__name__)

#: Seconds between looks at keep-alives and at sessions that end.
TICK = 0.5
#: Bytes that a message costs here beside its own.
OVERHEAD = 300
#: Seconds that appends under way get when the listener is stopped.
STOP_TIMEOUT = 10.0


class RoutingIntake(TopicIntake, Protocol):
    """The part of `headrace.connectors.routed_intake.RoutedIntake` that the listener needs."""

    def takes(self, topic: bytes) -> bool:
        """Whether some profile takes the topic."""
        ...


@dataclass(frozen=True, slots=True)
class ListenerStatistics:
    """What a listener did so far, counts.

    Args:
        connections: now.
        received: messages taken.
        appended: of these, in the log.
        refused: packets or connections, for any reason.
        taken_over: connections that ended because their client id connected again.
        waiting_bytes: of messages that wait for the log, now.
    """

    connections: int
    received: int
    appended: int
    refused: int
    taken_over: int
    waiting_bytes: int


class _Message(NamedTuple):
    """A message with where its acknowledgement goes; without connection it is a will."""

    connection: ServerConnection | None
    publish: Publish
    is_command: bool

    @property
    def client_id(self) -> str:
        """Of who sent it; that of a will does not matter."""
        return self.connection.session.client_id if self.connection and self.connection.session else ""


class MqttListener:
    """Takes messages of devices into the log; QoS 1 and 2 are acknowledged when they are there, at least once.

    At QoS 2 a message that is sent again in the same session is not appended again. Sessions are kept in memory: after
    a crash of this process clients start anew, and what had no acknowledgement comes again. The messages of one client
    are appended in the order in which it sent them. While the log is slow, what waits is bounded by
    `max_waiting_bytes` and 4 KiB per connection; behind that clients wait, and nothing is dropped.

    Args:
        config: where to listen, who may do what, limits.
        intake: appends telemetry.
        log: for presence and commands.
        clock: for waiting and times.
        metrics, health: told how it goes; ones of its own if left out.
        host: says of us that we are there, to who subscribes to that.
    """

    name = "listener"

    def __init__(
        self,
        config: ListenerConfig,
        intake: RoutingIntake,
        log: Log,
        clock: Clock,
        *,
        metrics: Metrics | None = None,
        health: Health | None = None,
        host: HostState | None = None,
    ) -> None:
        self.config = config
        self._host = host
        self._metrics = metrics or Metrics()
        self._health = health or Health(clock, expects=[self.name])
        #: The clock's seconds, as of the last tick.
        self.now = clock.monotonic()
        self._room = room(config.max_connections)
        self.reception = Reception(config, self._room.clients)
        self._intake = intake
        self._clock = clock
        self._access = config.access()
        self._tls = config.tls()
        self._presence = PresenceLog(log, clock)
        self._commands = Commands(log, clock)
        self.desk = CommandDelivery(config.commands, clock)
        self.inflow: Inflow[_Message] = Inflow(
            self._append,
            self._go_on,
            clock,
            linger=config.linger,
            max_batch=config.max_batch,
            max_bytes=config.max_waiting_bytes,
        )
        self._connections: dict[ServerConnection, str] = {}
        self._held: dict[ServerConnection, None] = {}
        self._sessions = Sessions(self.desk.subscriptions, config.max_session_expiry, self._publish_will)
        self._servers: list[asyncio.Server] = []
        self._group: asyncio.TaskGroup | None = None
        self._listening: asyncio.Future[list[int]] = asyncio.get_running_loop().create_future()
        self.stopping = False
        self._received = self._appended = self._refused = self._taken_over = 0

    @staticmethod
    def topic_specs(partitions: int) -> list[TopicSpec]:
        """The topics it needs beside those of the intake."""
        return [*PresenceLog.topic_specs(partitions), *Commands.topic_specs(partitions)]

    def statistics(self) -> ListenerStatistics:
        """A snapshot of the counters."""
        return ListenerStatistics(
            len(self._connections),
            self._received,
            self._appended,
            self._refused,
            self._taken_over,
            self.inflow.waiting_bytes,
        )

    def progress(self) -> Progress:
        """How far it has come, for health: what waits for the log is still to do."""
        return Progress(self._appended, self._received - self._appended)

    async def wait_listening(self) -> list[int]:
        """Wait until clients can connect; the ports, first that without TLS."""
        return await asyncio.shield(self._listening)

    async def run(self, stop: asyncio.Event) -> None:
        """Take clients until `stop` is set; then append and acknowledge what has come, and say goodbye.

        Raises:
            LogError: an append failed; nothing of that batch was acknowledged.
            ConfigError: the port is taken.
        """
        try:
            positions = await self._commands.ends()
            async with asyncio.TaskGroup() as group:
                self._group = group
                inflow = group.create_task(self.inflow.run())
                presence = group.create_task(self._presence.queue.run())
                others = [
                    group.create_task(self._commands.follow(positions, self.desk.deliver)),
                    group.create_task(self._tick()),
                ]
                await self._listen()
                await stop.wait()
                self.stopping = True
                for server in self._servers:
                    server.close()
                for connection in self._connections:
                    connection.pause()
                self.inflow.close()
                await _finished(inflow)
                self._say_goodbye()
                self._presence.queue.close()
                await _finished(presence)
                for task in others:
                    task.cancel()
        except ExceptionGroup as errors:
            raise first(errors) from None
        finally:
            for server in self._servers:
                server.close()
            for connection in list(self._connections):
                connection.abort()

    async def _listen(self) -> None:
        loop, config = asyncio.get_running_loop(), self.config
        for port, tls in ((config.port, None), (config.tls_port, self._tls)):
            if port is None:
                continue
            more: dict[str, Any] = {"ssl": tls, "ssl_handshake_timeout": config.connect_timeout} if tls else {}
            try:
                server = await loop.create_server(
                    lambda: ServerConnection(self), config.host, port, backlog=self._room.accepted, **more
                )
            except OSError as error:
                what = "is taken" if error.errno == errno.EADDRINUSE else f"cannot be listened on: {error}"
                raise ConfigError(f"listener: {config.host}:{port} {what}") from error
            if not server.sockets:  # asyncio passes over sockets that cannot be made
                raise ConfigError(f"listener: {config.host}:{port} cannot be listened on: no file descriptor is left")
            queue_up(server)
            self._servers.append(server)
        asked = "max_connections" in self.config.model_fields_set
        if asked and self._room.clients < self.config.max_connections:
            log.warning("mqtt_few_descriptors", clients=self._room.clients, wanted=self.config.max_connections)
        self._health.ready(self.name)
        self._listening.set_result([server.sockets[0].getsockname()[1] for server in self._servers])

    def _say_goodbye(self) -> None:
        for connection in list(self._connections):
            connection.leave(Reason.SERVER_SHUTTING_DOWN)
            session = connection.session
            if session is not None and session.connection is connection:
                session.will = None
                self._note_disconnect(connection, session)

    # --- connections ---

    def connected(self, connection: ServerConnection) -> None:
        """A client has opened a connection; it is not known yet."""
        if self.stopping or len(self._connections) >= self._room.connections:
            self._refused += 1
            connection.abort()  # not even for a word is there room
        self._connections[connection] = ""

    def gone(self, connection: ServerConnection) -> None:
        """The connection is closed."""
        self._held.pop(connection, None)
        session = connection.session
        if session is not None and session.connection is connection:
            self._note_disconnect(connection, session)
            self._sessions.detach(session, self.now)
        self._connections.pop(connection, None)

    def count_refusal(self, error: BadPacket) -> None:
        """Something was refused."""
        self._refused += 1
        self._metrics.count("headrace_listener_refused_total", mqtt_reason=error.reason.name.lower())
        log.debug("mqtt_refused", reason=error.reason.name, detail=str(error))

    def open(self, connection: ServerConnection, connect: Connect) -> None:
        """A client asks to be let in; it is answered by `accept` or `refuse`."""
        assert self._group is not None
        self._group.create_task(self._open(connection, connect))

    async def _open(self, connection: ServerConnection, connect: Connect) -> None:
        try:
            if self.stopping:
                raise BadPacket(Reason.SERVER_SHUTTING_DOWN, "the listener is being stopped")
            if self._presence.queue.waiting_bytes >= MAX_WAITING:
                raise BadPacket(Reason.SERVER_BUSY, "the log is not keeping up")
            self.reception.check(connect, len(self._connections))
            client_id = self.reception.client_id(connect)
            identity = await self._access.identify(connect, client_id, connection.certificate)
            if connection.closing:
                return
            if connect.will is not None:
                topic = identity.own_topic(connect.will.topic, self.config.own_level)
                connect = connect._replace(will=connect.will._replace(topic=topic))
            self.reception.check_will(connect.will, connect.version, identity)
            session, present = self._session(connect, client_id, identity)
        except BadPacket as error:
            self.count_refusal(error)
            if not connection.closing:
                connection.refuse(error)
            return
        except Exception:
            log.exception("mqtt_connect_failed", peer=connection.peer)  # a bug; it concerns one client
            connection.abort()
            return
        self._connections[connection] = connection_id = self._presence.connection_id()
        self._presence.connected(identity.name, client_id, connection_id)
        connection.keep_alive = self.reception.silence(connect)
        connection.accept(session, identity, self.reception.connack(connect, client_id, present, session.expiry))

    def _session(self, connect: Connect, client_id: str, identity: Identity) -> tuple[Session, bool]:
        """The client's session, and whether it had one; whoever else is connected under its id has to go."""
        old = self._sessions.find(client_id, identity.name)
        if old is not None and old.connection is not None:
            before = old.connection
            self._taken_over += 1
            before.leave(Reason.SESSION_TAKEN_OVER)
            self._note_disconnect(before, old)
            self._sessions.detach(old, self.now)
        return self._sessions.open(connect, client_id, identity.name, self.now)

    def granted_expiry(self, asked: int) -> float:
        """Seconds that a session outlives its connection."""
        return self._sessions.granted(asked)

    def _note_disconnect(self, connection: ServerConnection, session: Session) -> None:
        connection_id = self._connections.get(connection)
        if connection_id:
            reason = {Reason.SUCCESS: "goodbye", Reason.UNSPECIFIED: "connection lost"}.get(
                connection.leave_reason, connection.leave_reason.name.lower().replace("_", " ").removeprefix("session ")
            )
            self._presence.disconnected(session.owner, session.client_id, connection_id, reason)
            self._connections[connection] = ""

    # --- sessions ---

    def _publish_will(self, session: Session, will: Will) -> None:
        self._presence.will(session.owner, session.client_id, self._presence.connection_id(), will)
        is_command = self.desk.is_command(will.topic.decode())
        if is_command or self._intake.takes(will.topic):
            message = Publish(will.topic, will.payload, qos=will.qos, properties=will.properties)
            self._received += 1
            self.inflow.put(_Message(None, message, is_command), len(will.payload) + OVERHEAD)

    def subscribe(self, session: Session, identity: Identity, wanted: Filter) -> int:
        """Subscribe; the granted QoS, at most 1, or the reason why not."""
        granted = self.desk.subscribe(session, identity, wanted)
        self._refused += granted >= Reason.UNSPECIFIED
        if self._host is not None and granted < Reason.UNSPECIFIED and matches(wanted.name, self._host.topic):
            asyncio.get_running_loop().call_soon(self._tell_state, session, self._host.online())  # behind the SUBACK
        return granted

    def _tell_state(self, session: Session, state: Publish) -> None:
        if session.connection is not None:
            session.connection.deliver(state)

    def command(self, topic: str, payload: bytes) -> None:
        """Publish to devices, at QoS 0; those that are not connected and subscribed do not get it."""
        self.desk.send(Publish(topic.encode(), payload))

    def unsubscribe(self, session: Session, name: str) -> bool:
        """Unsubscribe; whether there was such a subscription."""
        return self.desk.subscriptions.remove(session, name)

    def now_ms(self) -> int:
        """The clock's time of day."""
        return self._clock.now_ms()

    # --- messages ---

    def put(self, connection: ServerConnection, message: Publish, is_command: bool) -> None:
        """A client has sent this; it is acknowledged when it is in the log."""
        self._received += 1
        inflow, size = self.inflow, len(message.payload) + len(message.topic) + OVERHEAD
        inflow.put(_Message(connection, message, is_command), size)
        if inflow.full:
            connection.pause()
            self._held[connection] = None

    async def _append(self, batch: Sequence[_Message]) -> None:
        commands = [each for each in batch if each.is_command]
        telemetry = [each.publish for each in batch if not each.is_command] if commands else [m.publish for m in batch]
        if telemetry:
            await append_until_taken(self._intake, telemetry, self._clock)
        if commands:
            device_of = self.desk.subscriptions.device_of
            messages = [each.publish for each in commands]
            devices = [device_of(message.topic.decode()) for message in messages]
            await self._commands.append(devices, messages, [each.client_id for each in commands])
        self._appended += len(batch)
        self._metrics.count("headrace_source_appended_total", len(batch), source=self.name)
        answers: dict[ServerConnection, list[Publish]] = {}
        for connection, publish, _ in batch:
            if publish.qos and connection is not None:
                answers.setdefault(connection, []).append(publish)
        for connection, messages in answers.items():
            connection.appended(messages)

    def _go_on(self) -> None:
        """There is room for messages again."""
        held, self._held = self._held, {}
        if not self.stopping:
            for connection in held:
                connection.resume()

    # --- time ---

    async def _tick(self) -> None:
        while True:
            await self._clock.sleep(TICK)
            before, self.now = self.now, self._clock.monotonic()
            self._metrics.set("headrace_source_waiting_bytes", self.inflow.waiting_bytes, source=self.name)
            self._metrics.set("headrace_listener_connections", len(self._connections))
            self.reception.refill(self.now - before)
            for connection in list(self._connections):
                # What came since the tick before bears its time; this one may be late, if the process stood still.
                silent = before - connection.seen
                if connection.session is None:
                    if silent > self.config.connect_timeout and not connection.closing:
                        self._refused += 1
                        connection.abort()
                elif not connection.held and silent > connection.keep_alive:
                    connection.leave(Reason.KEEP_ALIVE_TIMEOUT)
            self._sessions.settle(self.now)


async def _finished(work: asyncio.Task[None]) -> None:
    """Wait until it is done, but not for ever; what is not appended then comes again."""
    await asyncio.wait([work], timeout=STOP_TIMEOUT)
    if not work.done():
        log.warning("mqtt_stopped_unfinished", seconds=STOP_TIMEOUT)
        await cancel_and_wait(work)
