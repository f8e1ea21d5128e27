"""Writes the readings of one device type: straight into the table, or through staging while keys repeat."""

import json
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import asyncpg
import numpy as np

from headrace.connectors.timescale.copy_rows import copy_bytes
from headrace.connectors.timescale.json_text import json_bytes
from headrace.connectors.timescale.ledger import Verdict
from headrace.connectors.timescale.readings_table import ReadingsTable
from headrace.connectors.timescale.repeats import Contradiction, Leftover, judge, metrics_of
from headrace.connectors.timescale.repeats_table import judged_before, remember
from headrace.schemas.readings import Ints, Readings

#: Writes that go through staging after one in which a key repeated; a failed direct COPY costs a whole one.
CAUTIOUS_WRITES = 32

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(slots=True)
class Rows:
    """Readings of one device type in log order, with their append times: (n,) int64, ms since 1970 UTC.

    `accepted_as` has the device types that their messages were counted under, where that was another.
    """

    readings: Readings
    appended_ms: Ints
    accepted_as: list[str | None] | None = None

    @classmethod
    def concat(cls, parts: Sequence["Rows"]) -> "Rows":
        """All parts behind each other; `readings.rows` counts from 0."""
        if len(parts) == 1:
            return parts[0]
        readings = [part.readings for part in parts]
        names = sorted({name for some in readings for name in some.measures})
        extras = [extra for some in readings for extra in some.extras or [None] * len(some)]
        repeats = [repeat for some in readings for repeat in some.repeats or [None] * len(some)]
        devices = [device for some in readings for device in some.devices or [None] * len(some)]
        appended_ms = np.concatenate([part.appended_ms for part in parts])
        joined = Readings(
            readings[0].device_type,
            np.arange(len(appended_ms)),
            [device_id for some in readings for device_id in some.device_ids],
            np.concatenate([some.times for some in readings]),
            [message_id for some in readings for message_id in some.message_ids],
            {
                name: np.concatenate([some.measures.get(name, np.full(len(some), np.nan)) for some in readings])
                for name in names
            },
            extras if any(extras) else None,
            repeats if any(repeats) else None,
            devices if any(devices) else None,
        )
        others = [other for part in parts for other in part.accepted_as or [None] * len(part.readings)]
        return cls(joined, appended_ms, others if any(others) else None)


@dataclass(slots=True)
class Outcome:
    """What became of the rows of a write: places by verdict, the rest is stored; and documents of the conflicts.

    `completed` are places among the stored ones: they filled empty columns of a row that is another message's.
    """

    places: Mapping[Verdict, Sequence[int]] = field(default_factory=dict)
    contradictions: Sequence[bytes] = ()
    completed: Sequence[int] = ()


class ReadingsWriter:
    """Writes one readings table.

    A COPY straight into the table is about twice as fast as staging and INSERT … ON CONFLICT, but fails as a whole on a
    key that is taken. Keys repeat rarely here (`agents.ingest` drops repeats) and then often in a row (a replay), so a
    failure makes the next writes cautious.
    """

    def __init__(self, table: ReadingsTable) -> None:
        self.table = table
        self._cautious = 0

    async def write(self, connection: asyncpg.Connection, rows: Rows) -> Outcome:
        """Store rows inside the running transaction.

        Raises:
            asyncpg.PostgresError: the server refuses; the transaction is lost.
            ValueError: a message id is not a UUID.
        """
        if not self._cautious:
            try:
                async with connection.transaction():
                    await self._copy(connection, rows, self.table.name, self.table.columns)
                return Outcome()
            except asyncpg.UniqueViolationError:
                self._cautious = CAUTIOUS_WRITES
        await self._copy(connection, rows, self.table.staging, self.table.staged_columns)
        status = await connection.execute(self.table.insert)
        inserted = int(status.rsplit(" ", 1)[-1])
        if inserted == len(rows.readings):
            self._cautious -= 1
            return Outcome()
        self._cautious = CAUTIOUS_WRITES
        return await self._sort_out(connection, rows, inserted)

    async def _copy(self, connection: asyncpg.Connection, rows: Rows, name: str, columns: Sequence[str]) -> None:
        data = copy_bytes(rows.readings, rows.appended_ms, self.table.spec.measures, numbered=columns[0] == "place")
        await connection.copy_to_table(name, source=_once(data), columns=columns, format="binary")

    async def _sort_out(self, connection: asyncpg.Connection, rows: Rows, inserted: int) -> Outcome:
        times, measures = rows.readings.times, self.table.spec.measures
        span = _datetime(int(times.min())), _datetime(int(times.max()))
        found = await connection.fetch(self.table.leftovers, *span)
        leftovers = []
        for record in found:
            stored = {name: record[name] for name in measures if record[name] is not None}
            leftovers.append(Leftover(record["place"], stored | json.loads(record["extra"] or "{}")))
        judged = await self._judged(connection, rows.readings, leftovers)
        repeats = judge(rows.readings, [each for each in leftovers if each.place not in judged])
        for round_ in repeats.completions:
            devices = list({rows.readings.device_ids[place] for place in round_})
            await connection.execute(self.table.complete, round_, *span, devices)
        completed = [place for round_ in repeats.completions for place in round_]
        await remember(connection, rows.readings, repeats.duplicates, completed)
        documents = [self._document(rows.readings, conflict) for conflict in repeats.conflicts]
        places: dict[Verdict, Sequence[int]] = {
            "duplicate": repeats.duplicates,
            "conflict": [conflict.place for conflict in repeats.conflicts],
            "replayed": judged,
        }
        if inserted + len(leftovers) < len(rows.readings):
            again = [row["place"] for row in await connection.fetch(self.table.replayed)]
            places["replayed"] = [*judged, *again]
        return Outcome(places, documents, completed)

    async def _judged(
        self, connection: asyncpg.Connection, readings: Readings, leftovers: Sequence[Leftover]
    ) -> list[int]:
        """Places whose message was judged before: it is read again, or is in this write twice."""
        ids = [readings.message_ids[each.place].lower() for each in leftovers]
        seen = await judged_before(connection, ids)
        found = []
        for message_id, leftover in zip(ids, leftovers, strict=True):
            if message_id in seen:
                found.append(leftover.place)
            seen.add(message_id)
        return found

    def _document(self, readings: Readings, conflict: Contradiction) -> bytes:
        place = conflict.place
        return json_bytes(
            {
                "message_id": readings.message_ids[place],
                "device_id": readings.device_ids[place],
                "device_type": readings.device_type,
                "time": int(readings.times[place]),
                "measures": metrics_of(readings, place),
                "accepted": conflict.accepted,
            }
        )


async def _once(data: bytes) -> AsyncIterator[bytes]:
    """asyncpg takes bytes for a path, but not a stream of them."""
    yield data


def _datetime(time_ms: int) -> datetime:
    return _EPOCH + timedelta(milliseconds=time_ms)
