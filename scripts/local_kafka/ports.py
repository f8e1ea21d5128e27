"""Free ports, outside the range that the kernel hands out."""

import contextlib
import socket
from random import SystemRandom

#: Below the ports that the kernel takes for outgoing connections: while a broker is down no client may get its port,
#: nor connect to itself there.
PORTS = range(20_000, 32_000)

_random = SystemRandom()  # the ordinary one is seeded in tests: every run would try the same ports


def free_ports(count: int) -> list[int]:
    """That many different ports of 127.0.0.1 on which nobody listens."""
    ports: list[int] = []
    with contextlib.ExitStack() as held:
        while len(ports) < count:
            port = _random.choice(PORTS)
            with contextlib.suppress(OSError):
                held.enter_context(socket.socket()).bind(("127.0.0.1", port))
                ports.append(port)
    return ports


def is_free(port: int) -> bool:
    """Whether a server could listen on this port of 127.0.0.1 now."""
    with socket.socket() as candidate:
        candidate.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            candidate.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True
