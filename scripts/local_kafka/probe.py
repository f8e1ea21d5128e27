"""Asks a broker which brokers are up, in the Kafka protocol, with nothing but a socket."""

import socket
import struct

METADATA, METADATA_VERSION = 3, 1
#: A broker that starts accepts connections before it answers.
TIMEOUT = 2.0
_CLIENT = b"local_kafka"
# Size, API key, API version, correlation id, client id, and an array of no topics.
_BODY = struct.pack(f">hhih{len(_CLIENT)}si", METADATA, METADATA_VERSION, 0, len(_CLIENT), _CLIENT, 0)
_REQUEST = struct.pack(">i", len(_BODY)) + _BODY


def live_brokers(port: int) -> set[int]:
    """Node ids of the brokers that serve, as the broker at this port sees it; empty if it does not answer."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=TIMEOUT) as connection:
            connection.sendall(_REQUEST)
            (size,) = struct.unpack(">i", _receive(connection, 4))
            return _node_ids(_receive(connection, size))
    except OSError:
        return set()


def _receive(connection: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        more = connection.recv(size - len(data))
        if not more:
            raise ConnectionError("the broker hung up")
        data += more
    return data


def _node_ids(response: bytes) -> set[int]:
    _correlation, count = struct.unpack_from(">ii", response)
    position, nodes = 8, set()
    for _ in range(count):
        node, host_length = struct.unpack_from(">ih", response, position)
        nodes.add(node)
        position += 6 + host_length + 4  # node id, host, port
        (rack_length,) = struct.unpack_from(">h", response, position)
        position += 2 + max(rack_length, 0)  # -1: no rack
    return nodes
