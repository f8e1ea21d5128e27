"""Packets from bytes, with every check that MQTT asks for (OASIS MQTT 3.1.1 and 5, section 3)."""

from collections.abc import Callable, Mapping

from headrace.connectors.mqtt.codec.cursor import Cursor, read_varint
from headrace.connectors.mqtt.codec.frames import Frame
from headrace.connectors.mqtt.codec.packets import (
    NONE,
    V3,
    V5,
    Ack,
    Auth,
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
    Unsubscribe,
    Will,
)
from headrace.connectors.mqtt.codec.properties import WILL, read_properties
from headrace.connectors.mqtt.codec.reasons import CONNACK_OF_3, BadPacket, Reason, malformed, violation
from headrace.connectors.mqtt.codec.topic import check_filter, check_topic

#: What the lower half of the first byte must be, where it is not 0 (2.1.3).
_FLAGS: Mapping[int, int] = {Kind.PUBREL: 0x02, Kind.SUBSCRIBE: 0x02, Kind.UNSUBSCRIBE: 0x02}
#: Codes that SUBACK and UNSUBACK of 3.1.1 have.
_REASONS_3 = {Kind.SUBACK: frozenset({0, 1, 2, 0x80}), Kind.UNSUBACK: frozenset[int]()}


def read(frame: Frame, version: int) -> Packet:
    """The packet in a frame; of a CONNECT the version is its own.

    Raises:
        BadPacket: it is malformed, or not allowed whatever came before it.
    """
    head, body = frame
    kind = head & 0xF0
    if kind == Kind.PUBLISH:
        return read_publish(head, body, version)
    if head & 0x0F != _FLAGS.get(kind, 0):
        raise malformed(f"flags {head & 0x0F:#x} in packet type {kind >> 4}")
    reader = _READERS.get(kind)
    if reader is None or (kind == Kind.AUTH and version != V5):
        raise malformed(f"packet type {kind >> 4}")
    cursor = Cursor(body)
    packet = reader(cursor, version)
    cursor.end()
    return packet


def read_publish(head: int, body: bytes, version: int) -> Publish:
    """The message in a PUBLISH; on the path of every message."""
    start = 2 + (body[0] << 8 | body[1]) if len(body) > 1 else 3
    if start > len(body):
        raise malformed("a PUBLISH shorter than its own topic")
    topic, packet_id, qos = body[2:start], 0, head >> 1 & 3
    if qos:
        if qos == 3 or start + 2 > len(body):
            raise malformed("a PUBLISH with QoS 3, or without its packet identifier")
        packet_id = body[start] << 8 | body[start + 1]
        start += 2
        if not packet_id:
            raise violation("packet identifier 0")
    elif head & 0x08:
        raise malformed("a PUBLISH with QoS 0 that says it is a duplicate")
    properties = NONE
    if version == V5:
        if start < len(body) and not body[start]:
            start += 1
        else:
            length, end = read_varint(body, start)
            if end + length > len(body):
                raise malformed("a PUBLISH shorter than its properties")
            properties = read_properties(Cursor(body[start : end + length]), Kind.PUBLISH)
            start = end + length
    if topic:
        check_topic(topic)
    elif "topic_alias" not in properties:
        raise BadPacket(Reason.PROTOCOL_ERROR if version == V5 else Reason.MALFORMED_PACKET, "an empty topic name")
    # What `Publish(…)` does, without the call in between.
    return tuple.__new__(Publish, (topic, body[start:], packet_id, qos, head & 0x08 != 0, head & 0x01 != 0, properties))


def _properties(cursor: Cursor, version: int, kind: int) -> Properties:
    return read_properties(cursor, kind) if version == V5 else NONE


def _packet_id(cursor: Cursor) -> int:
    packet_id = cursor.two()
    if not packet_id:
        raise violation("packet identifier 0")
    return packet_id


def _connect(cursor: Cursor, _: int) -> Connect:
    name, version = cursor.data(), cursor.byte()
    if name not in (b"MQTT", b"MQIsdp"):
        raise malformed("a CONNECT that does not begin with MQTT")
    if version not in (V3, V5) or name != b"MQTT":
        raise BadPacket(Reason.UNSUPPORTED_PROTOCOL_VERSION, f"protocol {name.decode()} level {version}")
    flags, keep_alive = cursor.byte(), cursor.two()
    has_will, will_qos = bool(flags & 0x04), flags >> 3 & 3
    if flags & 0x01 or will_qos == 3 or (not has_will and flags & 0x38):
        raise malformed(f"connect flags {flags:#04x}")
    if version == V3 and flags & 0xC0 == 0x40:
        raise malformed("a password without a user name")
    properties = _properties(cursor, version, Kind.CONNECT)
    client_id = cursor.text()
    will = None
    if has_will:
        will_properties = _properties(cursor, version, WILL)
        topic, payload = cursor.data(), cursor.data()
        check_topic(topic)
        will = Will(topic, payload, will_qos, bool(flags & 0x20), will_properties)
    username = cursor.text() if flags & 0x80 else None
    password = cursor.data() if flags & 0x40 else None
    return Connect(client_id, version, bool(flags & 0x02), keep_alive, username, password, will, properties)


