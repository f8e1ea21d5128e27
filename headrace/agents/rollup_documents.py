"""What the rollup agent writes about windows: the records of `telemetry.rollups`, many at once."""

from collections.abc import Sequence
from functools import lru_cache
from itertools import repeat

import msgspec
import numpy as np

from headrace.schemas.readings import Floats, Ints
from headrace.tables.aggregates import COUNT, FIRST, LAST, MAX, MIN, SUM
from headrace.tables.window_outputs import Outputs

_KINDS = ("closed", "correction")


def rollup_documents(outputs: Outputs) -> list[bytes]:
    """One JSON document per window, in order, as `schemas.rollup.Rollup` says."""
    revisions = outputs.revisions.tolist()
    measures = _measures(outputs.measures, outputs.cells)
    previous: Sequence[_Measures | None] = [None] * len(outputs)
    if any(revisions):
        before = _measures(outputs.measures, outputs.previous)
        previous = [old if revision else None for old, revision in zip(before, revisions, strict=True)]
    documents = map(
        _Document,
        outputs.device_ids,
        repeat(outputs.device_type),
        map(seconds, outputs.sizes.tolist()),
        outputs.starts.tolist(),
        (outputs.starts + outputs.sizes).tolist(),
        [_KINDS[revision > 0] for revision in revisions],
        revisions,
        measures,
        previous,
    )
    # A line break cannot occur inside a document: JSON escapes it in texts.
    # A list, not the iterator: msgspec 0.22 never frees what an iterator yields here.
    lines = _encoder.encode_lines(list(documents)).split(b"\n")
    lines.pop()
    return lines


def seconds(milliseconds: int) -> float:
    """A duration in seconds, written without a fraction if it has none."""
    return milliseconds // 1000 if milliseconds % 1000 == 0 else milliseconds / 1000


class _Aggregate(msgspec.Struct, gc=False):
    count: int
    sum: float
    avg: float
    min: float
    max: float
    first: float
    last: float


#: Either of what encodes to the measures of a window.
_Measures = msgspec.Struct | msgspec.Raw


class _Document(msgspec.Struct, gc=False, omit_defaults=True):
    device_id: str
    device_type: str
    window_seconds: float
    start: int
    end: int
    kind: str
    revision: int
    measures: _Measures
    previous: _Measures | None = None


_encoder = msgspec.json.Encoder()


def _measures(measures: Sequence[tuple[str, int]], cells: Floats) -> list[_Measures]:
    """The measures of each window, from (k, m, 8) cells; one that no reading had is left out."""
    if not measures:
        return [msgspec.Raw(b"{}")] * len(cells)
    columns = cells.transpose(1, 2, 0)[[number for _, number in measures]]
    names, counts = tuple(name for name, _ in measures), columns[:, COUNT].astype(np.int64)
    single = counts.max(axis=0) <= 1
    if single.all():
        return _of_single_readings(names, columns[:, SUM], counts)
    if not single.any():
        return _of_aggregates(names, columns, counts)
    made: dict[int, _Measures] = dict.fromkeys(range(len(cells)), msgspec.Raw(b""))
    for windows in (np.flatnonzero(single), np.flatnonzero(~single)):
        made.update(zip(windows.tolist(), _measures(measures, cells[windows]), strict=True))
    return list(made.values())


def _of_aggregates(names: tuple[str, ...], columns: Floats, counts: Ints) -> list[_Measures]:
    """The measures of each window, from (m, 8, k) columns and (m, k) counts."""
    averages = columns[:, SUM] / np.maximum(counts, 1)
    values = np.stack([columns[:, SUM], averages, *(columns[:, at] for at in (MIN, MAX, FIRST, LAST))], axis=1).tolist()
    aggregates: list[list[_Aggregate | None]] = [
        list(map(_Aggregate, count, *rest)) for count, rest in zip(counts.tolist(), values, strict=True)
    ]
    for measure, window in np.argwhere(counts == 0).tolist():
        aggregates[measure][window] = None
    return list(map(_measures_type(names), *aggregates))


def _of_single_readings(names: tuple[str, ...], values: Floats, counts: Ints) -> list[_Measures]:
    """The same for windows of at most one reading, (m, k): its value, written once, is every aggregate."""
    rows = _encoder.encode(values.tolist())[2:-2].split(b"],[")
    columns = [
        list(map(bytes.join, row.split(b","), repeat(parts)))
        for parts, row in zip(_parts_of_single_readings(names), rows, strict=True)
    ]
    for measure, window in np.argwhere(counts == 0).tolist():
        columns[measure][window] = b""
    return [msgspec.Raw(b"{" + b",".join(filter(None, window)) + b"}") for window in zip(*columns, strict=True)]


@lru_cache(maxsize=256)
def _parts_of_single_readings(names: tuple[str, ...]) -> list[list[bytes]]:
    """What surrounds the value in the aggregates of each measure: `"name":{"count":1,"sum":`, `,"avg":`, …, `}`."""
    first, *others = (b',"' + field.encode() + b'":' for field in _Aggregate.__struct_fields__[1:])
    return [[_encoder.encode(name) + b':{"count":1' + first, *others, b"}"] for name in names]


@lru_cache(maxsize=256)
def _measures_type(names: tuple[str, ...]) -> type[msgspec.Struct]:
    """A type that encodes to the measures of these names; what is None is left out."""
    # A measure's name need not be a Python identifier.
    fields = [f"m{place}" for place in range(len(names))]
    return msgspec.defstruct(
        "Measures",
        [(field, _Aggregate | None, None) for field in fields],
        rename=dict(zip(fields, names, strict=True)),
        omit_defaults=True,
        gc=False,
    )
