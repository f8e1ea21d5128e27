"""What the database says should be in the cache."""

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from types import TracebackType
from typing import Any, NamedTuple

import asyncpg
import orjson

from headrace.connectors.redis.entries import FROM_DATABASE, Entry, Keys, rollup_as_of, rollup_entry, status_entry
from headrace.connectors.timescale.errors import translated
from headrace.connectors.timescale.sink import COMMAND_TIMEOUT, CONNECT_TIMEOUT
from headrace.schemas.window import Count, Session, Window, sort_size

#: Windows without a length of their own are looked for this long before the oldest data of the cache, ms.
LONGEST_OPEN_MS = 86_400_000

_MS = "(extract(epoch FROM {}) * 1000)::bigint"
_STATUS = f"SELECT device_id, device_type, {_MS.format('time')} AS time, metrics FROM device_state"
_ROLLUP = f"""
    r.device_id, r.device_type, r."window", {_MS.format("r.start")} AS start, r.revision, r.log_offset, r.measures,
    (r.details->>'end')::bigint AS "end", r.details->>'kind' AS kind, {_MS.format("s.time")} AS known
"""
_STATUSES_OF = f"{_STATUS} WHERE device_id = ANY($1::text[])"
_STATUSES_SINCE = f"{_STATUS} WHERE time > to_timestamp($1::double precision / 1000)"
_ROLLUPS_OF = f"""
    SELECT {_ROLLUP}
    FROM unnest($1::text[], $2::text[], $3::text[]) AS k(device_type, device_id, "window")
    CROSS JOIN LATERAL (
        SELECT * FROM rollups AS n
        WHERE (n.device_type, n.device_id, n."window") = (k.device_type, k.device_id, k."window") AND NOT n.retracted
        ORDER BY n.start DESC LIMIT 1
    ) AS r LEFT JOIN device_state AS s ON s.device_id = r.device_id
"""
_ROLLUPS_SINCE = f"""
    SELECT DISTINCT ON (r.device_id) {_ROLLUP}
    FROM rollups AS r LEFT JOIN device_state AS s ON s.device_id = r.device_id
    WHERE r."window" = $1 AND r.start > to_timestamp($2::double precision / 1000) AND NOT r.retracted
    ORDER BY r.device_id, r.start DESC, r.revision DESC
"""


class Stored(NamedTuple):
    """An entry as the database has it, and the offset of its record in the log; -1 where it does not say."""

    entry: Entry
    offset: int


class CacheTruth:
    """Reads device states and newest rollups, on a connection of its own, while the `async with` lasts.

    Args:
        connect: keyword arguments for `asyncpg.connect`.
        keys: names of entries.
        windows: those that are rolled up; others are not looked for.
        sink: whose positions say how far the database is.
    """

    def __init__(self, connect: Mapping[str, Any], keys: Keys, windows: Sequence[Window], sink: str) -> None:
        self._connect = {"timeout": CONNECT_TIMEOUT, "command_timeout": COMMAND_TIMEOUT, **connect}
        self._keys = keys
        self._windows = windows
        self._sink = sink

    async def __aenter__(self) -> "CacheTruth":
        with translated():
            self._connection: asyncpg.Connection = await asyncpg.connect(**self._connect)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._connection.terminate()

    async def positions(self) -> dict[tuple[str, int], int]:
        """By topic and partition, how much of the log the database has.

        Raises:
            Disconnected, RetryLater: the database does not answer now. So do the others.
        """
        with translated():
            rows = await self._connection.fetch(
                "SELECT topic, partition, next_offset FROM sink_positions WHERE sink = $1", self._sink
            )
        return {(row["topic"], row["partition"]): row["next_offset"] for row in rows}

    async def statuses(self, device_ids: Sequence[str]) -> dict[bytes, Stored]:
        """Statuses of these devices, by key, however old; those that there are."""
        with translated():
            rows = await self._connection.fetch(_STATUSES_OF, device_ids)
        return {stored.entry.key: stored for stored in map(self._status, rows)}

    async def rollups(self, wanted: Sequence[tuple[str, str, str]]) -> dict[bytes, Stored]:
        """Newest rollups, by key, of these device types, devices and windows."""
        with translated():
            rows = await self._connection.fetch(_ROLLUPS_OF, *map(list, zip(*wanted, strict=True)))
        return {stored.entry.key: stored for stored in map(self._rollup, rows)}

    async def everything(self, size: int) -> AsyncGenerator[list[Stored], None]:
        """All that may still be in the cache, `size` at a time, by cursors of the server."""
        async with aclosing(self._cursor(_STATUSES_SINCE, size, self._keys.oldest_status())) as batches:
            async for rows in batches:
                yield [self._status(row) for row in rows]
        for window in self._windows:
            length = LONGEST_OPEN_MS if isinstance(window, Session | Count) else sort_size(window)
            since = self._keys.oldest_rollup() - length
            async with aclosing(self._cursor(_ROLLUPS_SINCE, size, str(window), since)) as batches:
                async for rows in batches:
                    yield [self._rollup(row) for row in rows]

    async def _cursor(self, query: str, size: int, *arguments: object) -> AsyncGenerator[list[asyncpg.Record], None]:
        with translated():
            async with self._connection.transaction(readonly=True):
                cursor = await self._connection.cursor(query, *arguments)
                while rows := await cursor.fetch(size):
                    yield rows

    def _status(self, row: asyncpg.Record) -> Stored:
        metrics = orjson.loads(row["metrics"])
        entry = status_entry(self._keys, row["device_id"], row["device_type"], row["time"], metrics, FROM_DATABASE)
        return Stored(entry, -1)

    def _rollup(self, row: asyncpg.Record) -> Stored:
        end = row["start"] if row["end"] is None else row["end"]
        known = row["start"] if row["known"] is None else row["known"]
        document = {**row, "end": end, "measures": orjson.loads(row["measures"])}
        entry = rollup_entry(self._keys, document, rollup_as_of(row["kind"], end, known), FROM_DATABASE)
        return Stored(entry, row["log_offset"])
