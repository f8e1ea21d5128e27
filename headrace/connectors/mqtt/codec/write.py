"""Bytes from packets (OASIS MQTT 3.1.1 and 5, section 3)."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from headrace.connectors.mqtt.codec.packets import (
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
)
from headrace.connectors.mqtt.codec.properties import binary, text, varint, write_properties
from headrace.connectors.mqtt.codec.reasons import CONNACK_3, Reason

PINGREQ, PINGRESP = b"\xc0\0", b"\xd0\0"


def write(packet: Packet, version: int) -> bytes:
    """The packet on the wire. What 3.1.1 does not have is left out."""
    head, body = _WRITERS[type(packet)](packet, version)
    return bytes([head]) + varint(len(body)) + body


def write_acks(kind: Kind, packet_ids: Iterable[int]) -> bytes:
    """Acknowledgements that went well, one behind the other, in this order; the same in both versions."""
    head = bytes([kind | (0x02 if kind == Kind.PUBREL else 0), 2])
    return b"".join([head + packet_id.to_bytes(2) for packet_id in packet_ids])


def _connect(packet: Connect, _: int) -> tuple[int, bytes]:
    will, version = packet.will, packet.version
    flags = 0x02 if packet.clean_start else 0
    parts = [text(packet.client_id)]
    if will is not None:
        flags |= 0x04 | will.qos << 3 | (0x20 if will.retain else 0)
        parts += [_properties(will.properties, version), binary(will.topic), binary(will.payload)]
    if packet.username is not None:
        flags |= 0x80
        parts.append(text(packet.username))
    if packet.password is not None:
        flags |= 0x40
        parts.append(binary(packet.password))
    header = text("MQTT") + bytes([version, flags]) + packet.keep_alive.to_bytes(2)
    return Kind.CONNECT, header + _properties(packet.properties, version) + b"".join(parts)


def _connack(packet: Connack, version: int) -> tuple[int, bytes]:
    reason = packet.reason if version == V5 else CONNACK_3.get(packet.reason, CONNACK_3[Reason.SERVER_UNAVAILABLE])
    return Kind.CONNACK, bytes([packet.session_present, reason]) + _properties(packet.properties, version)


def _publish(packet: Publish, version: int) -> tuple[int, bytes]:
    head = Kind.PUBLISH | packet.duplicate << 3 | packet.qos << 1 | packet.retain
    packet_id = packet.packet_id.to_bytes(2) if packet.qos else b""
    return head, binary(packet.topic) + packet_id + _properties(packet.properties, version) + packet.payload


def _ack(packet: Ack, version: int) -> tuple[int, bytes]:
    head = packet.kind | (0x02 if packet.kind == Kind.PUBREL else 0)
    return head, packet.packet_id.to_bytes(2) + _reason_and_properties(packet, version)


def _subscribe(packet: Subscribe, version: int) -> tuple[int, bytes]:
    filters = [text(each.name) + bytes([_options(each, version)]) for each in packet.filters]
    header = packet.packet_id.to_bytes(2) + _properties(packet.properties, version)
    return Kind.SUBSCRIBE | 0x02, header + b"".join(filters)


def _options(wanted: Filter, version: int) -> int:
    if version != V5:
        return wanted.qos
    return wanted.qos | wanted.no_local << 2 | wanted.retain_as_published << 3 | wanted.retain_handling << 4


def _unsubscribe(packet: Unsubscribe, version: int) -> tuple[int, bytes]:
    filters = b"".join(map(text, packet.filters))
    return Kind.UNSUBSCRIBE | 0x02, packet.packet_id.to_bytes(2) + _properties(packet.properties, version) + filters


def _suback(packet: Suback, version: int) -> tuple[int, bytes]:
    reasons = bytes(packet.reasons)
    if version != V5:
        # 3.1.1 knows one refusal, and nothing to say about an UNSUBSCRIBE.
        reasons = b"" if packet.kind == Kind.UNSUBACK else bytes([min(each, Reason.UNSPECIFIED) for each in reasons])
    return packet.kind, packet.packet_id.to_bytes(2) + _properties(packet.properties, version) + reasons


def _disconnect(packet: Disconnect, version: int) -> tuple[int, bytes]:
    return Kind.DISCONNECT, _reason_and_properties(packet, version)


def _auth(packet: Auth, version: int) -> tuple[int, bytes]:
    return Kind.AUTH, _reason_and_properties(packet, version)


def _reason_and_properties(packet: Ack | Disconnect | Auth, version: int) -> bytes:
    if version != V5 or not (packet.reason or packet.properties):
        return b""
    return bytes([packet.reason]) + (write_properties(packet.properties) if packet.properties else b"")


def _properties(properties: Properties, version: int) -> bytes:
    return write_properties(properties) if version == V5 else b""


_WRITERS: Mapping[type, Callable[[Any, int], tuple[int, bytes]]] = {
    Connect: _connect,
    Connack: _connack,
    Publish: _publish,
    Ack: _ack,
    Subscribe: _subscribe,
    Unsubscribe: _unsubscribe,
    Suback: _suback,
    Ping: lambda packet, version: (packet.kind, b""),
    Disconnect: _disconnect,
    Auth: _auth,
}
