"""The SQLite file of the embedded log: connections that are set up for durable commits."""

import sqlite3
from pathlib import Path

from headrace.engine.embedded import migration
from headrace.engine.embedded.schema import SCHEMA, VERSION
from headrace.engine.embedded.wal import use_wal
from headrace.engine.errors import LogError

MEMORY = Path(":memory:")
#: Another process may hold the write lock for one commit; longer than this is an error.
BUSY_TIMEOUT_MS = 30_000


def connect(folder: Path) -> sqlite3.Connection:
    """Open `folder`/log.sqlite, or a database in memory, and make its tables.

    Raises:
        LogError: the file is not ours, damaged, or of a newer headrace.
    """
    target = ":memory:" if folder == MEMORY else str(folder / "log.sqlite")
    connection = sqlite3.connect(target, isolation_level=None, check_same_thread=False)
    try:
        connection.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_MS}")
        connection.execute("PRAGMA page_size = 16384")
        use_wal(connection)
        # NORMAL does not sync on commit: an acknowledged record could vanish with the power.
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA wal_autocheckpoint = 4000")
        # Distributions build SQLite to overwrite with zeros what is freed: as much writing as the rows were.
        connection.execute("PRAGMA secure_delete = OFF")
        connection.execute("PRAGMA temp_store = MEMORY")
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        if version == migration.FROM:
            migration.migrate(connection, target)
            version = VERSION
        if version not in (0, VERSION):
            raise LogError(f"{target} has format {version}, this headrace reads {VERSION}; upgrade headrace")
        if version == 0:
            connection.executescript(f"BEGIN IMMEDIATE;{SCHEMA}PRAGMA user_version = {VERSION};COMMIT;")
    except sqlite3.Error as error:
        connection.close()
        raise LogError(f"cannot open the log {target}: {error}") from error
    except LogError:
        connection.close()
        raise
    return connection
