"""Readings: what `telemetry.readings` carries, one normalised record per message, as JSON and as columns.

The record's value is `{"message_id", "device_id", "device_type", "time", "measures": {name: number}, "extra": {…}}`;
`time` is the event time in ms since 1970 UTC, an absent measure is left out, `extra` holds texts and what the device
type does not know. A reading that completes an earlier one (same device and time) has the measures of both, and names
in `"repeats"` those that the earlier one had. `device` is what the device registry said of the device when the message
was appended (`[ingest] enrich`), and left out where it said nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain, repeat
from typing import Annotated, Any

import msgspec
import numpy as np
import orjson
from numpy.typing import NDArray

Floats = NDArray[np.float64]
#: int64, or shorter where a table says so.
Ints = NDArray[np.signedinteger[Any]]

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
        repeats: per reading, measures that an earlier reading of the same device and time carried already; None for
            "nothing, in all of them". See `news`.
        devices: per reading, what the registry said of its device, as JSON; None for "nothing, in all of them". See
            `device`.
    """

    device_type: str
    rows: Ints
    device_ids: list[str]
    times: Ints
    message_ids: list[str]
    measures: dict[str, Floats]
    extras: list[dict[str, Any] | None] | None = None
    repeats: list[list[str] | None] | None = None
    devices: list[bytes | None] | None = None

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
            None if self.repeats is None else [self.repeats[i] for i in chosen],
            None if self.devices is None else [self.devices[i] for i in chosen],
        )

    def news(self) -> dict[str, Floats]:
        """As `measures`, without what an earlier reading carried: for whoever counts, so that nothing counts twice."""
        if self.repeats is None:
            return self.measures
        columns = {name: column.copy() for name, column in self.measures.items()}
        for index, names in enumerate(self.repeats):
            for name in names or ():
                columns[name][index] = _NAN
        return columns

    def device(self, index: int) -> dict[str, Any]:
        """What the registry said of the device of reading `index`; empty if nothing."""
        found = self.devices and self.devices[index]
        return orjson.loads(found) if found else {}

    def measures_of(self, index: int) -> dict[str, float]:
        """The measures that reading `index` has."""
        return {name: value for name, column in self.measures.items() if (value := float(column[index])) == value}


def encode_readings(readings: Readings, *, extras_json: Sequence[bytes | None] | None = None) -> list[bytes]:
    """One JSON document per reading, in order.

    Args:
        readings: what to encode.
        extras_json: the extras as JSON on one line each, for who has them; `readings.extras` is not looked at then.
    """
    if extras_json is None and readings.extras is not None:
        extras_json = [orjson.dumps(extra, option=orjson.OPT_SORT_KEYS) if extra else None for extra in readings.extras]
    measures, document = _structs(tuple(readings.measures))
    columns = [_present(column) for column in readings.measures.values()]
    documents = map(
        document,
        readings.message_ids,
        readings.device_ids,
        repeat(readings.device_type),
        readings.times.tolist(),
        map(measures, *columns) if columns else repeat(measures()),
        repeat(None) if extras_json is None else [extra and msgspec.Raw(extra) for extra in extras_json],
        repeat(None) if readings.repeats is None else readings.repeats,
        repeat(None) if readings.devices is None else [device and msgspec.Raw(device) for device in readings.devices],
    )
    # A line break cannot occur inside a document: JSON escapes it in texts.
    # A list, not the iterator: msgspec 0.22 never frees what an iterator yields here.
    lines = _encoder.encode_lines(list(documents)).split(b"\n")
    lines.pop()
    return lines


def decode_readings(values: Sequence[bytes | None]) -> list[Readings]:
    """Columns of the readings in `values`, one `Readings` per device type, types in order of first appearance.

    Raises:
        msgspec.DecodeError: a value is not what `encode_readings` makes.
    """
    decode = _decoder.decode
    documents = [decode(value or b"") for value in values]
    types = [document.device_type for document in documents]
    by_type: dict[str, list[int]] = {name: [] for name in dict.fromkeys(types)}
    if len(by_type) > 1:
        for row, name in enumerate(types):
            by_type[name].append(row)
    return [_columns(name, rows, documents) for name, rows in by_type.items()]


