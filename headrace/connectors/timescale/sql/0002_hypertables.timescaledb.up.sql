CREATE EXTENSION IF NOT EXISTS timescaledb;
SELECT create_hypertable('rollups', by_range('start', INTERVAL '7 days'), if_not_exists => true, migrate_data => true);
SELECT create_hypertable('anomalies', by_range('time', INTERVAL '7 days'), if_not_exists => true, migrate_data => true);
