"""The TimescaleDB sink: readings into wide tables by binary COPY, everything else as documents, effectively once."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import asyncpg
import msgspec
import numpy as np
import structlog

from headrace.connectors.timescale.dead_letter_rows import store_dead_letters
from headrace.connectors.timescale.device_state import store_states
from headrace.connectors.timescale.documents import UPSERTS, store_documents, upsert
from headrace.connectors.timescale.errors import translated
from headrace.connectors.timescale.ledger import LedgerCount, LedgerReader
from headrace.connectors.timescale.migrations import MIGRATIONS, packaged, usable_extensions
from headrace.connectors.timescale.readings_table import ReadingsTable, TableSpec
from headrace.connectors.timescale.readings_writer import ReadingsWriter, Rows
from headrace.connectors.timescale.rule_rows import store_rules
from headrace.connectors.timescale.schema import SchemaKeeper
from headrace.connectors.timescale.sole_writer import SoleWriter
from headrace.engine.clock import Clock
from headrace.engine.errors import Disconnected
from headrace.engine.log import Fetched, TopicPartition
from headrace.engine.sink import PositionMoved, Refused
from headrace.schemas import topics
from headrace.schemas.readings import Readings, decode_readings

#: Longest time a statement, or connecting, may take before the server counts as gone, seconds.
COMMAND_TIMEOUT = 60.0
CONNECT_TIMEOUT = 10.0
#: TimescaleDB refuses a write for good that turns more rows of old chunks back from columns than this; 0 is no limit.
UNLIMITED = "timescaledb.max_tuples_decompressed_per_dml_transaction"

_ADVANCE = """
    UPDATE sink_positions AS p SET next_offset = n.next_offset
    FROM unnest($2::text[], $3::integer[], $4::bigint[], $5::bigint[]) AS n(topic, partition, expected, next_offset)
    WHERE p.sink = $1 AND p.topic = n.topic AND p.partition = n.partition AND p.next_offset = n.expected
"""
_ADOPT = """
    INSERT INTO sink_positions (sink, topic, partition, next_offset)
    SELECT $1, topic, partition, 0 FROM unnest($2::text[], $3::integer[]) AS n(topic, partition) ON CONFLICT DO NOTHING