_OBJECT = msgspec.Meta(extra_json_schema={"type": "object"})


class ReadingDocument(msgspec.Struct, gc=False):
    """One normalised reading. Record key: the device id.

    Args:
        message_id: of the message that it came in.
        device_id, device_type: whose reading.
        time: event time, ms since 1970 UTC.
        measures: by name, in the units of the device type; an absent one is left out.
        extra: texts, and what the device type does not know, by name.
        repeats: of a reading that completes an earlier one (same device and time): names of the measures that the
            earlier one had; whoever counts leaves these out.
        device: what the device registry said of the device when the message was appended: `organisation`, `name`,
            `location` and `gateway`, or the fields that `[ingest] enrich` names; left out where it said nothing.
    """

    message_id: str
    device_id: str
    device_type: str
    time: int
    measures: dict[str, float]
    extra: dict[str, Any] | None = None
    repeats: list[str] | None = None
    device: Annotated[msgspec.Raw, _OBJECT] | msgspec.UnsetType = msgspec.UNSET


_decoder = msgspec.json.Decoder(ReadingDocument)
_encoder = msgspec.json.Encoder()


@lru_cache(maxsize=256)
def _structs(names: tuple[str, ...]) -> tuple[type, type]:
    """Types that encode to the measures of these names, and to a document with them; what is None is left out."""
    # A measure's name need not be a Python identifier.
    fields = [f"m{place}" for place in range(len(names))]
    measures = msgspec.defstruct(
        "Measures",
        [(field, float | None, None) for field in fields],
        rename=dict(zip(fields, names, strict=True)),
        omit_defaults=True,
        gc=False,
    )
    document = msgspec.defstruct(
        "Document",
        [
            ("message_id", str),
            ("device_id", str),
            ("device_type", str),
            ("time", int),
            ("measures", measures),
            ("extra", msgspec.Raw | None, None),
            ("repeats", list[str] | None, None),
            ("device", msgspec.Raw | None, None),
        ],
        omit_defaults=True,
        gc=False,
    )
    return measures, document


def _present(column: Floats) -> list[float | None]:
    absent = np.isnan(column)
    if not absent.any():
        present: list[float | None] = column.tolist()
        return present
    values = column.astype(object)
    values[absent] = None
    gaps: list[float | None] = values.tolist()
    return gaps


def _columns(device_type: str, rows: list[int], documents: list[ReadingDocument]) -> Readings:
    chosen = [documents[row] for row in rows] if rows else documents
    extras = [document.extra for document in chosen]
    repeats = [document.repeats for document in chosen]
    devices = [document.device for document in chosen]
    return Readings(
        device_type=device_type,
        rows=np.array(rows, dtype=np.int64) if rows else np.arange(len(chosen), dtype=np.int64),
        device_ids=[document.device_id for document in chosen],
        times=np.array([document.time for document in chosen], dtype=np.int64),
        message_ids=[document.message_id for document in chosen],
        measures=_measured([document.measures for document in chosen]),
        extras=extras if any(extras) else None,
        repeats=repeats if any(repeats) else None,
        devices=_said(devices) if devices.count(msgspec.UNSET) < len(devices) else None,
    )


def _said(devices: Sequence[msgspec.Raw | msgspec.UnsetType]) -> list[bytes | None]:
    return [None if isinstance(each, msgspec.UnsetType) else bytes(each) for each in devices]


def _measured(rows: list[dict[str, float]]) -> dict[str, Floats]:
    """Columns by name, sorted."""
    shapes = set(map(tuple, rows))
    if len(shapes) == 1:
        # All have the same measures in the same order, as always when one ingest wrote them: no look-ups.
        (names,) = shapes
        values = chain.from_iterable(map(dict.values, rows))
        table = np.fromiter(values, np.float64, len(rows) * len(names)).reshape(len(rows), len(names))
        columns = dict(zip(names, np.ascontiguousarray(table.T), strict=True))
        return {name: columns[name] for name in sorted(names)}
    return {
        name: np.array([measures.get(name, _NAN) for measures in rows], dtype=np.float64)
        for name in sorted(set().union(*shapes))
    }
