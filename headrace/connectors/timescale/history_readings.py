"""Readings of one device: as they are, page by page, and aggregated in bins; from the database and the archive."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from headrace.connectors.timescale.bin_grid import BinGrid
from headrace.connectors.timescale.binned import Binned, stretches
from headrace.connectors.timescale.history_archive import HistoryArchive
from headrace.connectors.timescale.query_catalog import TypeTable
from headrace.connectors.timescale.query_pool import Reads
from headrace.connectors.timescale.readings_table import quoted
from headrace.schemas.readings import Floats, Ints
from headrace.schemas.window import DAY_MS

#: The archive is read in parts of this length, ms: bounds memory.
PART_MS = 7 * DAY_MS


@dataclass(frozen=True, slots=True)
class DeviceReadings:
    """Reads the readings of one device, with one statement unless there is an archive.

    Args:
        metrics: those that are wanted, all with a column.
        archive: where readings are that the database has no more.
    """

    connection: Reads
    table: TypeTable
    device_id: str
    metrics: Sequence[str]
    archive: HistoryArchive | None

    async def raw(self, start_ms: int, end_ms: int, limit: int) -> tuple[Ints, Floats, bool]:
        """The first `limit` readings of a range: times (r,), metrics (m, r), and whether any came from the archive."""
        if self.archive is None:
            return *await self._stored(start_ms, end_ms, limit), False
        times, metrics, archived = [np.zeros(0, dtype=np.int64)], [np.zeros((len(self.metrics), 0))], False
        found = 0
        for part in range(start_ms, end_ms, PART_MS):
            some, values, from_archive = await self._merged(part, min(part + PART_MS, end_ms), limit - found)
            times.append(some)
            metrics.append(values)
            archived |= from_archive
            found += len(some)
            if found >= limit:
                break
        return np.concatenate(times)[:limit], np.concatenate(metrics, axis=1)[:, :limit], archived

    async def bins(self, grid: BinGrid, wanted: Ints) -> tuple[Binned, Ints]:
        """Aggregates of the bins that the mask `wanted` (n,) names; and a mask of those that the archive is part of."""
        archived = np.zeros(len(grid), dtype=bool)
        found = Binned.empty(len(self.metrics), len(grid))
        if self.archive is not None:
            await self._archived_bins(grid, wanted, found, archived)
        rest = stretches(wanted & ~archived)
        if rest:
            found.take(await self._stored_bins(grid, rest), wanted & ~archived)
        return found, archived

    async def _stored(self, start_ms: int, end_ms: int, limit: int) -> tuple[Ints, Floats]:
        columns = [quoted(name) for name in self.metrics]
        some = " OR ".join(f"{column} IS NOT NULL" for column in columns) or "true"
        present = f"AND ({some})" if self.archive is None else ""
        rows = await self.connection.fetch(
            f"""
            SELECT {", ".join(["time", *columns])} FROM {self.table.name}
            WHERE device_id = $1 AND time >= $2 AND time < $3 {present} ORDER BY time LIMIT $4
            """,
            self.device_id,
            start_ms,
            end_ms,
            limit,
        )
        if not rows:
            return np.zeros(0, dtype=np.int64), np.zeros((len(columns), 0))
        times, *values = zip(*rows, strict=True)
        return np.array(times, dtype=np.int64), np.array(values, dtype=np.float64).reshape(len(columns), len(rows))

    async def _merged(self, start_ms: int, end_ms: int, limit: int) -> tuple[Ints, Floats, bool]:
        """Readings of the database and the archive by time; of the same time the database's. At most `limit`."""
        assert self.archive is not None
        times, values = await self._stored(start_ms, end_ms, limit)
        archived = await self.archive.read(self.table.device_type, self.device_id, start_ms, end_ms)
        gone = ~np.isin(archived.times, times)
        if len(times) == limit:
            gone &= archived.times < times[-1]
        nothing = np.full(len(archived), np.nan)
        old = np.array([archived.measures.get(name, nothing) for name in self.metrics]).reshape(len(self.metrics), -1)
        joined, all_values = (
            np.concatenate([times, archived.times[gone]]),
            np.concatenate([values, old[:, gone]], axis=1),
        )
        order = np.argsort(joined, kind="stable")
        order = order[~np.isnan(all_values[:, order]).all(axis=0)]
        return joined[order][:limit], all_values[:, order][:, :limit], bool(gone.any())

    async def _archived_bins(self, grid: BinGrid, wanted: Ints, found: Binned, archived: Ints) -> None:
        """Bins of the parts of the range that the archive has anything of."""
        edges = grid.edges
        for first, behind in stretches(wanted):
            at = first
            while at < behind:
                to = min(behind, max(at + 1, int(edges.searchsorted(edges[at] + PART_MS, side="right")) - 1))
                times, values, from_archive = await self._merged(int(edges[at]), int(edges[to]), MOST_ROWS)
                if from_archive:
                    archived[at:to] = True
                    found.take(Binned.of_readings(grid, times, values), slice(at, to))
                at = to

    async def _stored_bins(self, grid: BinGrid, parts: Sequence[tuple[int, int]]) -> Binned:
        columns = [quoted(name) for name in self.metrics]
        sums = "".join(f", avg({c}), min({c}), max({c}), count({c})" for c in columns)
        starts, ends = ([int(grid.edges[part[side]]) for part in parts] for side in (0, 1))
        arguments: list[object] = [self.device_id, starts[0], ends[0]]
        source = f"{self.table.name} WHERE device_id = $1 AND time >= $2 AND time < $3"
        if len(parts) > 1:
            # A probe of the key per part; a join could become a scan of everything.
            arguments = [self.device_id, starts, ends]
            source = f"""
                unnest($2::timestamptz[], $3::timestamptz[]) AS part(low, high) CROSS JOIN LATERAL (
                    SELECT * FROM {self.table.name} WHERE device_id = $1 AND time >= low AND time < high OFFSET 0
                ) AS readings
            """
        if grid.width_ms is None:
            arguments.append(grid.edges.tolist())
            place = "width_bucket(time, $4::timestamptz[]) - 1"
        else:
            place = f"date_bin('{int(grid.width_ms)} milliseconds', time, 'epoch')"
        rows = await self.connection.fetch(f"SELECT {place} AS bin{sums} FROM {source} GROUP BY 1", *arguments)
        places = np.array([row[0] for row in rows], dtype=np.int64)
        if grid.width_ms is not None:
            places = (places - grid.start_ms) // grid.width_ms
        return Binned.of_rows(places, [tuple(row) for row in rows], len(columns), len(grid))


#: More than a device can have in a part of the range at a reading per 10 ms.
MOST_ROWS = 100_000_000
