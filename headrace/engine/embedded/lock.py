"""One worker per data folder: an advisory lock that ends with the process, however it ends."""

from pathlib import Path
from typing import IO

from headrace.engine.errors import ConfigError, LogInUse
from headrace.engine.file_lock import LockHeld, lock_file


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
            self._file = lock_file(self._path)
        except LockHeld as held:
            raise LogInUse(
                f"another headrace (process {held.owner}) works on {self._path.parent}; stop it, or give this one "
                "a folder of its own with --data"
            ) from held
        except OSError as error:
            raise ConfigError(
                f"data folder {self._path.parent} cannot be written: {error.strerror}; name another with --data"
            ) from error

    def release(self) -> None:
        """Let go; harmless when not held."""
        if self._file is not None:
            self._file.close()
            self._file = None
