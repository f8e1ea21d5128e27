"""Stores on disk, as far as they are not like those in memory."""

import sys
from pathlib import Path

import pytest

from headrace.engine.errors import ConfigError
from headrace.tables.keyvalue import KeyValue
from headrace.tables.rocks import RocksStores
from tests.tables.changelog import Changelog


def test_without_the_package(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The error is the command to run."""
    monkeypatch.setitem(sys.modules, "rocksdict", None)
    with pytest.raises(ConfigError, match=r"pip install headrace\[rocksdb\]"):
        RocksStores(tmp_path)


@pytest.mark.parametrize("name", ["CURRENT", "MANIFEST-*"])
def test_damaged_folder_is_made_anew(tmp_path: Path, name: str) -> None:
    """From the changelog, which is the truth."""
    changelog = Changelog()
    table: KeyValue[tuple[str], str] = KeyValue("door", str.encode, bytes.decode, stores=RocksStores(tmp_path))
    changelog.restore(table)
    table.update(0, {("hall",): "open"})
    changelog.commit(table)
    table.close()
    for path in (tmp_path / "door" / "0").glob(name):
        path.write_bytes(b"garbage")

    changelog.restore(table)

    assert dict(table.view(0)) == {("hall",): "open"}
    table.close()


def test_folder_that_cannot_be_made(tmp_path: Path) -> None:
    """Names it."""
    (tmp_path / "file").write_text("")
    table: KeyValue[tuple[str], str] = KeyValue("door", str.encode, bytes.decode, stores=RocksStores(tmp_path / "file"))
    with pytest.raises(ConfigError, match=f"table folder {tmp_path}/file cannot be written"):
        table.known(0)
