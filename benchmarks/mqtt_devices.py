"""Thousands of MQTT devices in one process, as light as they can be: sockets, epoll, packets made beforehand.

Prints "connected" when all have their CONNACK, waits for a line on standard input, sends, and prints what it did as
JSON. A device has at most `--window` messages without PUBACK at QoS 1; at QoS 0 it sends one message after the other.
"""

import argparse
import json
import resource
import select
import socket
import sys
import time
from collections.abc import Iterator

PAYLOAD = b'{"timestamp":1750000000000,"temp":21.37,"humidity":55.1,"co2":450,"pm25":12.3,"seq":%07d}'


class Device:
    """One connection."""

    __slots__ = ("head", "next_id", "rest", "sock", "topic", "unacknowledged")

    def __init__(self, number: int, address: tuple[str, int], qos: int, credentials: tuple[str, str] | None) -> None:
        name = b"device-%06d" % number
        self.sock = socket.create_connection(address)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        fields = [name] if credentials is None else [name, *(each.encode() for each in credentials)]
        flags = 0x02 if credentials is None else 0xC2
        body = b"\0\4MQTT\4" + bytes([flags]) + b"\x02\x58" + b"".join(len(each).to_bytes(2) + each for each in fields)
        self.sock.sendall(b"\x10" + bytes([len(body)]) + body)
        self.topic = b"dt/devices/" + name + b"/telemetry"
        size = 2 + len(self.topic) + (2 if qos else 0) + len(PAYLOAD % 0)
        length = bytes([size & 0x7F | 0x80, size >> 7]) if size > 127 else bytes([size])
        self.head = bytes([0x30 | qos << 1]) + length + len(self.topic).to_bytes(2) + self.topic
        self.next_id, self.unacknowledged, self.rest = 0, 0, 0

    def message(self, number: int, qos: int) -> bytes:
        """The next PUBLISH."""
        if not qos:
            return self.head + PAYLOAD % number
        self.next_id = self.next_id % 65_535 + 1
        return self.head + self.next_id.to_bytes(2) + PAYLOAD % number


def connect(count: int, address: tuple[str, int], qos: int, credentials: tuple[str, str] | None) -> list[Device]:
    """All devices, let in; a few hundred at a time."""
    devices: list[Device] = []
    for start in range(0, count, 200):
        some = [Device(number, address, qos, credentials) for number in range(start, min(start + 200, count))]
        for device in some:
            answer = device.sock.recv(4)
            if answer[3:] != b"\0":
                sys.exit(f"not let in: {answer.hex()}")
            device.sock.setblocking(False)
        devices += some
    return devices


def send_qos0(devices: list[Device], total: int, burst: int, schedule: Iterator[float]) -> None:
    """Round after round, `burst` messages of each device in one piece; waits for whoever cannot take more."""
    number = 0
    while number < total:
        for device in devices:
            data = b"".join([device.message(number + place, 0) for place in range(burst)])
            number += burst
            next(schedule)
            while data:
                try:
                    data = data[device.sock.send(data) :]
                except BlockingIOError:
                    select.select([], [device.sock], [], 1.0)
            if number >= total:
                break


def send_qos1(devices: list[Device], total: int, window: int, schedule: Iterator[float]) -> None:
    """As fast as PUBACKs come back."""
    poll, by_number = select.epoll(), {}
    for device in devices:
        poll.register(device.sock, select.EPOLLIN)
        by_number[device.sock.fileno()] = device
    number = acknowledged = 0
    share = max(1, window)
    for device in devices:
        if number < total:
            number += _send_some(device, number, min(share, total - number), schedule)
    while acknowledged < total:
        for file_number, _ in poll.poll(1.0):
            device = by_number[file_number]
            got = device.rest + len(device.sock.recv(65_536))
            acks, device.rest = divmod(got, 4)
            acknowledged += acks
            if number < total:
                number += _send_some(device, number, min(acks, total - number), schedule)


def _send_some(device: Device, number: int, count: int, schedule: Iterator[float]) -> int:
    for place in range(count):
        next(schedule)
        data = device.message(number + place, 1)
        while data:
            try:
                data = data[device.sock.send(data) :]
            except BlockingIOError:
                select.select([], [device.sock], [], 1.0)
    return count


def paced(rate: float) -> Iterator[float]:
    """Comes back when the next message is due: `rate` a second, or at once."""
    began, number = time.perf_counter(), 0
    while True:
        if rate:
            wait = began + number / rate - time.perf_counter()
            if wait > 0.001:
                time.sleep(wait)
        number += 1
        yield 0.0


def main() -> None:
    """Entry of the process."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--devices", type=int, default=5_000)
    parser.add_argument("--messages", type=int, default=300_000)
    parser.add_argument("--qos", type=int, choices=(0, 1), default=1)
    parser.add_argument("--window", type=int, default=1, help="QoS 1: without PUBACK; QoS 0: in one piece")
    parser.add_argument("--rate", type=float, default=0.0, help="messages a second of all devices; 0: no limit")
    parser.add_argument("--user", nargs=2)
    given = parser.parse_args()
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    devices = connect(given.devices, (given.host, given.port), given.qos, tuple(given.user) if given.user else None)
    print("connected", flush=True)
    sys.stdin.readline()
    began = time.perf_counter()
    if given.qos:
        send_qos1(devices, given.messages, given.window, paced(given.rate))
    else:
        send_qos0(devices, given.messages, given.window, paced(given.rate))
    print(json.dumps({"began": began, "seconds": time.perf_counter() - began, "cpu": time.process_time()}), flush=True)
    sys.stdin.readline()


if __name__ == "__main__":
    main()
