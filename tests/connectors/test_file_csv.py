"""The CSV reader: its fast path may never read a block differently from its exact one."""

import csv
import tempfile
from pathlib import Path

import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.connectors.file_csv import CsvFile
from headrace.connectors.file_formats import Place
from headrace.connectors.file_lines import line_ends

FIELDS = ["a", "", " ", '"q"', '"a""b"', '"x,y"', '"', 'b"c', ' "q"', '"q"b', '"x\ny"', "\r", "é", "\x1e", "1,2"]
LINE = st.lists(st.sampled_from(FIELDS), min_size=1, max_size=4).map(",".join)
WELL_FORMED = st.lists(st.sampled_from(["a", "", '"a""b"', '"x,y"']), min_size=3, max_size=3).map(",".join)


def open_csv(folder: str, data: bytes = b"") -> CsvFile:
    path = Path(folder) / "x.csv"
    path.write_bytes(b"a,b,c\n" + data)
    return CsvFile(path)


@settings(deadline=None, max_examples=150)
@given(lines=st.lists(st.one_of(WELL_FORMED, LINE), min_size=1, max_size=4), line_end=st.sampled_from(["\n", "\r\n"]))
def test_fast_is_exact(lines: list[str], line_end: str) -> None:
    """Where the fast path answers, it answers as the exact path and Python's strict csv module do."""
    data = (line_end.join(lines) + line_end).encode()
    needed = {"c": 2, "a": 0}
    with tempfile.TemporaryDirectory() as folder:
        file = open_csv(folder)

    fast = file._parse_fast(data, len(line_ends(data)), needed)

    if fast is not None:
        exact = file._parse_exactly(data, line_ends(data), needed, ended=True)
        assert fast.table.rows() == exact.table.rows()
        assert fast.last_lines.tolist() == exact.last_lines.tolist()
        assert not exact.broken
        assert fast.table.rows() == [(row[2], row[0]) for row in csv.reader(lines, strict=True)]


def test_well_formed_blocks_are_read_fast(tmp_path: Path) -> None:
    """Quotes, empty fields and Windows line ends do not slow a block down."""
    data = b'1,"x,y",3\r\n,"a""b",\r\n'

    fast = open_csv(str(tmp_path))._parse_fast(data, 2, {"a": 0, "b": 1, "c": 2})

    assert fast is not None
    assert fast.table.rows() == [("1", "x,y", "3"), ("", 'a"b', "")]


@settings(deadline=None, max_examples=50)
@given(lines=st.lists(st.one_of(WELL_FORMED, LINE), max_size=6), chunk_bytes=st.integers(1, 40))
def test_chunks_may_end_anywhere(lines: list[str], chunk_bytes: int) -> None:
    """Rows, raw bytes and places do not depend on how the file is cut, and every place can be resumed from."""
    with tempfile.TemporaryDirectory() as folder:
        file = open_csv(folder, "\n".join(lines).encode())
        whole = read(file, Place(), 1 << 20)

        assert read(file, Place(), chunk_bytes) == whole
        for index, (_, _, offset, line) in enumerate(whole):
            assert read(file, Place(offset, line), chunk_bytes) == whole[index + 1 :]


def read(file: CsvFile, place: Place, chunk_bytes: int) -> list[tuple[object, bytes, int, int]]:
    rows: list[tuple[object, bytes, int, int]] = []
    for chunk in file.chunks(place, file.columns, chunk_bytes):
        table = chunk.table if chunk.table is not None else pl.DataFrame()
        for index, row in enumerate(table.rows()):
            values = None if index in chunk.broken else row
            rows.append((values, chunk.raw(index), int(chunk.offsets[index]), int(chunk.lines[index])))
    return rows