"""

logger = structlog.get_logger(__name__)


class TimescaleSink:
    """Stores readings, device states, alert rules and what else the log has to keep in TimescaleDB or plain PostgreSQL.

    Effectively once: rows, ledger and the position after them are one transaction, and the position is compared and
    set. A write is all or nothing. Reading the log again changes no row. One connection; another, for `ledger`, when it
    is first asked.

    Args:
        connect: keyword arguments for `asyncpg.connect`.
        tables: device types and their measures. A type that is not here gets a table without measures, all in `extra`.
        clock: only to let other tasks run between the parts of a write.
        name: positions are kept under it.
        alone: while another process that says so has the sink, `open` raises `Standby`.
        schema: who makes tables; the connected role if left out.
        on_committed: called after each commit with the readings of the write, whatever became of each.
    """

    topics: Sequence[str] = (topics.READINGS, *UPSERTS, topics.RULES, topics.DEAD_LETTERS)

    def __init__(
        self,
        connect: Mapping[str, Any],
        tables: Iterable[TableSpec],
        clock: Clock,
        *,
        name: str = "timescale",
        alone: bool = False,
        schema: SchemaKeeper | None = None,
        on_committed: Callable[[Sequence[Readings]], None] | None = None,
    ) -> None:
        self.name = name
        own = {"application_name": f"headrace {name}", "jit": "off", UNLIMITED: "0"}
        settings = {**own, **connect.get("server_settings", {})}
        defaults = {"timeout": CONNECT_TIMEOUT, "command_timeout": COMMAND_TIMEOUT}
        self._connect = {**defaults, **connect, "server_settings": settings}
        self._clock = clock
        self._on_committed = on_committed
        self._sole = SoleWriter(name) if alone else None
        self._writers = {spec.device_type: ReadingsWriter(ReadingsTable(spec)) for spec in tables}
        self._schema = schema or SchemaKeeper()
        self._ledger = LedgerReader(self._connect)
        self._positions: dict[TopicPartition, int] = {}
        self._connection: asyncpg.Connection | None = None

    async def open(self) -> None:
        """Connect afresh and bring the schema up to date."""
        await self._disconnect()
        with translated():
            self._connection = connection = await asyncpg.connect(**self._connect)
            if self._sole is not None:
                await self._sole.claim(connection)
            tables = [writer.table for writer in self._writers.values()]
            steps = [*packaged(MIGRATIONS), *(step for table in tables for step in table.migrations())]
            applied = await self._schema.bring_up(connection, steps, tables)
            if applied and "timescaledb" not in await usable_extensions(connection):
                logger.debug("timescaledb_missing", instead="plain tables with BRIN indexes on time")
            for writer in self._writers.values():
                await connection.execute(writer.table.create_staging)

    async def positions(self, targets: Sequence[TopicPartition]) -> dict[TopicPartition, int]:
        """Where to continue, from the database."""
        names, numbers = [target.topic for target in targets], [target.partition for target in targets]
        with translated():
            await self._connected().execute(_ADOPT, self.name, names, numbers)
            rows = await self._connected().fetch(
                "SELECT topic, partition, next_offset FROM sink_positions WHERE sink = $1", self.name
            )
        stored = {TopicPartition(row["topic"], row["partition"]): row["next_offset"] for row in rows}
        self._positions = {target: stored[target] for target in targets}
        return dict(self._positions)

    async def write(self, fetched: Sequence[Fetched]) -> None:
        """Store everything in one transaction."""
        rows = await self._decode([part for part in fetched if part.target.topic == topics.READINGS])
        with translated():
            await self._know(rows)
            async with self._connected().transaction():
                await self._advance(fetched)
                await self._store(rows, fetched)
        self._positions |= {part.target: part.next_offset for part in fetched}
        if self._on_committed is not None and rows:
            self._on_committed([some.readings for some in rows])

    async def ledger(self) -> dict[str, int]:
        """Totals of `stored`, `duplicate` and `conflict`, as this sink decided them; on a connection of its own."""
        return await self._ledger.totals()

    async def counts(self) -> dict[str, int]:
        """Rows of `alerts`, `anomalies` and `rollups` that count; on the same connection as `ledger`."""
        return await self._ledger.counts()

    async def close(self) -> None:
        await self._ledger.close()
        await self._disconnect()

    async def _decode(self, fetched: Sequence[Fetched]) -> list[Rows]:
        """The readings as columns, one `Rows` per device type, each in log order."""
        parts: dict[str, list[Rows]] = {}
        for part in fetched:
            stamps = np.array(part.records.timestamps, dtype=np.int64)
            try:
                for readings in decode_readings(part.records.values):
                    rows = Rows(readings, stamps[readings.rows], _accepted_as(part, readings))
                    parts.setdefault(readings.device_type, []).append(rows)
            except (msgspec.DecodeError, ValueError, OverflowError, RecursionError) as error:
                raise Refused(f"not a reading: {type(error).__name__}: {error}") from error
            await self._clock.sleep(0)
        return [Rows.concat(of_type) for of_type in parts.values()]

    async def _know(self, rows: Sequence[Rows]) -> None:
        """Make tables for device types that nobody announced."""
        for some in rows:
            device_type = some.readings.device_type
            if device_type not in self._writers:
                writer = ReadingsWriter(ReadingsTable(TableSpec(device_type)))
                await self._schema.add(self._connected(), writer.table)
                await self._connected().execute(writer.table.create_staging)
                self._writers[device_type] = writer

    async def _advance(self, fetched: Sequence[Fetched]) -> None:
        """Move the positions, if they are as expected. First in the transaction: another sink waits here."""
        after = {part.target: part.next_offset for part in fetched}
        status = await self._connected().execute(
            _ADVANCE,
            self.name,
            [target.topic for target in after],
            [target.partition for target in after],
            [self._positions.get(target, 0) for target in after],
            list(after.values()),
        )
        if status != f"UPDATE {len(after)}":
            raise PositionMoved(
                f"sink {self.name}: the position in the database is not the one read before; "
                "another sink has the partition, or the database was restored"
            )

    async def _store(self, rows: Sequence[Rows], fetched: Sequence[Fetched]) -> None:
        connection = self._connected()
        count = LedgerCount()
        contradictions: list[bytes] = []
        for some in rows:
            outcome = await self._writers[some.readings.device_type].write(connection, some)
            count.add(some.readings.device_type, some.appended_ms, outcome.places, some.accepted_as)
            await store_states(connection, some, outcome)
            contradictions += outcome.contradictions
        await store_documents(connection, fetched)
        await upsert(connection, topics.CONFLICTS, contradictions)
        await store_rules(connection, fetched)
        await store_dead_letters(connection, fetched)
        await count.store(connection)

    def _connected(self) -> asyncpg.Connection:
        if self._connection is None or self._connection.is_closed():
            raise Disconnected(f"sink {self.name} has no connection to the database")
        return self._connection

    async def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.terminate()


def _accepted_as(fetched: Fetched, readings: Readings) -> list[str | None] | None:
    """Device types that messages were appended with, where the registry said another; see `agents.enrich`."""
    if topics.DEVICE_TYPE not in fetched.records.headers:
        return None
    names = fetched.records.header(topics.DEVICE_TYPE)
    found = [names[row] for row in readings.rows.tolist()]
    return [None if name is None else name.decode(errors="replace") for name in found] if any(found) else None
