DROP TABLE notifications;
DROP TABLE dead_letters;
DROP TABLE device_presence;
DROP TABLE device_state;
ALTER TABLE alerts DROP COLUMN log_offset;
ALTER TABLE alerts DROP COLUMN changed_at;
ALTER TABLE anomalies DROP COLUMN log_offset;
-- What only marks a window as merged into another was a missing row before.
DELETE FROM rollups WHERE retracted;
ALTER TABLE rollups DROP COLUMN retracted;
ALTER TABLE rollups DROP COLUMN log_offset;
