"""Cuts a byte stream into packets (2.1.4, Remaining Length)."""

from typing import NamedTuple

from headrace.connectors.mqtt.codec.reasons import BadPacket, Reason, malformed

#: Remaining length is at most four bytes of seven bits.
MAX_LENGTH_BYTES = 4
LARGEST = (1 << 7 * MAX_LENGTH_BYTES) - 1


class Frame(NamedTuple):
    """One packet: its first byte and what follows the length."""

    head: int
    body: bytes


#: What `Frame(…)` does, without the call in between: half the time, on the path of every message.
_new = tuple.__new__


class Frames:
    """Holds at most the packet that is incomplete.

    Args:
        largest: bytes that a packet may have behind its length; a larger one is refused before it is read.
    """

    def __init__(self, largest: int = LARGEST) -> None:
        self._largest = largest
        self._rest = bytearray()
        self._needed = 2

    @property
    def waiting(self) -> int:
        """Bytes of the incomplete packet."""
        return len(self._rest)

    def feed(self, data: bytes) -> list[Frame]:
        """The packets that `data` completes.

        Raises:
            BadPacket: a length that MQTT does not allow, or more than `largest`. Nothing more can be read.
        """
        if self._rest:
            self._rest += data
            if len(self._rest) < self._needed:
                return []
            data = bytes(self._rest)
            self._rest.clear()
        elif len(data) > 2:  # nearly always one packet, all of it, of less than 16 KiB
            length, body = data[1], 2
            if length & 0x80:
                length, body = length & 0x7F | data[2] << 7, 3 if 0 < data[2] < 0x80 else LARGEST
            if len(data) == body + length <= self._largest:
                return [_new(Frame, (data[0], data[body:]))]
        frames, start, size = [], 0, len(data)
        self._needed = 2
        while size - start >= 2:
            length, body = data[start + 1], start + 2
            if length & 0x80:
                length, body = _long_length(data, start + 1)
                if body == 0:
                    break
            if length > self._largest:
                raise BadPacket(Reason.PACKET_TOO_LARGE, f"a packet of {length} bytes; {self._largest} are allowed")
            end = body + length
            if end > size:
                self._needed = end - start
                break
            frames.append(_new(Frame, (data[start], data[body:end])))
            start = end
        if start < size:
            self._rest += data[start:]
        return frames


def _long_length(data: bytes, start: int) -> tuple[int, int]:
    """Remaining length at `start` and where the body begins; (0, 0) while it is incomplete."""
    length = 0
    for index in range(MAX_LENGTH_BYTES):
        if start + index >= len(data):
            return 0, 0
        digit = data[start + index]
        length |= (digit & 0x7F) << 7 * index
        if not digit & 0x80:
            if not digit:
                raise malformed("a packet length with more bytes than it needs")
            return length, start + index + 1
    raise malformed("a packet length of more than four bytes")
