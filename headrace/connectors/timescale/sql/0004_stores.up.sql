-- Of documents with the same key the newest is kept: by its own version (revision, or time of change), then by its place
-- in the log. So an older record never overwrites a newer one, and reading the log again changes nothing.
ALTER TABLE rollups ADD COLUMN log_offset bigint NOT NULL DEFAULT -1;
-- A window that was merged into another stays as a mark, or reading the log again would bring it back for a while.
ALTER TABLE rollups ADD COLUMN retracted boolean NOT NULL DEFAULT false;
ALTER TABLE anomalies ADD COLUMN log_offset bigint NOT NULL DEFAULT -1;
ALTER TABLE alerts ADD COLUMN changed_at timestamptz;
ALTER TABLE alerts ADD COLUMN log_offset bigint NOT NULL DEFAULT -1;

-- The newest reading of each device, equal to its row in the readings table; never goes back in event time.
CREATE TABLE device_state (
    device_id text COLLATE "C" PRIMARY KEY,
    device_type text NOT NULL,
    time timestamptz NOT NULL,
    appended_at timestamptz NOT NULL,
    message_id uuid NOT NULL,
    metrics jsonb NOT NULL
) WITH (fillfactor = 50);  -- room to update a row in its page; there is no index on what changes

-- Newest change of each device's connection to the listener; see headrace.schemas.presence.
CREATE TABLE device_presence (
    device_id text COLLATE "C" PRIMARY KEY,
    state text NOT NULL,
    time timestamptz NOT NULL,
    log_offset bigint NOT NULL,
    document jsonb NOT NULL
) WITH (fillfactor = 50);

-- telemetry.dlq by its own place in the log.
CREATE TABLE dead_letters (
    partition integer NOT NULL,
    log_offset bigint NOT NULL,
    appended_at timestamptz NOT NULL,
    device_id text COLLATE "C",
    agent text,
    reason text,
    message_id text,
    origin_topic text,
    origin_partition integer,
    origin_offset bigint,
    headers jsonb NOT NULL,
    value bytea,
    PRIMARY KEY (partition, log_offset)
);
CREATE INDEX dead_letters_appended_at ON dead_letters (appended_at);
CREATE INDEX dead_letters_device ON dead_letters (device_id, appended_at);

CREATE TABLE notifications (
    notification_id text PRIMARY KEY,
    alert_id text,
    user_id text,
    channel text,
    status text,
    changed_at timestamptz,
    log_offset bigint NOT NULL,
    document jsonb NOT NULL
);
CREATE INDEX notifications_alert ON notifications (alert_id);
CREATE INDEX notifications_user ON notifications (user_id, changed_at);
