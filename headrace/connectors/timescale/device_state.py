"""The newest reading of each device, kept beside the readings in the same transaction."""

from collections.abc import Mapping, Sequence
from typing import Any

import asyncpg
import numpy as np

from headrace.connectors.timescale.json_text import json_bytes
from headrace.connectors.timescale.readings_writer import Outcome, Rows
from headrace.connectors.timescale.repeats import metrics_of
from headrace.schemas.readings import Floats, Ints, Readings

# Lists as texts: asyncpg takes three times as long for arrays of numbers and ids.
_NEWEST = """
    SELECT device_id, $2::text, timestamptz 'epoch' + time_ms::bigint * interval '1 ms',
        timestamptz 'epoch' + appended_ms::bigint * interval '1 ms', message_id::uuid, metrics
    FROM ROWS FROM (
        unnest($1::text[]), string_to_table($3, ','), string_to_table($4, ','), string_to_table($5, ','),
        jsonb_array_elements($6::jsonb)
    ) AS given(device_id, time_ms, appended_ms, message_id, metrics)
"""
#: What nearly every write does: all its devices are known and go on. Half the work of the other statement.
_GO_ON = f"""
    UPDATE device_state AS stored SET device_type = newest.device_type, time = newest.time,
        appended_at = newest.appended_at, message_id = newest.message_id, metrics = newest.metrics
    FROM ({_NEWEST}) AS newest(device_id, device_type, time, appended_at, message_id, metrics)
    WHERE stored.device_id = newest.device_id AND stored.time < newest.time
"""
# Of readings of different types at the same time the type that sorts first wins, in whatever order they come. One of
# the same type and time completes the row, as `ReadingsTable.complete` does: what is there stays.
_UPSERT = f"""
    INSERT INTO device_state AS stored (device_id, device_type, time, appended_at, message_id, metrics)
    {_NEWEST} ORDER BY device_id
    ON CONFLICT (device_id) DO UPDATE SET
        device_type = EXCLUDED.device_type,
        time = EXCLUDED.time,
        appended_at = CASE WHEN stored.time = EXCLUDED.time AND stored.device_type = EXCLUDED.device_type
            THEN stored.appended_at ELSE EXCLUDED.appended_at END,
        message_id = CASE WHEN stored.time = EXCLUDED.time AND stored.device_type = EXCLUDED.device_type
            THEN stored.message_id ELSE EXCLUDED.message_id END,
        metrics = CASE WHEN stored.time = EXCLUDED.time AND stored.device_type = EXCLUDED.device_type
            THEN EXCLUDED.metrics || stored.metrics ELSE EXCLUDED.metrics END
    WHERE stored.time < EXCLUDED.time
        OR stored.time = EXCLUDED.time AND (
            EXCLUDED.device_type COLLATE "C" < stored.device_type COLLATE "C"
            OR EXCLUDED.device_type = stored.device_type AND EXCLUDED.metrics || stored.metrics <> stored.metrics
        )
"""


async def store_states(connection: asyncpg.Connection, rows: Rows, outcome: Outcome) -> None:
    """Bring the states up to the readings of one device type that were stored, or completed a row.

    Inside the running transaction. A state never goes back in event time, and is always the newest row of its device.
    Costs Python per device, not per reading, unless many devices are silent for most of the write.

    Raises:
        asyncpg.PostgresError: the server refuses.
    """
    readings = rows.readings
    order = np.argsort(readings.times, kind="stable")
    if outcome.places:
        kept = np.ones(len(order), bool)
        kept[[place for places in outcome.places.values() for place in places]] = False
        order = order[kept[order]]
    if not len(order):
        return
    newest = _newest(readings.device_ids, order)
    last = list(newest.values())
    first, documents = last, _documents(readings, last)
    if outcome.completed:
        first = list(last)
        numbers = {place: number for number, place in enumerate(last)}
        for place, (start, metrics) in _merged(readings, newest, order.tolist()).items():
            first[numbers[place]], documents[numbers[place]] = start, metrics
    values = (
        list(newest),
        readings.device_type,
        ",".join(map(str, readings.times[last].tolist())),
        ",".join(map(str, rows.appended_ms[first].tolist())),
        ",".join([readings.message_ids[place] for place in first]),
        json_bytes(documents).decode(),
    )
    if await connection.execute(_GO_ON, *values) != f"UPDATE {len(newest)}":
        await connection.execute(_UPSERT, *values)


def _newest(device_ids: Sequence[str], places: Ints) -> dict[str, int]:
    """The last of `places`, (n,), of each device."""
    newest: dict[str, int] = {}
    end, count = len(places), len(set(device_ids))
    step = 2 * count
    while end > 0 and len(newest) < count:
        some = places[max(0, end - step) : end].tolist()
        # Of several values for a key the last one stays.
        newest = {device_ids[place]: place for place in some} | newest
        end, step = end - step, 2 * step
    return newest


def _documents(readings: Readings, places: Sequence[int]) -> list[dict[str, Any]]:
    """What the readings at `places` say: measures and extra."""
    names = list(readings.measures)
    columns: list[Floats] = [column[places] for column in readings.measures.values()]
    rows: list[tuple[float, ...]] = list(zip(*(column.tolist() for column in columns), strict=True))
    if not names:
        found: list[dict[str, Any]] = [{} for _ in places]
    elif any(np.isnan(column).any() for column in columns):
        found = [{name: value for name, value in zip(names, row, strict=True) if value == value} for row in rows]
    else:
        found = [dict(zip(names, row, strict=True)) for row in rows]
    if readings.extras is not None:
        found = [(readings.extras[place] or {}) | each for place, each in zip(places, found, strict=True)]
    return found


def _merged(
    readings: Readings, newest: Mapping[str, int], places: Sequence[int]
) -> dict[int, tuple[int, dict[str, Any]]]:
    """Where several readings of a write have the newest time of a device: the first of them, and what all say.

    By the place of the last. `places` are in the order of time, then of the log.
    """
    groups: dict[int, list[int]] = {}
    for place in places:
        last = newest[readings.device_ids[place]]
        if last != place and readings.times[last] == readings.times[place]:
            groups.setdefault(last, []).append(place)
    found: dict[int, tuple[int, dict[str, Any]]] = {}
    for last, others in groups.items():
        metrics: dict[str, Any] = {}
        for place in [*others, last]:
            metrics = metrics_of(readings, place) | metrics
        found[last] = (others[0], metrics)
    return found
