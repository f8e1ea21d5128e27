"""The sink's part of the ledger: what it stored, and what it found to be a duplicate or a conflict."""

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args

import asyncpg
import numpy as np

from headrace.connectors.timescale.errors import translated
from headrace.engine.intake import MINUTE_MS
from headrace.schemas.readings import Ints

Term = Literal["stored", "duplicate", "conflict"]
#: A replayed record was counted when it came first.
Verdict = Term | Literal["replayed"]
TERMS: tuple[Term, ...] = get_args(Term)

_ADD = """
    INSERT INTO ledger (minute, device_type, term, count)
    SELECT to_timestamp(minute_ms / 1000), device_type, term, count
    FROM unnest($1::bigint[], $2::text[], $3::text[], $4::bigint[]) AS added(minute_ms, device_type, term, count)
    ORDER BY 1, 2, 3
    ON CONFLICT (minute, device_type, term) DO UPDATE SET count = ledger.count + EXCLUDED.count
"""


class LedgerCount:
    """Counts of one write, by minute of append time, device type and term."""

    def __init__(self) -> None:
        self._counts: Counter[tuple[int, str, Term]] = Counter()

    def add(
        self,
        device_type: str,
        appended_ms: Ints,
        places: Mapping[Verdict, Sequence[int]],
        accepted_as: Sequence[str | None] | None = None,
    ) -> None:
        """Count rows of one device type.

        Args:
            appended_ms: (n,) int64, append time of each row, ms since 1970 UTC.
            places: rows by verdict; all that are named nowhere are stored.
            accepted_as: per row the device type that its message was counted under, if it was another.
        """
        if accepted_as is not None:
            verdicts = {place: verdict for verdict, rows in places.items() for place in rows}
            for place, name in enumerate(accepted_as):
                one: dict[Verdict, Sequence[int]] = {verdicts[place]: [0]} if place in verdicts else {}
                self.add(name or device_type, appended_ms[place : place + 1], one)
            return
        minutes = appended_ms // MINUTE_MS * MINUTE_MS
        rest = np.ones(len(minutes), bool)
        for verdict, rows in places.items():
            rest[list(rows)] = False
            if verdict != "replayed":
                self._count(device_type, verdict, minutes[list(rows)])
        self._count(device_type, "stored", minutes[rest])

    def _count(self, device_type: str, term: Term, minutes: Ints) -> None:
        values, counts = np.unique(minutes, return_counts=True)
        for minute, count in zip(values.tolist(), counts.tolist(), strict=True):
            self._counts[minute, device_type, term] += count

    async def store(self, connection: asyncpg.Connection) -> None:
        """Add the counts to the ledger, inside the running transaction."""
        if self._counts:
            minutes, types, terms = zip(*self._counts, strict=True)
            await connection.execute(_ADD, minutes, types, terms, list(self._counts.values()))


class LedgerReader:
    """Reads the ledger on a connection of its own, so that it never waits for a write.

    Args:
        connect: keyword arguments for `asyncpg.connect`.
    """

    def __init__(self, connect: Mapping[str, Any]) -> None:
        self._connect = connect
        self._connection: asyncpg.Connection | None = None
        self._turn = asyncio.Lock()

    async def totals(self) -> dict[str, int]:
        """Count per term, over all minutes and device types.

        Raises:
            Disconnected, RetryLater: the database does not answer now.
        """
        rows = await self._fetch("SELECT term AS name, sum(count)::bigint AS count FROM ledger GROUP BY term")
        return {**dict.fromkeys(TERMS, 0), **rows}

    async def counts(self) -> dict[str, int]:
        """Rows of the tables that one looks at after a run; windows that were retracted do not count.

        Raises:
            Disconnected, RetryLater: the database does not answer now.
        """
        return await self._fetch(
            "SELECT 'alerts' AS name, count(*) AS count FROM alerts UNION ALL "
            "SELECT 'anomalies', count(*) FROM anomalies UNION ALL "
            "SELECT 'rollups', count(*) FROM rollups WHERE NOT retracted"
        )

    async def _fetch(self, query: str) -> dict[str, int]:
        async with self._turn:
            with translated():
                if self._connection is None or self._connection.is_closed():
                    self._connection = await asyncpg.connect(**self._connect)
                rows = await self._connection.fetch(query)
        return {row["name"]: row["count"] for row in rows}

    async def close(self) -> None:
        """Let go of the connection."""
        if self._connection is not None:
            self._connection.terminate()
            self._connection = None
