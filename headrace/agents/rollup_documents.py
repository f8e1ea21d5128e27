"""What the rollup agent writes about windows: the records of `telemetry.rollups`, many at once."""

from collections.abc import Sequence
from functools import lru_cache
from itertools import repeat
from typing import Any

import msgspec
import numpy as np

from headrace.schemas.readings import Floats, Ints
from headrace.schemas.window import Hopping, Sliding, Tumbling, Window
from headrace.tables import sketches
from headrace.tables.aggregates import COUNT, FIRST, LAST, MAX, MIN, SUM, Aggregation, Cells, variance
from headrace.tables.window_outputs import RETRACTION, Outputs

_KINDS = ("closed", "correction")
_WITH_PREVIOUS = {"correction", "retraction"}


def rollup_documents(outputs: Outputs) -> list[bytes]:
    """One JSON document per window, in order, as `schemas.rollup.Rollup` says."""
    revisions = outputs.revisions.tolist()
    kinds = [outputs.kind or _KINDS[revision > 0] for revision in revisions]
    measures: Sequence[_Measures] = [_NONE] * len(outputs)
    if outputs.kind != RETRACTION:
        measures = _measures(outputs, outputs.cells)
    previous: Sequence[_Measures | None] = [None] * len(outputs)
    if any(kind in _WITH_PREVIOUS for kind in kinds):
        before = _measures(outputs, outputs.previous)
        previous = [old if kind in _WITH_PREVIOUS else None for old, kind in zip(before, kinds, strict=True)]
    documents = map(
        _Document,
        outputs.device_ids,
        repeat(outputs.device_type),
        map(str, outputs.windows),
        map(_seconds_of, outputs.windows),
        outputs.starts.tolist(),
        outputs.ends.tolist(),
        kinds,
        revisions,
        measures,
        previous,
    )
    # A line break cannot occur inside a document: JSON escapes it in texts.
    # A list, not the iterator: msgspec 0.22 never frees what an iterator yields here.
    lines = _encoder.encode_lines(list(documents)).split(b"\n")
    lines.pop()
    return lines


@lru_cache(maxsize=256)
def _seconds_of(window: Window) -> float | msgspec.UnsetType:
    """Length of windows that have one, without a fraction if there is none."""
    if not isinstance(window, Tumbling | Hopping | Sliding):
        return msgspec.UNSET
    return window.size_ms // 1000 if window.size_ms % 1000 == 0 else window.size_ms / 1000


class _Aggregate(msgspec.Struct, gc=False, omit_defaults=True):
    count: int
    sum: float
    avg: float
    min: float
    max: float
    first: float
    last: float
    variance: float | None = None
    stddev: float | None = None
    percentiles: dict[str, float] | None = None
    percentile_error: float | None = None


#: Those of its fields that every window has.
_ALWAYS = _Aggregate.__struct_fields__[:7]


#: Either of what encodes to the measures of a window.
_Measures = msgspec.Struct | msgspec.Raw
_NONE = msgspec.Raw(b"{}")


class _Document(msgspec.Struct, gc=False, omit_defaults=True):
    device_id: str
    device_type: str
    window: str
    window_seconds: float | msgspec.UnsetType
    start: int
    end: int
    kind: str
    revision: int
    measures: _Measures
    previous: _Measures | None = None


_encoder = msgspec.json.Encoder()


def _measures(outputs: Outputs, cells: Cells) -> list[_Measures]:
    """The measures of each window; one that no reading had is left out."""
    if not outputs.measures:
        return [_NONE] * len(cells)
    names, order = tuple(name for name, _ in outputs.measures), [number for _, number in outputs.measures]
    ordered = Cells(cells.values[:, order], cells.sketches[:, order])
    return _ordered_measures(names, ordered, outputs.aggregation)


def _ordered_measures(names: tuple[str, ...], cells: Cells, aggregation: Aggregation) -> list[_Measures]:
    columns = cells.values.transpose(1, 2, 0)
    counts = columns[:, COUNT].astype(np.int64)
    single = counts.max(axis=0) <= 1
    if aggregation != _PLAIN or not single.any():
        more = _more(cells, counts, aggregation) if aggregation != _PLAIN else [[]] * len(names)
        return _of_aggregates(names, columns, counts, more)
    if single.all():
        return _of_single_readings(names, columns[:, SUM], counts)
    made: dict[int, _Measures] = dict.fromkeys(range(len(cells)), _NONE)
    for windows in (np.flatnonzero(single), np.flatnonzero(~single)):
        made.update(zip(windows.tolist(), _ordered_measures(names, cells[windows], aggregation), strict=True))
    return list(made.values())


_PLAIN = Aggregation()


def _more(cells: Cells, counts: Ints, aggregation: Aggregation) -> list[list[Sequence[Any]]]:
    """Of each measure the columns of variance and so on, as far as configured."""
    measures: list[list[Sequence[Any]]] = [[] for _ in counts]
    spread = variance(cells.values) if aggregation.variance else np.full(counts.T.shape, np.nan)
    for columns, of_measure in zip(measures, spread.T, strict=True):
        columns += [_or_none(of_measure), _or_none(np.sqrt(of_measure))]
    if aggregation.percentiles:
        names = [f"p{percentile:g}" for percentile in aggregation.percentiles]
        for measure, columns in enumerate(measures):
            sketch, values = cells.sketches[:, measure], cells.values[:, measure]
            # Without all readings, as percentiles were configured after the window began, there are none.
            whole = sketches.total(sketch) == counts[measure]
            found = sketches.percentiles(sketch, aggregation.percentiles)
            found = np.clip(found, values[:, MIN, np.newaxis], values[:, MAX, np.newaxis])
            named = [dict(zip(names, row, strict=True)) for row in found.tolist()]
            columns.append([row if all_ else None for row, all_ in zip(named, whole, strict=True)])
            columns.append(_or_none(np.where(whole, sketches.error(sketch), np.nan)))
    return measures


def _or_none(column: Floats) -> list[float | None]:
    return [None if value != value else value for value in column.tolist()]


def _of_aggregates(
    names: tuple[str, ...], columns: Floats, counts: Ints, more: Sequence[list[Sequence[Any]]]
) -> list[_Measures]:
    """The measures of each window, from (m, w, k) columns, (m, k) counts, and per measure columns of other fields."""
    averages = columns[:, SUM] / np.maximum(counts, 1)
    values = np.stack([columns[:, SUM], averages, *(columns[:, at] for at in (MIN, MAX, FIRST, LAST))], axis=1).tolist()
    aggregates: list[list[_Aggregate | None]] = [
        list(map(_Aggregate, count, *rest, *others))
        for count, rest, others in zip(counts.tolist(), values, more, strict=True)
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
    first, *others = (b',"' + field.encode() + b'":' for field in _ALWAYS[1:])
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
