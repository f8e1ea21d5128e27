"""Asks a broker what it knows of the cluster, in the Kafka protocol, with nothing but a socket."""

import socket
import struct
from typing import NamedTuple

METADATA, METADATA_VERSION = 3, 1
#: Seconds. A broker that starts accepts connections before it answers.
TIMEOUT = 2.0
_CLIENT = b"local_kafka"
_ALL_TOPICS = -1
# Size, API key, API version, correlation id, client id, topics.
_BODY = struct.pack(f">hhih{len(_CLIENT)}si", METADATA, METADATA_VERSION, 0, len(_CLIENT), _CLIENT, _ALL_TOPICS)
_REQUEST = struct.pack(">i", len(_BODY)) + _BODY


class Metadata(NamedTuple):
    """What a broker knows."""

    #: Numbers of the brokers that serve.
    brokers: set[int]
    #: Partitions that have a replica out of sync, count.
    behind: int


def metadata(port: int) -> Metadata | None:
    """What the broker at this port of 127.0.0.1 knows; None if it does not answer."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=TIMEOUT) as connection:
            connection.sendall(_REQUEST)
            (size,) = struct.unpack(">i", _receive(connection, 4))
            return _Reader(_receive(connection, size)).metadata()
    except OSError:
        return None


def accepts(port: int) -> bool:
    """Whether somebody takes connections at this port of 127.0.0.1."""
    try:
        socket.create_connection(("127.0.0.1", port), timeout=TIMEOUT).close()
    except OSError:
        return False
    return True


def _receive(connection: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        more = connection.recv(size - len(data))
        if not more:
            raise ConnectionError("the broker hung up")
        data += more
    return data


class _Reader:
    """Reads a metadata response of version 1, field by field."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._position = 4  # the correlation id

    def metadata(self) -> Metadata:
        brokers = {self._broker() for _ in range(self._number("i"))}
        self._number("i")  # controller
        return Metadata(brokers, sum(self._topic() for _ in range(self._number("i"))))

    def _broker(self) -> int:
        node = self._number("i")
        self._skip_text()  # host
        self._number("i")  # port
        self._skip_text()  # rack
        return node

    def _topic(self) -> int:
        """Count of its partitions that are behind."""
        self._number("h")  # error
        self._skip_text()  # name
        self._number("b")  # internal
        return sum(self._partition() for _ in range(self._number("i")))

    def _partition(self) -> bool:
        """Whether it is behind."""
        self._number("h")  # error
        self._number("i")  # partition
        self._number("i")  # leader
        replicas = [self._number("i") for _ in range(self._number("i"))]
        in_sync = [self._number("i") for _ in range(self._number("i"))]
        return len(in_sync) < len(replicas)

    def _number(self, code: str) -> int:
        (value,) = struct.unpack_from(f">{code}", self._data, self._position)
        self._position += struct.calcsize(code)
        return int(value)

    def _skip_text(self) -> None:
        length = self._number("h")
        self._position += max(length, 0)  # -1: none
