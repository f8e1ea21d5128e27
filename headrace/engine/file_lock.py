"""An advisory lock on a file, for one process at a time."""

import fcntl
import os
from pathlib import Path
from typing import IO


class LockHeld(Exception):
    """Another process has the lock.

    Args:
        owner: its number, or "unknown".
    """

    def __init__(self, owner: str) -> None:
        super().__init__(f"process {owner} has it")
        self.owner = owner


def lock_file(path: Path) -> IO[str]:
    """The file, locked until it is closed or the process ends, however it ends. It says whose it is.

    Raises:
        LockHeld: another process has it.
        OSError: it cannot be written.
    """
    file = path.open("a+")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        file.seek(0)
        owner = file.read().strip() or "unknown"
        file.close()
        raise LockHeld(owner) from error
    file.truncate(0)
    file.write(str(os.getpid()))
    file.flush()
    return file
