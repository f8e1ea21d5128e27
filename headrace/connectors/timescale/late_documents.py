"""Stores `telemetry.late`: which windows lack which readings, so that queries know where rollups are not everything."""

#: One statement, which takes an array of JSON texts as $1, as in `documents.UPSERTS`.
UPSERT_LATE = """
    INSERT INTO late_readings (device_id, device_type, time, windows)
    SELECT d->>'device_id' AS device_id, d->>'device_type' AS device_type, headrace_time(d->'time') AS time,
        array_agg(DISTINCT missed)
    FROM unnest($1::jsonb[]) AS documents(d), jsonb_array_elements_text(d->'missed_windows') AS missed
    GROUP BY 1, 2, 3 ORDER BY 1, 2, 3
    ON CONFLICT (device_id, device_type, time) DO UPDATE SET windows = ARRAY(
        SELECT DISTINCT missed FROM unnest(late_readings.windows || EXCLUDED.windows) AS missed ORDER BY missed
    ) WHERE NOT late_readings.windows @> EXCLUDED.windows
"""
