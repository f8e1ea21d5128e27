DROP TABLE conflicts;
DROP TABLE alerts;
DROP TABLE anomalies;
DROP TABLE rollups;
DROP TABLE ledger;
DROP TABLE sink_positions;
DROP FUNCTION headrace_time(jsonb);
