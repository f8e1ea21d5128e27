"""One connection to an MQTT broker, for receiving: it acknowledges when told to, and can stop reading."""

import asyncio
import ssl
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import cycle
from typing import Any, NamedTuple, Self, TypeVar

from headrace.connectors.mqtt.codec.frames import Frames
from headrace.connectors.mqtt.codec.packets import (
    NONE,
    V5,
    Ack,
    Connack,
    Connect,
    Disconnect,
    Filter,
    Kind,
    Packet,
    Ping,
    Properties,
    Publish,
    Suback,
    Subscribe,
    Will,
)
from headrace.connectors.mqtt.codec.read import read, read_publish
from headrace.connectors.mqtt.codec.reasons import BadPacket, Reason
from headrace.connectors.mqtt.codec.write import PINGREQ, write, write_acks
from headrace.connectors.mqtt.refusals import explained, login_error, tls_error
from headrace.engine.errors import Disconnected

#: Seconds for the connection to open, and for an answer while nothing else comes.
ANSWER_TIMEOUT = 10.0
#: Seconds for the broker to close after we said goodbye.
CLOSE_TIMEOUT = 2.0
#: Seconds between two reads of a connection on which much comes. A broker that writes message by message wakes us as
#: often; what has come in this time is read at once.
BREATH = 0.001
LARGEST_ID = 65_535
_PUBLISH = int(Kind.PUBLISH)
#: Mosquitto 2.0.11 takes a session over without the DISCONNECT that says so.
_CLOSED = "closed by the broker, which says no reason; if it goes on, look for another client with the same client id"


@dataclass(frozen=True, slots=True)
class BrokerAddress:
    """Where a broker is and who we are there. The password stays out of `repr`."""

    host: str
    port: int = 1883
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    tls: ssl.SSLContext | None = field(default=None, repr=False)

    def __str__(self) -> str:
        return f"the MQTT broker at {self.host}:{self.port}"


class Login(NamedTuple):
    """How to introduce ourselves.

    Args:
        client_id: names the session.
        version: `V3` or `V5`.
        clean: start without what the broker kept for the client id.
        keepalive: seconds; a broker closes after one and a half times this without a packet.
        properties: of CONNECT, MQTT 5.
        will: published by the broker if we go without goodbye.
    """

    client_id: str
    version: int = V5
    clean: bool = False
    keepalive: int = 30
    properties: Properties = NONE
    will: Will | None = None


Messages = Sequence[Publish]
#: Takes the messages that one read brought, in order; called from the event loop, must not block.
Deliver = Callable[["MqttConnection", Messages], None]
#: Told of packet ids that the broker is done with (QoS 2); they are confirmed after it.
Release = Callable[[Sequence[int]], None]
Answer = TypeVar("Answer", Connack, Suback)


