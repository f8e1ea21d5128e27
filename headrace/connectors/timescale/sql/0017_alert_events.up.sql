-- Every event of alerts.v1 by its own id: the whole life of each alert, and the commands that were refused.
CREATE TABLE alert_events (
    event_id text COLLATE "C" PRIMARY KEY,
    alert_id text,
    revision integer,  -- of the alert after the event; NULL of a refusal
    type text NOT NULL,  -- triggered, acknowledged, ..., refused
    device_id text COLLATE "C",
    time timestamptz NOT NULL,
    command_id text,
    document jsonb NOT NULL
);
CREATE INDEX alert_events_alert ON alert_events (alert_id, revision);
CREATE INDEX alert_events_time ON alert_events (time);
