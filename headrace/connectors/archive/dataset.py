"""What can be archived: a table's rows as columns of a file, and the SQL that reads, digests and deletes them."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, NamedTuple

from headrace.connectors.timescale.readings_table import quoted

READINGS = "readings"
#: How a column is stored: `micros` is a time, µs since 1970 UTC; `json` is text.
Kind = Literal["micros", "float", "text", "json"]
#: Bytes of a number that is not there, after the byte that says so.
_NULL_FLOAT = "'\\x000000000000000000'::bytea"


class Column(NamedTuple):
    """A column of a file: its name, and the SQL that yields it."""

    name: str
    sql: str
    kind: Kind


@dataclass(frozen=True)
class Dataset:
    """Rows of one table that are archived alike.

    Args:
        name: first folder of its objects: `readings`, or the name of the table.
        table: as SQL knows it, quoted.
        time: column that says which day a row belongs to.
        columns: of the files; `group` is the first, if rows are grouped.
        group: name of the column by which rows are digested and looked up; empty for all rows together.
        order: two SQL expressions that put rows in a total order, groups together.
        organisation: SQL expression, text; NULL for none.
        condition: SQL of rows that may be archived at all.
        device_type: of readings.
    """

    name: str
    table: str
    time: str
    columns: tuple[Column, ...]
    group: str
    order: tuple[str, str]
    organisation: str = "NULL::text"
    condition: str = "true"
    device_type: str | None = None

    @property
    def label(self) -> str:
        """For a person."""
        return self.name if self.device_type is None else f"{self.name} {self.device_type}"

    @cached_property
    def digested(self) -> tuple[Column, ...]:
        """The columns in the order that a digest takes them: of fixed length first, without the group."""
        own = [column for column in self.columns if column.name != self.group]
        return tuple(sorted(own, key=lambda column: column.kind not in ("micros", "float")))

    @cached_property
    def floats(self) -> tuple[str, ...]:
        """Names of the columns that hold numbers."""
        return tuple(column.name for column in self.columns if column.kind == "float")

    @cached_property
    def of_day(self) -> str:
        """Condition of the rows of an organisation ($3) on a day ($1 to $2)."""
        return (
            f"{self.condition} AND {self.time} >= $1 AND {self.time} < $2 "
            f"AND {self.organisation} IS NOT DISTINCT FROM $3::text"
        )

    @cached_property
    def of_part(self) -> str:
        """Likewise, of those from ($4, $5) to ($6, $7) in the total order."""
        first, second = self.order
        return f"{self.of_day} AND ({first}, {second}) >= ($4, $5) AND ({first}, {second}) <= ($6, $7)"

    @cached_property
    def select(self) -> str:
        """The rows of a day, in order: the two order expressions, then the columns."""
        listed = ", ".join(column.sql for column in self.columns)
        first, second = self.order
        return (
            f"SELECT {first}, {second}, {listed} FROM {self.table} AS t WHERE {self.of_day} ORDER BY {first}, {second}"
        )

    @cached_property
    def digest(self) -> str:
        """Digest per group of a part's rows, as they are in the database now."""
        return f"{self._aggregate(sums=True)} FROM {self.table} AS t WHERE {self.of_part} GROUP BY 1"

    @cached_property
    def delete(self) -> str:
        """Delete a part's rows; digest per group of exactly those that are deleted."""
        gone = f"DELETE FROM {self.table} AS t WHERE {self.of_part} RETURNING t.*"
        return f"WITH gone AS ({gone}) {self._aggregate(sums=False)} FROM gone AS t GROUP BY 1"

    def _aggregate(self, *, sums: bool) -> str:
        row = " || ".join(_bytes(column) for column in self.digested)
        first, second = self.order
        group = next((column.sql for column in self.columns if column.name == self.group), "''::text")
        bits = [
            f"COALESCE(sum(('x' || encode(float8send({column.sql}), 'hex'))::bit(64)::bigint), 0)"
            for column in self.columns
            if column.kind == "float" and sums
        ]
        return (
            f"SELECT {group} AS name, count(*) AS count, "
            f"sha256(string_agg({row}, ''::bytea ORDER BY {first}, {second})) AS digest, "
            f"ARRAY[{', '.join(bits)}]::numeric[] AS sums"
        )


def readings_dataset(device_type: str, table: str, measures: Sequence[str]) -> Dataset:
    """The readings of a device type.

    Args:
        table: name of their table.
        measures: its columns of numbers.
    """
    columns = (
        Column("device_id", "device_id", "text"),
        Column("time", _micros("time"), "micros"),
        Column("message_id", "message_id::text", "text"),
        Column("appended_at", _micros("appended_at"), "micros"),
        *(Column(name, quoted(name), "float") for name in measures),
        Column("extra", "extra::text", "json"),
    )
    return Dataset(
        READINGS,
        quoted(table),
        "time",
        columns,
        "device_id",
        ("device_id", "time"),
        # What the registry said of the device, or what the message said itself.
        organisation="COALESCE(organisation, extra->>'organisation')",
        device_type=device_type,
    )


#: Tables of documents: the column that says how old a row is, the primary key, and which rows may go.
DOCUMENTS: dict[str, tuple[str, Sequence[str], str]] = {
    "alerts": ("resolved_at", ("alert_id",), "status = 'resolved'"),
    "alert_events": ("time", ("event_id",), "true"),
    "anomalies": ("time", ("device_id", "metric", "time", "detector"), "true"),
    "conflicts": ("time", ("message_id",), "true"),
    "dead_letters": ("appended_at", ("partition", "log_offset"), "true"),
    "notifications": ("changed_at", ("notification_id",), "true"),
    "rollups": ("start", ("device_type", "device_id", "window", "start"), "true"),
}


def documents_dataset(name: str) -> Dataset:
    """The rows of a table of `DOCUMENTS`, each as one JSON object."""
    time, key, condition = DOCUMENTS[name]
    joined = f'jsonb_build_array({", ".join(map(quoted, key))})::text COLLATE "C"'
    columns = (
        Column("time", _micros(time), "micros"),
        Column("key", joined, "text"),
        Column("row", "to_jsonb(t)::text", "json"),
    )
    return Dataset(name, quoted(name), time, columns, "", (time, joined), condition=condition)


def file_dataset(name: str, columns: tuple[Column, ...]) -> Dataset:
    """What a file holds, for its digest; the table may have other columns by now, or be gone."""
    return Dataset(name, "", "time", columns, "device_id" if name == READINGS else "", ("", ""))


def _micros(column: str) -> str:
    return f"(extract(epoch FROM {column}) * 1000000)::bigint"


def _bytes(column: Column) -> str:
    """SQL of a column's bytes in a digest; `headrace.connectors.archive.digest` makes the same of a file."""
    if column.kind == "micros":
        return f"int8send({column.sql})"
    if column.kind == "float":
        return f"CASE WHEN {column.sql} IS NULL THEN {_NULL_FLOAT} ELSE '\\x01'::bytea || float8send({column.sql}) END"
    encoded = f"convert_to({column.sql}, 'UTF8')"
    return f"CASE WHEN {column.sql} IS NULL THEN int4send(-1) ELSE int4send(octet_length({encoded})) || {encoded} END"
