"""Versioned migrations: each applied once, in order, in a transaction of its own, by one process at a time."""

import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

import asyncpg

from headrace.engine.errors import ConfigError

#: Advisory lock that a migrating transaction holds, "headrace" in ASCII.
LOCK = int.from_bytes(b"headrace")
#: Folder of this package with the migrations of the tables that are always there.
MIGRATIONS = "sql"
#: Longest that a step, or waiting for another process's, may take, seconds: a big table or a slow disk is no failure.
PATIENCE = 86_400.0
#: Times that a step is tried which the server ended to resolve a deadlock with somebody at work in its tables.
DEADLOCK_TRIES = 5

#: SQL: whether the server has loaded TimescaleDB. What it loads only some may see; settings of the loader everybody.
PRELOADED = """
    CASE WHEN pg_has_role('pg_read_all_settings', 'USAGE')
        THEN current_setting('shared_preload_libraries') LIKE '%timescaledb%'
        ELSE current_setting('timescaledb.max_background_workers', true) IS NOT NULL
    END
"""

_UP, _DOWN = ".up.sql", ".down.sql"
#: Versions that a file has; those of readings tables begin with the table's name.
_NUMBERED = re.compile(r"\d{4}_")

_TABLE = """
CREATE TABLE IF NOT EXISTS headrace_migrations (
    version text PRIMARY KEY,
    checksum text NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT now()
)
"""


@dataclass(frozen=True, slots=True)
class Migration:
    """One step of the schema.

    Args:
        version: unique; never reused.
        up: SQL statements that carry it out.
        extension: PostgreSQL extension without which the step is left for later; empty for none.
        down: SQL statements that undo it; None if it cannot be undone by itself.
    """

    version: str
    up: str
    extension: str = ""
    down: str | None = None

    @property
    def checksum(self) -> str:
        """Of the SQL, so that a step changed after it was applied is noticed."""
        return hashlib.sha256(self.up.encode()).hexdigest()


@cache
def packaged(folder: str) -> Sequence[Migration]:
    """The migrations in `folder` of this package, by name: `0001_name.up.sql`, or `0002_name.EXTENSION.up.sql`.

    What undoes one has the same name with `down` for `up`.
    """
    texts = {
        file.name: file.read_text(encoding="utf-8")
        for file in files("headrace.connectors.timescale").joinpath(folder).iterdir()
        if file.name.endswith((_UP, _DOWN))
    }
    found = []
    for name, text in texts.items():
        if name.endswith(_UP):
            stem = name.removesuffix(_UP)
            version, _, extension = stem.partition(".")
            found.append(Migration(version, text, extension, texts.get(stem + _DOWN)))
    return tuple(sorted(found, key=lambda migration: migration.version))


def is_numbered(version: str) -> bool:
    """Whether it is a file's, not a readings table's.

    >>> is_numbered("0001_sink"), is_numbered("readings_air.hypertable")
    (True, False)
    """
    return _NUMBERED.match(version) is not None


async def migrate(connection: asyncpg.Connection, migrations: Sequence[Migration]) -> list[str]:
    """Apply what is missing of `migrations`; the versions applied. Safe to run in many processes at once.

    Raises:
        ConfigError: see `missing`.
    """
    return [step.version for step in await missing(connection, migrations) if await _apply(connection, step)]


async def missing(connection: asyncpg.Connection, migrations: Sequence[Migration]) -> list[Migration]:
    """What this database lacks of `migrations`, in order; steps of extensions it cannot have are left out.

    Raises:
        ConfigError: a step is in the database with other SQL than here, or one that this program does not know.
    """
    extensions = await usable_extensions(connection)
    wanted = [step for step in migrations if not step.extension or step.extension in extensions]
    done = await applied(connection)
    _check_known(done)
    _check_unchanged(wanted, done)
    return [step for step in wanted if step.version not in done]


async def usable_extensions(connection: asyncpg.Connection) -> set[str]:
    """Extensions that are installed, or that this role can install; the server must preload TimescaleDB, too."""
    rows = await connection.fetch(
        f"""
        SELECT name FROM pg_available_extensions AS found
        WHERE installed_version IS NOT NULL OR (
            (name <> 'timescaledb' OR {PRELOADED})
            AND ((SELECT rolsuper FROM pg_roles WHERE rolname = current_user) OR EXISTS (
                SELECT FROM pg_available_extension_versions AS each
                WHERE each.name = found.name AND each.version = found.default_version
                    AND (each.trusted OR NOT each.superuser)
            ))
        )
        """
    )
    return {row["name"] for row in rows}


async def applied(connection: asyncpg.Connection) -> dict[str, str]:
    """Checksum by version, of all that the database got."""
    if await connection.fetchval("SELECT to_regclass('headrace_migrations')") is None:
        return {}
    rows = await connection.fetch("SELECT version, checksum FROM headrace_migrations")
    return {row["version"]: row["checksum"] for row in rows}


async def take_lock(connection: asyncpg.Connection) -> None:
    """Be the only one who changes the schema, until the running transaction ends."""
    # Of the transaction, not of the session: a connection pooler may give the session to somebody else.
    await connection.execute("SET LOCAL statement_timeout = 0; SET LOCAL lock_timeout = 0")
    await connection.execute("SELECT pg_advisory_xact_lock($1)", LOCK, timeout=PATIENCE)


async def _apply(connection: asyncpg.Connection, step: Migration) -> bool:
    """Carry it out, unless another process did meanwhile."""
    for left in reversed(range(DEADLOCK_TRIES)):
        try:
            async with connection.transaction():
                await take_lock(connection)
                await connection.execute(_TABLE)
                done = await applied(connection)
                _check_unchanged([step], done)
                if step.version in done:
                    return False
                await connection.execute(step.up, timeout=PATIENCE)
                await connection.execute(
                    "INSERT INTO headrace_migrations (version, checksum) VALUES ($1, $2)", step.version, step.checksum
                )
            break
        except asyncpg.DeadlockDetectedError:
            if not left:
                raise
    return True


def _check_known(done: Iterable[str]) -> None:
    known = {step.version for step in packaged(MIGRATIONS)}
    newer = sorted(version for version in done if is_numbered(version) and version not in known)
    if newer:
        raise ConfigError(
            f"the database is of a newer headrace: this one does not know its migrations {', '.join(newer)}. "
            "Use the newer one, or undo them with it: headrace database down"
        )


def _check_unchanged(wanted: Iterable[Migration], done: dict[str, str]) -> None:
    changed = [step.version for step in wanted if done.get(step.version, step.checksum) != step.checksum]
    if changed:
        raise ConfigError(
            *(f"migration {version} was changed after this database got it; add a new one" for version in changed)
        )
