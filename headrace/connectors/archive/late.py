"""Rows that came after their day was archived: which are there already, which contradict what is there."""

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, NamedTuple

import orjson
import polars as pl

from headrace.connectors.archive.dataset import READINGS, Dataset
from headrace.connectors.archive.object_store import ObjectStore
from headrace.connectors.archive.parquet import ArchiveDamaged, decode
from headrace.connectors.archive.parts import Part

#: Columns of a reading's file that are no metrics.
PLAIN = ("device_id", "time", "message_id", "appended_at", "extra")


class Sorted(NamedTuple):
    """What becomes of rows.

    Args:
        kept: those that the archive has not.
        duplicates: rows that are in the archive, count.
        conflicts: documents of rows that contradict it.
    """

    kept: pl.DataFrame
    duplicates: int = 0
    conflicts: tuple[bytes, ...] = ()


async def sort_out(frame: pl.DataFrame, dataset: Dataset, parts: Iterable[Part], store: ObjectStore) -> Sorted:
    """Compare rows with the archived ones of their day.

    A reading with the same device and time as an archived one is a duplicate if all it says is there, is kept if it
    only adds metrics, and is a conflict if it contradicts one. Other rows are duplicates if they are equal.

    Args:
        parts: of the same day, those that may hold the same keys.
    Raises:
        RetryLater, ArchiveDamaged: one of them cannot be read.
    """
    keys = ["device_id", "time"] if dataset.name == READINGS else ["time", "key", "row"]
    seen: dict[tuple[Any, ...], dict[str, Any]] = {}
    for part in parts:
        assert part.object is not None
        try:
            data = await store.get(part.object)
        except FileNotFoundError as error:
            raise ArchiveDamaged(f"{part.object} is not in the store") from error
        there = decode(data).join(frame.select(keys), on=keys, how="semi")
        for row in there.iter_rows(named=True):
            key = tuple(row[name] for name in keys)
            seen[key] = metrics_of(row) | seen.get(key, {}) if dataset.name == READINGS else {}
    if not seen:
        return Sorted(frame)
    keep, duplicates, conflicts = [], 0, []
    for row in frame.iter_rows(named=True):
        archived = seen.get(tuple(row[name] for name in keys))
        if archived is None:
            keep.append(True)
            continue
        metrics = metrics_of(row) if dataset.name == READINGS else {}
        contradicts = any(archived.get(name, value) != value for name, value in metrics.items())
        adds = not contradicts and not metrics.keys() <= archived.keys()
        keep.append(adds)
        duplicates += not contradicts and not adds
        if contradicts:
            conflicts.append(_document(dataset, row, metrics, archived))
    return Sorted(frame.filter(pl.Series(keep, dtype=pl.Boolean)), duplicates, tuple(conflicts))


def metrics_of(row: Mapping[str, Any]) -> dict[str, Any]:
    """Everything that a row of readings says: measures with a value, and extra."""
    measures = {name: value for name, value in row.items() if name not in PLAIN and value is not None}
    extra: dict[str, Any] = orjson.loads(row["extra"] or "{}")
    return extra | measures


def _document(dataset: Dataset, row: Mapping[str, Any], metrics: dict[str, Any], archived: dict[str, Any]) -> bytes:
    moment: datetime = row["time"]
    return orjson.dumps(
        {
            "message_id": row["message_id"],
            "device_id": row["device_id"],
            "device_type": dataset.device_type,
            "time": round(moment.timestamp() * 1000),
            "measures": metrics,
            "accepted": archived,
        }
    )
