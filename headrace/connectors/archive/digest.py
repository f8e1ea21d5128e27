"""Digests of rows: what a file holds, to be compared with what SQL says of the rows in the database.

A row's bytes, column by column: a time as µs since 1970 UTC (8 bytes, big-endian); a number as one byte that says
whether there is one, and its 8 bytes of IEEE 754; a text as its length (4 bytes, -1 for none) and UTF-8.
`Dataset.digest` makes the same bytes in PostgreSQL.
"""

import hashlib
from collections.abc import Mapping
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
import polars as pl

from headrace.connectors.archive.dataset import Dataset

Digests = Mapping[str, "Digest"]
_WORD = 1 << 64
_NOTHING = (-1).to_bytes(4, "big", signed=True)


class Digest(NamedTuple):
    """Of the rows of a group, in order.

    Args:
        rows: how many.
        digest: SHA-256 of their bytes.
        sums: per column of numbers, the sum of the numbers' 64 bits taken as integers, modulo 2^64: exact, whatever the
            order. Empty where nobody asked.
    """

    rows: int
    digest: bytes
    sums: tuple[int, ...] = ()

    def same(self, other: "Digest | None") -> bool:
        """Whether both are of the same rows, as far as both say."""
        if other is None or (self.rows, self.digest) != (other.rows, other.digest):
            return False
        return not self.sums or not other.sums or self.sums == other.sums


def digests(frame: pl.DataFrame, dataset: Dataset) -> dict[str, Digest]:
    """Digest per group; the rows of each are in order and together.

    Args:
        frame: columns of `dataset`, as `headrace.connectors.archive.parquet` makes and reads them.
    """
    if not frame.height:
        return {}
    pieces = [_heads(frame, dataset)]
    pieces += [_texts(frame[column.name]) for column in dataset.digested if column.kind in ("text", "json")]
    bits, there = _bits(frame, dataset)
    found = {}
    for name, begin, end in _groups(frame, dataset.group):
        content = b"".join(chain.from_iterable(zip(*(piece[begin:end] for piece in pieces), strict=True)))
        sums = tuple(
            int(column[begin:end][present[begin:end]].sum(dtype=np.int64)) % _WORD
            for column, present in zip(bits, there, strict=True)
        )
        found[name] = Digest(end - begin, hashlib.sha256(content).digest(), sums)
    return found


def from_records(records: list[Any]) -> dict[str, Digest]:
    """What `Dataset.digest` and `Dataset.delete` answered."""
    return {
        row["name"]: Digest(row["count"], bytes(row["digest"]), tuple(int(each) % _WORD for each in row["sums"] or ()))
        for row in records
    }


def differences(found: Digests, expected: Digests) -> list[str]:
    """Groups that are not the same, each with what differs, for a person."""
    wrong = []
    for name in sorted(found.keys() | expected.keys()):
        one, other = found.get(name), expected.get(name)
        if one is None or not one.same(other):
            counts = [0 if each is None else each.rows for each in (one, other)]
            what = f"{counts[0]} rows, not {counts[1]}" if counts[0] != counts[1] else "other values"
            wrong.append(f"{name or 'rows'}: {what}")
    return wrong


def content_digest(groups: Digests) -> bytes:
    """One digest of all groups, in the order of their names' bytes."""
    total = hashlib.sha256()
    for name in sorted(groups, key=str.encode):
        encoded = name.encode()
        group = groups[name]
        total.update(len(encoded).to_bytes(4, "big") + encoded + group.rows.to_bytes(8, "big") + group.digest)
    return total.digest()


def _heads(frame: pl.DataFrame, dataset: Dataset) -> list[bytes]:
    """Per row the bytes of the columns of fixed length."""
    columns = [column for column in dataset.digested if column.kind in ("micros", "float")]
    layout: list[tuple[str, str]] = []
    for place, column in enumerate(columns):
        layout += [(f"v{place}", ">i8")] if column.kind == "micros" else [(f"p{place}", "u1"), (f"v{place}", ">f8")]
    rows = np.zeros(frame.height, np.dtype(layout))
    for place, column in enumerate(columns):
        series = frame[column.name]
        if column.kind == "micros":
            rows[f"v{place}"] = series.to_physical().to_numpy()
        else:
            present = series.is_not_null().to_numpy()
            rows[f"p{place}"] = present
            rows[f"v{place}"][present] = series.to_numpy()[present]
    heads: list[bytes] = rows.view(f"V{rows.dtype.itemsize}").tolist()
    return heads


def _texts(series: pl.Series) -> list[bytes]:
    known: dict[str | None, bytes] = {None: _NOTHING}
    for text in series.unique().to_list():
        if text is not None:
            encoded = text.encode()
            known[text] = len(encoded).to_bytes(4, "big") + encoded
    return [known[text] for text in series.to_list()]


def _bits(frame: pl.DataFrame, dataset: Dataset) -> tuple[list[Any], list[Any]]:
    """Of each column of numbers the (n,) int64 of their bits, and (n,) bool: which are there."""
    columns = [frame[name] for name in dataset.floats]
    numbers = [np.ascontiguousarray(column.fill_null(0.0).to_numpy(), np.float64).view(np.int64) for column in columns]
    return numbers, [column.is_not_null().to_numpy() for column in columns]


def _groups(frame: pl.DataFrame, group: str) -> list[tuple[str, int, int]]:
    """Name, and the places from and up to, of each run of rows with the same name."""
    if not group:
        return [("", 0, frame.height)]
    runs = frame[group].rle().struct.unnest()
    ends = runs["len"].cum_sum().to_list()
    return list(zip(runs["value"].to_list(), [0, *ends[:-1]], ends, strict=True))
