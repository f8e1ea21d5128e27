"""A window's value in the changelog: int64 and float64, little-endian.

    header, for windows on a grid: own clock of the device, watermark at its    int64
    last reading, revision; then the layout
    values of each measure's cell (see `headrace.tables.aggregates`)            float64
    per measure the sketch, if there are any: its length without zeros at the   int64
    end, then that

The layout is measures × 256 + values per cell. A value keeps the layout it was written in, when more measures are known
or other aggregates are configured.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from headrace.schemas.readings import Floats, Ints
from headrace.tables.aggregates import COUNT, Aggregation, Cells, Lists

#: Of the first version, without a layout: cells had eight values then.
_HEADER_1, _WIDTH_1 = 3, 8
_LAYOUT = 256
#: Of each measure, in the order of a cell.
_AGGREGATES = ("count", "sum", "min", "max", "first", "last")


def rows_of(array: Any) -> list[bytes]:
    """The bytes of each row of a matrix, (k, n)."""
    rows: list[bytes] = np.ascontiguousarray(array).view(f"V{array.shape[1] * array.itemsize}").reshape(-1).tolist()
    return rows


def encode(header: Sequence[Ints], cells: Cells) -> list[bytes]:
    """One value per window, from columns of (k,) and the cells of k windows."""
    count, measures, width = cells.values.shape
    size = len(header)
    table = np.empty((count, size + 1 + measures * width), dtype="<i8")
    for place, column in enumerate(header):
        table[:, place] = column
    table[:, size] = measures * _LAYOUT + width
    table[:, size + 1 :] = cells.values.reshape(count, -1).view(np.int64)
    values = rows_of(table)
    if cells.sketches.size:
        return list(map(bytes.__add__, values, _encoded(cells.sketches)))
    return values


def _encoded(sketches: Ints) -> list[bytes]:
    """The sketches of each window, (k, m, b): of each its length without zeros at the end, then that."""
    width = sketches.shape[2]
    used = ((sketches != 0) * np.arange(1, width + 1)).max(axis=2, keepdims=True)
    table = np.concatenate([used, sketches], axis=2)
    kept = np.arange(width + 1) <= used
    whole = table[kept].astype("<i8", copy=False).tobytes()
    ends = (np.cumsum(kept.sum(axis=(1, 2))) * 8).tolist()
    return [whole[start:end] for start, end in zip([0, *ends], ends, strict=False)]


def decode(
    values: Sequence[bytes], header_size: int, measures: int, aggregation: Aggregation
) -> tuple[list[Ints], Cells]:
    """The columns of the header and the cells of k windows, with so many measures; what a value lacks is empty."""
    sizes = np.fromiter(map(len, values), np.int64, len(values))
    header = np.empty((header_size, len(values)), dtype=np.int64)
    cells = Cells.empty(len(values), measures, aggregation)
    for size in np.unique(sizes).tolist():
        rows = np.flatnonzero(sizes == size)
        some = values if len(rows) == len(values) else [values[row] for row in rows.tolist()]
        table = np.frombuffer(b"".join(some), "<i8").reshape(len(rows), size // 8)
        header[:, rows] = table[:, :header_size].T
        for layout in np.unique(table[:, header_size]).tolist():
            ours = np.flatnonzero(table[:, header_size] == layout)
            of_layout = table if len(ours) == len(table) else table[ours]
            _decode_cells(of_layout[:, header_size + 1 :], layout, rows[ours], cells)
    return list(header), cells


def _decode_cells(table: Ints, layout: int, rows: Ints, cells: Cells) -> None:
    measures, width = divmod(layout, _LAYOUT)
    end = measures * width
    floats: Floats = table[:, :end].view(np.float64).reshape(len(table), measures, width)
    both = min(width, cells.values.shape[2])
    cells.values[rows, :measures, :both] = floats[:, :, :both]
    if not cells.sketches.shape[2]:
        return
    for row, rest in zip(rows.tolist(), table[:, end:], strict=True):
        _decode_sketches(rest, cells.sketches[row])


def _decode_sketches(rest: Ints, into: Ints) -> None:
    at = measure = 0
    while at < len(rest):
        length = int(rest[at])
        into[measure, :length] = rest[at + 1 : at + 1 + length]
        at, measure = at + 1 + length, measure + 1


def from_first(value: bytes) -> bytes:
    """A value of the first version, as it is now."""
    table = np.frombuffer(value, "<i8")
    layout = (len(table) - _HEADER_1) // _WIDTH_1 * _LAYOUT + _WIDTH_1
    return np.insert(table, _HEADER_1, layout).tobytes()


def decode_one(value: bytes, header_size: int, sketch_width: int) -> tuple[list[int], Lists, Ints]:
    """Header, values and sketches (m, b) of one window, with the measures and values per measure that it has."""
    table = np.frombuffer(value, "<i8")
    measures, width = divmod(int(table[header_size]), _LAYOUT)
    begin, end = header_size + 1, header_size + 1 + measures * width
    values: Lists = table[begin:end].view(np.float64).reshape(measures, width).tolist()
    sketches = np.zeros((measures, sketch_width), dtype=np.int64)
    if sketch_width:
        _decode_sketches(table[end:], sketches)
    header: list[int] = table[:header_size].tolist()
    return header, values, sketches


def shown(value: bytes, header_size: int, names: Sequence[str]) -> tuple[list[int], Mapping[str, Any]]:
    """A value for a person: its header and, by measure, what the cells hold of count, sum and so on."""
    header, cells, _ = decode_one(value, header_size, 0)
    return header, {
        name: {**dict(zip(_AGGREGATES, cell, strict=False)), "count": int(cell[COUNT])}
        for name, cell in zip(names, cells, strict=False)
        if cell[COUNT]
    }
