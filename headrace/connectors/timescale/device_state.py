"""The newest reading of each device, kept beside the readings in the same transaction."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import asyncpg
import numpy as np
import orjson

from headrace.connectors.timescale.readings_writer import Outcome, Rows
from headrace.connectors.timescale.repeats import metrics_of
from headrace.schemas.readings import Readings

# Of readings of different types at the same time the type that sorts first wins, in whatever order they come. One of
# the same type and time completes the row, as `ReadingsTable.complete` does: what is there stays.
_UPSERT = """
    INSERT INTO device_state AS stored (device_id, device_type, time, appended_at, message_id, metrics)
    SELECT device_id, device_type, timestamptz 'epoch' + time_ms * interval '1 ms',
        timestamptz 'epoch' + appended_ms * interval '1 ms', message_id, metrics
    FROM unnest($1::text[], $2::text[], $3::bigint[], $4::bigint[], $5::uuid[], $6::jsonb[])
        AS newest(device_id, device_type, time_ms, appended_ms, message_id, metrics)
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


@dataclass(slots=True)
class _Newest:
    """Newest reading of a device in one write."""

    device_type: str
    time_ms: int
    appended_ms: int
    message_id: str
    metrics: bytes


class DeviceState:
    """The newest readings of one write, of those that were stored or completed a row."""

    def __init__(self) -> None:
        self._newest: dict[str, _Newest] = {}

    def add(self, rows: Rows, outcome: Outcome) -> None:
        """Look at the readings of one device type; costs Python once per device, not per reading."""
        readings = rows.readings
        times = readings.times
        order = np.argsort(times, kind="stable")
        if outcome.places:
            kept = np.ones(len(times), bool)
            kept[[place for places in outcome.places.values() for place in places]] = False
            order = order[kept[order]]
        places = order.tolist()
        # Of several values for a key the last one stays: the latest time.
        newest = dict(zip(map(readings.device_ids.__getitem__, places), places, strict=True))
        merged = _merged(readings, newest, places) if outcome.completed else {}
        chosen = list(newest.values())
        columns = {name: column[chosen].tolist() for name, column in readings.measures.items()}
        extras = readings.extras
        for number, (device_id, place) in enumerate(newest.items()):
            first, metrics = merged.get(place, (place, None))
            if metrics is None:
                metrics = {name: value for name, column in columns.items() if (value := column[number]) == value}
                if extras is not None and (extra := extras[place]):
                    metrics = extra | metrics
            time_ms = int(times[place])
            found = _Newest(
                readings.device_type, time_ms, int(rows.appended_ms[first]), readings.message_ids[first],
                orjson.dumps(metrics),
            )  # fmt: skip
            before = self._newest.get(device_id)
            if before is None or (before.time_ms, found.device_type) < (time_ms, before.device_type):
                self._newest[device_id] = found

    async def store(self, connection: asyncpg.Connection) -> None:
        """Update the rows that are older, inside the running transaction. In order, so that two never deadlock."""
        if not self._newest:
            return
        ids = sorted(self._newest)
        newest = [self._newest[device_id] for device_id in ids]
        await connection.execute(
            _UPSERT,
            ids,
            [each.device_type for each in newest],
            [each.time_ms for each in newest],
            [each.appended_ms for each in newest],
            [each.message_id for each in newest],
            [each.metrics.decode() for each in newest],
        )


def _merged(
    readings: Readings, newest: Mapping[str, int], places: Sequence[int]
) -> dict[int, tuple[int, dict[str, object]]]:
    """Where several readings of a write have the newest time of a device: the first of them, and what all say.

    By the place of the last. `places` are in the order of time, then of the log.
    """
    groups: dict[int, list[int]] = {}
    for place in places:
        last = newest[readings.device_ids[place]]
        if last != place and readings.times[last] == readings.times[place]:
            groups.setdefault(last, []).append(place)
    found: dict[int, tuple[int, dict[str, object]]] = {}
    for last, others in groups.items():
        metrics: dict[str, object] = {}
        for place in [*others, last]:
            metrics = metrics_of(readings, place) | metrics
        found[last] = (others[0], metrics)
    return found
