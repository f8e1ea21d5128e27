"""Text files, plain or gzipped, as blocks of whole lines."""

import gzip
import zlib
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import IO, Self, TypeVar

import numpy as np

from headrace.connectors.file_formats import Ints
from headrace.engine.errors import ConfigError

#: A line longer than this means that the file is not lines of text.
MAX_LINE_BYTES = 16 << 20
_BOM = b"\xef\xbb\xbf"
T = TypeVar("T")


class LineBlocks:
    """Reads whole lines from byte `offset` of the text on. A context manager.

    A gzipped file is read through up to the offset (about 300 MB/s); nothing of it is kept.

    Raises:
        ConfigError: from any method: the file cannot be read, or is damaged.
    """

    def __init__(self, path: Path, offset: int = 0) -> None:
        self._path = path
        self._rest = b""
        self.ended = False
        try:
            self._disk = path.open("rb")
        except OSError as error:
            raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error
        self._text: IO[bytes] = self._disk
        if path.name.lower().endswith(".gz"):
            self._text = gzip.GzipFile(fileobj=self._disk)  # type: ignore[assignment]
        try:
            self._guarded(lambda: self._text.seek(offset))
        except ConfigError:
            self._disk.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._disk.close()

    @property
    def disk_bytes(self) -> int:
        """How far the file on disk has been read."""
        return self._disk.tell()

    def read(self, size: int, before: bytes = b"") -> bytes:
        """`before`, followed by about `size` bytes of whole lines; only the last line of the file may lack its end.

        `ended` is True once there is nothing behind what was returned.
        """
        parts = [before, self._rest]
        while True:
            data = self._guarded(lambda: self._text.read(size))
            if not data:
                self.ended, self._rest = True, b""
                return b"".join(parts)
            cut = data.rfind(b"\n") + 1
            if cut:
                parts.append(data[:cut])
                self._rest = data[cut:]
                return b"".join(parts)
            parts.append(data)
            if sum(map(len, parts)) > MAX_LINE_BYTES:
                raise ConfigError(f"{self._path}: a line is longer than {MAX_LINE_BYTES >> 20} MB; is this text?")

    def _guarded(self, read: Callable[[], T]) -> T:
        try:
            return read()
        except (OSError, EOFError, zlib.error) as error:
            raise ConfigError(
                f"{self._path}: damaged or unreadable after byte {self.disk_bytes} of the file: {error}"
            ) from error


def line_ends(data: bytes) -> Ints:
    """(n,) int64, offset after each of the n lines of `data`; the last line may lack its end."""
    ends = np.flatnonzero(np.frombuffer(data, dtype=np.uint8) == ord("\n")).astype(np.int64) + 1
    if data and not data.endswith(b"\n"):
        ends = np.append(ends, np.int64(len(data)))
    return ends


def raw_lines(data: bytes, ends: Ints) -> Callable[[int], bytes]:
    """A function from i to the bytes that end at `ends[i]`, without line ends."""

    def raw(index: int) -> bytes:
        return data[int(ends[index - 1]) if index else 0 : int(ends[index])].strip(b"\r\n")

    return raw


def first_line(path: Path) -> tuple[bytes, int]:
    """The first line without its end and without a byte order mark, and the offset after it."""
    with LineBlocks(path) as lines:
        line = lines.read(65_536).split(b"\n", 1)[0]
    return line.removeprefix(_BOM).rstrip(b"\r"), len(line) + 1


def text_start(path: Path) -> int:
    """The offset of the text: behind a byte order mark, if there is one."""
    with LineBlocks(path) as lines:
        return len(_BOM) if lines.read(65_536).startswith(_BOM) else 0
