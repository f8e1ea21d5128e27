"""MQTT 3.1.1 on the wire, as far as a subscriber needs it (OASIS MQTT 3.1.1, section 3)."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from headrace.engine.errors import Disconnected

CONNACK, PUBLISH, SUBACK, PINGRESP = 0x20, 0x30, 0x90, 0xD0
PINGREQ = b"\xc0\x00"
DISCONNECT = b"\xe0\x00"
#: In SUBACK: the broker refused this filter.
REFUSED = 0x80
#: Remaining length is at most four bytes of seven bits (2.2.3).
MAX_LENGTH_BYTES = 4


class Publish(NamedTuple):
    """A message as it came. `packet_id` is 0 at QoS 0; `duplicate` is the DUP flag."""

    topic: bytes
    payload: bytes
    packet_id: int
    duplicate: bool


class Frame(NamedTuple):
    """One packet: its first byte and what follows the length."""

    head: int
    body: bytes


def connect(client_id: str, username: str | None, password: str | None, *, keepalive: int, clean: bool) -> bytes:
    """CONNECT; `keepalive` in seconds, `clean` False keeps the session."""
    flags = (0x02 if clean else 0) | (0x80 if username is not None else 0) | (0x40 if password is not None else 0)
    fields = [client_id, *(field for field in (username, password) if field is not None)]
    body = _text("MQTT") + bytes([4, flags]) + keepalive.to_bytes(2) + b"".join(map(_text, fields))
    return _frame(0x10, body)


def subscribe(packet_id: int, filters: Sequence[str], qos: int) -> bytes:
    """SUBSCRIBE to `filters`."""
    return _frame(0x82, packet_id.to_bytes(2) + b"".join(_text(name) + bytes([qos]) for name in filters))


def pubacks(packet_ids: Iterable[int]) -> bytes:
    """One PUBACK behind the other, in this order."""
    return b"".join([b"\x40\x02" + packet_id.to_bytes(2) for packet_id in packet_ids])


def read_publish(frame: Frame) -> Publish:
    """The message in a PUBLISH.

    Raises:
        Disconnected: the packet is malformed; MQTT asks to close the connection.
    """
    head, body = frame
    start = 2 + int.from_bytes(body[:2])
    topic = body[2:start]
    if not head & 0x06:
        packet_id = 0
    else:
        packet_id = int.from_bytes(body[start : start + 2])
        start += 2
    if len(body) < start:
        raise Disconnected("the broker sent a PUBLISH shorter than its own topic")
    return Publish(topic, body[start:], packet_id, bool(head & 0x08))


class Frames:
    """Cuts a byte stream into packets; holds at most the one that is incomplete."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._needed = 2

    def feed(self, data: bytes) -> list[Frame]:
        """The packets that `data` completes.

        Raises:
            Disconnected: a length that MQTT does not allow.
        """
        self._buffer += data
        if len(self._buffer) < self._needed:
            return []
        stream, frames, start, self._needed = bytes(self._buffer), [], 0, 2
        while len(stream) - start >= 2:
            length, body = stream[start + 1], start + 2
            if length & 0x80:
                length, body = _long_length(stream, start + 1)
                if body == 0:
                    break
            end = body + length
            if end > len(stream):
                self._needed = end - start
                break
            frames.append(Frame(stream[start], stream[body:end]))
            start = end
        del self._buffer[:start]
        return frames


def _long_length(stream: bytes, start: int) -> tuple[int, int]:
    """Remaining length at `start` and where the body begins; (0, 0) while it is incomplete."""
    length = 0
    for index in range(MAX_LENGTH_BYTES):
        if start + index >= len(stream):
            return 0, 0
        length |= (stream[start + index] & 0x7F) << 7 * index
        if not stream[start + index] & 0x80:
            return length, start + index + 1
    raise Disconnected("the broker sent a packet length of more than four bytes")


def _text(value: str) -> bytes:
    encoded = value.encode()
    return len(encoded).to_bytes(2) + encoded


def _frame(head: int, body: bytes) -> bytes:
    length, digits = len(body), bytearray()
    while length > 0x7F:
        digits.append(length & 0x7F | 0x80)
        length >>= 7
    digits.append(length)
    return bytes([head]) + bytes(digits) + body
