"""The folder that stores on disk are in: one process at a time, databases opened and thrown away."""

import shutil
from pathlib import Path
from typing import IO, Any

import structlog

from headrace.engine.errors import ConfigError
from headrace.engine.file_lock import LockHeld, lock_file

#: Bytes that are kept in memory per partition until they are sorted into files, and of blocks over all partitions.
WRITE_BUFFER, BLOCK_CACHE = 8 << 20, 64 << 20

log = structlog.get_logger(__name__)


def rocksdict() -> Any:
    """The package, which is an extra."""
    try:
        import rocksdict as package  # noqa: PLC0415
    except ImportError as error:
        raise ConfigError("tables on disk need RocksDB: pip install headrace[rocksdb]") from error
    return package


class RocksFolder:
    """A folder of databases, this process's alone while one of them is open.

    Raises:
        ConfigError: rocksdict is not installed.
    """

    def __init__(self, folder: Path) -> None:
        rocks = rocksdict()
        self._folder = folder
        self._lock: IO[str] | None = None
        self._open: set[Path] = set()
        blocks = rocks.BlockBasedOptions()
        blocks.set_block_cache(rocks.Cache(BLOCK_CACHE))
        blocks.set_bloom_filter(10, False)
        self._options = rocks.Options(raw_mode=True)
        self._options.create_if_missing(True)
        self._options.set_block_based_table_factory(blocks)
        self._options.set_write_buffer_size(WRITE_BUFFER)
        self._options.set_compression_type(rocks.DBCompressionType.lz4())
        self._options.set_keep_log_file_num(2)

    def open(self, place: Path) -> Any:
        """The database at `place` in the folder.

        Raises:
            ConfigError: another process has the folder, or it cannot be used.
        """
        if self._lock is None:
            self._acquire()
        path = self._folder / place
        try:
            database = self._database(path)
        except Exception as damaged:  # rocksdict raises nothing more special
            log.warning("table_store_made_anew", folder=str(path), error=str(damaged))
            self.destroy(place)
            try:
                database = self._database(path)
            except Exception as error:
                raise ConfigError(f"table folder {path} cannot be used: {error}") from error
        self._open.add(place)
        return database

    def closed(self, place: Path) -> None:
        """The database at `place` is closed."""
        self._open.discard(place)
        if not self._open and self._lock is not None:
            self._lock.close()
            self._lock = None

    def destroy(self, place: Path) -> None:
        """Delete what is at `place`, which is closed."""
        shutil.rmtree(self._folder / place, ignore_errors=True)

    def _database(self, path: Path) -> Any:
        path.mkdir(parents=True, exist_ok=True)
        return rocksdict().Rdict(str(path), self._options)

    def _acquire(self) -> None:
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._lock = lock_file(self._folder / "lock")
        except LockHeld as held:
            raise ConfigError(
                f"another worker (process {held.owner}) has the table folder {self._folder}; give each worker its own"
            ) from held
        except OSError as error:
            raise ConfigError(f"table folder {self._folder} cannot be written: {error.strerror}") from error
