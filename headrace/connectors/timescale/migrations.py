"""Versioned migrations: each applied once, in order, in a transaction of its own, by one process at a time."""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib.resources import files

import asyncpg

from headrace.engine.errors import ConfigError

#: Advisory lock that a migrating process holds, "headrace" in ASCII.
LOCK = int.from_bytes(b"headrace")
SUFFIX = ".up.sql"

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
    """

    version: str
    up: str
    extension: str = ""

    @property
    def checksum(self) -> str:
        """Of the SQL, so that a step changed after it was applied is noticed."""
        return hashlib.sha256(self.up.encode()).hexdigest()


def packaged(folder: str) -> list[Migration]:
    """The migrations in `folder` of this package, by name: `0001_name.up.sql`, or `0002_name.EXTENSION.up.sql`."""
    found = []
    for file in files("headrace.connectors.timescale").joinpath(folder).iterdir():
        if file.name.endswith(SUFFIX):
            version, _, extension = file.name.removesuffix(SUFFIX).partition(".")
            found.append(Migration(version, file.read_text(encoding="utf-8"), extension))
    return sorted(found, key=lambda migration: migration.version)


async def migrate(connection: asyncpg.Connection, migrations: Sequence[Migration]) -> list[str]:
    """Apply what is missing of `migrations`; the versions applied. Safe to run in many processes at once.

    Raises:
        ConfigError: a step is in the database with other SQL than here.
    """
    extensions = await usable_extensions(connection)
    wanted = [step for step in migrations if not step.extension or step.extension in extensions]
    if not _missing(wanted, await _applied(connection)):
        return []
    await connection.execute("SELECT pg_advisory_lock($1)", LOCK)
    try:
        await connection.execute(_TABLE)
        missing = _missing(wanted, await _applied(connection))
        for step in missing:
            async with connection.transaction():
                await connection.execute(step.up)
                await connection.execute(
                    "INSERT INTO headrace_migrations (version, checksum) VALUES ($1, $2)", step.version, step.checksum
                )
    finally:
        if not connection.is_closed():
            await connection.execute("SELECT pg_advisory_unlock($1)", LOCK)
    return [step.version for step in missing]


async def usable_extensions(connection: asyncpg.Connection) -> set[str]:
    """Extensions that are installed, or can be: TimescaleDB must also be preloaded by the server."""
    rows = await connection.fetch(
        """
        SELECT name FROM pg_available_extensions
        WHERE installed_version IS NOT NULL OR name <> 'timescaledb'
            OR current_setting('shared_preload_libraries') LIKE '%timescaledb%'
        """
    )
    return {row["name"] for row in rows}


async def _applied(connection: asyncpg.Connection) -> dict[str, str]:
    if await connection.fetchval("SELECT to_regclass('headrace_migrations')") is None:
        return {}
    rows = await connection.fetch("SELECT version, checksum FROM headrace_migrations")
    return {row["version"]: row["checksum"] for row in rows}


def _missing(wanted: Iterable[Migration], applied: dict[str, str]) -> list[Migration]:
    changed = [step.version for step in wanted if applied.get(step.version, step.checksum) != step.checksum]
    if changed:
        raise ConfigError(
            *(f"migration {version} was changed after this database got it; add a new one" for version in changed)
        )
    return [step for step in wanted if step.version not in applied]
