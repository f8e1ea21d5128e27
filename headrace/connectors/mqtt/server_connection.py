"""One client of the listener: reads its packets, answers them, and closes when the protocol asks for it."""

import asyncio
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, cast

from headrace.connectors.mqtt.access import Identity
from headrace.connectors.mqtt.codec.frames import Frame, Frames
from headrace.connectors.mqtt.codec.from_client import check_message, check_reason
from headrace.connectors.mqtt.codec.packets import (
    NONE,
    V3,
    V5,
    Ack,
    Connack,
    Connect,
    Disconnect,
    Kind,
    Packet,
    Ping,
    Properties,
    Publish,
    Suback,
    Subscribe,
    Unsubscribe,
)
from headrace.connectors.mqtt.codec.read import read, read_publish
from headrace.connectors.mqtt.codec.reasons import BadPacket, Reason, violation
from headrace.connectors.mqtt.codec.topic import LONGEST_REMEMBERED
from headrace.connectors.mqtt.codec.write import PINGRESP, write, write_acks
from headrace.connectors.mqtt.reception import TOPIC_ALIAS_MAXIMUM
from headrace.connectors.mqtt.session import Session

if TYPE_CHECKING:
    from headrace.connectors.mqtt.listener import MqttListener

#: Read at once from a connection: little, so that thousands that flood take turns, and little more than is allowed to
#: wait for the log does. One buffer serves all: what is in it is taken out before the next read.
READ_BYTES = 4 * 1024
_BUFFER = memoryview(bytearray(READ_BYTES))
#: Topics remembered per connection; a device has one or two.
MAX_KNOWN_TOPICS = 256
#: Seconds that a client gets to read the last words.
CLOSE_TIMEOUT = 2.0
_PUBLISH = int(Kind.PUBLISH)
_PUBACK = bytes([Kind.PUBACK, 2])
#: Left out of a CONNACK that would be too large, in this order: a client is told when it matters.
_SPARED = (
    "topic_alias_maximum", "shared_subscription_available", "subscription_identifier_available", "maximum_packet_size",
)  # fmt: skip


