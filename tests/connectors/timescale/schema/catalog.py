"""What is in a database: everything that a migration can make, as text that can be compared."""

from typing import Any

import asyncpg

from tests.databases import Connect

#: Of the role that owns the tables, and of the one that fills them.
Roles = tuple[Connect, Connect]

_QUERIES = (
    """
    SELECT relname, attname, format_type(atttypid, atttypmod), attnotnull, collname,
        pg_get_expr(adbin, adrelid), attidentity
    FROM pg_class JOIN pg_attribute ON attrelid = pg_class.oid AND attnum > 0 AND NOT attisdropped
        LEFT JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum
        LEFT JOIN pg_collation ON pg_collation.oid = attcollation
    WHERE relnamespace = current_schema()::regnamespace ORDER BY relname, attnum
    """,
    """
    SELECT relname, relkind::text, reloptions::text FROM pg_class
    WHERE relnamespace = current_schema()::regnamespace ORDER BY relname
    """,
    """
    SELECT conrelid::regclass::text, conname, pg_get_constraintdef(pg_constraint.oid) FROM pg_constraint
    WHERE connamespace = current_schema()::regnamespace ORDER BY 1, 2
    """,
    """
    SELECT indexname, indexdef FROM pg_indexes WHERE schemaname = current_schema() ORDER BY 1
    """,
    """
    SELECT pg_get_functiondef(pg_proc.oid) FROM pg_proc
    WHERE pronamespace = current_schema()::regnamespace AND prokind IN ('f', 'p')
        AND NOT EXISTS (SELECT FROM pg_depend WHERE objid = pg_proc.oid AND deptype = 'e') ORDER BY 1
    """,
    "SELECT viewname, definition FROM pg_views WHERE schemaname = current_schema() ORDER BY 1",
)


async def catalog(connection: asyncpg.Connection) -> list[list[tuple[Any, ...]]]:
    """Columns, relations, constraints, indexes, functions and views of the current schema, in a fixed order."""
    return [[tuple(row) for row in await connection.fetch(query)] for query in _QUERIES]
