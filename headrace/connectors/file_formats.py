"""Data files that a replay can read: what all formats have in common, and finding the files."""

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import polars as pl
from numpy.typing import NDArray

from headrace.connectors.event_times import NO_TIME
from headrace.engine.errors import ConfigError

Ints = NDArray[np.int64]

SUFFIXES = (".csv", ".csv.gz", ".ndjson", ".ndjson.gz", ".jsonl", ".jsonl.gz", ".parquet")


class Place(NamedTuple):
    """Where the next row of a file is read.

    Args:
        offset: for text the byte (of the text, not of its gzip file) after the last row; for Parquet rows before it.
        line: lines before it, the header included; for Parquet rows.
        latest: largest event time of the rows before it, ms; `NO_TIME` when none had one.
    """

    offset: int = 0
    line: int = 0
    latest: int = NO_TIME


@dataclass(slots=True)
class Chunk:
    """Rows of one file, in file order. Holds either `table` or `documents`.

    Args:
        offsets: (n,) int64, `Place.offset` after each row.
        lines: (n,) int64, `Place.line` after each row; so also the number, from 1, of its last line.
        raw: the bytes of row i, without its line end.
        disk_bytes: how far the file on disk has been read.
        table: columns by name; text for CSV, typed for Parquet.
        documents: one JSON object per row; None where there is none.
        broken: rows of `table` that do not have one field per column.
    """

    offsets: Ints
    lines: Ints
    raw: Callable[[int], bytes]
    disk_bytes: int
    table: pl.DataFrame | None = None
    documents: list[dict[str, Any] | None] | None = None
    broken: Collection[int] = ()

    def __len__(self) -> int:
        return len(self.offsets)


class DataFile(Protocol):
    """One file of rows, read in chunks. Memory is bounded by the chunk, whatever the file's length."""

    path: Path
    #: Names of the columns; for NDJSON the keys of the first row.
    columns: tuple[str, ...]
    #: Whether every row has exactly `columns`.
    fixed_columns: bool
    #: How many rows there are, if the format says.
    rows_total: int | None

    def chunks(self, place: Place, columns: Collection[str], chunk_bytes: int) -> Iterator[Chunk]:
        """The rows from `place` on, about `chunk_bytes` of text at a time. Blocks on the disk.

        Args:
            columns: those that are needed; others may be left out of the table.
        Raises:
            ConfigError: the file is damaged or unreadable from some byte on.
        """
        ...


def suffix(path: Path) -> str | None:
    """The known suffix that the file's name ends with."""
    name = path.name.lower()
    return next((known for known in sorted(SUFFIXES, key=len, reverse=True) if name.endswith(known)), None)


def stem(path: Path) -> str:
    """The file's name without its known suffix."""
    return path.name[: -len(suffix(path) or "") or None]


def find_files(path: Path) -> list[Path]:
    """`path` itself, or the data files directly in the folder, by name; other files there are left alone.

    Raises:
        ConfigError: there is nothing to read, or the folder mixes formats.
    """
    known = ", ".join(SUFFIXES)
    if path.is_file():
        if suffix(path) is None:
            raise ConfigError(f"{path}: not a data file that can be read; known are {known}")
        return [path]
    if not path.is_dir():
        raise ConfigError(f"{path}: no such file or folder")
    try:
        entries = sorted(path.iterdir(), key=lambda entry: entry.name)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be listed: {error.strerror}") from error
    files = [entry for entry in entries if suffix(entry) and not entry.name.startswith(".") and entry.is_file()]
    if not files:
        raise ConfigError(f"{path}: holds no data file (folders inside it are not looked into); known are {known}")
    by_suffix = {suffix(file): file.name for file in reversed(files)}
    if len(by_suffix) > 1:
        examples = ", ".join(f"{name} ({known})" for known, name in sorted(by_suffix.items(), key=str))
        raise ConfigError(f"{path}: mixes formats, as if it held several data sets: {examples}; use a folder for each")
    return files
