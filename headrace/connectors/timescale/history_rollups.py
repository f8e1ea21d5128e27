"""Bins from the windows that the stream has closed, and which of them can be believed.

A window's row is everything that the readings say of it unless one of these holds; then the readings are asked:

- it may still be corrected: the stream has not seen the device go past its end by the grace;
- a reading came too late for it (`late_readings`);
- it has no row, or is next to one that has none: the device was silent, or the window was not configured then;
- it was stored before late readings were noted;
- the rollup agent refused a reading of the device (a dead letter).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from headrace.connectors.timescale.bin_grid import BinGrid
from headrace.connectors.timescale.binned import Binned
from headrace.connectors.timescale.query_pool import Reads, Snapshot
from headrace.schemas.readings import Ints
from headrace.schemas.window import parse_duration

#: Windows that bins can be put together from, the widest first.
PANES = ("1h", "30m", "15m", "10m", "5m", "1m")

_PROBE = """
    SELECT
        (SELECT max(minute) + interval '1 minute' FROM ledger),
        (SELECT time FROM {table} WHERE device_id = $1 ORDER BY time LIMIT 1),
        (SELECT time FROM {table} WHERE device_id = $1 ORDER BY time DESC LIMIT 1),
        (SELECT max(until) FROM rollups_unmarked),
        EXISTS (SELECT FROM dead_letters WHERE device_id = $1 AND agent = 'rollup'),
        ARRAY(
            SELECT (
                SELECT start FROM rollups
                WHERE device_type = $2 AND device_id = $1 AND rollups."window" = candidate
                    AND NOT retracted AND details->>'kind' <> 'update'
                ORDER BY start DESC LIMIT 1
            ) FROM unnest($3::text[]) WITH ORDINALITY AS candidates(candidate, place) ORDER BY place
        )
"""
_LATE = """
    SELECT time FROM late_readings
    WHERE device_id = $1 AND device_type = $2 AND time >= $3 AND time < $4 AND $5 = ANY(windows)
"""


@dataclass(frozen=True, slots=True)
class Progress:
    """What the database knows of a device.

    Args:
        as_of_ms: everything appended before this may be stored; None if nothing is.
        oldest_ms, newest_ms: event times of its oldest and newest reading.
        window: the window to make bins of; None if none fits.
        window_ms: its width; None for days of a time zone, which are the bins.
        usable_from_ms, usable_until_ms: windows within can be believed, but for the exceptions above.
    """

    as_of_ms: int | None
    oldest_ms: int | None
    newest_ms: int | None
    window: str | None
    window_ms: int | None
    usable_from_ms: int
    usable_until_ms: int


async def progress(
    connection: Reads, table: str, device_type: str, device_id: str, grid: BinGrid, grace_ms: int
) -> Progress:
    """Look at what there is of a device; one statement, an index probe for each part of it.

    Args:
        table: readings table, as an SQL identifier.
    """
    candidates = [grid.name, *(pane for pane in PANES if pane != grid.name and grid.is_made_of(parse_duration(pane)))]
    (row,) = await connection.fetch(_PROBE.format(table=table), device_id, device_type, candidates)
    as_of, oldest, newest, unmarked, refused, starts = row
    present = [(name, start) for name, start in zip(candidates, starts, strict=True) if start is not None]
    if refused or not present:
        return Progress(as_of, oldest, newest, None, None, 0, 0)
    window = present[0][0]
    width = grid.width_ms if window == grid.name else parse_duration(window)
    # The device's clock was in the newest window that closed, when it closed; before, all corrections were sent of
    # what ended a grace earlier. They come in this order.
    until = max(start for _, start in present) - grace_ms
    return Progress(as_of, oldest, newest, window, width, unmarked or -(1 << 62), until)


async def rollup_bins(
    connection: Snapshot,
    progress: Progress,
    device_type: str,
    device_id: str,
    metrics: Sequence[str],
    grid: BinGrid,
) -> tuple[Binned, Ints, Ints]:
    """Bins from rollups, a mask (n,) of those that can be believed, and one of those that have any window."""
    bins = len(grid)
    if progress.window is None:
        return Binned.empty(len(metrics), bins), np.zeros(bins, dtype=bool), np.zeros(bins, dtype=bool)
    edges = _edges(grid, progress.window_ms)
    keys: list[object] = [device_id, device_type, int(edges[0]), int(edges[-1]), progress.window]
    fields = "".join(
        f", (measures->${place}->>'count')::bigint" + _numbers(place) for place in range(6, 6 + len(metrics))
    )
    rows = await connection.fetch(
        f"""
        SELECT start{fields} FROM rollups
        WHERE device_type = $2 AND device_id = $1 AND "window" = $5 AND start >= $3 AND start < $4 AND NOT retracted
        """,
        *keys,
        *metrics,
    )
    late = [row[0] for row in await connection.fetch(_LATE, *keys)]
    columns: list[Any] = list(zip(*rows, strict=True)) if rows else [()] * (1 + 4 * len(metrics))
    starts = np.array(columns[0], dtype=np.int64)
    values = np.array(columns[1:], dtype=np.float64).reshape(len(metrics), 4, len(rows))
    sound = _sound(edges, starts, np.array(late, dtype=np.int64), progress)[1:-1]
    inside = (starts >= grid.start_ms) & (starts < grid.end_ms)
    places, values = grid.places(starts[inside]), values[:, :, inside]
    count = np.nan_to_num(values[:, 0]).astype(np.int64)
    binned = Binned.of_panes(places, count, values[:, 1], values[:, 2], values[:, 3], bins)
    some = np.zeros(bins, dtype=bool)
    some[places] = True
    believed = np.ones(bins, dtype=bool)
    believed[grid.places(edges[1:-2][~sound])] = False
    return binned, believed, some


def _edges(grid: BinGrid, window_ms: int | None) -> Ints:
    """Where windows begin and end that cover the grid, with one more on each side."""
    if window_ms is None:
        zone = grid.name.removeprefix("1d ")
        return BinGrid.over(grid.start_ms - 1, grid.end_ms + 1, "1d", zone).edges
    return np.arange(grid.start_ms - window_ms, grid.end_ms + window_ms + 1, window_ms, dtype=np.int64)


def _sound(edges: Ints, starts: Ints, late: Ints, progress: Progress) -> Ints:
    """(p,) mask of the windows between edges whose rows can be believed."""
    present = np.zeros(len(edges) - 1, dtype=bool)
    on_grid = edges.searchsorted(starts)
    present[on_grid] = True
    sound = present.copy()
    # Next to a window without a row, the stream may have begun or ended in the middle of one.
    sound[1:] &= present[:-1]
    sound[:-1] &= present[1:] | (edges[2:] > progress.usable_until_ms)
    sound[edges.searchsorted(late, side="right") - 1] = False
    sound &= (edges[:-1] >= progress.usable_from_ms) & (edges[1:] <= progress.usable_until_ms)
    return sound


def _numbers(place: int) -> str:
    return "".join(f", (measures->${place}->>'{name}')::double precision" for name in ("sum", "min", "max"))
