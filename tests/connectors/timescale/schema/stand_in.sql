-- What TimescaleDB's documentation says of the views that headrace reads and the procedures that it calls, by name, column
-- and type, without doing anything: so that SQL which names them can be run where the extension is missing. What they do
-- is tested where it is there, in test_timescaledb.py.
SET allow_system_table_mods = on;
INSERT INTO pg_extension (oid, extname, extowner, extnamespace, extrelocatable, extversion)
    SELECT 999999, 'timescaledb', oid, 'public'::regnamespace, false, '2.22.1' FROM pg_roles WHERE rolname = current_user;
RESET allow_system_table_mods;
CREATE SCHEMA timescaledb_information;
CREATE TABLE calls (place serial, name text);
CREATE FUNCTION by_range(name, interval) RETURNS text LANGUAGE sql AS $$ SELECT $1::text $$;
CREATE TABLE timescaledb_information.dimensions (
    hypertable_schema name, hypertable_name name, dimension_number bigint, column_name name, time_interval interval);
CREATE FUNCTION create_hypertable(relation regclass, dimension text, if_not_exists boolean, migrate_data boolean)
    RETURNS void LANGUAGE sql AS $$
    INSERT INTO timescaledb_information.dimensions
        SELECT relnamespace::regnamespace::text, relname, 1, dimension, '1 day' FROM pg_class WHERE oid = relation
$$;
CREATE TABLE timescaledb_information.hypertable_columnstore_settings (
    hypertable regclass, segmentby text, orderby text, compress_interval_length text, index jsonb);
CREATE TABLE timescaledb_information.jobs (
    job_id integer, schedule_interval interval, proc_schema name, proc_name name, config jsonb,
    hypertable_schema name, hypertable_name name);
CREATE TABLE timescaledb_information.continuous_aggregates (
    hypertable_schema name, hypertable_name name, view_schema name, view_name name, materialized_only boolean,
    materialization_hypertable_schema name, materialization_hypertable_name name);
CREATE TABLE timescaledb_information.chunks (
    hypertable_schema name, hypertable_name name, chunk_name name, is_compressed boolean);
CREATE FUNCTION approximate_row_count(regclass) RETURNS bigint LANGUAGE sql AS $$ SELECT 42::bigint $$;
CREATE FUNCTION hypertable_size(regclass) RETURNS bigint LANGUAGE sql AS $$ SELECT 4096::bigint $$;
-- As the real one it ends the transaction that it is called in.
CREATE PROCEDURE refresh_continuous_aggregate(
    continuous_aggregate regclass, window_start timestamptz, window_end timestamptz, force boolean = false)
    LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO public.calls (name) VALUES (continuous_aggregate::text || ' ' || (window_end - window_start));
    COMMIT;
END
$$;
