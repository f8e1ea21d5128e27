"""Files of devices."""

import gzip
import json
from pathlib import Path

import pytest

from headrace.connectors.device_file import device_rows
from headrace.connectors.row_file import Row
from headrace.engine.errors import ConfigError

FIRST = {"deviceId": "a", "organizationId": "acme", "name": "First"}
SECOND = {"deviceId": "b", "name": "Second", "location": {"lat": "48.1"}, "tags": ["roof", "east"]}


def rows(path: Path, text: str) -> list[Row]:
    """What is read of a file with this text."""
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return list(device_rows(path))


@pytest.mark.parametrize("name", ["f.csv", "f.csv.gz"])
@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_csv_is_read_under_any_spelling(tmp_path: Path, name: str, separator: str) -> None:
    """Empty cells and what is only seen are left out; a cell may be quoted over lines, and lines are counted."""
    lines = ["id,Organisation,NAME,location.lat,tags,last_seen", 'a,acme,"First",,,', '"b",,Second,48.1,"roof|east",7']

    found = rows(tmp_path / name, "\n".join(lines).replace(",", separator))

    assert found == [Row(2, FIRST), Row(3, SECOND)]


@pytest.mark.parametrize("name", ["f.ndjson", "f.jsonl.gz", "f.json"])
def test_ndjson_is_read(tmp_path: Path, name: str) -> None:
    """A bad line does not touch its neighbours."""
    found = rows(tmp_path / name, f"{json.dumps(FIRST)}\n\n{{bad\n[1]\n{json.dumps(SECOND)}\n")

    assert [(row.line, row.document) for row in found] == [(1, FIRST), (3, None), (4, None), (5, SECOND)]


def test_an_array_is_read_with_lines(tmp_path: Path) -> None:
    """Each item has the line on which it begins."""
    found = rows(tmp_path / "f.json", f"[\n{json.dumps(FIRST, indent=1)},\n 7, {json.dumps(SECOND)}\n]\n")

    assert [(row.line, row.document) for row in found] == [(2, FIRST), (7, None), (7, SECOND)]


@pytest.mark.parametrize("text", ["[", "[{}", '[{} {"id": 1}]', "[{},]", "[{}] x", "[" * 100_000])
def test_a_broken_array_says_so(tmp_path: Path, text: str) -> None:
    """It ends with a mistake, whatever is wrong."""
    assert rows(tmp_path / "f.json", text)[-1].mistake


def test_a_broken_csv_row_is_a_mistake_of_its_own(tmp_path: Path) -> None:
    """Too few fields, too many."""
    found = rows(tmp_path / "f.csv", "id,name\na\nb,Second\nc,Third,x\n")

    assert [(row.line, bool(row.mistake)) for row in found] == [(2, True), (3, False), (4, True)]


@pytest.mark.parametrize(
    ("name", "data", "reason"),
    [
        ("f.csv", b"id,nmae\n", "line 1: no device has 'nmae'; did you mean 'name'?"),
        ("f.csv", b"id,name\n\xff,x\n", "not UTF-8"),
        ("f.csv.gz", b"no gzip", "cannot be read"),
        ("f.json.gz", gzip.compress(b"[]" * 9999, mtime=0)[:-20], "cannot be read"),
    ],
)
def test_what_cannot_be_read_says_so(tmp_path: Path, name: str, data: bytes, reason: str) -> None:
    """In one message."""
    (tmp_path / name).write_bytes(data)

    with pytest.raises(ConfigError, match=reason.replace("?", r"\?")):
        list(device_rows(tmp_path / name))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "no header"),
        ("\n", "no header"),
        ("id,name,id\nx,yyy,z\n", "line 1: 'id' say the same"),
        ("id,organisation,organizationId\nx,a,b\n", "'organisation', 'organizationId' say the same"),
    ],
)
def test_headers_that_say_nothing_or_the_same_twice(tmp_path: Path, text: str, said: str) -> None:
    """Are mistakes of the file: a column would be lost."""
    with pytest.raises(ConfigError, match=said):
        rows(tmp_path / "f.csv", text)