class MqttConnection(asyncio.Protocol):
    """A connection that is logged in. Make it with `open`. Nothing is acknowledged by itself."""

    def __init__(self, login: Login, deliver: Deliver, release: Release) -> None:
        self.version = login.version
        self._keepalive = login.keepalive
        self._deliver = deliver
        self._release = release
        self._loop = asyncio.get_running_loop()
        self._closed: asyncio.Future[None] = self._loop.create_future()
        self._answer: asyncio.Future[Packet] = self._loop.create_future()
        self._published: dict[int, asyncio.Future[int]] = {}
        #: Who waits for the answer to each ping under way, oldest first; nobody for those of the keep-alive.
        self._pinged: deque[asyncio.Future[None] | None] = deque()
        self._packet_ids = cycle(range(1, LARGEST_ID + 1))
        self._frames = Frames()
        self._reason: Exception | None = None
        self._heard = True
        self._pinger: asyncio.TimerHandle | None = None
        self._transport: asyncio.Transport
        self._leaving = False
        self.paused = False
        #: What the broker said to our CONNECT.
        self.welcome = Connack(False)
        #: When something came last, and when a message did, or reading was taken up; seconds of the event loop.
        self.heard_at = self.message_at = self._loop.time()

    @classmethod
    async def open(
        cls,
        address: BrokerAddress,
        login: Login,
        deliver: Deliver = lambda connection, messages: None,
        release: Release = lambda packet_ids: None,
    ) -> Self:
        """Connect and log in. Messages of a kept session may be delivered before this returns.

        Raises:
            Disconnected: no broker there, or it went away.
            VersionRefused: it does not speak this version of MQTT.
            ConfigError: it refuses us, and would again.
        """
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(ANSWER_TIMEOUT):
                _, self = await loop.create_connection(
                    lambda: cls(login, deliver, release), address.host, address.port, ssl=address.tls
                )
        except ssl.SSLError as error:
            raise tls_error(str(address), error) from error
        except (OSError, TimeoutError) as error:
            hint = (
                "; does it speak TLS on this port?" if address.tls and isinstance(error, ConnectionResetError) else ""
            )
            raise Disconnected(f"{address} cannot be reached: {error}{hint}") from error
        password = None if address.password is None else address.password.encode()
        client_id, version, clean, keepalive, properties, will = login
        hello = Connect(client_id, version, clean, keepalive, address.username, password, will, properties)
        try:
            self.welcome = await self._ask(write(hello, version), Connack)
            if self.welcome.reason:
                raise login_error(str(address), self.welcome.reason, self.welcome.properties)
        except Disconnected as error:
            self.abort()
            if isinstance(self._reason, ssl.SSLError):
                raise tls_error(str(address), self._reason) from error
            raise
        except (Exception, asyncio.CancelledError):
            self.abort()
            raise
        self._keepalive = min(self._keepalive, self.limit("server_keep_alive", 0) or self._keepalive)
        self._keep_alive()
        return self

    def limit(self, name: str, otherwise: int) -> int:
        """A limit that the broker told when we came, or what holds without (3.2.2.3 of MQTT 5)."""
        value: int = self.welcome.properties.get(name, otherwise)
        return value

    async def subscribe(self, filters: Sequence[Filter]) -> Sequence[int]:
        """Ask for messages; the granted QoS, or the reason of the refusal, per filter.

        Raises:
            Disconnected: the connection broke before the answer.
        """
        asked = Subscribe(next(self._packet_ids), filters)
        answer = await self._ask(write(asked, self.version), Suback)
        if len(answer.reasons) != len(filters):
            raise Disconnected("the MQTT broker answered another number of subscriptions than were asked for")
        return answer.reasons

    def send(self, topic: bytes, payload: bytes) -> None:
        """Publish with QoS 0; nothing on a closed connection."""
        if not self.closed:
            self._transport.write(write(Publish(topic, payload), self.version))

    async def publish(self, topic: bytes, payload: bytes, *, retain: bool = False) -> int:
        """Publish with QoS 1; the reason of the PUBACK. Waits for ever: limit it.

        Raises:
            Disconnected: the connection broke before the answer.
        """
        packet_id = next(self._packet_ids)
        answer: asyncio.Future[int] = self._loop.create_future()
        self._published[packet_id] = answer
        if not self.closed:
            self._transport.write(write(Publish(topic, payload, packet_id, 1, retain=retain), self.version))
        try:
            return await answer
        finally:
            self._published.pop(packet_id, None)

    async def ping(self) -> None:
        """Wait until the broker has answered a ping, sent now. For ever if it does not: limit it.

        Raises:
            Disconnected: the connection broke before the answer.
        """
        if self.closed:
            raise Disconnected("the connection to the MQTT broker is gone")
        answer: asyncio.Future[None] = self._loop.create_future()
        self._send_ping(answer)
        await answer

    @property
    def closed(self) -> bool:
        """Whether nothing can be sent any more."""
        return self._closed.done() or self._transport.is_closing()

    async def wait_closed(self) -> None:
        """Wait until the connection has gone.

        Raises:
            Disconnected: it broke; returns normally after `disconnect`.
        """
        await asyncio.shield(self._closed)
        if self._reason is not None:
            raise Disconnected(f"lost the connection to the MQTT broker: {self._reason}") from self._reason

    def acknowledge(self, messages: Messages) -> None:
        """Send PUBACK or PUBREC of each, in this order, in one write; nothing on a closed connection."""
        if self.closed:
            return
        once = [message.packet_id for message in messages if message.qos == 1]
        twice = [message.packet_id for message in messages if message.qos == 2]
        if once or twice:
            self._transport.write(write_acks(Kind.PUBACK, once) + write_acks(Kind.PUBREC, twice))

    def pause(self) -> None:
        """Read nothing more for now; the broker notices by TCP's own flow control. Pings go on."""
        if not self.paused and not self.closed:
            self.paused = True
            self._transport.pause_reading()

    def resume(self) -> None:
        """Read on."""
        if self.paused and not self.closed:
            self.paused = False
            self._heard = True
            self.heard_at = self.message_at = self._loop.time()
            self._transport.resume_reading()

    async def disconnect(self) -> None:
        """Say goodbye and wait until the broker has closed; a session that is not clean is kept there.

        Whatever still comes is neither delivered nor acknowledged. To close from this side, with something unread,
        would reset the connection and the PUBACKs under way; see test_stopping_finishes_what_came_and_is_quick.
        """
        if not self.closed:
            self._leaving = True
            self.resume()
            self._transport.write(write(Disconnect(), self.version))
            try:
                async with asyncio.timeout(CLOSE_TIMEOUT):
                    await asyncio.shield(self._closed)
            except TimeoutError:
                self.abort()

    def abort(self, reason: Exception | None = None) -> None:
        """Close at once, without goodbye."""
        self._reason = self._reason or reason
        self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        before, self._heard, self.heard_at = self.heard_at, True, self._loop.time()
        if self._leaving:
            return
        if self.heard_at - before < BREATH:
            self._transport.pause_reading()
            self._loop.call_later(BREATH, self._read_on)
        messages: list[Publish] = []
        released: list[int] = []
        try:
            for frame in self._frames.feed(data):
                if frame.head & 0xF0 == _PUBLISH:
                    messages.append(read_publish(frame.head, frame.body, self.version))
                else:
                    self._take(read(frame, self.version), released)
        except BadPacket as error:
            if self.version == V5 and not self.closed:
                self._transport.write(write(Disconnect(error.reason), self.version))
            self.abort(error)
            return
        if released:
            self._release(released)
            self._transport.write(write_acks(Kind.PUBCOMP, released))
        if messages:
            self.message_at = self.heard_at
            self._deliver(self, messages)

    def _read_on(self) -> None:
        if not self.paused and not self.closed:
            self._transport.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._pinger is not None:
            self._pinger.cancel()
        self._reason = self._reason or exc
        waiting: list[asyncio.Future[Any]] = [self._answer, *self._published.values(), *filter(None, self._pinged)]
        for each in waiting:
            if not each.done():
                each.set_exception(Disconnected(f"the MQTT broker closed the connection: {self._reason}"))
                each.exception()  # whoever asked may be gone
        if not self._closed.done():
            self._closed.set_result(None)

    def eof_received(self) -> None:
        if not self._leaving:
            self._reason = self._reason or ConnectionResetError(_CLOSED)

    async def _ask(self, packet: bytes, kind: type[Answer]) -> Answer:
        """Send `packet` and wait for the broker's answer to it, which may stand behind many messages."""
        if not self.closed:
            self._answer = self._loop.create_future()
            self._transport.write(packet)
        asked_at = self._loop.time()
        while not self._answer.done():
            silent = 0.0 if self.paused else self._loop.time() - max(asked_at, self.heard_at)
            if silent >= ANSWER_TIMEOUT:
                raise Disconnected("the MQTT broker does not answer")
            await asyncio.wait([self._answer], timeout=ANSWER_TIMEOUT - silent)
        answer = self._answer.result()
        if not isinstance(answer, kind):
            raise Disconnected(f"the MQTT broker answered with {answer} instead of {kind.__name__}")
        return answer

    def _take(self, packet: Packet, released: list[int]) -> None:
        match packet:
            case Ack(kind=Kind.PUBREL):
                released.append(packet.packet_id)
            case Ack(kind=Kind.PUBACK) if packet.packet_id in self._published:
                self._published.pop(packet.packet_id).set_result(packet.reason)
            case Ping(kind=Kind.PINGRESP) if self._pinged:
                asked = self._pinged.popleft()
                if asked is not None and not asked.done():
                    asked.set_result(None)
            case Disconnect():
                told = explained(packet.reason, packet.properties)
                if packet.reason == Reason.SESSION_TAKEN_OVER:
                    told += "; another client has the same client id: give each a [mqtt] client_id of its own"
                self.abort(ConnectionResetError(told))
            case Connack() | Suback() if not self._answer.done():
                self._answer.set_result(packet)

    def _keep_alive(self) -> None:
        if not self._heard and not self.paused:
            self.abort(TimeoutError(f"no answer to a ping for {self._keepalive / 2:g} s"))
            return
        self._heard = False
        self._send_ping(None)
        self._pinger = self._loop.call_later(self._keepalive / 2, self._keep_alive)

    def _send_ping(self, answer: asyncio.Future[None] | None) -> None:
        self._pinged.append(answer)
        self._transport.write(PINGREQ)
