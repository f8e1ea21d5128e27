"""The wide readings table of a device type: its names, its migrations, and the statements that fill it."""

import hashlib
from dataclasses import dataclass
from functools import cached_property

from headrace.connectors.timescale.migrations import Migration
from headrace.engine.errors import ConfigError

#: Columns that every readings table has.
KEYS = ("device_id", "time", "message_id", "appended_at", "extra", "organisation")
#: What PostgreSQL keeps for itself.
SYSTEM_COLUMNS = ("tableoid", "xmin", "cmin", "xmax", "cmax", "ctid")
#: PostgreSQL cuts longer names short, bytes.
MAX_NAME_BYTES = 63


@dataclass(frozen=True)
class TableSpec:
    """What a device type measures, derived measures included; all else goes into the column `extra`.

    Raises:
        ConfigError: a measure cannot be the name of a column.
    """

    device_type: str
    measures: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        mistakes = [
            f"device type {self.device_type}: a measure cannot be called {name!r}; "
            f"choose a name of 1 to {MAX_NAME_BYTES} bytes that is none of {', '.join(KEYS + SYSTEM_COLUMNS)}"
            for name in self.measures
            if name in KEYS + SYSTEM_COLUMNS or not 0 < len(name.encode()) <= MAX_NAME_BYTES or "\0" in name
        ]
        if len(set(self.measures)) < len(self.measures):
            mistakes.append(f"device type {self.device_type}: a measure is listed twice")
        if mistakes:
            raise ConfigError(*mistakes)


def quoted(name: str) -> str:
    """`name` as an SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


class ReadingsTable:
    """The table of one device type. Rows reach it by COPY, directly or, where keys may repeat, through a staging table.

    Args:
        spec: what it holds.
    """

    def __init__(self, spec: TableSpec) -> None:
        self.spec = spec
        self.name = _table_name(spec.device_type)
        self.staging = "staging_" + hashlib.sha256(spec.device_type.encode()).hexdigest()[:16]
        #: Columns in the order that COPY sends them; a staged row has its place in the write in front.
        self.columns = ["time", "message_id", "appended_at", *spec.measures, "device_id", "extra", "organisation"]
        self.staged_columns = ["place", *self.columns]

    def migrations(self) -> list[Migration]:
        """Make the table, or add the columns it lacks; never changes or drops one."""
        table, index = quoted(self.name), quoted(short_name(f"{self.name}_brin"))
        # Bytewise order: cheaper to compare than any language's, and an update of the system cannot change it.
        up = f"""
            CREATE TABLE IF NOT EXISTS {table} (
                device_id text COLLATE "C" NOT NULL,
                time timestamptz NOT NULL,
                message_id uuid NOT NULL,
                appended_at timestamptz NOT NULL,
                extra jsonb,
                PRIMARY KEY (device_id, time)
            );
            CREATE INDEX IF NOT EXISTS {index} ON {table} USING brin (time);
            ALTER TABLE {table} ADD COLUMN IF NOT EXISTS organisation text COLLATE "C";
        """
        for name in self.spec.measures:
            up += f"ALTER TABLE {table} ADD COLUMN IF NOT EXISTS {quoted(name)} double precision;\n"
        digest = hashlib.sha256(up.encode()).hexdigest()[:12]
        hypertable = f"""
            SELECT create_hypertable(
                {literal(table)}, by_range('time', INTERVAL '1 day'), if_not_exists => true, migrate_data => true
            )
        """
        return [
            Migration(f"{self.name}.{digest}", up),
            Migration(f"{self.name}.hypertable", hypertable, extension="timescaledb"),
        ]

    @cached_property
    def create_staging(self) -> str:
        measures = "".join(f", {quoted(name)} double precision" for name in self.spec.measures)
        return f"""
            CREATE TEMPORARY TABLE IF NOT EXISTS {self.staging} (
                place integer, time timestamptz, message_id uuid, appended_at timestamptz{measures},
                device_id text COLLATE "C", extra jsonb, organisation text COLLATE "C"
            ) ON COMMIT DELETE ROWS
        """

    @cached_property
    def insert(self) -> str:
        """Store the staged rows whose key is free; among staged rows with the same key, the first."""
        names = ", ".join(quoted(name) for name in self.columns)
        return f"""
            INSERT INTO {quoted(self.name)} ({names}) SELECT {names} FROM {self.staging} ORDER BY place
            ON CONFLICT (device_id, time) DO NOTHING
        """

    @cached_property
    def leftovers(self) -> str:
        """Staged rows that were not stored, with what is stored in their place. $1, $2: range of their times."""
        measures = "".join(f", stored.{quoted(name)}" for name in self.spec.measures)
        return f"""
            SELECT staged.place, stored.extra{measures}
            FROM {self.staging} AS staged JOIN {quoted(self.name)} AS stored USING (device_id, time)
            WHERE stored.message_id <> staged.message_id AND stored.time BETWEEN $1 AND $2
            ORDER BY staged.place
        """

    @cached_property
    def replayed(self) -> str:
        """Places of staged rows whose own message is stored already, before this transaction or by it."""
        # age() counts from this transaction: 0 for a row of its own, less for one of its subtransactions.
        return f"""
            SELECT place FROM (
                SELECT staged.place, age(stored.xmin) > 0 AS old,
                    row_number() OVER (PARTITION BY device_id, time ORDER BY staged.place) AS turn
                FROM {self.staging} AS staged JOIN {quoted(self.name)} AS stored USING (device_id, time, message_id)
            ) AS own WHERE old OR turn > 1
        """

    @cached_property
    def complete(self) -> str:
        """Fill empty columns from the staged rows at the places $1, at most one per key. Never overwrites.

        $2, $3: range of their times; $4: their devices.
        """
        # Range and devices say nothing that the join does not, but only by them TimescaleDB knows which rows of which
        # chunks it has to turn back from columns.
        filled = ["extra = COALESCE(staged.extra || stored.extra, stored.extra, staged.extra)"]
        filled += [f"{name} = COALESCE(stored.{name}, staged.{name})" for name in map(quoted, self.spec.measures)]
        return f"""
            UPDATE {quoted(self.name)} AS stored SET {", ".join(filled)} FROM {self.staging} AS staged
            WHERE staged.place = ANY($1::integer[])
                AND stored.device_id = staged.device_id AND stored.time = staged.time
                AND stored.time BETWEEN $2 AND $3 AND stored.device_id = ANY($4::text[])
        """


def _table_name(device_type: str) -> str:
    return short_name(f"readings_{device_type}")


def short_name(name: str, end: str = "") -> str:
    """`name` and `end`, or the beginning of `name` and a hash where PostgreSQL would cut it: two never become one."""
    encoded = name.encode()
    if len(encoded) + len(end) <= MAX_NAME_BYTES:
        return name + end
    cut = encoded[: MAX_NAME_BYTES - 17 - len(end)].decode(errors="ignore")
    return cut + "_" + hashlib.sha256(encoded).hexdigest()[:16] + end


def literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
