"""Reads the data types of MQTT (1.5) one behind the other."""

from headrace.connectors.mqtt.codec.reasons import malformed


def read_varint(data: bytes, start: int) -> tuple[int, int]:
    """A variable byte integer at `start`, and where it ends."""
    value = 0
    for index in range(4):
        if start + index >= len(data):
            raise malformed("a packet that ends within a number")
        digit = data[start + index]
        value |= (digit & 0x7F) << 7 * index
        if not digit & 0x80:
            if index and not digit:
                raise malformed("a number with more bytes than it needs")
            return value, start + index + 1
    raise malformed("a number of more than four bytes")


class Cursor:
    """A place in the body of a packet.

    Raises:
        BadPacket: from every method, when the packet ends before or holds what the data type does not allow.
    """

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    @property
    def left(self) -> int:
        """Bytes not read yet."""
        return len(self._data) - self._at

    def byte(self) -> int:
        """One byte."""
        return self.take(1)[0]

    def two(self) -> int:
        """Two byte integer."""
        return int.from_bytes(self.take(2))

    def four(self) -> int:
        """Four byte integer."""
        return int.from_bytes(self.take(4))

    def varint(self) -> int:
        """Variable byte integer."""
        value, self._at = read_varint(self._data, self._at)
        return value

    def take(self, count: int) -> bytes:
        """So many bytes."""
        found = self._data[self._at : self._at + count]
        if len(found) < count:
            raise malformed("a packet that ends within a field")
        self._at += count
        return found

    def data(self) -> bytes:
        """Binary data."""
        return self.take(self.two())

    def text(self) -> str:
        """UTF-8 encoded string."""
        return decoded(self.data())

    def pair(self) -> tuple[str, str]:
        """UTF-8 string pair."""
        return self.text(), self.text()

    def rest(self) -> bytes:
        """Everything that is left."""
        return self.take(self.left)

    def end(self) -> None:
        """Check that nothing is left."""
        if self.left:
            raise malformed(f"a packet with {self.left} bytes too many")


def decoded(data: bytes) -> str:
    """The text of a UTF-8 encoded string; it must not hold U+0000 (1.5.4)."""
    try:
        text = data.decode()
    except UnicodeDecodeError:
        raise malformed("a text that is not UTF-8") from None
    if "\0" in text:
        raise malformed("a text with the character U+0000")
    return text
