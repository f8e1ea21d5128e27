"""What a server checks in the packets of a client, beside what is wrong in either direction."""

from collections.abc import Mapping

from headrace.connectors.mqtt.codec.packets import Kind, Properties
from headrace.connectors.mqtt.codec.reasons import violation

_REFUSALS = frozenset({0x00, 0x10, 0x80, 0x83, 0x87, 0x90, 0x91, 0x97, 0x99})
_RELEASES = frozenset({0x00, 0x92})
#: Reason codes that a client may send (3.4.2.1, 3.5.2.1, 3.6.2.1, 3.7.2.1, 3.14.2.1).
_REASONS: Mapping[int, frozenset[int]] = {
    Kind.PUBACK: _REFUSALS,
    Kind.PUBREC: _REFUSALS,
    Kind.PUBREL: _RELEASES,
    Kind.PUBCOMP: _RELEASES,
    Kind.DISCONNECT: frozenset({0x00, 0x04, 0x80, 0x81, 0x82, 0x83, 0x90, *range(0x93, 0x9A)}),
}


def check_reason(kind: Kind, reason: int) -> None:
    """Check the reason code of an acknowledgement or a DISCONNECT.

    Raises:
        BadPacket: a client must not send it.
    """
    if reason not in _REASONS[kind]:
        raise violation(f"reason code {reason:#04x} in a {kind.name} of a client")


def check_message(properties: Properties) -> None:
    """Check the properties of a PUBLISH.

    Raises:
        BadPacket: they are not for a client to send.
    """
    if "subscription_identifier" in properties:
        raise violation("a subscription identifier in a PUBLISH of a client")
    response_topic = properties.get("response_topic", "a")
    if not response_topic or "+" in response_topic or "#" in response_topic:
        raise violation(f"response topic {response_topic[:100]!r}")
