-- The older key holds tumbling windows alone.
DELETE FROM rollups WHERE window_seconds IS NULL OR "window" <> headrace_window(window_seconds);
ALTER TABLE rollups DROP CONSTRAINT rollups_pkey;
ALTER TABLE rollups ALTER COLUMN window_seconds SET NOT NULL;
ALTER TABLE rollups ADD PRIMARY KEY (device_type, device_id, window_seconds, start);
ALTER TABLE rollups DROP COLUMN "window";
DROP FUNCTION headrace_window(double precision);
