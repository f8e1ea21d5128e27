"""The packets of MQTT 3.1.1 and 5 (OASIS, section 3 of each). A field that only MQTT 5 has is empty on 3.1.1."""

from collections.abc import Mapping, Sequence
from enum import IntEnum
from types import MappingProxyType
from typing import Any, NamedTuple

#: Protocol levels.
V3, V5 = 4, 5

#: By name as in the specification, in lower case: `session_expiry_interval`. `user_property` has a list of pairs,
#: `subscription_identifier` of a PUBLISH a list of numbers.
Properties = Mapping[str, Any]
NONE: Properties = MappingProxyType({})


class Kind(IntEnum):
    """Packet types: the upper half of the first byte."""

    CONNECT = 0x10
    CONNACK = 0x20
    PUBLISH = 0x30
    PUBACK = 0x40
    PUBREC = 0x50
    PUBREL = 0x60
    PUBCOMP = 0x70
    SUBSCRIBE = 0x80
    SUBACK = 0x90
    UNSUBSCRIBE = 0xA0
    UNSUBACK = 0xB0
    PINGREQ = 0xC0
    PINGRESP = 0xD0
    DISCONNECT = 0xE0
    AUTH = 0xF0


class Will(NamedTuple):
    """What the server shall publish when the client goes without goodbye."""

    topic: bytes
    payload: bytes
    qos: int = 0
    retain: bool = False
    properties: Properties = NONE


class Connect(NamedTuple):
    """A client introduces itself. `keep_alive` in seconds, 0 for none; `clean_start` is 3.1.1's clean session."""

    client_id: str
    version: int = V5
    clean_start: bool = True
    keep_alive: int = 0
    username: str | None = None
    password: bytes | None = None
    will: Will | None = None
    properties: Properties = NONE


class Connack(NamedTuple):
    """The answer to it; `reason` is a code of MQTT 5 on either version."""

    session_present: bool
    reason: int = 0
    properties: Properties = NONE


class Publish(NamedTuple):
    """A message. `packet_id` is 0 at QoS 0; the topic is UTF-8, and empty only beside a topic alias."""

    topic: bytes
    payload: bytes
    packet_id: int = 0
    qos: int = 0
    duplicate: bool = False
    retain: bool = False
    properties: Properties = NONE


class Ack(NamedTuple):
    """PUBACK, PUBREC, PUBREL or PUBCOMP."""

    kind: Kind
    packet_id: int
    reason: int = 0
    properties: Properties = NONE


class Filter(NamedTuple):
    """One subscription; all but filter and QoS are MQTT 5."""

    name: str
    qos: int = 0
    no_local: bool = False
    retain_as_published: bool = False
    retain_handling: int = 0


class Subscribe(NamedTuple):
    """A client asks for messages."""

    packet_id: int
    filters: Sequence[Filter]
    properties: Properties = NONE


class Unsubscribe(NamedTuple):
    """A client wants no more."""

    packet_id: int
    filters: Sequence[str]
    properties: Properties = NONE


class Suback(NamedTuple):
    """SUBACK or UNSUBACK, with a reason per filter; UNSUBACK of 3.1.1 has none."""

    kind: Kind
    packet_id: int
    reasons: Sequence[int] = ()
    properties: Properties = NONE


class Ping(NamedTuple):
    """PINGREQ or PINGRESP."""

    kind: Kind = Kind.PINGREQ


class Disconnect(NamedTuple):
    """Goodbye; on 3.1.1 only from the client, and without reason."""

    reason: int = 0
    properties: Properties = NONE


class Auth(NamedTuple):
    """A step of enhanced authentication, MQTT 5."""

    reason: int = 0
    properties: Properties = NONE


Packet = Connect | Connack | Publish | Ack | Subscribe | Suback | Unsubscribe | Ping | Disconnect | Auth
