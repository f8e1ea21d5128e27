"""Parquet files as chunks of typed columns."""

from collections.abc import Callable, Collection, Iterator
from pathlib import Path

import numpy as np
import orjson
import polars as pl

from headrace.connectors.file_formats import Chunk, Place
from headrace.engine.errors import ConfigError

#: Bytes of text that a row of a Parquet file stands for when a chunk is cut.
_ROW_BYTES = 64


class ParquetFile:
    """One Parquet file, read by row groups: memory is bounded by its largest row group.

    Raises:
        ConfigError: the file cannot be read as Parquet.
    """

    fixed_columns: bool = True

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            scan = pl.scan_parquet(path, glob=False)
            self.columns = tuple(scan.collect_schema().names())
            self.rows_total: int | None = int(scan.select(pl.len()).collect().item())
            self._disk_bytes = path.stat().st_size
        except (pl.exceptions.PolarsError, OSError) as error:
            raise ConfigError(f"{path}: cannot be read as Parquet: {error}") from error

    def chunks(self, place: Place, columns: Collection[str], chunk_bytes: int) -> Iterator[Chunk]:
        scan = pl.scan_parquet(self.path, glob=False).select(name for name in self.columns if name in columns)
        row = place.offset
        try:
            for table in scan.slice(row).collect_batches(chunk_size=max(1, chunk_bytes // _ROW_BYTES)):
                rows = row + np.arange(1, table.height + 1)
                row += table.height
                yield Chunk(rows, rows, _raw_rows(table), self._disk_bytes * row // (self.rows_total or 1), table)
        except (pl.exceptions.PolarsError, OSError) as error:
            raise ConfigError(f"{self.path}: damaged or unreadable after row {row}: {error}") from error


def _raw_rows(table: pl.DataFrame) -> Callable[[int], bytes]:
    def raw(index: int) -> bytes:
        """What the file holds of the row, as JSON: Parquet has no bytes of a row to show."""
        return orjson.dumps(table.row(index, named=True), default=str)

    return raw
