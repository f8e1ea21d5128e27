"""What other roles than the owner of the tables may do with them, and granting it."""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import asyncpg

from headrace.connectors.timescale.migrations import Migration, applied, is_numbered, take_lock
from headrace.connectors.timescale.readings_table import quoted
from headrace.connectors.timescale.revert import readings_table
from headrace.engine.errors import ConfigError

#: What the sink does with a table; nobody deletes from those of `KEPT`, and DELETE elsewhere is for retention.
WRITE = ("SELECT", "INSERT", "UPDATE", "DELETE")
READ = ("SELECT",)
KEPT: Mapping[str, Sequence[str]] = {
    "headrace_migrations": READ,
    "sink_positions": ("SELECT", "INSERT", "UPDATE"),
    "ledger": ("SELECT", "INSERT", "UPDATE"),
    "device_state": ("SELECT", "INSERT", "UPDATE"),
    "device_presence": ("SELECT", "INSERT", "UPDATE"),
    "alert_rules": ("SELECT", "INSERT", "UPDATE"),
}

_MADE = re.compile(r'^CREATE (TABLE|VIEW)(?: IF NOT EXISTS)? ("[^"]+"|\w+)', re.MULTILINE)
_LACKING = """
    SELECT name, privilege FROM unnest($2::text[], $3::text[]) AS wanted(name, privilege)
    WHERE to_regclass(quote_ident(name)) IS NOT NULL
        AND NOT has_table_privilege($1::name, to_regclass(quote_ident(name))::oid, privilege)
    ORDER BY name, privilege
"""


class Lacking(NamedTuple):
    """Privileges that a role does not have.

    Args:
        tables: by table, in the current schema.
        schema: whether USAGE of the current schema is lacking.
        temporary: whether TEMPORARY on the database is.
    """

    tables: Mapping[str, Sequence[str]]
    schema: bool
    temporary: bool

    def __bool__(self) -> bool:
        return bool(self.tables) or self.schema or self.temporary

    def __str__(self) -> str:
        parts = [f"{', '.join(privileges)} on table {name}" for name, privileges in self.tables.items()]
        parts += ["USAGE on the schema"] * self.schema + ["TEMPORARY on the database"] * self.temporary
        return "; ".join(parts)


def tables_of(migrations: Sequence[Migration], done: Iterable[str] = ()) -> dict[str, bool]:
    """Names of the tables, and views, that steps make; whether each is a table.

    Args:
        done: versions that the database has; those of readings tables count too.

    >>> tables_of([Migration("0001_a", 'CREATE TABLE a (x int);\\nCREATE VIEW "b c" AS SELECT 1')], ["readings_d.hash"])
    {'headrace_migrations': True, 'a': True, 'b c': False, 'readings_d': True}
    """
    found = {"headrace_migrations": True}
    for step in migrations:
        # Only our own files are read for it: the SQL of a readings table holds names that devices may choose.
        if is_numbered(step.version):
            for kind, name in _MADE.findall(step.up):
                found[name[1:-1] if name[0] == '"' else name] = kind == "TABLE"
    others = [*(step.version for step in migrations), *done]
    return found | {readings_table(version): True for version in others if not is_numbered(version)}


def wanted(tables: Mapping[str, bool], *, write: bool) -> dict[str, Sequence[str]]:
    """By table the privileges that the sink needs (`write`), or who only looks."""
    return {name: KEPT.get(name, WRITE) if write and is_table else READ for name, is_table in tables.items()}


async def lacking(connection: asyncpg.Connection, role: str, privileges: Mapping[str, Sequence[str]]) -> Lacking:
    """What `role` has not; tables that are not there are left out."""
    pairs = [(name, each) for name, some in privileges.items() for each in some]
    rows = await connection.fetch(_LACKING, role, [name for name, _ in pairs], [each for _, each in pairs])
    tables: dict[str, list[str]] = {}
    for row in rows:
        tables.setdefault(row["name"], []).append(row["privilege"])
    rights = await connection.fetchrow(
        "SELECT NOT has_schema_privilege($1::name, current_schema(), 'USAGE'), "
        "NOT has_database_privilege($1::name, current_database(), 'TEMPORARY')",
        role,
    )
    assert rights is not None
    writes = any("INSERT" in some for some in privileges.values())
    return Lacking(tables, rights[0], rights[1] and writes)


async def grant(
    connection: asyncpg.Connection,
    role: str,
    migrations: Sequence[Migration],
    *,
    write: bool,
    views: Iterable[str] = (),
) -> Lacking:
    """Let `role` do what it needs with the tables that the owner made; what it lacked before.

    Who only looks gets SELECT on what is made later, too. What the sink writes to is granted when it is made.

    Args:
        views: more that it may look at.
    Raises:
        ConfigError: the owner may not grant something; says what.
    """
    async with connection.transaction():
        await take_lock(connection)  # PostgreSQL fails two who grant on one table at once
        tables = tables_of(migrations, await applied(connection)) | dict.fromkeys(views, False)
        privileges = wanted(tables, write=write)
        before = await lacking(connection, role, privileges)
        for statement in statements(role, before, *await _place(connection), write=write):
            await connection.execute(statement)
        after = await lacking(connection, role, privileges)
    if after:
        raise ConfigError(
            f"role {role} needs {after}, and role {await connection.fetchval('SELECT current_user')} may not grant it; "
            "grant it as the owner of the schema and the database"
        )
    return before


def statements(role: str, lacks: Lacking, schema: str, database: str, *, write: bool) -> list[str]:
    """SQL that grants what is lacking.

    >>> statements("app", Lacking({"a b": ["SELECT", "INSERT"]}, True, False), "public", "main", write=True)
    ['GRANT USAGE ON SCHEMA "public" TO "app"', 'GRANT SELECT, INSERT ON TABLE "public"."a b" TO "app"']
    """
    name = quoted(role)
    made = [f"GRANT USAGE ON SCHEMA {quoted(schema)} TO {name}"] * lacks.schema
    made += [f"GRANT TEMPORARY ON DATABASE {quoted(database)} TO {name}"] * lacks.temporary
    made += [
        f"GRANT {', '.join(some)} ON TABLE {quoted(schema)}.{quoted(table)} TO {name}"
        for table, some in lacks.tables.items()
    ]
    if not write:
        made.append(f"ALTER DEFAULT PRIVILEGES IN SCHEMA {quoted(schema)} GRANT SELECT ON TABLES TO {name}")
    return made


async def _place(connection: asyncpg.Connection) -> tuple[str, str]:
    row = await connection.fetchrow("SELECT current_schema()::text, current_database()::text")
    assert row is not None
    return row[0], row[1]
