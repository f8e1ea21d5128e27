"""How many clients the file descriptors of this process allow."""

import contextlib
import os
import resource
import socket
from asyncio import Server
from typing import NamedTuple

#: Descriptors for everything that is no client: the log, Kafka, metrics.
RESERVED = 64
#: Clients accepted at once. asyncio logs every one it has no descriptor for, so many times per second.
MOST_ACCEPTED = 128
#: What clients may queue up to connect at once, as the kernel sees it.
BACKLOG = 4_096


class Room(NamedTuple):
    """Bounds of a listener, counts.

    Args:
        clients: that are let in.
        connections: beyond that they are hung up on without a word.
        accepted: at once.
    """

    clients: int
    connections: int
    accepted: int


def room(wanted: int) -> Room:
    """What there is room for, of the clients that are wanted; raises this process's own limit as far as it may."""
    needed = 2 * wanted + RESERVED + MOST_ACCEPTED
    files, highest = resource.getrlimit(resource.RLIMIT_NOFILE)
    allowed = needed if highest == resource.RLIM_INFINITY else min(needed, highest)
    if files != resource.RLIM_INFINITY and files < allowed:
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, highest))
            files = allowed
    if files == resource.RLIM_INFINITY:
        return Room(wanted, 2 * wanted, MOST_ACCEPTED)
    accepted = max(1, min(MOST_ACCEPTED, files // 8))
    most = max(2, files - RESERVED - accepted)
    return Room(min(wanted, max(1, most - accepted)), min(2 * wanted, most), accepted)


def queue_up(server: Server) -> None:
    """Let more clients wait in the kernel than asyncio accepts at once: it takes one number for both."""
    for each in server.sockets:
        with socket.socket(fileno=os.dup(each.fileno())) as listening:
            listening.listen(BACKLOG)
