"""Rows as Parquet, and back."""

from collections.abc import Sequence
from io import BytesIO
from typing import Any

import orjson
import polars as pl

from headrace.connectors.archive.dataset import Column
from headrace.connectors.archive.digest import Digests, content_digest
from headrace.connectors.archive.layout import Place
from headrace.engine.errors import HeadraceError

#: Of what a file says about itself.
SCHEMA_VERSION = 1
KEY = "headrace"
#: Rows that a reader takes or leaves together, by their least and greatest device and time.
GROUP_ROWS = 16_384

_TYPES: dict[str, pl.DataType] = {
    "micros": pl.Datetime("us", "UTC"),
    "float": pl.Float64(),
    "text": pl.String(),
    "json": pl.String(),
}


class ArchiveDamaged(HeadraceError):
    """An object of the archive is not what was written."""


def frame_of(columns: Sequence[Column], records: Sequence[Sequence[Any]]) -> pl.DataFrame:
    """Rows as columns.

    Args:
        records: of a row, the value of each of `columns`; times as µs.
    """
    values = list(zip(*records, strict=True)) if records else [()] * len(columns)
    series = []
    for column, cells in zip(columns, values, strict=True):
        kind = pl.Int64() if column.kind == "micros" else _TYPES[column.kind]
        one = pl.Series(column.name, cells, dtype=kind, strict=True)
        series.append(one.cast(_TYPES["micros"]) if column.kind == "micros" else one)
    return pl.DataFrame(series)


def encode(frame: pl.DataFrame, place: Place, groups: Digests) -> bytes:
    """A Parquet file, zstd; it says what it is under the key `headrace`.

    Args:
        groups: digests of the rows.
    """
    about = {
        "schema_version": SCHEMA_VERSION,
        "dataset": place.dataset,
        "device_type": place.device_type,
        "organisation": place.organisation,
        "day": place.day.isoformat(),
        "rows": frame.height,
        "groups": len(groups),
        "content_sha256": content_digest(groups).hex(),
    }
    data = BytesIO()
    frame.write_parquet(
        data, compression="zstd", row_group_size=GROUP_ROWS, metadata={KEY: orjson.dumps(about).decode()}
    )
    return data.getvalue()


def about(data: bytes) -> dict[str, Any]:
    """What a file says about itself.

    Raises:
        ArchiveDamaged: it is no file of the archive.
    """
    try:
        found = orjson.loads(pl.read_parquet_metadata(BytesIO(data))[KEY])
    except (pl.exceptions.PolarsError, OSError, KeyError, orjson.JSONDecodeError) as error:
        raise ArchiveDamaged(f"not a file of the archive: {type(error).__name__}: {error}") from error
    if not isinstance(found, dict) or found.get("schema_version") != SCHEMA_VERSION:
        raise ArchiveDamaged("written by another version of headrace")
    return found


def decode(data: bytes) -> pl.DataFrame:
    """The rows of a file.

    Raises:
        ArchiveDamaged: it cannot be read.
    """
    try:
        return pl.read_parquet(BytesIO(data), hive_partitioning=False)
    # polars panics on some damaged files: an exception that is no Exception.
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt | SystemExit | GeneratorExit):
            raise
        raise ArchiveDamaged(f"cannot be read: {type(error).__name__}: {error}") from error


def columns_of(frame: pl.DataFrame) -> tuple[Column, ...]:
    """The columns of readings or documents in a file, for a digest of it; the SQL in them is of no use."""
    kinds = {pl.Float64: "float", pl.Datetime: "micros"}
    json = ("extra", "row")
    return tuple(
        Column(name, "", "json" if name in json else kinds.get(type(kind), "text"))  # type: ignore[arg-type]
        for name, kind in frame.schema.items()
    )
