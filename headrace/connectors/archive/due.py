"""What the database may forget: days that are older than their policy keeps them."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any, NamedTuple

import asyncpg
import orjson

from headrace.connectors.archive.dataset import Dataset, documents_dataset, readings_dataset
from headrace.connectors.archive.settings import RetentionSettings
from headrace.connectors.timescale.readings_table import KEYS, ReadingsTable, TableSpec
from headrace.engine.errors import ConfigError

#: Above so many rows of a table that may be due, by the planner's estimate, a report looks at a sample of its pages.
EXACT_ROWS = 2_000_000
SAMPLED_ROWS = 500_000
_PREFIX = "readings_"

_TABLES = """
    SELECT c.relname AS table, a.attname AS name, format_type(a.atttypid, a.atttypmod) AS kind
    FROM pg_class AS c JOIN pg_attribute AS a ON a.attrelid = c.oid
    WHERE c.relkind IN ('r', 'p') AND starts_with(c.relname, 'readings_') AND a.attnum > 0 AND NOT a.attisdropped
        AND c.relnamespace = (SELECT relnamespace FROM pg_class WHERE oid = 'ledger'::regclass)
    ORDER BY c.relname, a.attnum
"""
_TYPES = """
    SELECT device_type FROM ledger UNION SELECT device_type FROM device_state
    UNION SELECT device_type FROM archive_parts WHERE device_type IS NOT NULL
"""


class Due(NamedTuple):
    """Rows of one organisation on one day that may go.

    Args:
        policy: what decides, for a person.
        days: how long they are kept.
        bytes: of the rows in the table, without indexes.
        oldest, newest: their times.
        estimated: rows and bytes were estimated from a sample.
    """

    dataset: Dataset
    organisation: str | None
    day: date
    policy: str
    days: int
    rows: int
    bytes: int
    oldest: datetime
    newest: datetime
    estimated: bool = False


async def datasets(connection: asyncpg.Connection, device_types: Iterable[str]) -> list[Dataset]:
    """Everything in the database that can be archived.

    Args:
        device_types: those that are known; others are told from what was stored.
    Raises:
        ConfigError: a table has a column that the archive could not keep.
    """
    found = await connection.fetch(_TABLES)
    stored = await connection.fetch(_TYPES)
    tables: dict[str, dict[str, str]] = {}
    for row in found:
        tables.setdefault(row["table"], {})[row["name"]] = row["kind"]
    # A long name is cut and ends in a hash: only who knows the type finds its table.
    names = {name: name[len(_PREFIX) :] for name in tables}
    known = {*device_types, *(row["device_type"] for row in stored)}
    names |= {ReadingsTable(TableSpec(each)).name: each for each in known}
    made, wrong = [], []
    for table, columns in tables.items():
        if not columns.keys() >= set(KEYS):
            continue  # somebody else's
        strange = [name for name, kind in columns.items() if name not in KEYS and kind != "double precision"]
        if strange:
            wrong.append(f"table {table}: column {', '.join(strange)} is no number, so the archive cannot keep it")
        measures = [name for name in columns if name not in KEYS]
        made.append(readings_dataset(names[table], table, measures))
    if wrong:
        raise ConfigError(*wrong)
    return sorted(made, key=lambda dataset: dataset.device_type or "") + documents()


def documents() -> list[Dataset]:
    """The tables of documents."""
    return [documents_dataset(name) for name in RetentionSettings().documents()]


async def due(
    connection: asyncpg.Connection,
    dataset: Dataset,
    retention: RetentionSettings,
    now_ms: int,
    before: date | None = None,
    *,
    estimate: bool = False,
) -> list[Due]:
    """What of `dataset` may go at `now_ms`, by day and organisation.

    Reads every row that is older than the shortest policy, by the index on time; or, with `estimate`, a sample where
    they are many.

    Args:
        before: only days before this one.
    """
    of_documents = retention.documents().get(dataset.name)
    shortest = of_documents if dataset.device_type is None else retention.shortest(dataset.device_type)
    if shortest is None:
        return []
    today = datetime.fromtimestamp(now_ms / 1000, UTC).date()
    last = _limit(today, shortest, before)
    share = await _share(connection, dataset, last) if estimate else 100.0
    rows = await connection.fetch(_counts(dataset, share), last)
    found = []
    for row in rows:
        organisation, day = row["organisation"], row["day"]
        policy, days = ("retention." + dataset.name, of_documents)
        if dataset.device_type is not None:
            policy, days = retention.policy_of(dataset.device_type, organisation)
        if days is not None and day < _limit(today, days, before).date():
            count, size = round(row["rows"] * 100 / share), round(row["bytes"] * 100 / share)
            found.append(
                Due(dataset, organisation, day, policy, days, count, size, row["oldest"], row["newest"], share < 100)
            )
    return found


def _limit(today: date, days: int, before: date | None) -> datetime:
    """The first moment that is kept."""
    day = max(date(1970, 1, 1), today - timedelta(days=min(days, today.toordinal() - 1)))
    kept = min(day, before or day)
    return datetime(kept.year, kept.month, kept.day, tzinfo=UTC)


def _counts(dataset: Dataset, share: float) -> str:
    sample = f"TABLESAMPLE SYSTEM ({share:.6f})" if share < 100 else ""
    return f"""
        SELECT ({dataset.time} AT TIME ZONE 'UTC')::date AS day, {dataset.organisation} AS organisation,
            count(*) AS rows, sum(pg_column_size(t.*))::bigint AS bytes,
            min({dataset.time}) AS oldest, max({dataset.time}) AS newest
        FROM {dataset.table} AS t {sample} WHERE {dataset.condition} AND {dataset.time} < $1
        GROUP BY 1, 2 ORDER BY 1, 2
    """


async def _share(connection: asyncpg.Connection, dataset: Dataset, last: datetime) -> float:
    """Per cent of the table's pages to look at."""
    hypertable = await connection.fetchval(
        "SELECT EXISTS (SELECT FROM pg_inherits WHERE inhparent = $1::text::regclass)", dataset.table
    )
    if hypertable:
        return 100.0  # its rows are in chunks, of which no sample can be taken through it
    plan = await connection.fetchval(
        f"EXPLAIN (FORMAT JSON) SELECT FROM {dataset.table} WHERE {dataset.time} < $1",
        last,
    )
    expected = orjson.loads(plan)[0]["Plan"]["Plan Rows"]
    return 100.0 if expected <= EXACT_ROWS else max(0.01, 100 * SAMPLED_ROWS / expected)


def totals(found: Sequence[Due]) -> Mapping[str, Any]:
    """Rows, bytes, oldest and newest of all."""
    return {
        "rows": sum(each.rows for each in found),
        "bytes": sum(each.bytes for each in found),
        "oldest": min((each.oldest for each in found), default=None),
        "newest": max((each.newest for each in found), default=None),
        "estimated": any(each.estimated for each in found),
    }
