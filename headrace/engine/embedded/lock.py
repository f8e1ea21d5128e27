"""One worker per data folder: an advisory lock that ends with the process, however it ends."""

import fcntl
import os
from pathlib import Path
from typing import IO

from headrace.engine.errors import ConfigError, LogInUse


class WorkerLock:
    """Held while a worker runs on the folder. Other commands read and append without it."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "worker.lock"
        self._file: IO[str] | None = None

    def acquire(self) -> None:
        """Take the lock.

        Raises:
            LogInUse: another worker has it; names its process.
            ConfigError: the folder cannot be written.
        """
        try:
            file = self._path.open("a+")
        except OSError as error:
            raise ConfigError(
                f"data folder {self._path.parent} cannot be written: {error.strerror}; name another with --data"
            ) from error
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            file.seek(0)
            owner = file.read().strip() or "unknown"
            file.close()
            raise LogInUse(
                f"another headrace (process {owner}) works on {self._path.parent}; stop it, or give this one "
                "a folder of its own with --data"
            ) from error
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        self._file = file

    def release(self) -> None:
        """Let go; harmless when not held."""
        if self._file is not None:
            self._file.close()
            self._file = None
