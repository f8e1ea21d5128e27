"""The records of a Kafka record batch, read one by one: for small batches, and where headers differ."""

from collections.abc import Sequence
from typing import NamedTuple

from headrace.engine.records import Header


class Contents(NamedTuple):
    """The records of one batch as columns; offsets and times count from those of the batch."""

    offsets: list[int]
    times: list[int]
    keys: list[bytes | None]
    values: list[bytes | None]
    headers: dict[str, Header]


def read_rows(data: bytes, count: int) -> Contents:
    """Read `count` records.

    Raises:
        IndexError, ValueError: the records are not built as they should be.
    """
    contents = Contents([], [], [], [], {})
    rows: list[list[tuple[bytes, bytes | None]]] = []
    at = 0
    for _ in range(count):
        size, at = _varint(data, at)
        end = at + size
        delta, at = _varint(data, at + 1)  # behind the attributes, which are not used
        contents.times.append(delta)
        delta, at = _varint(data, at)
        contents.offsets.append(delta)
        key, at = _value(data, at)
        contents.keys.append(key)
        value, at = _value(data, at)
        contents.values.append(value)
        row, at = _headers(data, at)
        rows.append(row)
        if at != end:
            raise ValueError(f"a record ends at {at} instead of {end}")
    if at != len(data):
        raise ValueError(f"{len(data) - at} bytes too many")
    return contents._replace(headers=_columns(rows))


def _varint(data: bytes, at: int) -> tuple[int, int]:
    raw = data[at]
    at += 1
    if raw > 0x7F:
        raw &= 0x7F
        shift = 7
        while (byte := data[at]) > 0x7F:
            raw |= (byte & 0x7F) << shift
            shift += 7
            at += 1
        raw |= byte << shift
        at += 1
    return (raw >> 1) ^ -(raw & 1), at


def _value(data: bytes, at: int) -> tuple[bytes | None, int]:
    size, at = _varint(data, at)
    return (None, at) if size < 0 else (data[at : at + size], at + size)


def _headers(data: bytes, at: int) -> tuple[list[tuple[bytes, bytes | None]], int]:
    row = []
    count, at = _varint(data, at)
    for _ in range(count):
        name, at = _value(data, at)
        value, at = _value(data, at)
        row.append((name or b"", value))
    return row, at


def _columns(rows: Sequence[list[tuple[bytes, bytes | None]]]) -> dict[str, Header]:
    """One column per name, None where a record has no such header; of a name given twice the last counts."""
    columns: dict[bytes, list[bytes | None]] = {}
    for index, row in enumerate(rows):
        for name, value in row:
            if name not in columns:
                columns[name] = [None] * len(rows)
            columns[name][index] = value
    return {header_name(name): merged(column) for name, column in columns.items()}


def header_name(name: bytes) -> str:
    """A header's name as text, whatever its bytes are."""
    return name.decode(errors="surrogateescape")


def merged(column: list[bytes | None]) -> Header:
    """One value for all where they are equal."""
    first = column[0]
    return first if first is not None and column.count(first) == len(column) else column
