-- Readings that came too late for a window: its row in rollups lacks them, and whoever wants all looks into the readings.
CREATE TABLE late_readings (
    device_id text COLLATE "C" NOT NULL,
    device_type text NOT NULL,
    time timestamptz NOT NULL,
    windows text[] NOT NULL,
    PRIMARY KEY (device_id, device_type, time)
);

-- Windows that began before this were stored when late readings were not noted yet: nobody knows what they lack.
CREATE TABLE rollups_unmarked (until timestamptz NOT NULL);
INSERT INTO rollups_unmarked SELECT max(start) + interval '1 day' FROM rollups HAVING max(start) IS NOT NULL;
