"""A window's value in the changelog: int64 and float64, little-endian.

    own clock of the device, watermark at its last reading, revision, layout    int64
    values of each measure's cell (see `headrace.tables.aggregates`)            float64
    per measure the sketch, if there are any: its length without zeros at the   int64
    end, then that

The layout is measures × 256 + values per cell. A value keeps the layout it was written in, when more measures are known
or other aggregates are configured.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from headrace.schemas.readings import Floats, Ints
from headrace.tables.aggregates import COUNT, Aggregation, Cells

_HEADER = 4
#: Of the first version, without a layout: cells had eight values then.
_HEADER_1, _WIDTH_1 = 3, 8
_LAYOUT = 256
#: Of each measure, in the order of a cell.
_AGGREGATES = ("count", "sum", "min", "max", "first", "last")


class Header(NamedTuple):
    """Own clock of the device, watermark at its last reading, revision of the window; (k,) int64."""

    clocks: Ints
    seen_at: Ints
    revisions: Ints


def rows_of(array: Any) -> list[bytes]:
    """The bytes of each row of a matrix, (k, n)."""
    rows: list[bytes] = np.ascontiguousarray(array).view(f"V{array.shape[1] * array.itemsize}").reshape(-1).tolist()
    return rows


def encode(header: Header, cells: Cells) -> list[bytes]:
    """One value per window."""
    count, measures, width = cells.values.shape
    table = np.empty((count, _HEADER + measures * width), dtype="<i8")
    table[:, : _HEADER - 1] = np.stack(header, axis=1)
    table[:, _HEADER - 1] = measures * _LAYOUT + width
    table[:, _HEADER:] = cells.values.reshape(count, -1).view(np.int64)
    values = rows_of(table)
    if cells.sketches.shape[2]:
        return [value + _encoded(sketches) for value, sketches in zip(values, cells.sketches, strict=True)]
    return values


def _encoded(sketches: Ints) -> bytes:
    used = ((sketches != 0) * np.arange(1, sketches.shape[1] + 1)).max(axis=1).tolist()
    parts = [np.append(length, sketch[:length]) for length, sketch in zip(used, sketches, strict=True)]
    return np.concatenate(parts).astype("<i8", copy=False).tobytes() if parts else b""


def decode(values: Sequence[bytes], measures: int, aggregation: Aggregation) -> tuple[Header, Cells]:
    """Headers and cells of k windows, with `measures` measures each; what a value does not have is empty."""
    by_size: dict[int, list[int]] = {}
    for row, value in enumerate(values):
        by_size.setdefault(len(value), []).append(row)
    header = np.empty((_HEADER - 1, len(values)), dtype=np.int64)
    cells = Cells.empty(len(values), measures, aggregation)
    for size, rows in by_size.items():
        table = np.frombuffer(b"".join([values[row] for row in rows]), "<i8").reshape(len(rows), size // 8)
        header[:, rows] = table[:, : _HEADER - 1].T
        for layout in np.unique(table[:, _HEADER - 1]).tolist():
            ours = table[:, _HEADER - 1] == layout
            _decode_cells(table[ours], layout, np.array(rows)[ours], cells)
    return Header(*header), cells


def _decode_cells(table: Ints, layout: int, rows: Ints, cells: Cells) -> None:
    measures, width = divmod(layout, _LAYOUT)
    end = _HEADER + measures * width
    floats: Floats = table[:, _HEADER:end].view(np.float64).reshape(len(table), measures, width)
    both = min(width, cells.values.shape[2])
    cells.values[rows, :measures, :both] = floats[:, :, :both]
    if not cells.sketches.shape[2]:
        return
    for row, rest in zip(rows.tolist(), table[:, end:], strict=True):
        at = measure = 0
        while at < len(rest):
            length = int(rest[at])
            cells.sketches[row, measure, :length] = rest[at + 1 : at + 1 + length]
            at, measure = at + 1 + length, measure + 1


def from_first(value: bytes) -> bytes:
    """A value of the first version, as it is now."""
    table = np.frombuffer(value, "<i8")
    layout = (len(table) - _HEADER_1) // _WIDTH_1 * _LAYOUT + _WIDTH_1
    return np.insert(table, _HEADER_1, layout).tobytes()


def shown(value: bytes, names: Sequence[str]) -> tuple[Header, Mapping[str, Any]]:
    """A value for a person: its header and, by measure, what the cells hold of count, sum and so on."""
    header, cells = decode([value], len(names), Aggregation())
    return header, {
        name: dict(zip(_AGGREGATES, cell, strict=False))
        for name, cell in zip(names, cells.values[0].tolist(), strict=True)
        if cell[COUNT]
    }
