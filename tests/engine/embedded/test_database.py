"""Opening the file of the embedded log while another process makes it."""

import sqlite3
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from headrace.engine.embedded.database import connect
from headrace.engine.embedded.schema import VERSION
from headrace.engine.embedded.wal import use_wal


def test_who_opens_a_log_that_another_is_just_making_waits_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such as a look at the folder of a worker that starts: neither of them gets "database is locked"."""
    other = sqlite3.connect(tmp_path / "log.sqlite", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    other.execute("CREATE TABLE made_by_the_other (id INTEGER)")

    class Waiting(sqlite3.Connection):
        """The other one is done while this one waits for the lock."""

        def execute(self, sql: str, *arguments: Any) -> sqlite3.Cursor:
            if sql == "BEGIN IMMEDIATE" and other.in_transaction:
                other.execute("COMMIT")
            return super().execute(sql, *arguments)

    monkeypatch.setattr(sqlite3, "connect", partial(sqlite3.connect, factory=Waiting))

    connection = connect(tmp_path)

    assert not other.in_transaction
    assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert connection.execute("PRAGMA user_version").fetchone() == (VERSION,)
    connection.close()
    other.close()


def test_a_log_that_another_never_lets_go_of_is_an_error(tmp_path: Path) -> None:
    """Nobody waits for ever."""
    other = sqlite3.connect(tmp_path / "log.sqlite", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    refused = sqlite3.connect(tmp_path / "log.sqlite", isolation_level=None)
    refused.execute("PRAGMA busy_timeout = 0")

    with pytest.raises(sqlite3.OperationalError, match="locked"):
        use_wal(refused)

    refused.close()
    other.close()