def _connack(cursor: Cursor, version: int) -> Connack:
    flags, code = cursor.byte(), cursor.byte()
    if flags > 1 or (version == V3 and code not in CONNACK_OF_3):
        raise malformed(f"a CONNACK with flags {flags:#x} and code {code}")
    reason = code if version == V5 else CONNACK_OF_3[code]
    return Connack(bool(flags), reason, _properties(cursor, version, Kind.CONNACK) if cursor.left else NONE)


def _ack(kind: Kind) -> Callable[[Cursor, int], Ack]:
    def read_ack(cursor: Cursor, version: int) -> Ack:
        packet_id = _packet_id(cursor)
        reason, properties = _reason_and_properties(cursor, version, kind)
        return Ack(kind, packet_id, reason, properties)

    return read_ack


def _reason_and_properties(cursor: Cursor, version: int, kind: Kind) -> tuple[int, Properties]:
    """Both may be left out from the end."""
    if version != V5 or not cursor.left:
        return 0, NONE
    return cursor.byte(), read_properties(cursor, kind) if cursor.left else NONE


def _subscribe(cursor: Cursor, version: int) -> Subscribe:
    packet_id, properties = _packet_id(cursor), _properties(cursor, version, Kind.SUBSCRIBE)
    filters = []
    while cursor.left:
        name, options = cursor.text(), cursor.byte()
        check_filter(name)
        if options & 0xC0 or (version == V3 and options > 2):
            raise malformed(f"subscription options {options:#04x}")
        if options & 3 == 3 or options >> 4 & 3 == 3:
            raise violation(f"subscription options {options:#04x}")
        no_local = bool(options & 4)
        if no_local and name.startswith("$share/"):
            raise violation("no local on a shared subscription")
        filters.append(Filter(name, options & 3, no_local, bool(options & 8), options >> 4))
    if not filters:
        raise violation("a SUBSCRIBE without topic filter")
    return Subscribe(packet_id, tuple(filters), properties)


def _unsubscribe(cursor: Cursor, version: int) -> Unsubscribe:
    packet_id, properties = _packet_id(cursor), _properties(cursor, version, Kind.UNSUBSCRIBE)
    filters = []
    while cursor.left:
        filters.append(cursor.text())
        check_filter(filters[-1])
    if not filters:
        raise violation("an UNSUBSCRIBE without topic filter")
    return Unsubscribe(packet_id, tuple(filters), properties)


def _suback(kind: Kind) -> Callable[[Cursor, int], Suback]:
    def read_suback(cursor: Cursor, version: int) -> Suback:
        packet_id, properties = _packet_id(cursor), _properties(cursor, version, kind)
        reasons = tuple(cursor.rest())
        if version == V3 and not _REASONS_3[kind].issuperset(reasons):
            raise malformed(f"codes {reasons} in packet type {kind >> 4}")
        return Suback(kind, packet_id, reasons, properties)

    return read_suback


def _ping(kind: Kind) -> Callable[[Cursor, int], Ping]:
    return lambda cursor, version: Ping(kind)


def _disconnect(cursor: Cursor, version: int) -> Disconnect:
    return Disconnect(*_reason_and_properties(cursor, version, Kind.DISCONNECT))


def _auth(cursor: Cursor, version: int) -> Auth:
    return Auth(*_reason_and_properties(cursor, version, Kind.AUTH))


_READERS: Mapping[int, Callable[[Cursor, int], Packet]] = {
    Kind.CONNECT: _connect,
    Kind.CONNACK: _connack,
    **{kind: _ack(kind) for kind in (Kind.PUBACK, Kind.PUBREC, Kind.PUBREL, Kind.PUBCOMP)},
    Kind.SUBSCRIBE: _subscribe,
    Kind.UNSUBSCRIBE: _unsubscribe,
    **{kind: _suback(kind) for kind in (Kind.SUBACK, Kind.UNSUBACK)},
    **{kind: _ping(kind) for kind in (Kind.PINGREQ, Kind.PINGRESP)},
    Kind.DISCONNECT: _disconnect,
    Kind.AUTH: _auth,
}
