"""Properties of MQTT 5 (2.2.2): their data types, where they are allowed, and which values are."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from headrace.connectors.mqtt.codec.cursor import Cursor
from headrace.connectors.mqtt.codec.packets import NONE, Kind, Properties
from headrace.connectors.mqtt.codec.reasons import BadPacket, Reason, malformed, violation

#: Stands for the will's properties in CONNECT.
WILL = 0
_ACKS = (Kind.PUBACK, Kind.PUBREC, Kind.PUBREL, Kind.PUBCOMP)
_REASONED = (Kind.CONNACK, *_ACKS, Kind.SUBACK, Kind.UNSUBACK, Kind.DISCONNECT, Kind.AUTH)
_MESSAGE = (Kind.PUBLISH, WILL)


class _Property(NamedTuple):
    id: int
    name: str
    type: str
    allowed: frozenset[int]
    #: Value that is a protocol error, or the largest that is none.
    least: int = 0
    most: int | None = None


def _known(id: int, name: str, type: str, *allowed: int, least: int = 0, most: int | None = None) -> _Property:
    return _Property(id, name, type, frozenset(allowed), least, most)


_ALL = (
    _known(0x01, "payload_format_indicator", "byte", *_MESSAGE, most=1),
    _known(0x02, "message_expiry_interval", "four", *_MESSAGE),
    _known(0x03, "content_type", "text", *_MESSAGE),
    _known(0x08, "response_topic", "text", *_MESSAGE),
    _known(0x09, "correlation_data", "data", *_MESSAGE),
    _known(0x0B, "subscription_identifier", "varint", Kind.PUBLISH, Kind.SUBSCRIBE, least=1),
    _known(0x11, "session_expiry_interval", "four", Kind.CONNECT, Kind.CONNACK, Kind.DISCONNECT),
    _known(0x12, "assigned_client_identifier", "text", Kind.CONNACK),
    _known(0x13, "server_keep_alive", "two", Kind.CONNACK),
    _known(0x15, "authentication_method", "text", Kind.CONNECT, Kind.CONNACK, Kind.AUTH),
    _known(0x16, "authentication_data", "data", Kind.CONNECT, Kind.CONNACK, Kind.AUTH),
    _known(0x17, "request_problem_information", "byte", Kind.CONNECT, most=1),
    _known(0x18, "will_delay_interval", "four", WILL),
    _known(0x19, "request_response_information", "byte", Kind.CONNECT, most=1),
    _known(0x1A, "response_information", "text", Kind.CONNACK),
    _known(0x1C, "server_reference", "text", Kind.CONNACK, Kind.DISCONNECT),
    _known(0x1F, "reason_string", "text", *_REASONED),
    _known(0x21, "receive_maximum", "two", Kind.CONNECT, Kind.CONNACK, least=1),
    _known(0x22, "topic_alias_maximum", "two", Kind.CONNECT, Kind.CONNACK),
    _known(0x23, "topic_alias", "two", Kind.PUBLISH, least=1),
    _known(0x24, "maximum_qos", "byte", Kind.CONNACK, most=1),
    _known(0x25, "retain_available", "byte", Kind.CONNACK, most=1),
    _known(
        0x26, "user_property", "pair", WILL, Kind.CONNECT, Kind.PUBLISH, Kind.SUBSCRIBE, Kind.UNSUBSCRIBE, *_REASONED
    ),
    _known(0x27, "maximum_packet_size", "four", Kind.CONNECT, Kind.CONNACK, least=1),
    _known(0x28, "wildcard_subscription_available", "byte", Kind.CONNACK, most=1),
    _known(0x29, "subscription_identifier_available", "byte", Kind.CONNACK, most=1),
    _known(0x2A, "shared_subscription_available", "byte", Kind.CONNACK, most=1),
)
_BY_ID = {each.id: each for each in _ALL}
_BY_NAME = {each.name: each for each in _ALL}

_READ: Mapping[str, Callable[[Cursor], Any]] = {
    "byte": Cursor.byte,
    "two": Cursor.two,
    "four": Cursor.four,
    "varint": Cursor.varint,
    "data": Cursor.data,
    "text": Cursor.text,
    "pair": Cursor.pair,
}


def read_properties(cursor: Cursor, kind: int) -> Properties:
    """The properties at the cursor, of a packet of this kind or of a `WILL`.

    Raises:
        BadPacket: unknown, not allowed there, given twice, or with a value that is not allowed.
    """
    length = cursor.varint()
    if not length:
        return NONE
    part = Cursor(cursor.take(length))
    found: dict[str, Any] = {}
    while part.left:
        number = part.varint()
        spec = _BY_ID.get(number)
        if spec is None or kind not in spec.allowed:
            raise malformed(f"property {number:#04x} in a packet that has none such")
        value = _READ[spec.type](part)
        if type(value) is int and (value < spec.least or (spec.most is not None and value > spec.most)):
            raise _wrong_value(spec, value)
        if _repeats(spec, kind):
            found.setdefault(spec.name, []).append(value)
        elif spec.name in found:
            raise violation(f"property {spec.name} given twice")
        else:
            found[spec.name] = value
    if "authentication_data" in found and "authentication_method" not in found:
        raise violation("authentication data without a method")
    return found


def write_properties(properties: Properties) -> bytes:
    """The properties with their length in front."""
    if not properties:
        return b"\0"
    parts = []
    for name, value in properties.items():
        spec = _BY_NAME[name]
        for each in value if isinstance(value, list) else [value]:
            parts.append(bytes([spec.id]) + _WRITE[spec.type](each))
    body = b"".join(parts)
    return varint(len(body)) + body


def varint(value: int) -> bytes:
    """A variable byte integer."""
    digits = bytearray()
    while value > 0x7F:
        digits.append(value & 0x7F | 0x80)
        value >>= 7
    digits.append(value)
    return bytes(digits)


def binary(value: bytes) -> bytes:
    """Binary data with its length in front."""
    return len(value).to_bytes(2) + value


def text(value: str) -> bytes:
    """A UTF-8 encoded string."""
    return binary(value.encode())


_WRITE: Mapping[str, Callable[[Any], bytes]] = {
    "byte": lambda value: bytes([value]),
    "two": lambda value: value.to_bytes(2),
    "four": lambda value: value.to_bytes(4),
    "varint": varint,
    "data": binary,
    "text": text,
    "pair": lambda pair: text(pair[0]) + text(pair[1]),
}


def _repeats(spec: _Property, kind: int) -> bool:
    return spec.name == "user_property" or (spec.name == "subscription_identifier" and kind == Kind.PUBLISH)


def _wrong_value(spec: _Property, value: int) -> BadPacket:
    if spec.name == "topic_alias":
        return BadPacket(Reason.TOPIC_ALIAS_INVALID, f"topic alias {value}")
    return violation(f"property {spec.name} is {value}")
