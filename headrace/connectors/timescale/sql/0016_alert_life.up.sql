-- An alert has a revision, one more with each of its events: the row is that of the newest, whatever its time says.
-- Those from before revisions have 0, and go by their time as they did.
ALTER TABLE alerts ADD COLUMN revision integer NOT NULL DEFAULT 0;
ALTER TABLE alerts ADD COLUMN gateway_id text COLLATE "C";
ALTER TABLE alerts ADD COLUMN organization_id text;
ALTER TABLE alerts ADD COLUMN acknowledged_at timestamptz;
ALTER TABLE alerts ADD COLUMN suppressed_by text;
CREATE INDEX alerts_open ON alerts (triggered_at) WHERE status <> 'resolved';
