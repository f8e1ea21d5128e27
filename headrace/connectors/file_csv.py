"""CSV files as chunks of text columns: fast where the lines are well formed, exact where they are not."""

import csv
import re
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl

from headrace.connectors.file_formats import Chunk, Ints, Place
from headrace.connectors.file_lines import LineBlocks, first_line, line_ends, raw_lines
from headrace.engine.errors import ConfigError

#: A quoted field that goes on over more lines than this is taken for a stray quote.
MAX_ROW_LINES = 64
#: Put behind every line as one more field, to see that each line has exactly as many fields as the header.
_SENTINEL = "\x1e"


class _Parsed(NamedTuple):
    """Rows of a block: row i ends with line `last_lines[i]` (from 1); lines after `lines_used` go to the next block."""

    table: pl.DataFrame
    broken: Collection[int]
    last_lines: Ints
    lines_used: int


class CsvFile:
    """One CSV file with a header line, plain or gzipped, UTF-8.

    A line with too few or too many fields, a stray quote or bytes that are not UTF-8 is a broken row of its own and
    does not touch its neighbours. A quoted field may hold line ends. Empty lines are no rows.

    Raises:
        ConfigError: the file cannot be read, or its first line is no header.
    """

    fixed_columns: bool = True
    rows_total: int | None = None

    def __init__(self, path: Path, separator: str = ",") -> None:
        self.path = path
        self._separator = separator
        header, self._start = first_line(path)
        try:
            names = next(csv.reader([header.decode()], delimiter=separator, strict=True), [])
        except (UnicodeDecodeError, csv.Error) as error:
            raise ConfigError(f"{path}: the first line is no CSV header in UTF-8: {error}") from error
        self.columns = tuple(name.strip() for name in names)
        # Every field is plain or quoted as a whole, and no line end is inside quotes: only then do two parsers agree.
        field = rf'(?:[^"\n{re.escape(separator)}]*|"(?:[^"\n]|"")*")'
        self._well_formed = rf"^(?:{field}[\n{re.escape(separator)}])*$"

    def chunks(self, place: Place, columns: Collection[str], chunk_bytes: int) -> Iterator[Chunk]:
        offset, line = (place.offset, place.line) if place.offset else (self._start, 1)
        needed = {name: index for index, name in enumerate(self.columns) if name in columns}
        rest = b""
        with LineBlocks(self.path, offset) as lines:
            while not lines.ended:
                data = lines.read(chunk_bytes, before=rest)
                ends = line_ends(data)
                parsed = self._parse_fast(data, len(ends), needed)
                if parsed is None:
                    parsed = self._parse_exactly(data, ends, needed, lines.ended)
                if len(parsed.last_lines):
                    yield Chunk(
                        offsets=offset + ends[parsed.last_lines - 1],
                        lines=line + parsed.last_lines,
                        raw=raw_lines(data, ends[parsed.last_lines - 1]),
                        disk_bytes=lines.disk_bytes,
                        table=parsed.table,
                        broken=parsed.broken,
                    )
                used = int(ends[parsed.lines_used - 1]) if parsed.lines_used else 0
                rest = data[used:]
                offset += used
                line += parsed.lines_used

    def _parse_fast(self, data: bytes, line_count: int, needed: dict[str, int]) -> _Parsed | None:
        """All of `data` by polars; None unless it certainly reads it as `_parse_exactly` does (test_fast_is_exact)."""
        text = data.replace(b"\r\n", b"\n")
        if not text.endswith(b"\n"):
            text += b"\n"
        if b"\r" in text or b"\n\n" in text or text.startswith(b"\n") or _SENTINEL.encode() in text:
            return None
        try:
            if b'"' in text and not pl.Series([text.decode()]).str.contains(self._well_formed)[0]:
                return None
            table = pl.read_csv(
                text.replace(b"\n", f"{self._separator}{_SENTINEL}\n".encode()),
                separator=self._separator,
                has_header=False,
                schema={str(index): pl.String for index in range(len(self.columns) + 1)},
                columns=[*needed.values(), len(self.columns)],
                empty_string_is_null=False,
            )
        except (pl.exceptions.PolarsError, UnicodeDecodeError):
            return None
        sentinels = table[str(len(self.columns))]
        if table.height != line_count or not (sentinels == _SENTINEL).all():
            return None
        named = table.select(pl.col(str(index)).alias(name) for name, index in needed.items())
        return _Parsed(named, (), np.arange(1, line_count + 1), line_count)

    def _parse_exactly(self, data: bytes, ends: Ints, needed: dict[str, int], ended: bool) -> _Parsed:
        lines = [data[start:end] for start, end in zip([0, *ends.tolist()], ends.tolist(), strict=False)]
        rows: list[list[str] | None] = []
        last_lines: list[int] = []
        at = 0
        while at < len(lines):
            if not lines[at].strip(b"\r\n"):
                at += 1
                continue
            row, count = self._row(lines[at : at + MAX_ROW_LINES])
            if row is None and count < MAX_ROW_LINES and at + count == len(lines) and not ended:
                break  # an open quote that the next block may close
            count = count if row is not None else 1
            at += count
            rows.append(row)
            last_lines.append(at)
        width = range(len(self.columns))
        filled = [[""] * len(width) if row is None else row for row in rows]
        table = pl.DataFrame(
            [pl.Series(name, [row[index] for row in filled], dtype=pl.String) for name, index in needed.items()]
        )
        broken = {index for index, row in enumerate(rows) if row is None}
        return _Parsed(table, broken, np.array(last_lines, dtype=np.int64), at)

    def _row(self, lines: list[bytes]) -> tuple[list[str] | None, int]:
        """The row that starts with the first line, and how many lines it takes.

        Without a row: 0, or how many lines an open quote swallowed.
        """
        text = ""
        for count, line in enumerate(lines, 1):
            try:
                text += line.decode()
                row = next(csv.reader([text.rstrip("\r\n")], delimiter=self._separator, strict=True))
            except UnicodeDecodeError:
                return None, 0
            except csv.Error as error:
                if "unexpected end of data" in str(error):
                    continue
                return None, 0
            return (row, count) if len(row) == len(self.columns) else (None, 0)
        return None, len(lines)
