DROP INDEX alerts_open;
ALTER TABLE alerts DROP COLUMN suppressed_by;
ALTER TABLE alerts DROP COLUMN acknowledged_at;
ALTER TABLE alerts DROP COLUMN organization_id;
ALTER TABLE alerts DROP COLUMN gateway_id;
ALTER TABLE alerts DROP COLUMN revision;
