"""Readings: what `telemetry.readings` carries, one normalised record per message, as JSON and as columns.

The record's value is `{"message_id", "device_id", "device_type", "time", "measures": {name: number}, "extra": {…}}`;
`time` is the event time in ms since 1970 UTC, an absent measure is left out, `extra` holds what the device type does not know.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

_NAN = float("nan")


@dataclass(slots=True)
class Readings:
    """Readings of one device type, in log order, as columns of equal length n.

    Args:
        device_type: name of the type they all have.
        rows: (n,) int64, place of each reading in the batch it came with; ascending.
        device_ids: one per reading.
        times: (n,) int64, event time, ms since 1970 UTC.
        message_ids: one per reading.
        measures: by name, (n,) float64 in the unit of the device type; NaN where the reading has none.
        extras: what the device type does not know, per reading; None for "nothing, in all of them".
    """

    device_type: str
    rows: Ints
    device_ids: list[str]
    times: Ints
    message_ids: list[str]
    measures: dict[str, Floats]
    extras: list[dict[str, Any] | None] | None = None

    def __len__(self) -> int:
        return len(self.device_ids)

    def take(self, indices: Ints) -> "Readings":
        """These readings alone, in this order."""
        chosen = indices.tolist()
        return Readings(
            self.device_type,
            self.rows[indices],
            [self.device_ids[i] for i in chosen],
            self.times[indices],
            [self.message_ids[i] for i in chosen],
            {name: column[indices] for name, column in self.measures.items()},
            None if self.extras is None else [self.extras[i] for i in chosen],
        )

    def measures_of(self, index: int) -> dict[str, float]:
        """The measures that reading `index` has."""
        return {name: value for name, column in self.measures.items() if (value := float(column[index])) == value}


def encode_readings(readings: Readings) -> list[bytes]:
    """One JSON document per reading, in order."""
    names = list(readings.measures)
    columns = [column.tolist() for column in readings.measures.values()]
    complete = not any(np.isnan(column).any() for column in readings.measures.values())
    rows: Sequence[Any] = list(zip(*columns, strict=True)) if columns else [()] * len(readings)
    extras = readings.extras or [None] * len(readings)
    dumps, device_type, documents = orjson.dumps, readings.device_type, []
    for device_id, time, message_id, row, extra in zip(
        readings.device_ids, readings.times.tolist(), readings.message_ids, rows, extras, strict=True
    ):
        document: dict[str, Any] = {
            "message_id": message_id,
            "device_id": device_id,
            "device_type": device_type,
            "time": time,
            "measures": dict(zip(names, row, strict=True))
            if complete
            else {name: value for name, value in zip(names, row, strict=True) if value == value},
        }
        if extra:
            document["extra"] = extra
        documents.append(dumps(document))
    return documents


def decode_readings(values: Sequence[bytes | None]) -> list[Readings]:
    """Columns of the readings in `values`, one `Readings` per device type, types in order of first appearance.

    Raises:
        orjson.JSONDecodeError, KeyError: a value is not what `encode_readings` makes.
    """
    documents: list[dict[str, Any]] = [orjson.loads(value or b"") for value in values]
    by_type: dict[str, list[int]] = {}
    types = [document["device_type"] for document in documents]
    if types and types.count(types[0]) == len(types):
        by_type[types[0]] = list(range(len(types)))
    else:
        for row, name in enumerate(types):
            by_type.setdefault(name, []).append(row)
    return [_columns(name, rows, documents) for name, rows in by_type.items()]


def _columns(device_type: str, rows: list[int], documents: list[dict[str, Any]]) -> Readings:
    chosen = documents if len(rows) == len(documents) else [documents[row] for row in rows]
    measured = [document["measures"] for document in chosen]
    names: dict[str, None] = {}
    for keys in {tuple(measures) for measures in measured}:
        names.update(dict.fromkeys(keys))
    extras = [document.get("extra") for document in chosen]
    return Readings(
        device_type=device_type,
        rows=np.array(rows, dtype=np.int64),
        device_ids=[document["device_id"] for document in chosen],
        times=np.array([document["time"] for document in chosen], dtype=np.int64),
        message_ids=[document["message_id"] for document in chosen],
        measures={
            name: np.array([measures.get(name, _NAN) for measures in measured], dtype=np.float64)
            for name in sorted(names)
        },
        extras=extras if any(extras) else None,
    )
