"""Stable names for workers: the same after a restart, different side by side."""

import fcntl
import os
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path

#: Workers of one group on one machine.
MOST_WORKERS = 1_000


@contextmanager
def instance_name(base: str | None, group: str, url: str) -> Iterator[str]:
    """`base-N` with the first N that no other worker of the group on this machine has, for as long as the `with` lasts.

    A worker that starts again gets the name back, and with it its partitions, without anybody else's being moved. The
    name is held by a file lock, so it is free again however the process ends.

    Args:
        base: the host name (in Kubernetes the pod's) if None.
        group, url: names are per consumer group and cluster.
    """
    base = base or socket.gethostname()
    place = sha256(f"{base}\n{group}\n{url}".encode()).hexdigest()[:16]
    for number in range(MOST_WORKERS):
        path = Path(tempfile.gettempdir()) / f"headrace-{os.getuid()}-{place}-{number}.lock"
        with path.open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            yield f"{base}-{number}"
            return
    raise OSError(f"{MOST_WORKERS} workers of group {group} run on this machine")
