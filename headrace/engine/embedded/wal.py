"""SQLite's write-ahead log, switched on in a file that another process may be opening at the same time."""

import sqlite3


def use_wal(connection: sqlite3.Connection) -> None:
    """Switch it on, unless it is on.

    SQLite's `busy_timeout` does not cover this: the switch reads first, and whoever reads and then wants to write is
    refused at once when another connection has the write lock, as one that makes the same file has. So the lock is
    waited for apart, and then it is tried again.

    Raises:
        sqlite3.Error: not possible, or others had the lock for all of `busy_timeout`.
    """
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY:
                raise
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("ROLLBACK")
        else:
            return
