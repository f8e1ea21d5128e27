-- How settings write a tumbling window; records and rows from before there were others have its seconds alone.
CREATE FUNCTION headrace_window(seconds double precision) RETURNS text LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE
        WHEN mod(seconds::numeric, 86400) = 0 THEN (seconds / 86400)::bigint || 'd'
        WHEN mod(seconds::numeric, 3600) = 0 THEN (seconds / 3600)::bigint || 'h'
        WHEN mod(seconds::numeric, 60) = 0 THEN (seconds / 60)::bigint || 'm'
        WHEN mod(seconds::numeric, 1) = 0 THEN seconds::bigint || 's'
        ELSE (seconds * 1000)::bigint || 'ms'
    END
$$;

ALTER TABLE rollups ADD COLUMN "window" text;
UPDATE rollups SET "window" = headrace_window(window_seconds);
ALTER TABLE rollups ALTER COLUMN "window" SET NOT NULL;
ALTER TABLE rollups DROP CONSTRAINT rollups_pkey;
ALTER TABLE rollups ALTER COLUMN window_seconds DROP NOT NULL;
ALTER TABLE rollups ADD PRIMARY KEY (device_type, device_id, "window", start);