class ServerConnection(asyncio.BufferedProtocol):
    """A connection to the listener, from its first byte on.

    Malformed packets and broken rules close this connection and touch no other.
    """

    __slots__ = (
        "_aliases", "_early", "_frames", "_host", "_inflow", "_known", "_opening", "_out", "_transport",
        "_unacknowledged", "_writing_paused", "closing", "identity", "keep_alive", "leave_reason", "limits", "paused",
        "seen", "session", "version",
    )  # fmt: skip

    def __init__(self, host: "MqttListener") -> None:
        self._host = host
        self._inflow = host.inflow
        self._frames = Frames(host.reception.largest_packet)
        self._transport: asyncio.Transport
        self._early: list[Frame] = []
        self._out: list[bytes] = []
        #: By topic, whether it is a command (True) or telemetry (False); topics that it may publish to.
        self._known: dict[bytes, bool] = {}
        self._aliases: dict[int, bytes] = {}
        self._unacknowledged = 0
        self._opening = False
        self._writing_paused = False
        self.session: Session | None = None
        self.identity: Identity
        self.version = V3
        self.keep_alive = 0.0
        self.seen = host.now
        self.paused = False
        self.closing = False
        self.leave_reason = Reason.UNSPECIFIED
        self.limits: Properties = NONE

    # --- asyncio ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._host.connected(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self.closing = True
        self._host.gone(self)

    def get_buffer(self, sizehint: int) -> memoryview:
        return _BUFFER

    def buffer_updated(self, nbytes: int) -> None:
        if self.session is not None:
            self.seen = self._host.now  # until then `connect_timeout` counts from the first byte
        try:
            if self.session is None and not self._frames.waiting and not self._opening and _BUFFER[0] != Kind.CONNECT:
                raise violation("the first packet is not CONNECT")
            frames = self._frames.feed(bytes(_BUFFER[:nbytes]))
            if self._opening:
                self._early += frames
                self.pause()  # until it is let in
            else:
                self._take(frames)
        except BadPacket as error:
            self.fail(error)
        self.flush()

    def pause_writing(self) -> None:
        # It does not read what we answer: nothing more is taken from it either.
        self._writing_paused = True
        self.pause()

    def resume_writing(self) -> None:
        self._writing_paused = False
        self.resume()
        self.send_outbox()

    # --- what the listener asks for ---

    @property
    def certificate(self) -> Any:
        """Of the client, as `ssl` gives it; None without."""
        return self._transport.get_extra_info("peercert")

    @property
    def peer(self) -> str:
        """Where the client is."""
        found = self._transport.get_extra_info("peername")
        return f"{found[0]}:{found[1]}" if found else "?"

    def accept(self, session: Session, identity: Identity, connack: Connack) -> None:
        """Let the client in; what it sent meanwhile is taken now."""
        self.session, self.identity, self._opening = session, identity, False
        self.seen = self._host.now
        session.connection = self
        data = self._fitting(connack)
        if data is None:
            self.leave_reason = Reason.PACKET_TOO_LARGE
            self._close()
            return
        self._out.append(data)
        if session.outbox is not None:
            session.outbox.begin_again(self.window)
            self._send_outbox()
        early, self._early = self._early, []
        try:
            self._take(early)
        except BadPacket as error:
            self.fail(error)
        self.flush()
        self.resume()

    def refuse(self, error: BadPacket) -> None:
        """Say in a CONNACK why not, and close."""
        self._say_why(lambda more: Connack(False, error.reason, more), str(error))
        self._close()

    def fail(self, error: BadPacket) -> None:
        """Say why, as far as the version has words for it, and close; the will is due."""
        if self.closing:
            return
        self._host.count_refusal(error)
        self.leave_reason = error.reason
        if self.version == V5 and self.session is not None:
            self._say_why(lambda more: Disconnect(error.reason, more), str(error))
        self._close()

    def pause(self) -> None:
        """Read nothing more for now; the client notices by TCP's own flow control."""
        if not self.paused and not self._transport.is_closing():
            self.paused = True
            self._transport.pause_reading()

    def resume(self) -> None:
        """Read on, unless there is another reason not to."""
        held = self._inflow.full or self._host.stopping or self._writing_paused or self._opening
        crowded = self.version == V3 and self._unacknowledged >= self._host.config.max_inflight
        if self.paused and not held and not crowded and not self._transport.is_closing():
            self.paused = False
            self.seen = self._host.now
            self._transport.resume_reading()

    def appended(self, messages: Sequence[Publish]) -> None:
        """These, at QoS 1 or 2, are in the log for good: acknowledge them, in the order in which they came."""
        session = self.session
        assert session is not None
        if session.in_doubt and not self.closing:
            for message in messages:
                session.in_doubt.pop(message.packet_id, None)
        if self.closing:
            session.in_doubt |= {message.packet_id: message for message in messages if message.qos == 1}
        else:
            acks = [_PUBACK + message.packet_id.to_bytes(2) for message in messages if message.qos == 1]
            if acks:
                self._out += acks
                self._released(len(acks))
        for message in messages:
            if message.qos == 2 and message.packet_id in session.received:
                self._received(session, message.packet_id)
        self.flush()

    def _received(self, session: Session, packet_id: int) -> None:
        """A message of QoS 2 is in the log: PUBREC goes to where its session is connected now."""
        session.received[packet_id] = True
        if self.version == V3:
            self._released(1)  # it is not read while it has too many: its PUBREL must not be among what is not read
        if session.connection is not None:
            session.connection.tell(write_acks(Kind.PUBREC, (packet_id,)))
            if packet_id in session.released_early:
                session.connection._pubrel(session, packet_id)
                session.connection.flush()

    def tell(self, data: bytes) -> None:
        """Send with the next flush of this connection, or now if it is not in one."""
        if not self.closing:
            self._out.append(data)
            self.flush()

    def deliver(self, message: Publish) -> None:
        """Send a command of QoS 0; dropped if it is larger than the client takes, or if the client reads nothing."""
        if not self._writing_paused:
            data = write(message, self.version)
            if self._fits(data):
                self.tell(data)

    def send_outbox(self) -> None:
        """Send what waits, as far as the client's window goes."""
        if not self.closing:
            self._send_outbox()
            self.flush()

    @property
    def held(self) -> bool:
        """Whether it is not read because of others: its silence means nothing then."""
        return self.paused and not self._writing_paused

    @property
    def window(self) -> int:
        """Commands that the client takes without having acknowledged others."""
        return int(self.limits.get("receive_maximum", 20 if self.version == V3 else 65_535))

    def flush(self) -> None:
        """Send what there is to say."""
        if self._out:
            data = b"".join(self._out)
            self._out.clear()
            if not self._transport.is_closing():
                self._transport.write(data)

    def leave(self, reason: Reason) -> None:
        """End the connection from this side: with words in MQTT 5, without in 3.1.1."""
        if not self.closing:
            self.leave_reason = reason
            if self.version == V5 and self.session is not None:
                self._say_why(lambda more: Disconnect(reason, more))
            self._close()

    def abort(self) -> None:
        """Close at once."""
        self.closing = True
        self._transport.abort()

    # --- packets ---

    def _take(self, frames: Sequence[Frame]) -> None:
        for place, frame in enumerate(frames):
            if self.closing:
                return
            if self.session is None:
                self._open(frame)
                self._early += frames[place + 1 :]
                return
            if frame.head & 0xF0 == _PUBLISH:
                self._publish(read_publish(frame.head, frame.body, self.version))
            else:
                packet = read(frame, self.version)
                handler = _HANDLERS.get(type(packet))
                if handler is None:
                    raise violation(f"packet type {frame.head >> 4} is not for a client to send now")
                handler(self, packet)

    def _open(self, frame: Frame) -> None:
        """The first packet must be CONNECT (3.1)."""
        if frame.head & 0xF0 != Kind.CONNECT:
            raise violation("the first packet is not CONNECT")
        try:
            packet = read(frame, V3)
        except BadPacket as error:
            if error.reason == Reason.UNSUPPORTED_PROTOCOL_VERSION:
                level = frame.body[2 + int.from_bytes(frame.body[:2])] & 0x7F  # the upper bit says: a bridge
                self.version = V5 if level > V5 else V3
                self._host.count_refusal(error)
                self.refuse(error)
                return
            raise
        assert isinstance(packet, Connect)
        self.version, self.limits, self._opening = packet.version, packet.properties, True
        self._host.open(self, packet)

    def _publish(self, message: Publish) -> None:
        if message.properties is not NONE:
            message = self._without_alias(message)
        own_level = self._host.config.own_level
        if own_level is not None:
            message = message._replace(topic=self.identity.own_topic(message.topic, own_level))
        if message.retain and self.version == V5:
            raise BadPacket(Reason.RETAIN_NOT_SUPPORTED, "this is an ingest listener: it keeps no retained messages")
        if len(message.payload) > self._host.config.max_payload_bytes:
            raise BadPacket(Reason.PACKET_TOO_LARGE, f"over {self._host.config.max_payload_bytes} bytes of payload")
        is_command = self._known.get(message.topic)
        if is_command is None:
            try:
                is_command = self._decide(message.topic)
            except BadPacket as error:
                self._refuse(message, error)
                return
        if message.qos:
            if self._is_repeated(message):
                return
            self._unacknowledged += 1
            if self._unacknowledged > self._host.config.max_inflight:
                if self.version == V5:
                    raise BadPacket(
                        Reason.RECEIVE_MAXIMUM_EXCEEDED,
                        f"more than {self._host.config.max_inflight} messages without acknowledgement",
                    )
                self.pause()
        self._host.put(self, message, is_command)

    def _without_alias(self, message: Publish) -> Publish:
        check_message(message.properties)
        alias = message.properties.get("topic_alias")
        if alias is None:
            return message
        if alias > TOPIC_ALIAS_MAXIMUM:
            raise BadPacket(Reason.TOPIC_ALIAS_INVALID, f"topic alias {alias}; {TOPIC_ALIAS_MAXIMUM} is the largest")
        if message.topic:
            self._aliases[alias] = message.topic
            return message
        if alias not in self._aliases:
            raise violation(f"topic alias {alias} stands for no topic yet")
        return message._replace(topic=self._aliases[alias])

    def _decide(self, topic: bytes) -> bool:
        """Whether messages on `topic` are commands; remembered if it is short.

        Raises:
            BadPacket: the client may not publish there.
        """
        text = topic.decode()
        if not self.identity.may_publish(text):
            raise BadPacket(Reason.NOT_AUTHORIZED, f"{self.identity.name} may not publish to {text[:200]}")
        if len(self._known) >= MAX_KNOWN_TOPICS:
            self._known.clear()
        is_command = self._host.desk.is_command(text)
        if len(topic) <= LONGEST_REMEMBERED:
            self._known[topic] = is_command
        return is_command

    def _refuse(self, message: Publish, error: BadPacket) -> None:
        """Not taken: said so in the acknowledgement where there is one with a reason, otherwise by closing."""
        if self.version == V3 or not message.qos:
            raise error
        self._host.count_refusal(error)
        kind = Kind.PUBACK if message.qos == 1 else Kind.PUBREC
        self._out.append(write(Ack(kind, message.packet_id, error.reason), V5))

    def _is_repeated(self, message: Publish) -> bool:
        """Whether it is in the log, or on its way there, and only its acknowledgement is missing."""
        session = self.session
        assert session is not None
        if message.qos == 1:
            if session.in_doubt and session.is_repeated(message):
                self._out.append(write_acks(Kind.PUBACK, (message.packet_id,)))
                return True
            return False
        appended = session.received.get(message.packet_id)
        if appended is None:
            session.received[message.packet_id] = False
            return False
        if appended:
            self._out.append(write_acks(Kind.PUBREC, (message.packet_id,)))
        return True

    def _released(self, count: int) -> None:
        """So many messages are through."""
        self._unacknowledged = max(0, self._unacknowledged - count)
        if self.paused:
            self.resume()

    def _ack(self, packet: Ack) -> None:
        session = self.session
        assert session is not None
        check_reason(packet.kind, packet.reason)
        if packet.kind == Kind.PUBREL:
            self._pubrel(session, packet.packet_id)
        elif packet.kind == Kind.PUBACK:
            if session.outbox is not None and session.outbox.acknowledge(packet.packet_id):
                self._send_outbox()
        elif packet.kind == Kind.PUBREC and packet.reason < Reason.UNSPECIFIED:
            # Nothing goes out with QoS 2 here.
            unknown = Ack(Kind.PUBREL, packet.packet_id, Reason.PACKET_IDENTIFIER_NOT_FOUND)
            self._out.append(write(unknown, self.version))

    def _pubrel(self, session: Session, packet_id: int) -> None:
        """The client releases an identifier of QoS 2; one whose message is on its way into the log has to wait."""
        if session.received.get(packet_id) is False:
            session.released_early.add(packet_id)
            return
        session.released_early.discard(packet_id)
        known = session.received.pop(packet_id, None) is not None
        if known and self.version == V5:
            self._released(1)
        reason = Reason.SUCCESS if known else Reason.PACKET_IDENTIFIER_NOT_FOUND
        self._out.append(write(Ack(Kind.PUBCOMP, packet_id, reason), self.version))

    def _send_outbox(self) -> None:
        if self.session is not None and self.session.outbox is not None and not self._writing_paused:
            for message in self.session.outbox.to_send(self._host.now_ms()):
                data = write(message, self.version)
                if self._fits(data):
                    self._out.append(data)
                else:
                    self.session.outbox.acknowledge(message.packet_id)

    def _subscribe(self, packet: Subscribe) -> None:
        if "subscription_identifier" in packet.properties:
            raise BadPacket(Reason.SUBSCRIPTION_IDENTIFIERS_NOT_SUPPORTED, "subscription identifiers are not supported")
        assert self.session is not None
        reasons = [self._host.subscribe(self.session, self.identity, each) for each in packet.filters]
        self._out.append(write(Suback(Kind.SUBACK, packet.packet_id, reasons), self.version))

    def _unsubscribe(self, packet: Unsubscribe) -> None:
        assert self.session is not None
        had = [self._host.unsubscribe(self.session, name) for name in packet.filters]
        reasons = [Reason.SUCCESS if each else Reason.NO_SUBSCRIPTION_EXISTED for each in had]
        self._out.append(write(Suback(Kind.UNSUBACK, packet.packet_id, reasons), self.version))

    def _ping(self, packet: Ping) -> None:
        if packet.kind != Kind.PINGREQ:
            raise violation("a PINGRESP from a client")
        self._out.append(PINGRESP)

    def _disconnect(self, packet: Disconnect) -> None:
        session = self.session
        assert session is not None
        check_reason(Kind.DISCONNECT, packet.reason)
        if "server_reference" in packet.properties:
            raise violation("a server reference from a client")
        expiry = packet.properties.get("session_expiry_interval")
        if expiry and not session.expiry:
            raise violation("a session that was to end with its connection cannot be kept after all")
        if expiry is not None:
            session.expiry = self._host.granted_expiry(expiry)
        if packet.reason != Reason.DISCONNECT_WITH_WILL:
            session.will = None
        self.leave_reason = Reason.SUCCESS
        self._close()

    def _say_why(self, packet: Callable[[Properties], Packet], text: str = "") -> None:
        """Last words; without `text`, or none, where the client takes no packet as large as that (5: 3.1.2.11.4)."""
        for properties in ({"reason_string": text}, NONE) if text and self.version == V5 else (NONE,):
            data = write(packet(properties), self.version)
            if self._fits(data):
                self._out.append(data)
                return

    def _fitting(self, connack: Connack) -> bytes | None:
        """The CONNACK, without what can be spared if the client takes small packets only; None if too large."""
        properties = dict(connack.properties)
        for name in ("", *_SPARED):
            properties.pop(name, None)
            data = write(connack._replace(properties=properties), self.version)
            if self._fits(data):
                return data
        return None

    def _fits(self, data: bytes) -> bool:
        return bool(len(data) <= self.limits.get("maximum_packet_size", len(data)))

    def _close(self) -> None:
        """Send what there is to say, and close; a client that does not read it has little time."""
        self.flush()
        self.closing = True
        self._transport.close()
        asyncio.get_running_loop().call_later(CLOSE_TIMEOUT, self._transport.abort)


_HANDLERS: dict[type[Packet], Callable[[ServerConnection, Any], None]] = {
    Ack: ServerConnection._ack,
    Subscribe: ServerConnection._subscribe,
    Unsubscribe: ServerConnection._unsubscribe,
    Ping: ServerConnection._ping,
    Disconnect: ServerConnection._disconnect,
}
